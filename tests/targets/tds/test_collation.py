"""The usual collation of Azure SQL ignores case; names on a Linux machine do not."""

from __future__ import annotations

from datetime import datetime, timedelta

import sqlalchemy as sa

from rubix_token_sync.audit.rules import RULES
from rubix_token_sync.audit.token_view import read_token
from rubix_token_sync.history.moments import Runs
from rubix_token_sync.history.versions import databases_as_of
from rubix_token_sync.monitor.databases import list_databases
from rubix_token_sync.monitor.failures import failure_report
from rubix_token_sync.monitor.filters import Filters
from rubix_token_sync.targets.base import ErrorEntry, Lease
from rubix_token_sync.targets.sql.target import SqlTarget
from tests.audit.fleets import BEGAN, Row, insert, node_path, put_database
from tests.targets.records_made import SESSION

NODES = ("Node1", "node1")
"""Two directories of one machine."""


def _two_nodes(store: SqlTarget, *rows: Row) -> None:
    def work(conn: sa.Connection) -> None:
        insert(conn, store.tables, rows)
        for node in NODES:
            put_database(conn, store.tables, node, BEGAN)

    store.transact(work)


def _rule(store: SqlTarget, code: str) -> set[str]:
    """Nodes whose rows the rule shows."""
    rule = next(rule for rule in RULES if rule.code == code)
    evidence = store.tables.audit.evidence

    def work(conn: sa.Connection) -> set[str]:
        conn.execute(sa.delete(evidence))
        rule.gather(conn, store.tables, 1)
        names = list(conn.scalars(sa.select(evidence.c.node_name)))
        assert len(names) == len(set(names)), "a record is evidence once"
        return set(names)

    return store.transact(work)


def test_a_nodes_dids_and_chains_are_its_own(store: SqlTarget) -> None:
    """A chain of the other node's, whose block names another owner, is none of this one's."""
    one, other = NODES
    _two_nodes(
        store,
        Row(one, "QmA", did="one", owns="one", block="05", block_owner="one"),
        Row(other, "QmA", "4", did="two", owns="two", block="02", block_owner="one"),
        Row(one, "QmB", did="two"),
        Row(other, "QmC", did="two"),
    )
    assert _rule(store, "owner_unknown") == {one}  # of QmB
    assert _rule(store, "row_against_chain") == set()
    found = store.read(lambda conn: read_token(conn, store.tables, RULES, "QmA", BEGAN))
    assert [(h.node_name, h.latest_block_type) for h in found.holders] == [
        (one, "05"),
        (other, "02"),
    ]


def test_dids_are_told_apart(store: SqlTarget) -> None:
    _two_nodes(store, Row("a", "QmA", did="bafyA"), Row("b", "QmA", did="bafya"))
    assert _rule(store, "held_twice") == {"a", "b"}


def test_each_of_them_fails_for_itself(store: SqlTarget) -> None:
    """Two failures, two databases: the newer one does not hide the other."""
    lease = Lease("vm1", SESSION)
    _two_nodes(store, *(Row(n, "QmA", fetched=False, error="damaged: x") for n in NODES))
    store.start_session(SESSION, "vm1", "host", 1, "sync")
    store.record_errors(
        lease,
        [
            ErrorEntry("database", "damaged_database", "It is damaged.", node, node_path(node))
            for node in NODES
        ],
    )
    databases = list_databases(store, Filters(), store.server_time())
    assert sorted((d.node_name, d.error is not None) for d in databases) == [
        (node, True) for node in NODES
    ]
    assert [(d.record_count, d.content_failures) for d in databases] == [(1, {"damaged": 1})] * 2


def test_they_are_counted_apart(store: SqlTarget) -> None:
    _two_nodes(store, *(Row(n, t) for n, t in zip(NODES * 2, ("A", "A", "B", "C"), strict=True)))
    long_ago = Filters(since=timedelta(days=36_500))
    for filters in (Filters(), long_ago):
        report = failure_report(store, filters, datetime(2026, 6, 1))
        assert sorted(row.node_name for row in report.nodes) == list(NODES)
    past = store.read(lambda conn: databases_as_of(conn, store.tables, Runs(0)))
    assert sorted((one.node_name, one.record_count) for one in past) == [(n, 2) for n in NODES]
