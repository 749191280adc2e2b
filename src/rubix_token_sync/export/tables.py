"""What can be exported: each table with its columns, and which filters have a meaning there."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields
from datetime import datetime, timedelta
from typing import Any, Final

import pyarrow as pa
import sqlalchemy as sa

from rubix_token_sync.audit.questions import Finding, FindingFilters
from rubix_token_sync.audit.rules import RULES
from rubix_token_sync.errors import SettingsError
from rubix_token_sync.export.findings import all_findings, plain
from rubix_token_sync.export.parquet import in_utc
from rubix_token_sync.history.moments import Runs
from rubix_token_sync.history.versions import records_as_of, versions
from rubix_token_sync.records.companions import CHAINS, PLEDGES, TRANSACTIONS
from rubix_token_sync.records.schema import RECORDS, RecordTable
from rubix_token_sync.targets.sql.target import SqlTarget
from rubix_token_sync.text import json_text

__all__ = ["PAST_RECORDS", "TABLES", "ExportFilters", "ExportTable"]

_ROWS_AT_ONCE: Final = 2_000
"""Contents have up to 50 KB: more rows would be too much memory."""

_NUMBERS: Final = frozenset(
    {"weight", "first_seen_run", "last_seen_run", "reopened", "changed_run"}
)


@dataclass(frozen=True)
class ExportFilters:
    """Which rows; empty means all that the nodes still have."""

    sources: tuple[str, ...] = ()
    nodes: tuple[str, ...] = ()
    dids: tuple[str, ...] = ()
    kinds: tuple[str, ...] = ()
    since: timedelta | None = None
    """An age by the target's clock: rows that changed in the target within it."""
    as_of: Runs | None = None
    """What the target held after these runs."""


@dataclass(frozen=True)
class ExportTable:
    """One table: its columns, and how its rows are counted and read in a moment of a target."""

    name: str
    says: str
    """For people: what it holds."""
    schema: pa.Schema
    filters: frozenset[str]
    """Names in `ExportFilters` that have a meaning here."""
    count: Callable[[SqlTarget, sa.Connection, ExportFilters, datetime], int]
    read: Callable[[SqlTarget, sa.Connection, ExportFilters, datetime], Iterator[pa.RecordBatch]]

    def check(self, filters: ExportFilters) -> None:
        """
        Raises:
            SettingsError: a filter is given that this table knows nothing of.
        """
        given = {f.name for f in fields(filters) if getattr(filters, f.name)}
        if unknown := sorted(given - self.filters):
            raise SettingsError(
                f"{self.name} cannot be filtered by {' or '.join(unknown)}.",
                code="export_filter",
                remedy=f"They can be by {', '.join(sorted(self.filters))}.",
            )


def _stored(
    columns: RecordTable,
    name: str,
    says: str,
    dids: tuple[str, ...],
    *,
    fields: Sequence[pa.Field] | None = None,
    rows_of: Callable[[SqlTarget, ExportFilters], sa.FromClause] | None = None,
    filters: Sequence[str] = ("since",),
    order: Sequence[str] = ("record_key",),
    vanished: bool = False,
) -> ExportTable:
    """A table of records; ``dids`` are its columns that hold DIDs.

    Its rows are those of the target's table, or of ``rows_of``, with ``fields``; ``vanished``
    ones, too.
    """
    schema = in_utc(pa.schema(_fields(columns) if fields is None else fields))

    def source(store: SqlTarget, filters: ExportFilters) -> sa.FromClause:
        if rows_of is not None:
            return rows_of(store, filters)
        return store.tables.stored[columns.name].table

    def chosen(
        source: sa.FromClause, filters: ExportFilters, now: datetime, query: sa.Select[Any]
    ) -> sa.Select[Any]:
        rows = source.c
        if not vanished:
            query = query.where(rows.source_deleted_at.is_(None))
        for column, wanted in (
            ("source_ip", filters.sources),
            ("node_name", filters.nodes),
            ("token_kind", filters.kinds),
        ):
            if wanted:
                query = query.where(rows[column].in_(wanted))
        if filters.dids:
            query = query.where(sa.or_(*(rows[did].in_(filters.dids) for did in dids)))
        if filters.since is not None:
            query = query.where(rows.synced_at >= now - filters.since)
        return query

    def count(store: SqlTarget, conn: sa.Connection, filters: ExportFilters, now: datetime) -> int:
        rows = source(store, filters)
        query = sa.select(sa.func.count()).select_from(rows)
        return int(conn.execute(chosen(rows, filters, now, query)).scalar_one())

    def read(
        store: SqlTarget, conn: sa.Connection, filters: ExportFilters, now: datetime
    ) -> Iterator[pa.RecordBatch]:
        rows = source(store, filters)
        query = sa.select(*(rows.c[field.name] for field in schema))
        query = query.order_by(*(rows.c[key] for key in order))
        streamed = conn.execution_options(yield_per=_ROWS_AT_ONCE)
        for block in streamed.execute(chosen(rows, filters, now, query)).partitions():
            arrays = [
                pa.array(values, field.type)
                for values, field in zip(zip(*block, strict=True), schema, strict=True)
            ]
            yield pa.RecordBatch.from_arrays(arrays, schema=schema)

    meaningful = {"sources", "nodes", *filters} | ({"dids"} if dids else set())
    if "token_kind" in schema.names:
        meaningful.add("kinds")
    return ExportTable(name, says, schema, frozenset(meaningful), count, read)


def _fields(columns: RecordTable, *, without: Sequence[str] = ()) -> list[pa.Field]:
    return [
        pa.field(c.name, c.arrow, nullable=not c.required)
        for c in columns.columns
        if c.name not in without
    ]


def _past_records() -> ExportTable:
    """TokenRecords as some runs left it."""

    def rows_of(store: SqlTarget, filters: ExportFilters) -> sa.FromClause:
        assert filters.as_of is not None
        return records_as_of(store.tables, filters.as_of)

    return _stored(
        RECORDS,
        "records",
        "",
        ("did",),
        fields=_fields(RECORDS, without=["row_digest"]),
        rows_of=rows_of,
        filters=["as_of"],
    )


def _history() -> ExportTable:
    """Every version of every record, the present ones too."""
    return _stored(
        RECORDS,
        "history",
        "every version of every record; one that is still so has no `ended_run`",
        ("did",),
        fields=[
            *_fields(RECORDS, without=["row_digest", "ipfs_data", "since_run"]),
            pa.field("since_run", pa.int64(), nullable=False),
            pa.field("ended_run", pa.int64()),
            pa.field("changed", pa.string()),
            pa.field("source_deleted_at", pa.timestamp("us")),
        ],
        rows_of=lambda store, _filters: versions(store.tables),
        filters=[],
        order=["record_key", "since_run"],
        vanished=True,
    )


def _findings() -> ExportTable:
    """Findings of every state; the evidence of each as JSON."""
    names = [f.name for f in fields(Finding)]
    kinds = {
        name: pa.timestamp("us", tz="UTC")
        if name.endswith(("_at", "_until"))
        else pa.int64()
        if name in _NUMBERS
        else pa.string()
        for name in names
    }
    schema = pa.schema(list(kinds.items()))

    def chosen(filters: ExportFilters) -> FindingFilters:
        return FindingFilters(nodes=filters.nodes, since=filters.since)

    def count(
        store: SqlTarget, conn: sa.Connection, _filters: ExportFilters, _now: datetime
    ) -> int:
        query = sa.select(sa.func.count()).select_from(store.tables.audit.findings)
        return int(conn.execute(query).scalar_one())

    def read(
        store: SqlTarget, conn: sa.Connection, filters: ExportFilters, now: datetime
    ) -> Iterator[pa.RecordBatch]:
        for block in all_findings(conn, store.tables, RULES, chosen(filters), now):
            arrays = []
            for name, kind in kinds.items():
                values = [getattr(one, name) for one in block]
                if name == "evidence":
                    values = [json_text(plain(one)["evidence"], indent=None) for one in block]
                arrays.append(pa.array(values, kind))
            yield pa.RecordBatch.from_arrays(arrays, schema=schema)

    return ExportTable(
        "findings",
        "what audits found, of every state, each with its evidence as JSON",
        schema,
        frozenset({"nodes", "since"}),
        count,
        read,
    )


TABLES: Final = {
    table.name: table
    for table in (
        _stored(RECORDS, "records", "the tokens that the nodes have, with their content", ("did",)),
        _stored(
            TRANSACTIONS,
            "transactions",
            "what nodes took part in, as sender, receiver or deployer",
            ("sender_did", "receiver_did", "deployer_did"),
        ),
        _stored(PLEDGES, "pledges", "what quorum members pledged", ("did",)),
        _stored(CHAINS, "chains", "where the chain of each token has got to (`--chains`)", ()),
        _findings(),
        _history(),
    )
}
"""By name."""

PAST_RECORDS: Final = _past_records()
"""What `records` is as of a moment: all but the digest of a row, which no version keeps."""
