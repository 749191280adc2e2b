"""What runs changed in one database, run by run, without a look at all the others.

`changes.count_changes` looks at every record that was added since, which after a first sync are
all of them.  This looks at one database's rows: old versions by the range of their keys, new
records by the index of paths.  Where even those are many, the newest runs are counted, and the
answer says from which run on.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

import sqlalchemy as sa

from rubix_token_sync.history.change_counts import ChangeCounts, CountedChanges
from rubix_token_sync.history.moments import Runs
from rubix_token_sync.history.parts import REPLACED, SPARE_IDS, Axis, among, is_first, what_changed
from rubix_token_sync.records.schema import RECORDS, database_key
from rubix_token_sync.targets.sql.functions import exactly, unindexed
from rubix_token_sync.targets.sql.history import was_there
from rubix_token_sync.targets.sql.questions import key_range
from rubix_token_sync.targets.sql.tables import Tables

__all__ = ["DatabaseName", "count_database_changes"]

_MOST_ROWS: Final = 100_000
"""New records, and old versions, that are looked at: 0.1 s of a processor each."""


@dataclass(frozen=True)
class DatabaseName:
    """One database of one node."""

    source_ip: str
    node_name: str
    db_path: str


@dataclass(frozen=True)
class _Asked:
    """The runs that are asked for: those of ``until`` that ``since`` has not."""

    since: Runs
    until: Runs
    most: int
    first_id: int
    """Records that these runs added have higher ids."""

    def holds(self, run: sa.ColumnElement[int]) -> sa.ColumnElement[bool]:
        return among(run, self.since, self.until)


def count_database_changes(
    conn: sa.Connection,
    tables: Tables,
    databases: Iterable[DatabaseName],
    since: Runs,
    until: Runs,
    *,
    most: int = _MOST_ROWS,
) -> CountedChanges:
    """Changes of the runs that ``until`` has and ``since`` has not; ``most`` rows are looked at.

    Raises:
        SettingsError: history before them was removed.
    """
    axis = Axis.read(conn, tables, since, until)
    ended = axis.ended
    asked = _Asked(since, until, most, axis.first_id())
    found: dict[tuple[int, str, str], ChangeCounts] = {}
    counted_from = 0
    for one in databases:

        def counts(run: int, one: DatabaseName = one) -> ChangeCounts:
            place = (run, one.source_ip, one.node_name)
            made = ChangeCounts(one.source_ip, one.node_name, run, ended.get(run))
            return found.setdefault(place, made)

        new, new_from = _added(conn, tables, one, asked)
        key = _key_of(conn, tables, one)
        old_from, only = _newest_replaced(conn, tables, one, key, asked)
        for run, number in new.items():
            counts(run).new += number
        for run, changed, here, number in _replaced(conn, tables, key, asked, only):
            columns, what = what_changed(changed, here)
            row = counts(run)
            setattr(row, what, getattr(row, what) + number)
            totals = Counter(row.columns)
            totals.update(dict.fromkeys(columns, number))
            row.columns = dict(sorted(totals.items()))
        for run, number in _added_before(conn, tables, key, asked, only).items():
            counts(run).new += number
        counted_from = max(counted_from, new_from, old_from)
    whole = [found[place] for place in sorted(found) if place[0] >= counted_from]
    return CountedChanges(whole, counted_from)


def _key_of(conn: sa.Connection, tables: Tables, one: DatabaseName) -> bytes:
    """As the mark has it: a path may be cut there; before its first mark, as a sync makes it."""
    c = tables.databases.c
    query = sa.select(c.database_key).where(
        exactly(c.source_ip, sa.literal(one.source_ip)), exactly(c.db_path, sa.literal(one.db_path))
    )
    found = conn.execute(query).scalar()
    return database_key(one.source_ip, one.db_path) if found is None else bytes(found)


def _added(
    conn: sa.Connection, tables: Tables, one: DatabaseName, asked: _Asked
) -> tuple[dict[int, int], int]:
    """Run → records that it added, unchanged since; and the first run of which these are all."""
    r = tables.records.c
    path = exactly(r.db_path, sa.literal(one.db_path[:500]))
    # The newest ids alone, which the index of paths has: no record is looked at for this.
    bound = (
        sa.select(r.id)
        .where(path, r.id > asked.first_id)
        .order_by(r.id.desc())
        .offset(asked.most)
        .limit(1)
    )
    cut = conn.execute(bound).scalar()
    query = (
        sa.select(r.since_run, sa.func.count())
        .where(
            path,
            exactly(unindexed(r.source_ip), sa.literal(one.source_ip)),
            r.id > (asked.first_id if cut is None else cut),
            asked.holds(r.since_run),
            is_first(_history(tables), tables.records),
        )
        .group_by(r.since_run)
    )
    found: dict[int, int] = {row[0]: row[1] for row in conn.execute(query)}
    if cut is None:
        return found, 0
    runs = tables.runs.c
    before = sa.select(sa.func.max(runs.number)).where(
        runs.number > asked.since.upto, runs.last_record_id - SPARE_IDS < cut
    )
    return found, (conn.execute(before).scalar() or 0) + 1


def _newest_replaced(
    conn: sa.Connection, tables: Tables, one: DatabaseName, key: bytes, asked: _Asked
) -> tuple[int, list[int] | None]:
    """From which run on old versions are looked at, and the runs that ended some; None: all.

    A database has at most ``most`` of them, or those of the newest runs are looked at: how many a
    run ended is kept with it.
    """
    history, runs, marks = _history(tables), tables.runs.c, tables.databases.c
    of_this = history.c.record_key.between(*key_range(key))
    versions = sa.select(history.c.ended_run).where(of_this).order_by(history.c.record_key)
    if conn.execute(versions.offset(asked.most).limit(1)).first() is None:
        return 0, None
    of_another = sa.exists().where(
        marks.source_ip == runs.source_ip, marks.source_ip != one.source_ip
    )
    query = (
        sa.select(runs.number, runs.ended_at, *(runs[name] for name in REPLACED))
        .where(runs.number > asked.since.upto, ~of_another)
        .order_by(runs.number.desc())
    )
    left, only = asked.most, list[int]()
    for number, ended_at, *kept in conn.execute(query).all():
        left -= sum(kept)
        if left < 0:
            return number + 1, only
        if sum(kept) or ended_at is None:
            only.append(number)
    return 0, only


def _replaced(
    conn: sa.Connection, tables: Tables, key: bytes, asked: _Asked, only: list[int] | None
) -> list[tuple[int, str, bool, int]]:
    """Run, what it changed, whether the node had them, how many records."""
    history = _history(tables)
    here = was_there(history)
    query = (
        sa.select(history.c.ended_run, history.c.changed, here, sa.func.count())
        .where(*_ended(history, key, asked, only), asked.holds(unindexed(history.c.ended_run)))
        .group_by(history.c.ended_run, history.c.changed, here)
    )
    return [(row[0], row[1], bool(row[2]), row[3]) for row in conn.execute(query)]


def _added_before(
    conn: sa.Connection, tables: Tables, key: bytes, asked: _Asked, only: list[int] | None
) -> dict[int, int]:
    """Run → records that it added, of those that were changed since."""
    history = _history(tables)
    h = history.c
    query = (
        sa.select(h.since_run, sa.func.count())
        .where(
            *_ended(history, key, asked, only),
            asked.holds(h.since_run),
            is_first(history, history),
        )
        .group_by(h.since_run)
    )
    return {row[0]: row[1] for row in conn.execute(query)}


def _ended(
    history: sa.Table, key: bytes, asked: _Asked, only: list[int] | None
) -> list[sa.ColumnElement[bool]]:
    """Old versions of the database's records, those that these runs ended or all later ones."""
    within = history.c.record_key.between(*key_range(key))
    if only is not None:
        return [within, history.c.ended_run.in_(only)]
    return [within, unindexed(history.c.ended_run) > asked.since.upto]


def _history(tables: Tables) -> sa.Table:
    history = tables.stored[RECORDS.name].history
    assert history is not None
    return history
