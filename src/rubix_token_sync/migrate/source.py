"""What a migration reads from: the door, whatever is behind it.

`open_source` tells an older PostgreSQL database from one with this program's
own tables.
"""

from __future__ import annotations

import importlib
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Protocol

from rubix_token_sync.migrate.rows import Form, Moved
from rubix_token_sync.targets.base import Chunk, DatabaseState
from rubix_token_sync.targets.registry import TargetAddress
from rubix_token_sync.targets.sql.target import SqlTarget

__all__ = ["PlannedDatabase", "Source", "open_source"]

_OLDER: Final = {"postgresql": "rubix_token_sync.migrate.older"}
"""Where an older system kept its records: the target's kind → the module that reads them."""


@dataclass(frozen=True)
class PlannedDatabase:
    """One node's database as the source knows it.

    ``version`` changes when rows were added or removed; ``widest`` is the bytes
    of the longest texts of one row, about.
    """

    key: bytes
    source_ip: str
    db_path: str
    rows: int
    version: str
    widest: int
    state: DatabaseState | None = None
    """Its row of ProcessedDatabases, of which older systems know little."""
    last_modified: datetime | None = None


class Source(Protocol):
    """One consistent view of a source, from `plan` to `close`; never written to."""

    place: str
    """Where it is, for people."""
    identity: str
    """Tells this database from every other, also from a copy of it elsewhere."""

    is_own_schema: bool
    """Its tables are this program's own."""

    @property
    def form(self) -> Form:
        """How its rows become records."""

    @property
    def has_local_times(self) -> bool:
        """Its times have no zone: somebody must say which one they were written in."""

    def set_timezone(self, name: str) -> None:
        """The zone of times without one, before anything is read; UTC until then.

        Raises:
            SettingsError: there is no such zone.
        """

    def is_in(self, store: SqlTarget) -> bool:
        """Whether the target is this very database."""

    def plan(self) -> list[PlannedDatabase]:
        """Every database, in the order in which `read` gives them."""

    def homeless(self) -> Iterator[Moved]:
        """Rows that belong to no database."""

    def without_rows(self) -> list[str]:
        """Paths of databases that were processed there, but of which no row tells the source."""

    def read(self, databases: Collection[PlannedDatabase]) -> Iterator[Iterator[Moved]]:
        """The rows of each of these databases (in the order of `plan`), as they move.

        Each iterator must be used up before the next one is asked for.
        """

    def companions(self, database: PlannedDatabase) -> Iterator[Chunk]:
        """What stands beside a database's records, as it is to be published."""

    def close(self) -> None:
        """End the view."""


def open_source(target: TargetAddress) -> Source:
    """Open what is to be migrated.

    Raises:
        SettingsError: the address is malformed.
        TargetError: it cannot be read, or holds no records to migrate.
    """
    older = _OLDER.get(target.kind)
    if older is not None:
        found: Source = importlib.import_module(older).open_older(target.address)
        if not found.is_own_schema:
            return found
        found.close()
    from rubix_token_sync.migrate.own import OwnSource

    return OwnSource(target)
