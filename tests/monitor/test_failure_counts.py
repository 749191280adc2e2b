"""What failed is counted once, for every question about it, and without a look at the rest."""

from __future__ import annotations

import uuid
from dataclasses import asdict
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from rubix_token_sync.monitor import failure_counts
from rubix_token_sync.monitor.databases import list_databases
from rubix_token_sync.monitor.failure_counts import count_failures, more_stored_since
from rubix_token_sync.monitor.failures import failure_report, report_of
from rubix_token_sync.monitor.filters import Filters
from rubix_token_sync.targets.base import TargetOptions
from rubix_token_sync.targets.registry import open_target, parse_target
from rubix_token_sync.targets.sql.target import SqlTarget
from tests.audit.fleets import BEGAN, Row, insert, put_database
from tests.plans import plans_of

from .conftest import Answer


@pytest.mark.usefixtures("synced")
def test_one_count_answers_every_question(store: SqlTarget) -> None:
    now = store.server_time()
    counted = count_failures(store, Filters(), now)
    for filters in (
        Filters(),
        Filters(limit=1),
        Filters(nodes=("node032",)),
        Filters(nodes=("node032", "node033"), sources=("vm1",)),
        Filters(sources=("elsewhere",)),
        *(Filters(category=name) for name in ("ipfs", "validation", "database", "system")),
        Filters(category="validation", nodes=("node033",)),
    ):
        asked = report_of(store, counted, filters)
        assert asdict(asked) == asdict(failure_report(store, filters, now)), filters
    assert counted.content
    assert counted.validation
    assert counted.events


@pytest.mark.usefixtures("synced")
def test_examples_are_the_newest_of_their_reason(store: SqlTarget) -> None:
    """As a plain statement finds them, reason by reason."""
    records = store.tables.records
    for reason in failure_report(store, Filters(), store.server_time()).content:
        newest = (
            sa.select(records.c.token_id, records.c.db_path)
            .where(
                records.c.ipfs_fetched == sa.false(),
                records.c.source_deleted_at.is_(None),
                sa.or_(
                    records.c.ipfs_error == reason.code,
                    records.c.ipfs_error.startswith(f"{reason.code}:", autoescape=True),
                ),
            )
            .order_by(records.c.id.desc())
        )
        rows = store.read(lambda conn, q=newest: conn.execute(q).all())  # type: ignore[misc]
        assert reason.count == len(rows)
        assert reason.example is not None
        assert (reason.example.token_id, reason.example.db_path) == tuple(rows[0])


def test_many_records_are_seen_by_their_times_alone(
    synced: Path, ask: Any, store: SqlTarget
) -> None:
    del synced
    now, day = store.server_time(), timedelta(days=1)
    held: Answer = ask("errors", "--since", "24h", "--json")
    total = sum(node["total_records"] for node in held.json["nodes"])
    assert more_stored_since(store, day, now, total - 1)
    assert not more_stored_since(store, day, now, total)


@pytest.fixture
def healthy(tmp_path: Path) -> Any:
    """A large node that lacked nothing when statistics were gathered, and then a few contents."""
    store = open_target(parse_target(f"sqlite:///{tmp_path}/target.db"), TargetOptions())
    store.ensure_schema()
    rows = [Row("n1", f"Qm{number:044d}", source="vm0") for number in range(3_000)]

    def work(conn: Any) -> None:
        insert(conn, store.tables, rows)
        put_database(conn, store.tables, "n1", BEGAN, source="vm0")
        conn.exec_driver_sql("ANALYZE")
        records = store.tables.records
        conn.execute(
            sa.update(records)
            .where(records.c.id % 1_000 == 7)
            .values(
                ipfs_fetched=False,
                ipfs_error="not_found: nobody",
                validation_errors="[x]",
                synced_at=store.now,
            )
        )
        conn.execute(sa.update(store.tables.databases).values(ipfs_fail_count=3))

    store.transact(work)
    yield store
    store.close()


@pytest.mark.parametrize(
    ("since", "few", "indexes"),
    [
        (None, 10_000, ("ipfs_fetched", "invalid")),
        (timedelta(days=1), 2, ("ipfs_fetched", "invalid", "synced_at")),
        (timedelta(days=1), 3, ("synced_at",)),
    ],
)
def test_records_that_lack_nothing_are_not_looked_at(
    healthy: SqlTarget,
    since: timedelta | None,
    few: int,
    indexes: tuple[str, ...],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Of a time in which few were stored, those; else those that ever lacked something."""
    monkeypatch.setattr(failure_counts, "_FEW", few)
    now = healthy.server_time()
    with plans_of(healthy.engine) as steps:
        found = failure_report(healthy, Filters(since=since), now, by_node=False)
        if since is None:
            databases = list_databases(healthy, Filters(), now)
            assert [d.content_failures for d in databases] == [{"not_found": 3}]
    assert [(one.code, one.count) for one in found.content] == [("not_found", 3)]
    assert [(one.code, one.count) for one in found.validation] == [("other", 3)]
    looked = [step for step in steps if "TokenRecords" in step and "PRIMARY KEY" not in step]
    used = {step.split("ix_tokenrecords_")[1].split()[0] for step in looked}
    assert used == set(indexes)


@pytest.mark.usefixtures("synced")
def test_few_and_many_are_counted_alike(store: SqlTarget, monkeypatch: pytest.MonkeyPatch) -> None:
    filters, now = Filters(since=timedelta(days=1)), store.server_time()
    few = failure_report(store, filters, now)
    assert few.content
    assert few.validation
    monkeypatch.setattr(failure_counts, "_FEW", 0)
    assert failure_report(store, filters, now) == few


def test_a_database_that_failed_is_counted_from_indexes(healthy: SqlTarget) -> None:
    """Its mark may be older than its records; its records themselves are not read for it."""
    errors, now = healthy.tables.errors, healthy.server_time()
    records, databases = healthy.tables.records, healthy.tables.databases

    def fails(conn: Any) -> None:
        mark = conn.execute(sa.select(databases)).one()
        values = {"session_id": str(uuid.uuid4()), "category": "database", "code": "not_a_database",
                  "message": "x", "source_ip": mark.source_ip, "node_name": mark.node_name,
                  "db_path": mark.db_path, "occurred_at": now}  # fmt: skip
        conn.execute(sa.insert(errors).values(**values))
        some = records.c.id.between(1, 500)
        conn.execute(sa.update(records).where(some).values(source_deleted_at=now))
        conn.execute(sa.update(databases).values(record_count=1))

    healthy.transact(fails)
    with plans_of(healthy.engine) as steps:
        (row,) = list_databases(healthy, Filters(), now)
    assert (row.state, row.record_count, row.ipfs_fail_count) == ("failed", 2_500, 2)
    assert (row.validation_error_count, row.content_failures) == (2, {"not_found": 2})
    counted = [step for step in steps if "TokenRecords" in step and "ipfs_fetched" not in step]
    assert counted
    assert all("COVERING INDEX" in step or "ix_tokenrecords_invalid" in step for step in counted)
