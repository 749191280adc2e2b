"""What a database must bring along to be a target; everything else is shared.

A target is a folder with the same files as the others: ``__init__`` (its schemes),
``address`` (how it is named), ``connection`` (the engine), ``errors`` (their meaning),
``indexes``, ``writer``, ``reader`` and ``target``, which puts them together as a `Backend`.
"""

# ruff: noqa: ARG002 - what a common body leaves unused, a database may need
from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Protocol

import sqlalchemy as sa

from rubix_token_sync.errors import SyncError, TargetRefused
from rubix_token_sync.records.schema import RecordTable
from rubix_token_sync.targets.base import Chunk, Lease, Published
from rubix_token_sync.targets.sql.tables import Spelling

if TYPE_CHECKING:
    import pyarrow as pa

    from rubix_token_sync.targets.sql.database import Database

__all__ = ["Backend", "Load"]


@dataclass
class Load:
    """One call of `publish`, as the target's own way of loading sees it."""

    inserted: int | None = None
    """The chunk's rows are stored already, so many of them as new ones."""
    unsure: bool = False
    """They may be stored: the acknowledgement was lost."""
    bulk_loads: int = 0


class Backend(Protocol):
    """One kind of database.  Its methods raise the driver's errors, which `translate` knows.

    What most have alike has a body here.
    """

    kind: str
    """The folder's name."""
    place: str
    """Where it is, for people: no secrets."""
    engine: sa.Engine
    now: str
    """The server's UTC time, as SQL."""
    driver_errors: tuple[type[BaseException], ...]
    """What the driver raises and SQLAlchemy does not wrap."""
    one_writer: bool
    """A transaction that writes keeps every other writer out."""
    bulk_differs: bool = False
    """Rows of a bulk load (`Chunk.bulk`) come another way than others."""
    waits: Mapping[str, float] = MappingProxyType({})
    """An error's code → seconds before the second attempt, where it is not the usual wait."""

    def spelling(self) -> Spelling:
        """How it spells the tables; may know more once it was connected to."""

    def later(self, seconds: float) -> str:
        """`now` and so many seconds, as SQL."""

    def translate(self, error: BaseException, *, committing: bool = False) -> SyncError:
        """The driver's error as one of ours; the only place that looks into it."""

    def schema_version(self, conn: sa.Connection) -> str | None:
        """The number of the last migration; None where there was none."""
        if not sa.inspect(conn).has_table("alembic_version"):
            return None
        query = sa.text("SELECT version_num FROM alembic_version")
        version: str | None = conn.execute(query).scalar()
        return version

    def describe(self, conn: sa.Connection) -> str:
        """Version, encryption and user, for people; no secrets."""

    def identity(self, conn: sa.Connection) -> str:
        """The same text for every way to the same database."""

    def schema_lock(self, conn: sa.Connection) -> contextlib.AbstractContextManager[None]:
        """In a transaction: only one process at a time changes the schema."""

    def schema_notes(self, tables: list[sa.Table]) -> str:
        """Comments in front of the script for a DBA."""
        return ""

    def prepare_load(self, database: Database) -> None:
        """Once a run before the first chunk: leave indexes out, or build those that lack."""

    def unfinished_load(self, conn: sa.Connection, database: Database) -> bool:
        """A first load has not ended: none of the indexes is there that it builds at its end.

        False where this user may not build them: then no run leaves them to its end.
        """

    def finish_load(self, database: Database) -> None:
        """Once a run after the last chunk: build the indexes that lack, gather statistics."""

    def together(self, conn: sa.Connection, statements: Sequence[sa.Executable]) -> list[int]:
        """How many rows each of these statements touched, none of which is an answer to another.

        They are sent as one message where the driver can do that; behind one that fails, none
        is done.
        """
        return [conn.execute(statement).rowcount for statement in statements]

    def load(
        self, database: Database, lease: Lease, chunk: Chunk
    ) -> contextlib.AbstractContextManager[Load]:
        """Around everything that one call of `publish` does."""
        return contextlib.nullcontext(Load())

    def stage(self, conn: sa.Connection, lease: Lease, chunk: Chunk) -> None:
        """Send rows ahead, before the lease is held; else the transaction is the staging."""
        return

    def write_rows(self, conn: sa.Connection, chunk: Chunk, run: int) -> Published:
        """Insert new and update different rows of a chunk, set-based, in this transaction.

        Those that are updated are kept first, as `keep_versions` does.
        """

    def keep_versions(self, conn: sa.Connection, chunk: Chunk, run: int) -> None:
        """Keep records as they are that the chunk's rows are about to replace in this ``run``."""

    def known_rows(
        self, conn: sa.Connection, low: bytes, high: bytes, table: RecordTable
    ) -> tuple[bytes, bytes]:
        """Keys and digests of live rows in this range of keys, each concatenated."""

    def scan(
        self, conn: sa.Connection, low: bytes, high: bytes, table: RecordTable
    ) -> Iterator[pa.RecordBatch]:
        """Live rows in this range of keys, in key order, in bounded batches."""

    def copy_into(self, conn: sa.Connection, path: Path) -> None:
        """Copy all of it, as of one moment, into an empty file.

        Raises:
            TargetRefused: ``not_one_file``: its server makes its backups.
        """
        raise TargetRefused(
            f"The target {self.place} is not one file, so this program cannot back it up.",
            code="not_one_file",
            remedy="Use the backups of its server: pg_dump for PostgreSQL; Azure SQL makes its "
            "own, which its portal restores.",
        )

    def freeze(self, conn: sa.Connection) -> tuple[sa.Connection, bool]:
        """Before its transaction begins: the connection of a view, and whether what it reads
        will be of one moment.  The connection's ``view`` option says it to the `connection`."""
        return conn, True

    def close(self) -> None:
        """Give back what the engine does not hold."""
        return
