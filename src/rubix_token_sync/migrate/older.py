"""The older system's PostgreSQL database, read from one snapshot.

One repeatable-read, read-only transaction holds the view from the plan to the
last row.  The server sorts, so that the rows of a database are together, and
within it the rows of a token, the newest first; they come through a cursor on
the server, a few megabytes at a time.
"""

from __future__ import annotations

import codecs
import contextlib
from collections.abc import Callable, Collection, Iterator, Sequence
from datetime import UTC, datetime, tzinfo
from hashlib import blake2b
from typing import Any, Final
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import psycopg
from psycopg import sql
from pydantic import SecretStr

from rubix_token_sync import failpoints
from rubix_token_sync.errors import SchemaError, SettingsError, TargetUnavailable
from rubix_token_sync.migrate.older_rows import OLDER_COLUMNS, OlderForm, OlderRow
from rubix_token_sync.migrate.rows import Moved
from rubix_token_sync.migrate.source import PlannedDatabase
from rubix_token_sync.records.schema import database_key
from rubix_token_sync.records.values import blob_literal
from rubix_token_sync.targets.base import Chunk
from rubix_token_sync.targets.postgresql.address import PostgresAddress
from rubix_token_sync.targets.postgresql.errors import translate_error
from rubix_token_sync.targets.postgresql.target import IDENTITY
from rubix_token_sync.targets.sql.target import SqlTarget

__all__ = ["OlderPostgres", "open_older", "zone_of"]

_REQUIRED: Final = ("id", "source_ip", "db_path", "token_id")
_FETCH_BYTES: Final = 6_000_000
_FETCH_ROWS: Final = 1_000
_NO_HOME: Final = sql.SQL("(source_ip IS NULL OR db_path IS NULL)")


def zone_of(name: str) -> tzinfo:
    """The time zone of that name.

    Raises:
        SettingsError: there is none.
    """
    if name.upper() == "UTC":
        return UTC
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise SettingsError(
            f"{name!r} is not a time zone.",
            code="unknown_timezone",
            remedy="Name one of the IANA time zones, for example UTC or Europe/Berlin.",
        ) from None


def open_older(address: SecretStr) -> OlderPostgres:
    """The entry for `open_source`."""
    return OlderPostgres(address)


class OlderPostgres:
    """Reads ``tokenrecords`` and ``processeddatabases``; writes nothing anywhere there."""

    has_local_times = True

    def __init__(self, address: SecretStr) -> None:
        self.form = OlderForm(UTC)
        self._empty: list[str] = []
        self._homes: set[str] = set()
        self._raw: dict[tuple[str, str], tuple[bytes, bytes]] = {}
        self._address = PostgresAddress.parse(address)
        self.place = self._address.place
        with self._translated():
            self._conn = psycopg.connect(
                **self._address.connection_arguments(),  # type: ignore[arg-type] # libpq's names
                prepare_threshold=None,
            )
        try:
            with self._translated():
                self._begin()
        except BaseException:
            self._conn.close()
            raise

    def _begin(self) -> None:
        conn = self._conn
        conn.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        conn.read_only = True
        conn.execute("SET LOCAL statement_timeout = 0")
        conn.execute("SET LOCAL idle_in_transaction_session_timeout = 0")
        conn.execute("SET LOCAL timezone = 'UTC'")
        conn.execute("SET LOCAL datestyle = 'ISO, YMD'")
        self._records = self._table("tokenrecords")
        self._databases = self._table("processeddatabases")
        if self._records is None:
            raise SchemaError(
                f"{self.place} holds no table tokenrecords.",
                code="nothing_to_migrate",
                remedy="Name the database that the older system wrote to.",
            )
        self._there = self._columns(self._records)
        self.is_own_schema = "record_key" in self._there
        missing = [name for name in _REQUIRED if name not in self._there]
        if missing:
            raise SchemaError(
                f"tokenrecords of {self.place} lacks {', '.join(missing)}.",
                code="unknown_schema",
                remedy="Only tables of the older Rubix token sync can be migrated.",
            )
        # Bytes as they are in the table: a text of a wrong encoding must not stop anything.
        self._decode = _decoder(self._one("SHOW server_encoding"))
        if self._decode is not None:
            conn.execute("SET LOCAL client_encoding = 'SQL_ASCII'")
        self.identity = self._identify()

    @contextlib.contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except failpoints.FaultInjected as error:
            raise TargetUnavailable(f"The source failed: {error}.", code="injected") from error
        except psycopg.Error as error:
            found = translate_error(error, self.place, committing=False)
            found.message = self._address.redact(found.message)
            raise found from error

    def _one(self, query: str, *parameters: Any) -> str:
        row = self._conn.execute(query.encode(), parameters or None).fetchone()
        value = row[0] if row is not None else ""
        return value.decode() if isinstance(value, bytes) else str(value)

    def _table(self, name: str) -> str | None:
        """The table's name as SQL, whatever its case."""
        row = self._conn.execute(
            "SELECT c.oid::regclass::text FROM pg_class c"
            " WHERE lower(c.relname) = %s AND c.relkind IN ('r', 'p', 'v', 'm', 'f')"
            "   AND pg_table_is_visible(c.oid) ORDER BY c.relname DESC LIMIT 1",
            (name,),
        ).fetchone()
        return None if row is None else _plain(row[0])

    def _columns(self, table: str) -> set[str]:
        rows = self._conn.execute(
            "SELECT attname::text FROM pg_attribute"
            " WHERE attrelid = %s::regclass AND attnum > 0 AND NOT attisdropped",
            (table,),
        ).fetchall()
        return {_plain(row[0]) for row in rows}

    def _identify(self) -> str:
        try:
            with self._conn.transaction():
                system = self._one("SELECT system_identifier::text FROM pg_control_system()")
        except psycopg.errors.InsufficientPrivilege:
            system = ""
        database = self._one(
            "SELECT oid::text || ':' || datname FROM pg_database WHERE datname = current_database()"
        )
        table = self._one("SELECT (%s::regclass::oid)::text", self._records)
        name = f"{system}:{database}:{table}".encode()
        return "postgresql:" + blake2b(name, digest_size=16).hexdigest()

    def set_timezone(self, name: str) -> None:
        """See `Source`."""
        self.form = OlderForm(zone_of(name))

    def is_in(self, store: SqlTarget) -> bool:
        """See `Source`."""
        with self._translated():
            return self._one(IDENTITY) == store.identity()

    # ---------------------------------------------------------------- the plan

    def plan(self) -> list[PlannedDatabase]:
        """See `Source`."""
        wide = [name for name in ("ipfs_data", "token_value", "validation_errors", "ipfs_error")
                if name in self._there]  # fmt: skip
        widest = " + ".join(f"coalesce(octet_length({name}::text), 0)" for name in wide) or "0"
        newest = "max(synced_at)" if "synced_at" in self._there else "NULL"
        with self._translated():
            failpoints.point("migrate.plan")
            known = self._processed()
            rows = self._conn.execute(
                sql.SQL(
                    'SELECT source_ip::text COLLATE "C" AS ip, db_path::text COLLATE "C" AS path,'
                    " count(*), min(id)::text || ':' || max(id)::text || ':' ||"
                    " sum(id::numeric)::text || ':' || coalesce({newest}::text, ''),"
                    " max({widest})::bigint"
                    " FROM {table} WHERE NOT {no_home} GROUP BY ip, path ORDER BY ip, path"
                ).format(
                    newest=sql.SQL(newest),
                    widest=sql.SQL(widest),
                    table=sql.SQL(self._records or ""),
                    no_home=_NO_HOME,
                )
            ).fetchall()
        self._homes = {self._text(row[1]) for row in rows}
        self._raw = {
            (self._text(ip), self._text(path)): (_raw(ip), _raw(path)) for ip, path, *_ in rows
        }
        return [
            PlannedDatabase(
                key=database_key(self._text(ip), self._text(path)),
                source_ip=self._text(ip),
                db_path=self._text(path),
                rows=count,
                version=f"{count}:{_plain(version)}",
                widest=widest_bytes,
                last_modified=known.get(self._text(path)),
            )
            for ip, path, count, version, widest_bytes in rows
        ]

    def _processed(self) -> dict[str, datetime | None]:
        """``last_modified`` of every database that the older system calls processed."""
        if self._databases is None or "db_path" not in self._columns(self._databases):
            return {}
        modified = (
            "last_modified::text" if "last_modified" in self._columns(self._databases) else "NULL"
        )
        rows = self._conn.execute(
            sql.SQL(
                "SELECT db_path::text, {modified} FROM {table} WHERE db_path IS NOT NULL"
            ).format(modified=sql.SQL(modified), table=sql.SQL(self._databases))
        ).fetchall()
        self._empty = [self._text(path) for path, _ in rows]
        return {
            self._text(path): self.form.time(at if at is None else _plain(at)) for path, at in rows
        }

    # ---------------------------------------------------------------- rows

    def homeless(self) -> Iterator[Moved]:
        """See `Source`: rows without a source or a path."""
        for rows in self._cursor(_NO_HOME, (), [(None, _FETCH_ROWS)]):
            for row in rows:
                yield self.form.homeless(row)

    def without_rows(self) -> list[str]:
        """Databases that the older system called processed and of which it holds no record."""
        return sorted(set(self._empty) - self._homes)

    def read(self, databases: Collection[PlannedDatabase]) -> Iterator[Iterator[Moved]]:
        """See `Source`."""
        wanted = list(databases)
        steps = [
            (one.rows, max(1, min(_FETCH_ROWS, _FETCH_BYTES // max(1, one.widest))))
            for one in wanted
        ]
        # By their bytes, whatever the encoding: names need not be clean text.
        chosen = sql.SQL(
            "(source_ip::text, db_path::text) IN (SELECT"
            " convert_from(decode(ip, 'hex'), getdatabaseencoding()),"
            " convert_from(decode(path, 'hex'), getdatabaseencoding())"
            " FROM unnest(%s::text[], %s::text[]) AS wanted (ip, path))"
        )
        raw = [self._raw[one.source_ip, one.db_path] for one in wanted]
        parameters = ([ip.hex() for ip, _ in raw], [path.hex() for _, path in raw])
        for rows in self._cursor(chosen, parameters, steps):
            yield self.form.move(rows)

    def _cursor(
        self,
        condition: sql.Composable,
        parameters: Sequence[Any],
        steps: Sequence[tuple[int | None, int]],
    ) -> Iterator[Iterator[OlderRow]]:
        """The rows in order; one iterator for each step of (rows, rows a fetch)."""
        columns = sql.SQL(", ").join(
            sql.SQL("{}::text").format(sql.Identifier(name))
            if name in self._there
            else sql.SQL("NULL::text")
            for name in OLDER_COLUMNS
        )
        # With the table's name: a bare one would mean the text that is selected.
        newest = "old.synced_at DESC NULLS LAST, " if "synced_at" in self._there else ""
        query = sql.SQL(
            "SELECT {columns} FROM {table} AS old WHERE {condition}"
            ' ORDER BY source_ip::text COLLATE "C", db_path::text COLLATE "C",'
            ' token_id::text COLLATE "C" NULLS LAST, {newest} old.id DESC'
        ).format(
            columns=columns,
            table=sql.SQL(self._records or ""),
            condition=condition,
            newest=sql.SQL(newest),
        )
        with self._translated(), self._conn.cursor(name="migrating") as cursor:
            failpoints.point("migrate.read")
            cursor.execute(query, parameters or None)
            for count, step in steps:
                rows = self._some(cursor, count, step)
                yield rows
                for _ in rows:
                    raise RuntimeError("the rows of a database were not used up")

    def _some(
        self, cursor: psycopg.ServerCursor[Any], count: int | None, step: int
    ) -> Iterator[OlderRow]:
        left = count
        while left is None or left > 0:
            with self._translated():
                failpoints.point("migrate.fetch")
                block = cursor.fetchmany(step if left is None else min(step, left))
            if not block:
                break
            if left is not None:
                left -= len(block)
            if self._decode is None:
                yield from map(OlderRow._make, block)
            else:
                for row in block:
                    yield OlderRow._make(map(self._decode, row))

    def _text(self, value: str | bytes) -> str:
        """A name; one that is not text in its encoding is written as a blob literal."""
        if isinstance(value, str):
            return value
        assert self._decode is not None
        found = self._decode(value)
        return found if isinstance(found, str) else blob_literal(value)

    def companions(self, database: PlannedDatabase) -> Iterator[Chunk]:  # noqa: ARG002
        """See `Source`: the older system knew of none, and the next sync fills them."""
        return iter(())

    def close(self) -> None:
        """See `Source`."""
        self._conn.close()


def _plain(value: str | bytes) -> str:
    """A name or number that is ASCII for certain."""
    return value.decode() if isinstance(value, bytes) else value


def _raw(value: str | bytes) -> bytes:
    return value if isinstance(value, bytes) else value.encode()


def _decoder(encoding: str) -> Callable[[Any], Any] | None:
    """How bytes become text; None where the driver does it (UTF-8 cannot be wrong there)."""
    if encoding == "UTF8":
        return None
    name = "utf-8" if encoding == "SQL_ASCII" else encoding.replace("WIN", "cp")
    try:
        codec = codecs.lookup(name.lower())
    except LookupError:
        codec = codecs.lookup("utf-8")

    def decode(value: Any) -> Any:
        if not isinstance(value, bytes):
            return value
        try:
            return codec.decode(value)[0]
        except UnicodeDecodeError:
            return value

    return decode
