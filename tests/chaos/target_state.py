"""What a target holds, apart from ids and times, and what a run must not leave behind."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sa

from rubix_token_sync.records.schema import RECORDS
from rubix_token_sync.targets.base import TargetOptions
from rubix_token_sync.targets.registry import open_target, parse_target
from rubix_token_sync.targets.sql.target import SqlTarget

__all__ = ["Content", "content_of", "copy_target", "error_repeats", "leftovers", "rows_of"]

_OWN = frozenset({"id", "synced_at", "source_deleted_at", "db_last_modified", "since_run"})
# Times, durations, and fingerprints (which hold the inode and times of a file).
_TIMES = frozenset(
    {
        "chains_read_at",
        "content_checked_at",
        "last_processed",
        "last_seen_at",
        "processing_duration_seconds",
    }
)


@dataclass(frozen=True)
class Content:
    """Every record, companion row and database, comparable between targets."""

    records: dict[bytes, tuple[Any, ...]]
    databases: dict[bytes, tuple[Any, ...]]
    companions: dict[bytes, tuple[Any, ...]] = field(default_factory=dict)
    """Of every companion table; the name of the table comes first."""

    def difference(self, other: Content) -> str:
        """What differs, for people; empty when nothing does."""
        told = []
        for name, mine, theirs in (
            ("records", self.records, other.records),
            ("databases", self.databases, other.databases),
            ("companions", self.companions, other.companions),
        ):
            only = len(mine.keys() - theirs.keys())
            missing = len(theirs.keys() - mine.keys())
            both = mine.keys() & theirs.keys()
            unequal = [key for key in both if mine[key] != theirs[key]]
            if only or missing or unequal:
                told.append(f"{name}: {only} too many, {missing} missing, {len(unequal)} differ")
                told += [f"  {mine[key]}\n  {theirs[key]}" for key in unequal[:2]]
        return "\n".join(told)


def _open(url: str) -> SqlTarget:
    return open_target(parse_target(url), TargetOptions(read_only=True))


def _plain(value: Any) -> Any:
    return bytes(value) if isinstance(value, memoryview | bytearray) else value


def content_of(url: str, *, fingerprints: bool = True) -> Content:
    """All of a target's records and databases, apart from ids and times.

    ``fingerprints`` False leaves those of the files out, for fleets that were copied.
    """
    store = _open(url)
    try:
        records, databases = store.tables.records, store.tables.databases
        named = [c for c in records.c if c.name not in _OWN]
        dead = records.c.source_deleted_at.is_not(None)
        skipped = _TIMES if fingerprints else _TIMES | {"fingerprint", "repository_fingerprint"}
        states = [c for c in databases.c if c.name not in skipped]

        def work(conn: sa.Connection) -> Content:
            rows = conn.execute(sa.select(records.c.record_key, dead, *named)).all()
            marks = conn.execute(sa.select(databases.c.database_key, *states)).all()
            content = Content(
                {bytes(r[0]): tuple(_plain(v) for v in r[1:]) for r in rows},
                {bytes(m[0]): tuple(_plain(v) for v in m[1:]) for m in marks},
            )
            assert len(content.records) == len(rows), "two records with one key"
            for name, stored in store.tables.stored.items():
                if stored.table is not records:
                    content.companions.update(_companion(conn, name, stored.table))
            return content

        return store.read(work)
    finally:
        store.close()


def _companion(conn: sa.Connection, name: str, table: sa.Table) -> dict[bytes, tuple[Any, ...]]:
    named = [c for c in table.c if c.name not in _OWN]
    dead = table.c.source_deleted_at.is_not(None)
    rows = conn.execute(sa.select(table.c.record_key, dead, *named)).all()
    found = {bytes(row[0]): (name, *(_plain(value) for value in row[1:])) for row in rows}
    assert len(found) == len(rows), f"two rows of {name} with one key"
    return found


def leftovers(url: str) -> list[str]:
    """What an ended run must not leave.

    Running sessions, leases, staged rows, missing indexes, versions of a record that do not
    follow each other.
    """
    store = _open(url)
    try:
        tables = store.tables

        def work(conn: sa.Connection) -> list[str]:
            told = []
            running = conn.scalar(
                sa.select(sa.func.count()).where(tables.sessions.c.status == "RUNNING")
            )
            if running:
                told.append(f"{running} sessions are RUNNING")
            leases = conn.scalar(sa.select(sa.func.count()).select_from(tables.leases))
            if leases:
                told.append(f"{leases} leases are held")
            there = {index["name"] for index in sa.inspect(conn).get_indexes(tables.records.name)}
            for column in RECORDS.indexed:
                if f"ix_tokenrecords_{column}" not in there and (store.kind, column) != (
                    "mssql",
                    "did",
                ):
                    told.append(f"the index on {column} is missing")
            for name in sa.inspect(conn).get_table_names():
                if "staging" in name.lower() or "staged" in name.lower():
                    count = conn.scalar(sa.text(f"SELECT count(*) FROM {name}"))
                    if count:
                        told.append(f"{count} rows are staged in {name}")
            return told + _torn_versions(conn, store)

        return store.read(work)
    finally:
        store.close()


def _torn_versions(conn: sa.Connection, store: SqlTarget) -> list[str]:
    """Each version ends where the next one begins, the last one where the record does."""
    stored = store.tables.stored[RECORDS.name]
    assert stored.history is not None
    records, history = stored.table, stored.history
    begins: dict[bytes, int] = {}
    for key, since in conn.execute(sa.select(records.c.record_key, records.c.since_run)):
        begins[key] = since
    query = sa.select(history.c.record_key, history.c.since_run, history.c.ended_run)
    last: dict[bytes, int] = {}
    told = []
    for key, since, ended in conn.execute(query.order_by(*query.selected_columns)):
        if since >= ended or last.get(key, since) != since:
            told.append(f"version {since} to {ended} follows {last.get(key)}")
        last[key] = ended
    told += [
        f"{begins[key]} follows {ended}" for key, ended in last.items() if begins[key] != ended
    ]
    return told


def error_repeats(url: str) -> list[Any]:
    """Errors that one session recorded twice."""
    store = _open(url)
    try:
        errors = store.tables.errors
        what = (
            errors.c.session_id, errors.c.code, errors.c.message, errors.c.db_path,
            errors.c.token_id,
        )  # fmt: skip
        query = sa.select(*what).group_by(*what).having(sa.func.count() > 1)
        return store.read(lambda conn: list(conn.execute(query)))
    finally:
        store.close()


def rows_of(url: str, statement: str) -> list[Any]:
    """The rows of any SELECT."""
    store = _open(url)
    try:
        return store.read(lambda conn: [tuple(row) for row in conn.execute(sa.text(statement))])
    finally:
        store.close()


def _all_of(conn: sa.Connection, table: sa.Table) -> list[dict[str, Any]]:
    return [dict(row._mapping) for row in conn.execute(sa.select(table))]


def copy_target(source: str, target: str) -> None:
    """Fill an empty target with everything that another one holds."""
    old = _open(source)
    new = open_target(parse_target(target), TargetOptions())
    try:
        new.ensure_schema()
        pairs = zip(old.tables.all(), new.tables.all(), strict=True)
        rows = {
            table: old.read(lambda conn, t=original: _all_of(conn, t)) for original, table in pairs
        }

        def work(conn: sa.Connection) -> None:
            for table, held in rows.items():
                if held:
                    conn.execute(sa.insert(table), held)
                if new.kind == "postgresql":
                    _go_on_counting(conn, table, held)

        new.transact(work)
    finally:
        old.close()
        new.close()


def _go_on_counting(conn: sa.Connection, table: sa.Table, held: list[dict[str, Any]]) -> None:
    """The next row gets a number of its own."""
    for column in table.primary_key:
        named = sa.select(sa.func.pg_get_serial_sequence(table.name, column.name))
        if (sequence := conn.scalar(named)) is not None:
            highest = max((row[column.name] for row in held), default=0) + 1
            conn.execute(sa.text(f"ALTER SEQUENCE {sequence} RESTART WITH {highest}"))
