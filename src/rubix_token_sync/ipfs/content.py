"""Content of tokens: the contract that every way of getting it fulfils.

A `ContentReader` is one way (block store, daemon, gateway, program).  It takes
parsed CIDs and gives back, at the same index, either the verified content or a
`Failure`.  Nothing that has not parsed as a CID ever reaches a reader.  The
chain that tries readers in order lives in `rubix_token_sync.ipfs.fetch`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from rubix_token_sync.ipfs.cid import Cid

__all__ = ["CONTENT_LIMIT", "MAX_BLOCK", "ContentReader", "Failure", "FailureCode"]

CONTENT_LIMIT = 51_200
"""Content larger than this many bytes (50 KB, the guide's limit) is not stored."""

MAX_BLOCK = 2 << 20
"""Bytes of the largest block that Kubo exchanges; none that is larger is read."""


class FailureCode(StrEnum):
    """Why a token has no content; the same code for the same cause always."""

    NO_CID = "no_cid"
    NO_REPOSITORY = "no_repository"
    NOT_IN_REPOSITORY = "not_in_repository"
    DAMAGED = "damaged"
    MALFORMED = "malformed"
    TOO_LARGE = "too_large"
    TOO_LARGE_TO_STORE = "too_large_to_store"
    NOT_A_FILE = "not_a_file"
    UNSUPPORTED_HASH = "unsupported_hash"
    UNSUPPORTED_FORMAT = "unsupported_format"
    ACCESS_DENIED = "access_denied"
    READ_ERROR = "read_error"
    DAEMON_NOT_RUNNING = "daemon_not_running"
    DAEMON_REFUSED = "daemon_refused"
    TIMED_OUT = "timed_out"
    GATEWAY_FAILED = "gateway_failed"
    PROGRAM_FAILED = "program_failed"
    NOT_ADOPTED = "not_adopted"


_FINAL = frozenset(
    {
        FailureCode.NO_CID,
        FailureCode.MALFORMED,
        FailureCode.TOO_LARGE,
        FailureCode.TOO_LARGE_TO_STORE,
        FailureCode.NOT_A_FILE,
        FailureCode.UNSUPPORTED_HASH,
    }
)


@dataclass(frozen=True, slots=True)
class Failure:
    """Why one token's content cannot be had.

    ``sentence`` is for people and must not hold secrets or raw token ids.
    """

    code: FailureCode
    sentence: str

    @property
    def final(self) -> bool:
        """No other way of getting it can change this (the block itself says so)."""
        return self.code in _FINAL

    def __str__(self) -> str:
        """The form stored in ``ipfs_error``: ``code: sentence``."""
        return f"{self.code}: {self.sentence}"


class ContentReader(Protocol):
    """One way of getting content."""

    @property
    def name(self) -> str:
        """``blockstore``, ``daemon``, ``gateway`` or ``program``; a key in reports."""

    def read(self, cids: Sequence[Cid]) -> list[bytes | Failure]:
        """Verified content or a failure for each CID, same length and order.

        At most `CONTENT_LIMIT` bytes each; of a larger content the root is verified at
        most, and the failure is ``too_large``.  Never raises for what one token or its
        endpoint can cause.
        """

    def blocks(self, cids: Sequence[Cid]) -> list[bytes | Failure]:
        """Verified blocks or a failure for each CID, same length and order.

        At most `MAX_BLOCK` bytes each.  The CIDs name blocks that can be asked for (see
        `rubix_token_sync.ipfs.blocks.prepared`).  Never raises, as `read`.
        """

    def close(self) -> None:
        """Release connections and handles."""
