"""Writing: publish, isolate, count, mark; the same for every target."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from rubix_token_sync import failpoints
from rubix_token_sync.errors import (
    RecordRefused,
    ReportMismatch,
    SyncError,
    TransactionTooLarge,
)
from rubix_token_sync.records.schema import RECORD_KEY_BYTES, RECORDS
from rubix_token_sync.targets.base import (
    Chunk,
    DatabaseMark,
    Lease,
    MarkCounts,
    Published,
    Rejected,
)
from rubix_token_sync.targets.sql.database import Database
from rubix_token_sync.targets.sql.history import VANISHED, keeping, later_run
from rubix_token_sync.targets.sql.migration_state import MigrationRows
from rubix_token_sync.targets.sql.questions import key_range, live_count, parts
from rubix_token_sync.targets.sql.sessions import Sessions
from rubix_token_sync.targets.sql.tables import StoredTable

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["Publishing"]


class Publishing:
    """See the methods of the same names in `rubix_token_sync.targets.base.Target`."""

    def __init__(self, database: Database, sessions: Sessions, migration: MigrationRows) -> None:
        self._database = database
        self._tables = database.tables
        self._sessions = sessions
        self._migration = migration

    def note_seen(self, lease: Lease, database_keys: Sequence[bytes]) -> None:
        databases = self._tables.databases

        def work(conn: sa.Connection) -> None:
            self._sessions.fence(conn, lease)
            failpoints.point("store.seen")
            seen = [
                sa.update(databases)
                .where(databases.c.database_key.in_(part))
                .values(last_seen_at=self._database.now)
                for part in parts(database_keys)
            ]
            self._database.backend.together(conn, seen)

        if database_keys:
            self._database.transact(work)

    def retire_database(self, lease: Lease, database_key: bytes) -> int:
        databases = self._tables.databases
        low, high = key_range(database_key)

        def work(conn: sa.Connection) -> int:
            run = self._sessions.fence(conn, lease)
            failpoints.point("store.retire")
            records = self._tables.stored[RECORDS.name]
            # Those of the records last, as it is them that are counted.
            statements: list[sa.Executable] = [
                sa.delete(databases).where(databases.c.database_key == database_key)
            ]
            for stored in (*self._tables.companions, records):
                chosen = stored.table.c.record_key.between(low, high)
                statements += self._vanishing(stored, run, chosen)
            return self._database.backend.together(conn, statements)[-1]

        return self._database.transact(work)

    def remove_records(self, lease: Lease, database_key: bytes) -> None:
        def work(conn: sa.Connection) -> None:
            self._sessions.fence(conn, lease)
            self._database.backend.together(conn, self._removal(database_key))

        self._database.transact(work)

    def withdraw(self, lease: Lease, database_key: bytes) -> None:
        def work(conn: sa.Connection) -> None:
            self._sessions.fence(conn, lease)
            self._sessions.release(conn, lease, *self._removal(database_key))

        self._database.transact(work)

    def _removal(self, database_key: bytes) -> list[sa.Executable]:
        databases = self._tables.databases
        low, high = key_range(database_key)
        tables = [
            rows
            for stored in self._tables.stored.values()
            for rows in (stored.table, stored.history)
            if rows is not None
        ]
        return [
            sa.delete(databases).where(databases.c.database_key == database_key),
            *(sa.delete(rows).where(rows.c.record_key.between(low, high)) for rows in tables),
        ]

    def publish(self, lease: Lease, chunk: Chunk) -> Published:
        chunk = replace(chunk, rows=_unrepeated(chunk.rows))
        before = self._database.retries
        with self._database.backend.load(self._database, lease, chunk) as load:
            if load.inserted is None:
                published = self._publish(lease, chunk)
                if load.unsure and not (
                    published.inserted or published.updated or published.rejected
                ):
                    published.inserted = chunk.rows.num_rows  # they had been committed
            else:
                published = Published(inserted=load.inserted, batches=1)
                rest = replace(chunk, rows=chunk.rows.slice(0, 0))
                if rest.mark or rest.vanished or rest.errors or rest.migration:
                    published.add(self._publish(lease, rest))
        published.bulk_loads += load.bulk_loads
        published.retries = self._database.retries - before
        return published

    def _publish(self, lease: Lease, chunk: Chunk) -> Published:
        try:
            return self._publish_piece(lease, chunk)
        except TransactionTooLarge:
            if chunk.rows.num_rows < 2:
                raise
            half = chunk.rows.num_rows // 2
            first = _piece(chunk, chunk.rows.slice(0, half))
            published = self._publish(lease, first)
            rest = replace(chunk, rows=chunk.rows.slice(half))
            rest = _without(rest, published.rejected)
            published.add(self._publish(lease, rest))
            return published
        except RecordRefused:
            if chunk.rows.num_rows == 0:
                raise
            return self._isolate(lease, chunk)

    def _isolate(self, lease: Lease, chunk: Chunk) -> Published:
        """Halve until the refused records stand alone; the good ones go in meanwhile."""
        total = Published()
        pending = [chunk.rows]
        while pending:
            part = pending.pop()
            piece = _piece(chunk, part)
            try:
                total.add(self._publish_piece(lease, piece))
            except RecordRefused as refused:
                if part.num_rows == 1:
                    label = self._tables.stored[chunk.table].columns.label
                    total.rejected.append(_rejected(part, label, refused))
                else:
                    half = part.num_rows // 2
                    pending += [part.slice(half), part.slice(0, half)]
        # What the target still holds under a refused key is no longer what the source says.
        outdated = b"".join(rejected.record_key for rejected in total.rejected)
        rest = replace(chunk, rows=chunk.rows.slice(0, 0), vanished=chunk.vanished + outdated)
        rest = _without(rest, total.rejected)
        total.add(self._publish_piece(lease, rest))
        return total

    def _publish_piece(self, lease: Lease, chunk: Chunk) -> Published:
        attempts: list[Published] = []

        def work(conn: sa.Connection) -> Published:
            piece = chunk
            if attempts and chunk.errors:  # an earlier attempt may have stored them
                fresh = self._sessions.unrecorded(conn, lease, chunk.errors)
                piece = replace(chunk, errors=fresh)
            attempts.append(self._publish_once(conn, lease, piece))
            return attempts[-1]

        divisible = chunk.rows.num_rows > 1
        return _what_happened(self._database.transact(work, divisible=divisible), attempts)

    def _publish_once(self, conn: sa.Connection, lease: Lease, chunk: Chunk) -> Published:
        backend = self._database.backend
        if chunk.rows.num_rows:
            backend.stage(conn, lease, chunk)
        run = self._sessions.fence(conn, lease)
        failpoints.point("store.publish")
        if chunk.replace and chunk.rows.num_rows:
            backend.keep_versions(conn, chunk, run)
            self._remove_rows(conn, chunk)
        published = backend.write_rows(conn, chunk, run) if chunk.rows.num_rows else Published()
        published.vanished = self._write_vanished(conn, chunk, run)
        if chunk.errors:
            self._sessions.insert_errors(conn, lease, chunk.errors)
        if chunk.mark is not None:
            failpoints.point("store.mark")
            published.marked = self._write_mark(conn, chunk.mark)
        if chunk.migration is not None:
            self._migration.write(conn, chunk.migration)
        return published

    def _remove_rows(self, conn: sa.Connection, chunk: Chunk) -> None:
        records = self._tables.stored[chunk.table].table
        for part in parts(chunk.rows.column("record_key").to_pylist()):
            conn.execute(sa.delete(records).where(records.c.record_key.in_(part)))

    def _write_vanished(self, conn: sa.Connection, chunk: Chunk, run: int) -> int:
        stored, keys = self._tables.stored[chunk.table], chunk.vanished
        split = [keys[i : i + RECORD_KEY_BYTES] for i in range(0, len(keys), RECORD_KEY_BYTES)]
        if split:
            failpoints.point("store.vanish")
        chosen, together = stored.table.c.record_key, self._database.backend.together
        return sum(
            together(conn, self._vanishing(stored, run, chosen.in_(part)))[-1]
            for part in parts(split)
        )

    def _vanishing(
        self, stored: StoredTable, run: int, chosen: sa.ColumnElement[bool]
    ) -> list[sa.Executable]:
        """Statements that mark records as vanished; the last of them says how many."""
        records, now = stored.table, self._database.now
        live = (chosen, records.c.source_deleted_at.is_(None))
        since = {"since_run": later_run(records, run)} if stored.history is not None else {}
        return [
            *keeping(stored, run, VANISHED, *live),
            sa.update(records).where(*live).values(source_deleted_at=now, synced_at=now, **since),
        ]

    def _live_counts(
        self, conn: sa.Connection, database_key: bytes
    ) -> tuple[MarkCounts, dict[str, int]]:
        """A database's live records, and its live companions by table, counted by the server."""
        records = self._tables.records
        low, high = key_range(database_key)
        live = (records.c.record_key.between(low, high), records.c.source_deleted_at.is_(None))
        fetched = sa.func.count(sa.case((records.c.ipfs_fetched == sa.true(), 1)))
        invalid: sa.ColumnElement[int] = sa.func.count(records.c.validation_errors)
        if self._tables.spelling.filtered:  # an index has them; else the rows are looked at once
            wrong = records.c.validation_errors.is_not(None)
            query = sa.select(sa.func.count()).select_from(records).where(*live, wrong)
            invalid = query.correlate(None).scalar_subquery()
        companions = self._tables.companions
        beside = [live_count(one.table, low, high) for one in companions]
        counts = [sa.func.count(), fetched, invalid]
        found = conn.execute(sa.select(*counts, *beside).where(*live)).one()
        held = {one.columns.name: n for one, n in zip(companions, found[3:], strict=True)}
        return MarkCounts(*found[:3]), held

    def _write_mark(self, conn: sa.Connection, mark: DatabaseMark) -> MarkCounts:
        counts, companions = self._live_counts(conn, mark.database_key)
        held = {RECORDS.name: counts.records, **companions}
        for table, expected in {RECORDS.name: mark.record_count, **mark.companions}.items():
            if expected is not None and held[table] != expected:
                raise _mismatch(mark.db_path, table, expected, held[table])
        databases = self._tables.databases
        values: dict[str, Any] = asdict(mark)
        key = values.pop("database_key")
        values["kind_counts"] = json.dumps(values.pop("kinds"), separators=(",", ":"))
        for table in values.pop("companions"):
            values[self._tables.stored[table].columns.counted_as] = held[table]
        chains = values.pop("chains")
        if chains is not None:
            values["chains_fingerprint"] = chains["fingerprint"]
            values["chains_error"] = chains["error"]
            values["chains_read_at"] = self._database.now
        if values.pop("content_checked"):
            values["content_checked_at"] = self._database.now
        values |= {
            "db_path": mark.db_path[:500],
            "last_processed": self._database.now,
            "last_seen_at": self._database.now,
            "ipfs_success_count": counts.ipfs_success,
            "ipfs_fail_count": counts.ipfs_failures,
            "validation_error_count": counts.validation_errors,
        }
        updated = conn.execute(
            sa.update(databases).where(databases.c.database_key == key).values(**values)
        )
        if updated.rowcount == 0:
            conn.execute(sa.insert(databases).values(database_key=key, **values))
        return counts


def _mismatch(db_path: str, table: str, expected: int, counted: int) -> ReportMismatch:
    where = "" if table == RECORDS.name else f" in {table}"
    return ReportMismatch(
        f"{db_path}: {expected} records should be stored, the target holds {counted}{where}.",
        code="count_mismatch",
        remedy="Nothing was marked as processed; the next run reads this database again. "
        "Run `rubix-token-sync verify` to see which records differ.",
        context={"expected": expected, "counted": counted, **({"table": table} if where else {})},
    )


def _piece(chunk: Chunk, rows: pa.RecordBatch) -> Chunk:
    """Some of a chunk's rows, to be published by themselves."""
    return Chunk(rows, bulk=chunk.bulk, replace=chunk.replace, table=chunk.table)


def _unrepeated(rows: pa.RecordBatch) -> pa.RecordBatch:
    """Each key once, the last of its rows; what a damaged database repeats, the mark counts."""
    import numpy as np
    import pyarrow as pa

    keys = rows.column("record_key")
    start = keys.offset * RECORD_KEY_BYTES
    raw = np.frombuffer(keys.buffers()[1], np.uint8)[start:][: len(keys) * RECORD_KEY_BYTES]
    # The end of a key is a digest: where no two are equal, no two keys are.
    ends = np.sort(raw.reshape(-1, RECORD_KEY_BYTES)[:, -8:].copy().view(np.uint64).ravel())
    if not (ends[1:] == ends[:-1]).any():
        return rows
    last = {key: at for at, key in enumerate(keys.to_pylist())}
    return rows.take(pa.array(sorted(last.values()), pa.int64()))


def _what_happened(last: Published, attempts: Sequence[Published]) -> Published:
    """The counts of the attempt that was committed.

    A replay that finds nothing to do shows that an earlier attempt, whose
    acknowledgement was lost, did it all.
    """
    did = [a for a in attempts if a.inserted or a.updated or a.vanished]
    if did and did[-1] is not last:
        last.inserted, last.updated, last.vanished = (
            did[-1].inserted, did[-1].updated, did[-1].vanished
        )  # fmt: skip
    return last


def _rejected(row: pa.RecordBatch, label: str, refused: SyncError) -> Rejected:
    return Rejected(
        record_key=row.column("record_key")[0].as_py(),
        token_id=row.column(label)[0].as_py(),
        reason=refused.message,
    )


def _without(chunk: Chunk, rejected: Sequence[Rejected]) -> Chunk:
    """The chunk with its mark's counts and its errors corrected for refused records."""
    if not rejected or chunk.mark is None:
        return chunk
    mark = chunk.mark
    return replace(
        chunk,
        mark=replace(
            mark,
            record_count=mark.record_count - len(rejected),
            rejected_count=mark.rejected_count + len(rejected),
        ),
    )
