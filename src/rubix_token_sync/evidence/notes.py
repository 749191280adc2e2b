"""Checkpoints: the size and root of a tree as a signed note (C2SP tlog-checkpoint, signed-note).

The text that is signed has one line each for the origin, the number of leaves and the root, then
extension lines: when the evidence was made, its run, and the hash of SHA256SUMS, so that one
signature covers every file.
"""

from __future__ import annotations

import base64
import re
from dataclasses import dataclass
from typing import Final

from rubix_token_sync.errors import EvidenceRefused
from rubix_token_sync.evidence.keys import PublicKey, Signer

__all__ = ["Checkpoint", "parse_note", "sign_note"]

_SIZE: Final = re.compile(r"0|[1-9][0-9]{0,17}")
_MOST_SIGNATURES: Final = 16
_MOST_BYTES: Final = 65_536


@dataclass(frozen=True)
class Checkpoint:
    """What is signed."""

    origin: str
    size: int
    root: bytes
    made_at: str
    """UTC, RFC 3339."""
    run: str
    files_digest: str
    """Of SHA256SUMS, in hexadecimal digits."""

    @property
    def text(self) -> str:
        """The body of the note, to its last line feed."""
        root = base64.b64encode(self.root).decode()
        return (
            f"{self.origin}\n{self.size}\n{root}\nmade {self.made_at}\nrun {self.run}\n"
            f"files sha256:{self.files_digest}\n"
        )


_TEXT: Final = re.compile(
    r"(?P<origin>[^\s+]{1,200})\n(?P<size>\d{1,18})\n(?P<root>[A-Za-z0-9+/]{43}=)\n"
    r"made (?P<made>\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z)\nrun (?P<run>[0-9a-f-]{36})\n"
    r"files sha256:(?P<files>[0-9a-f]{64})\n"
)


def sign_note(checkpoint: Checkpoint, signer: Signer) -> tuple[str, bytes]:
    """The note, and the bare signature of its text."""
    key = signer.public
    signature = signer.sign(checkpoint.text.encode())
    line = base64.b64encode(key.key_id + signature).decode()
    return f"{checkpoint.text}\n— {key.origin} {line}\n", signature


def parse_note(data: bytes, key: PublicKey) -> tuple[Checkpoint, bytes]:
    """The checkpoint that the note holds and ``key`` has signed, and the bare signature.

    Signatures of others (witnesses) may stand beside it; they are not looked at.

    Raises:
        EvidenceRefused: its form or its signature is wrong.
    """
    if len(data) > _MOST_BYTES:
        raise _malformed("it is too long")
    try:
        text, _, signatures = data.decode("utf-8").partition("\n\n")
    except UnicodeDecodeError:
        raise _malformed("it is not text") from None
    body = text + "\n"
    found = _TEXT.fullmatch(body)
    if found is None:
        raise _malformed("its lines are not those of a checkpoint")
    root = base64.b64decode(found["root"])
    if base64.b64encode(root).decode() != found["root"] or not _SIZE.fullmatch(found["size"]):
        raise _malformed("a number or hash is not in its usual form")
    checkpoint = Checkpoint(
        found["origin"], int(found["size"]), root, found["made"], found["run"], found["files"]
    )
    lines = signatures.split("\n")
    if lines[-1] or len(lines) < 2 or len(lines) > _MOST_SIGNATURES + 1:
        raise _malformed("it has no signatures, or too many")
    return checkpoint, _signature(lines[:-1], body, key)


def _signature(lines: list[str], body: str, key: PublicKey) -> bytes:
    """The one of ``key``, which is right."""
    for line in lines:
        dash, _, rest = line.partition(" ")
        name, _, encoded = rest.partition(" ")
        try:
            raw = base64.b64decode(encoded, validate=True)
        except ValueError:
            raise _malformed("a signature is not base64") from None
        if dash != "—" or not name or len(raw) < 5:
            raise _malformed("a signature's line is not in its form")
        if name == key.origin and raw[:4] == key.key_id:
            if base64.b64encode(raw).decode() != encoded or len(raw) != 68:
                raise _malformed("a signature's line is not in its form")
            if not key.verifies(raw[4:], body.encode()):
                raise EvidenceRefused(
                    "The signature of the checkpoint is wrong: its text was changed, or the "
                    "signature was.",
                    code="evidence_signature",
                    remedy=_REMEDY,
                )
            return raw[4:]
    raise EvidenceRefused(
        f"The checkpoint is not signed by the key {key.fingerprint}.",
        code="evidence_other_key",
        remedy="Ask the signer for the public key by another way than this evidence came.",
    )


_REMEDY: Final = "Do not rely on it; ask for the evidence again."


def _malformed(why: str) -> EvidenceRefused:
    return EvidenceRefused(
        f"The checkpoint is malformed: {why}.", code="evidence_form", remedy=_REMEDY
    )
