"""Answers from a target: records as Arrow, databases, sessions, errors, how it stands."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import Any, Final, TypedDict, Unpack

import pyarrow as pa
import sqlalchemy as sa

from rubix_token_sync.audit.decisions import find_one
from rubix_token_sync.audit.findings import OPEN
from rubix_token_sync.audit.questions import (
    AuditRow,
    Finding,
    FindingFilters,
    list_audits,
    list_findings,
)
from rubix_token_sync.audit.rules import RULES
from rubix_token_sync.audit.token_view import TokenView, read_token
from rubix_token_sync.errors import SettingsError, TargetRefused
from rubix_token_sync.history.moments import WhenText
from rubix_token_sync.history.versions import records_as_of
from rubix_token_sync.library.browsing import Category, PageReader
from rubix_token_sync.library.configuration import (
    CallSettings,
    Configuration,
    PathName,
    configured,
)
from rubix_token_sync.library.gaps import GapReader
from rubix_token_sync.library.history import PastReader
from rubix_token_sync.library.work import rules_of
from rubix_token_sync.monitor.answers import at_one_moment
from rubix_token_sync.monitor.databases import DatabaseRow, list_databases
from rubix_token_sync.monitor.export import export_errors
from rubix_token_sync.monitor.failures import FailureReport, failure_report
from rubix_token_sync.monitor.filters import Filters
from rubix_token_sync.monitor.health import Status, read_status
from rubix_token_sync.monitor.problems import Problem, judge_databases
from rubix_token_sync.monitor.runs import STUCK_SECONDS, RunRow, Trend, list_runs, trend
from rubix_token_sync.nodes.keep_out import keep_out
from rubix_token_sync.records.schema import RECORD_SCHEMA
from rubix_token_sync.targets.base import SCHEMA_VERSION
from rubix_token_sync.targets.registry import open_target as open_store
from rubix_token_sync.targets.sql.target import SqlTarget

__all__ = [
    "RECORD_COLUMNS",
    "TargetReader",
    "open_target",
]

_OWN: Final = (pa.field("id", pa.int64(), nullable=False),)
_TIMES: Final = (
    pa.field("synced_at", pa.timestamp("us")),
    pa.field("source_deleted_at", pa.timestamp("us")),
)
_ALL: Final = pa.schema(
    [
        *_OWN,
        *(f for f in RECORD_SCHEMA if f.name not in ("record_key", "row_digest")),
        *_TIMES,
    ]
)

RECORD_COLUMNS: Final = tuple(_ALL.names)
"""Columns of `TargetReader.records`: those of TokenRecords, without keys and digests."""

BATCH_ROWS: Final = 10_000


class RecordFilters(TypedDict, total=False):
    """Which records; without any of these, all that the nodes have.

    ``databases`` are paths.  ``with_content`` True or False keeps those that have verified
    content or lack it.  ``deleted`` False (where nothing is said) keeps what the nodes still
    have, True what has vanished from them, None both.
    """

    sources: Sequence[str]
    nodes: Sequence[str]
    databases: Sequence[str]
    token_ids: Sequence[str]
    dids: Sequence[str]
    with_content: bool | None
    deleted: bool | None


class TargetReader(PastReader, PageReader, GapReader):
    """A target, opened for reading; a context that gives its connections back.

    ``since`` and ``max_age`` are ages, counted back from the target's clock; empty
    ``sources`` (machines), ``nodes`` (names) and the like mean all.  Times in answers are
    the target's, UTC without a zone.  Every method raises `TargetError` where the target
    cannot be asked.
    """

    def __init__(self, configuration: Configuration, store: SqlTarget) -> None:
        self._configuration = configuration
        self._store = store

    @property
    def place(self) -> str:
        """Where it is, for people; no secrets."""
        return self._store.place

    @property
    def schema_version(self) -> str:
        """The version of its tables."""
        return SCHEMA_VERSION

    def server_time(self) -> datetime:
        """The target's clock."""
        return self._store.server_time()

    def identity(self) -> str:
        """The same text for every way to the same database; no secrets."""
        return self._store.identity()

    def copy_into(self, file: Path) -> None:
        """Copy an embedded target, as of one moment, into an empty file (see `back_up`)."""
        self._store.copy_into(file)

    def close(self) -> None:
        """Give back every connection."""
        self._store.close()

    def __enter__(self) -> TargetReader:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    # ---------------------------------------------------------------- records

    def records(
        self,
        *,
        columns: Sequence[str] | None = None,
        limit: int | None = None,
        as_of: WhenText | None = None,
        **filters: Unpack[RecordFilters],
    ) -> pa.Table:
        """Records in memory; `record_batches` gives them bit by bit.

        ``columns`` are some of `RECORD_COLUMNS`; ``as_of``: as they were then (`PastReader`).
        """
        return self.record_batches(columns=columns, limit=limit, as_of=as_of, **filters).read_all()

    def record_batches(
        self,
        *,
        columns: Sequence[str] | None = None,
        limit: int | None = None,
        as_of: WhenText | None = None,
        **filters: Unpack[RecordFilters],
    ) -> pa.RecordBatchReader:
        """Records in order of ``id``, in batches of at most 10,000; filters as in `records`.

        They are what one statement sees: one moment of the target, however long reading
        takes.  Memory holds one batch.
        """
        if unknown := filters.keys() - RecordFilters.__annotations__.keys():
            raise TypeError(f"records have no filter {', '.join(sorted(unknown))}")
        schema = _ALL if columns is None else pa.schema([_field(name) for name in columns])
        table: sa.FromClause = self._store.tables.records
        if as_of is not None:
            table = records_as_of(self._store.tables, self._moment(as_of))
        query = sa.select(*(table.c[name] for name in schema.names)).order_by(table.c.id)
        for column, wanted in (
            ("source_ip", filters.get("sources", ())),
            ("node_name", filters.get("nodes", ())),
            ("db_path", [path[:500] for path in filters.get("databases", ())]),
            ("token_id", filters.get("token_ids", ())),
            ("did", filters.get("dids", ())),
        ):
            if isinstance(wanted, str):
                raise TypeError(f"a list of values is wanted for {column}, not one text")
            if wanted:
                query = query.where(table.c[column].in_(wanted))
        with_content, deleted = filters.get("with_content"), filters.get("deleted", False)
        if with_content is not None:
            query = query.where(table.c.ipfs_fetched == (sa.true() if with_content else sa.false()))
        if deleted is not None:
            gone = table.c.source_deleted_at
            query = query.where(gone.is_not(None) if deleted else gone.is_(None))
        if limit is not None:
            query = query.limit(limit)
        return pa.RecordBatchReader.from_batches(schema, self._batches(query, schema))

    def _batches(self, query: sa.Select[Any], schema: pa.Schema) -> Iterator[pa.RecordBatch]:
        with self._store.view() as conn:
            streamed = conn.execution_options(yield_per=BATCH_ROWS).execute(query)
            for block in streamed.partitions():
                columns = list(zip(*block, strict=True))
                arrays = [
                    pa.array(values, f.type) for values, f in zip(columns, schema, strict=True)
                ]
                yield pa.RecordBatch.from_arrays(arrays, schema=schema)

    # ---------------------------------------------------------------- runs and nodes

    def status(
        self,
        *,
        sources: Sequence[str] = (),
        nodes: Sequence[str] = (),
        max_age: timedelta | None = None,
        stuck_after: timedelta = timedelta(seconds=STUCK_SECONDS),
    ) -> Status:
        """How it stands: runs under way, every machine, and what is wrong."""
        filters = Filters(sources=tuple(sources), nodes=tuple(nodes))
        rules = rules_of(self._configuration.settings, max_age=max_age)
        return at_one_moment(
            self._store,
            lambda asked, now: read_status(
                asked, filters, now, stuck_seconds=stuck_after.total_seconds(), rules=rules
            ),
        )

    def sessions(
        self,
        *,
        since: timedelta | None = None,
        sources: Sequence[str] = (),
        statuses: Sequence[str] = (),
        limit: int = 20,
        stuck_after: timedelta = timedelta(seconds=STUCK_SECONDS),
    ) -> list[RunRow]:
        """Runs, the newest first."""
        filters = Filters(
            since=since, sources=tuple(sources), statuses=tuple(statuses), limit=limit
        )
        stuck = stuck_after.total_seconds()
        return at_one_moment(
            self._store, lambda asked, now: list_runs(asked, filters, now, stuck_seconds=stuck)
        )

    def trend(self, runs: Sequence[RunRow]) -> Trend:
        """What the runs that `sessions` gave say together."""
        return trend(runs)

    def databases(
        self,
        *,
        since: timedelta | None = None,
        sources: Sequence[str] = (),
        nodes: Sequence[str] = (),
        max_age: timedelta | None = None,
    ) -> list[DatabaseRow]:
        """Every database: records, content missing by reason, state, age."""
        filters = Filters(since=since, sources=tuple(sources), nodes=tuple(nodes))
        return at_one_moment(
            self._store, lambda asked, now: list_databases(asked, filters, now, max_age=max_age)
        )

    def problems_of(self, databases: Sequence[DatabaseRow]) -> list[Problem]:
        """What is wrong with databases that `databases` gave."""
        return judge_databases(databases, rules_of(self._configuration.settings))

    def errors(
        self,
        *,
        since: timedelta | None = None,
        sources: Sequence[str] = (),
        nodes: Sequence[str] = (),
        category: Category | None = None,
        limit: int = 20,
        by_node: bool = True,
    ) -> FailureReport:
        """What failed, by category and reason, with an example of each.

        ``by_node``: and the records of each node; with ``since``, every one of that time is
        looked at for it.
        """
        filters = Filters(since, tuple(nodes), tuple(sources), category, (), limit)
        return at_one_moment(
            self._store, lambda asked, now: failure_report(asked, filters, now, by_node=by_node)
        )

    # ---------------------------------------------------------------- the audit

    def findings(
        self,
        *,
        severities: Sequence[str] = (),
        rules: Sequence[str] = (),
        nodes: Sequence[str] = (),
        states: Sequence[str] = OPEN,
        since: timedelta | None = None,
        token_id: str | None = None,
        limit: int | None = None,
    ) -> list[Finding]:
        """What audits found, the worst first, each with the records that it was seen in.

        ``states`` are by default those that are open and not suppressed; ``since`` is an age:
        findings that an audit changed within it.
        """
        filters = FindingFilters(
            severities=tuple(severities),
            rules=tuple(rules),
            nodes=tuple(nodes),
            states=tuple(states),
            since=since,
            token_id=token_id,
            limit=limit,
        )
        now = self._store.server_time()
        return self._store.read(
            lambda conn: list_findings(conn, self._store.tables, RULES, filters, now)
        )

    def finding(self, reference: str) -> Finding:
        """One finding with its evidence, whatever its state.

        ``reference`` is its fingerprint or the beginning of it, its token id, or RULE:TOKEN.

        Raises:
            SettingsError: none or several go by this name.
        """
        now = self._store.server_time()
        return self._store.read(lambda conn: find_one(conn, self._store, reference, now))

    def token(self, token_id: str) -> TokenView:
        """Everything that the target knows of one token; no holders: it is not known."""
        now = self._store.server_time()
        return self._store.read(
            lambda conn: read_token(conn, self._store.tables, RULES, token_id, now)
        )

    def audits(self, *, limit: int = 20) -> list[AuditRow]:
        """Audits with their scope, the newest first."""
        return self._store.read(lambda conn: list_audits(conn, self._store.tables, limit))

    # ---------------------------------------------------------------- files

    def export_errors(
        self,
        file: PathName,
        *,
        since: timedelta | None = None,
        sources: Sequence[str] = (),
        nodes: Sequence[str] = (),
        category: Category | None = None,
    ) -> int:
        """Write every error into a file (``.csv``, else JSON lines); returns how many.

        Raises:
            SettingsError: it cannot be written, or would be inside a node's directory.
        """
        keep_out(file, "The list of errors", "file")
        filters = Filters(since, tuple(nodes), tuple(sources), category)
        return export_errors(self._store, filters, self._store.server_time(), Path(file))


def open_target(
    target: str | None = None,
    /,
    **settings: Unpack[CallSettings],
) -> TargetReader:
    """Open a target for reading.

    ``target`` is ``sqlite:///FILE``, ``postgresql://…`` or ``mssql://…``; without it, it
    is the one that the settings name.

    Raises:
        SettingsError: the address or a setting is wrong.
        TargetError: it cannot be reached, or no sync has made its tables.
    """
    if target is not None:
        settings["target"] = target
    configuration = configured(**settings)
    if not configuration.target.exists():
        raise TargetRefused(
            "The target does not exist yet.",
            code="target_absent",
            remedy="Run `rubix-token-sync sync` first, or name another one by --target.",
        )
    store = open_store(configuration.target, configuration.target_options(read_only=True))
    try:
        store.ensure_schema()
    except BaseException:
        store.close()
        raise
    return TargetReader(configuration, store)


def _field(name: str) -> pa.Field:
    if name not in RECORD_COLUMNS:
        raise SettingsError(
            f"{name!r} is not a column of the records.",
            code="unknown_column",
            remedy=f"They are: {', '.join(RECORD_COLUMNS)}.",
        )
    return _ALL.field(name)
