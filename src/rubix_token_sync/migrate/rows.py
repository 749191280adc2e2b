"""What a migration moves: rows, what becomes of them, and digests that prove it.

Every row of the source has a hash over a canonical form of its columns.  The
digest of a database is the sum of them modulo 2^128, so order does not matter
and nothing is kept in memory.  The same sum is computed from what the target
holds: the records as they are stored, corrected by the rows that were set aside
in full because a record could not be stored as it was.
"""

from __future__ import annotations

import marshal
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any, Final, Protocol

from rubix_token_sync.records.schema import RECORD_SCHEMA
from rubix_token_sync.targets.migration_step import SetAside as Aside

__all__ = [
    "COLUMNS",
    "Aside",
    "Digest",
    "Form",
    "Moved",
    "Record",
    "hash_of",
]

Record = tuple[Any, ...]
"""The values of one record in RECORD_SCHEMA's order."""

COLUMNS: Final = {name: number for number, name in enumerate(RECORD_SCHEMA.names)}
"""Where a column stands in a `Record`."""

_MODULUS: Final = 1 << 128


def hash_of(canonical: tuple[Any, ...]) -> int:
    """128 bits of a row's canonical form: plain values only, see `marshal` in records.py."""
    data = marshal.dumps(canonical, 2)
    return int.from_bytes(blake2b(data, digest_size=16, person=b"rubix-migrate-v1").digest(), "big")


class Digest:
    """Count and order-free sum of row hashes."""

    __slots__ = ("count", "total")

    def __init__(self) -> None:
        self.count = 0
        self.total = 0

    def add(self, row_hash: int) -> None:
        """A row that is there."""
        self.count += 1
        self.total += row_hash

    def remove(self, row_hash: int) -> None:
        """A row that was counted under a form that is not its own."""
        self.count -= 1
        self.total -= row_hash

    def text(self) -> str:
        """32 hexadecimal digits."""
        return f"{self.total % _MODULUS:032x}"

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, Digest) and self.count == other.count and self.text() == other.text()
        )

    __hash__ = None  # type: ignore[assignment] # it changes


@dataclass(slots=True)
class Moved:
    """What becomes of one row of the source."""

    row_hash: int
    record: Record | None
    """None where no record holds it (then ``aside`` does)."""
    aside: Aside | None = None
    vanished: bool = False
    adopted: bool = False
    """Its content was taken over, proven."""
    content_refused: bool = False
    """There was content, but not the one that the token id names."""
    original: Any = None
    """The row itself, in the form's own type."""


class Form(Protocol):
    """How rows of one kind of source become records, and back to their hashes."""

    def stored_hash(self, record: Sequence[Any], *, vanished: bool) -> int:
        """The hash of the row that a stored record seems to be."""

    def refuse(self, moved: Moved) -> Aside:
        """The target does not take the record: what is set aside instead."""

    def aside_hashes(self, aside: Aside) -> tuple[int, int | None]:
        """The hash of the row that was set aside; and the one its record seems to have.

        None where there is no record for it.
        """
