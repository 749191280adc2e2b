"""Many version 0 CIDs at a time: their digests, in 0.2 µs each instead of 0.6."""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

__all__ = ["V0_CHARACTERS", "v0_digests"]

V0_CHARACTERS: Final = 46
"""Of every CID of version 0."""

_ALPHABET: Final = b"123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
_DIGITS: Final = np.full(256, 0xFF, np.uint8)
_DIGITS[np.frombuffer(_ALPHABET, np.uint8)] = np.arange(58)
_PER_GROUP: Final = 5
_GROUP: Final = np.uint64(58**_PER_GROUP)  # less than 2**30
_WEIGHTS: Final = 58.0 ** np.arange(_PER_GROUP)[::-1]
_LIMBS: Final = 9  # of 32 bits: 34 bytes and two more
_LOW: Final = np.uint64((1 << 32) - 1)
_BITS: Final = np.uint64(32)
_SHA256: Final = np.uint64(0x1220)


def v0_digests(
    text: npt.NDArray[np.uint8], starts: npt.NDArray[np.int64]
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.bool_]]:
    """The sha2-256 digests of CIDs, and which of them are CIDs of version 0 at all.

    Args:
        text: bytes in which they stand.
        starts: where each begins; `V0_CHARACTERS` bytes are looked at.

    Returns:
        An array of shape (n, 32) and one of shape (n,); as `rubix_token_sync.ipfs.cid.parse`
        decides.  What is not a CID has an arbitrary digest.
    """
    digits = _DIGITS[text[starts[:, None] + np.arange(V0_CHARACTERS)]]
    known = (digits < 58).all(axis=1)
    # One digit and nine groups of five; exact as floats, for a group is less than 2**53.
    shape = len(starts), V0_CHARACTERS // _PER_GROUP, _PER_GROUP
    groups = digits[:, 1:].reshape(shape).astype(np.float64) @ _WEIGHTS
    limbs = [digits[:, 0].astype(np.uint64)]  # the lowest first
    for group in groups.astype(np.uint64).T:
        carry = group
        for at, limb in enumerate(limbs):
            product = limb * _GROUP + carry
            limbs[at] = product & _LOW
            carry = product >> _BITS
        if len(limbs) < _LIMBS:
            limbs.append(carry)
    # Base58 of 34 bytes that begin so has no second spelling and no leading zeros.
    known &= limbs[-1] == _SHA256
    digests = np.empty((len(starts), _LIMBS - 1), ">u4")
    for at, limb in enumerate(limbs[-2::-1]):
        digests[:, at] = limb
    return digests.view(np.uint8), known
