"""The tables of history: runs, which are its axis, and old versions of records.

As of run R, a record is what TokenRecords says where its ``since_run`` is R or less, and else
the old version that began by R and was ended by a later run.  Numbers of runs grow with the
leases that are taken, so a record's versions follow each other without a gap.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import sqlalchemy as sa

from rubix_token_sync.records.schema import RECORD_KEY_BYTES, RecordTable
from rubix_token_sync.targets.sql.column_types import ID, TIME, UUID, fixed_bytes, type_of

__all__ = ["RUN_COUNTS", "add_history", "add_runs", "all_versions"]

RUN_COUNTS: Final = (
    "records_changed",
    "owners_changed",
    "statuses_changed",
    "records_vanished",
    "records_returned",
)
"""What a row of SyncRuns says of the run's work, in records."""


def add_runs(metadata: sa.MetaData, name: Callable[[str], str]) -> sa.Table:
    """Add SyncRuns to ``metadata``; ``name`` spells a table's name."""
    runs = sa.Table(
        name("SyncRuns"),
        metadata,
        # Grows with every lease that is taken; nobody waits for anybody to get one.
        sa.Column("number", ID, primary_key=True, autoincrement=True),
        sa.Column("session_id", UUID, nullable=False),
        # The lease's: a machine, or `audit`.
        sa.Column("source_ip", sa.Unicode(45), nullable=False),
        sa.Column("began_at", TIME, nullable=False),
        # After it nothing is written under this number; NULL: the run is under way.
        sa.Column("ended_at", TIME),
        # The highest id in TokenRecords when it began: records that it added have higher ones.
        sa.Column("last_record_id", sa.BigInteger(), nullable=False),
        # What it replaced in TokenRecords, counted when it ended.
        *(
            sa.Column(column, sa.BigInteger(), nullable=False, server_default=sa.text("0"))
            for column in RUN_COUNTS
        ),
        # When retention removed the versions that it ended.
        sa.Column("pruned_at", TIME),
    )
    sa.Index("ix_syncruns_session_id", runs.c.session_id)
    sa.Index("ix_syncruns_source_ip", runs.c.source_ip, runs.c.number)
    return runs


def add_history(
    metadata: sa.MetaData, columns: RecordTable, name: Callable[[str], str]
) -> sa.Table:
    """Add the old versions of a table of records: what runs replaced, as it was.

    The key makes a replay harmless: a run ends at most one version of a record.
    """
    history = sa.Table(
        name(columns.history),
        metadata,
        sa.Column("record_key", fixed_bytes(RECORD_KEY_BYTES), primary_key=True, nullable=False),
        sa.Column("ended_run", sa.BigInteger(), primary_key=True, autoincrement=False),
        sa.Column("since_run", sa.BigInteger(), nullable=False),
        # Names of columns with commas between; empty where no column shows the change.
        sa.Column("changed", sa.Unicode(1000), nullable=False),
        *(sa.Column(column.name, type_of(column)) for column in columns.kept),
        sa.Column("source_deleted_at", TIME),
        sqlite_with_rowid=False,
    )
    sa.Index(f"ix_{columns.history.lower()}_ended_run", history.c.ended_run)
    return history


def all_versions(
    columns: RecordTable, records: sa.Table, history: sa.Table
) -> sa.CompoundSelect[Any]:
    """Every version of every record: the present ones (``ended_run`` NULL) and the old ones.

    ``changed`` says what its end changed.  Content is shown with each version that had it.
    """
    keyed = [c.name for c in columns.columns if c.by_key and c.name != "record_key"]
    kept = [*(c.name for c in columns.kept), "source_deleted_at"]
    present: list[sa.ColumnElement[Any]] = [
        records.c.id,
        records.c.record_key,
        sa.func.coalesce(records.c.since_run, 0).label("since_run"),
        sa.cast(sa.null(), sa.BigInteger()).label("ended_run"),
        sa.cast(sa.null(), history.c.changed.type).label("changed"),
        *(records.c[name] for name in (*keyed, *kept)),
        records.c.ipfs_data,
    ]
    had_content = sa.case((history.c.ipfs_fetched == sa.true(), records.c.ipfs_data))
    old: list[sa.ColumnElement[Any]] = [
        records.c.id,
        history.c.record_key,
        history.c.since_run,
        history.c.ended_run,
        history.c.changed,
        *(records.c[name] for name in keyed),
        *(history.c[name] for name in kept),
        had_content.label("ipfs_data"),
    ]
    joined = history.join(records, records.c.record_key == history.c.record_key)
    return sa.union_all(sa.select(*present), sa.select(*old).select_from(joined))
