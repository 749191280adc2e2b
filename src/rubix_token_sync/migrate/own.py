"""A source that has this program's own tables: a move from one target to another, or back.

Records travel as they are, keys, digests and content included, so the next sync
into the new target has as little to do as it had with the old one.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Collection, Iterator, Sequence
from datetime import datetime
from hashlib import blake2b
from typing import Any, Final

import sqlalchemy as sa

from rubix_token_sync import failpoints
from rubix_token_sync.errors import LeaseHeld, SchemaError
from rubix_token_sync.migrate.rows import COLUMNS, Aside, Moved, hash_of
from rubix_token_sync.migrate.source import PlannedDatabase
from rubix_token_sync.records.schema import DATABASE_KEY_BYTES
from rubix_token_sync.targets.base import SCHEMA_VERSION, Chunk, TargetOptions
from rubix_token_sync.targets.registry import TargetAddress, open_target
from rubix_token_sync.targets.sql.questions import as_batch, key_range
from rubix_token_sync.targets.sql.tables import StoredTable
from rubix_token_sync.targets.sql.target import SqlTarget

__all__ = ["OwnForm", "OwnSource", "stored_rows"]

_FETCH_BYTES: Final = 6_000_000
_FETCH_ROWS: Final = 1_000


class OwnForm:
    """Records are their own canonical form."""

    def stored_hash(self, record: Sequence[Any], *, vanished: bool) -> int:
        """See `Form`."""
        return hash_of((*map(_plain, record), vanished))

    def refuse(self, moved: Moved) -> Aside:
        """See `Form`."""
        record = moved.record
        assert record is not None
        row = [
            {"bytes": value.hex()} if isinstance(value, bytes) else _plain(value)
            for value in record
        ]
        text = json.dumps({"record": row, "vanished": moved.vanished}, ensure_ascii=False)
        return Aside("refused", (), None, record[COLUMNS["record_key"]], text)

    def aside_hashes(self, aside: Aside) -> tuple[int, int | None]:
        """See `Form`."""
        found = json.loads(aside.row)
        record = [
            bytes.fromhex(value["bytes"]) if isinstance(value, dict) else value
            for value in found["record"]
        ]
        return hash_of((*record, found["vanished"])), None


def _plain(value: Any) -> Any:
    return value.isoformat() if isinstance(value, datetime) else value


def stored_rows(
    store: SqlTarget, conn: sa.Connection, key: bytes, fetch: int
) -> Iterator[tuple[tuple[Any, ...], bool]]:
    """All records of a database, live and vanished: the record, and whether it vanished."""
    records = store.tables.records
    low, high = key_range(key)
    query = (
        sa.select(
            *(records.c[name] for name in store.tables.columns.names), records.c.source_deleted_at
        )
        .where(records.c.record_key.between(low, high))
        .order_by(records.c.record_key)
    )
    flag = COLUMNS["ipfs_fetched"]
    result = conn.execution_options(yield_per=fetch).execute(query)
    for row in result:
        values = tuple(row)
        yield (
            (
                bytes(values[0]),
                bytes(values[1]),
                *values[2:flag],
                bool(values[flag]),
                *values[flag + 1 : -1],
            ),
            values[-1] is not None,
        )


class OwnSource:
    """Reads another target of this program."""

    has_local_times = False
    is_own_schema = True

    def __init__(self, target: TargetAddress) -> None:
        self.form = OwnForm()
        self._store = open_target(target, TargetOptions(read_only=True))
        self.place = self._store.place
        self._open = contextlib.ExitStack()
        self._open.callback(self._store.close)
        try:
            self._check()
            self.identity = self._identify()
            self._conn = self._open.enter_context(self._store.view())
        except BaseException:
            self.close()
            raise

    def _check(self) -> None:
        version = self._store.schema_version()
        if version != SCHEMA_VERSION:
            raise SchemaError(
                f"{self.place} holds no tables of this program's version.",
                code="nothing_to_migrate",
                remedy="Run `rubix-token-sync schema upgrade` on it first, or name another source.",
            )
        held = self._store.leases()
        if held:
            raise LeaseHeld(
                f"A run is writing to {self.place} for {held[0].source}.",
                code="source_busy",
                remedy="Let it end, then migrate.",
            )

    def _identify(self) -> str:
        sessions = self._store.tables.sessions
        first = sa.select(sessions.c.session_id).order_by(
            sessions.c.start_time, sessions.c.session_id
        )
        oldest = self._store.read(lambda conn: conn.execute(first.limit(1)).scalar())
        name = f"{self.place}:{oldest}".encode()
        return f"{self._store.kind}:{blake2b(name, digest_size=16).hexdigest()}"

    def set_timezone(self, name: str) -> None:
        """See `Source`: all times are UTC here."""

    def is_in(self, store: SqlTarget) -> bool:
        """See `Source`."""
        return store.identity() == self._store.identity()

    def plan(self) -> list[PlannedDatabase]:
        """See `Source`."""
        records = self._store.tables.records
        # Numbers in the text: two parameters would be two expressions to GROUP BY.
        first: sa.ColumnElement[int] = sa.literal_column("1")
        size: sa.ColumnElement[int] = sa.literal_column(str(DATABASE_KEY_BYTES))
        start = sa.func.substring(records.c.record_key, first, size)
        key = sa.type_coerce(start, sa.LargeBinary()).label("database_key")
        groups = sa.select(
            key,
            sa.func.max(records.c.source_ip),
            sa.func.max(records.c.db_path),
            sa.func.count(),
            sa.func.max(records.c.id),
            sa.func.max(records.c.synced_at),
            sa.func.max(sa.func.char_length(records.c.ipfs_data)),
        ).group_by(key)
        failpoints.point("migrate.plan")
        states = {state.database_key: state for state in self._store.database_states(None)}
        planned: dict[bytes, PlannedDatabase] = {}
        for found, ip, path, count, last, synced, widest in self._store.read(
            lambda conn: conn.execute(groups).all()
        ):
            planned[bytes(found)] = PlannedDatabase(
                bytes(found),
                ip,
                path,
                count,
                f"{count}:{last}:{synced}",
                4 * (widest or 0),
                states.get(bytes(found)),
            )
        for found, state in states.items():
            if found not in planned:
                planned[found] = PlannedDatabase(
                    found, state.source_ip, state.db_path, 0, "0", 0, state
                )
        return sorted(planned.values(), key=lambda one: (one.source_ip, one.db_path))

    def homeless(self) -> Iterator[Moved]:
        """See `Source`: there is none here."""
        return iter(())

    def without_rows(self) -> list[str]:
        """See `Source`: empty databases are in the plan here."""
        return []

    def read(self, databases: Collection[PlannedDatabase]) -> Iterator[Iterator[Moved]]:
        """See `Source`."""
        for database in databases:
            yield self._read_one(database)

    def _read_one(self, database: PlannedDatabase) -> Iterator[Moved]:
        fetch = max(1, min(_FETCH_ROWS, _FETCH_BYTES // max(1, database.widest)))
        failpoints.point("migrate.read")
        with self._store.database.translated():
            for record, vanished in stored_rows(self._store, self._conn, database.key, fetch):
                yield Moved(
                    self.form.stored_hash(record, vanished=vanished),
                    record,
                    vanished=vanished,
                    adopted=bool(record[COLUMNS["ipfs_fetched"]]),
                )

    def companions(self, database: PlannedDatabase) -> Iterator[Chunk]:
        """See `Source`: vanished ones too, so that nothing is lost."""
        with self._store.database.translated():
            for stored in self._store.tables.companions:
                yield from self._companion(stored, database.key)

    def _companion(self, stored: StoredTable, key: bytes) -> Iterator[Chunk]:
        rows, columns = stored.table.c, stored.columns
        query = (
            sa.select(*(rows[name] for name in columns.names), rows.source_deleted_at)
            .where(rows.record_key.between(*key_range(key)))
            .order_by(rows.record_key)
        )
        result = self._conn.execution_options(yield_per=_FETCH_ROWS).execute(query)
        for block in result.partitions():
            found = as_batch([tuple(row)[:-1] for row in block], columns)
            gone = b"".join(bytes(row[0]) for row in block if row[-1] is not None)
            yield Chunk(found, vanished=gone, bulk=True, table=columns.name)

    def close(self) -> None:
        """See `Source`."""
        self._open.close()
