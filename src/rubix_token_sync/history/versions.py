"""Records as they were: versions of a token, holdings of databases, what each run did to a node."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import sqlalchemy as sa

from rubix_token_sync.history.moments import Runs
from rubix_token_sync.records.schema import RECORDS
from rubix_token_sync.targets.sql.functions import cased
from rubix_token_sync.targets.sql.history_tables import all_versions
from rubix_token_sync.targets.sql.tables import Tables

__all__ = ["PastDatabase", "Version", "databases_as_of", "records_as_of", "versions", "versions_of"]

_COLUMNS: Final = tuple(column.name for column in RECORDS.told_apart)


@dataclass(frozen=True)
class Version:
    """A record for as long as it was the same.  Times are ends of runs, by the target's clock."""

    source_ip: str
    node_name: str
    db_path: str
    token_id: str | None
    token_kind: str
    since_run: int
    """The run that brought it; 0: before history began."""
    since: datetime | None
    until_run: int | None
    """The run that replaced it; None: it is as it was."""
    until: datetime | None
    changed: list[str]
    """What that run changed; `source_deleted_at`: the node no longer had it, or had it again."""
    gone: bool
    """The node did not have it."""
    values: dict[str, Any]
    """What the node said of it, its verdict, and the state of its content."""


@dataclass(frozen=True)
class PastDatabase:
    """What a target held of a database."""

    source_ip: str
    node_name: str
    db_path: str
    record_count: int
    ipfs_success_count: int
    ipfs_fail_count: int
    validation_error_count: int


def versions(tables: Tables) -> sa.Subquery:
    """Every version of every record; the present ones have no ``ended_run``."""
    stored = tables.stored[RECORDS.name]
    assert stored.history is not None
    return all_versions(stored.columns, stored.table, stored.history).subquery("versions")


def records_as_of(tables: Tables, runs: Runs) -> sa.Subquery:
    """Stands for TokenRecords, as these runs left it; it lacks keys and digests of rows."""
    found = versions(tables)
    v = found.c
    still = sa.or_(v.ended_run.is_(None), ~runs.holds(v.ended_run))
    return sa.select(found).where(runs.holds(v.since_run), still).subquery("as_of")


def versions_of(
    conn: sa.Connection,
    tables: Tables,
    *,
    token_id: str,
    sources: Sequence[str] = (),
    nodes: Sequence[str] = (),
) -> list[Version]:
    """Every version of a token, holder by holder, the oldest first."""
    found = versions(tables)
    v, runs = found.c, tables.runs
    began, ended = runs.alias("began"), runs.alias("ended")
    joined = found.outerjoin(began, began.c.number == v.since_run).outerjoin(
        ended, ended.c.number == v.ended_run
    )
    query = (
        sa.select(found, began.c.ended_at.label("since"), ended.c.ended_at.label("until"))
        .select_from(joined)
        .where(v.token_id == token_id[:500])
        .order_by(v.source_ip, v.db_path, v.record_key, v.since_run)
    )
    if sources:
        query = query.where(v.source_ip.in_(sources))
    if nodes:
        query = query.where(v.node_name.in_(nodes))
    # A collation may ignore case.
    return [_version(row) for row in conn.execute(query) if row.token_id == token_id[:500]]


def _version(row: sa.Row[Any]) -> Version:
    held = row._mapping
    values = {name: held[name] for name in _COLUMNS if held[name] is not None}
    values["ipfs_fetched"] = bool(row.ipfs_fetched)
    del values["node_name"]
    return Version(
        source_ip=row.source_ip,
        node_name=row.node_name,
        db_path=row.db_path,
        token_id=row.token_id,
        token_kind=row.token_kind,
        since_run=row.since_run,
        since=row.since,
        until_run=row.ended_run,
        until=row.until,
        changed=[name for name in (row.changed or "").split(",") if name],
        gone=row.source_deleted_at is not None,
        values=values,
    )


def databases_as_of(
    conn: sa.Connection,
    tables: Tables,
    runs: Runs,
    *,
    sources: Sequence[str] = (),
    nodes: Sequence[str] = (),
) -> list[PastDatabase]:
    """What the target held of each database, counted from its records."""
    v = records_as_of(tables, runs).c
    content: sa.ColumnElement[int] = sa.case((v.ipfs_fetched == sa.true(), 1), else_=0)
    place = cased(v.source_ip), cased(v.db_path)
    query = (
        sa.select(
            place[0].label("source_ip"),
            sa.func.max(v.node_name).label("node_name"),
            place[1].label("db_path"),
            sa.func.count().label("records"),
            sa.func.sum(content).label("content"),
            sa.func.count(v.validation_errors).label("invalid"),
        )
        .where(v.source_deleted_at.is_(None))
        .group_by(*place)
        .order_by(*place)
    )
    if sources:
        query = query.where(v.source_ip.in_(sources))
    if nodes:
        query = query.where(v.node_name.in_(nodes))
    return [
        PastDatabase(
            row.source_ip,
            row.node_name,
            row.db_path,
            row.records,
            int(row.content),
            row.records - int(row.content),
            row.invalid,
        )
        for row in conn.execute(query)
    ]
