"""What the night changed, beside the nights before: status, and the warning about it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import rubix_token_sync as rts
from rubix_token_sync.monitor.filters import Filters
from rubix_token_sync.monitor.health import SourceRow, read_status
from rubix_token_sync.targets.base import SessionTotals
from rubix_token_sync.targets.sql.target import SqlTarget
from rubix_token_sync.testing import FleetPlan, change_status, make_fleet

from .fleet_made import Source
from .test_versions import _source

TOKENS = 130


def _night(source: Source, transfers: int, owner: str) -> None:
    for number in range(transfers):
        source.tokens[number] = {"did": owner}
    lease = source.begin()
    source.store.start_session(lease.session_id, source.name, "host", 1, "sync")
    source.publish(lease)
    totals = SessionTotals(total_sql_inserts=0)
    source.store.finish_session(lease, "COMPLETED", totals, None)


def _stands(store: SqlTarget, source: Source) -> tuple[SourceRow, list[str]]:
    now = store.server_time()
    found = read_status(store, Filters(sources=(source.name,)), now)
    (row,) = found.sources
    return row, [problem.code for problem in found.problems]


def test_a_night_is_compared_with_those_before(store: SqlTarget) -> None:
    source = _source(store, tokens={n: {} for n in range(TOKENS)})
    source.run()
    for number in range(3):
        _night(source, 10, f"owner {number}")
    row, problems = _stands(store, source)
    assert row.changes is not None
    assert (row.changes.transfers, row.changes.before, row.changes.usual) == (10, 2, {})
    _night(source, 5, "owner")
    row, _ = _stands(store, source)
    assert row.changes is not None
    assert (row.changes.transfers, row.changes.usual["transfers"]) == (5, 10)
    (node,) = row.changes.nodes
    assert (node.node_name, node.changed, node.columns) == ("node001", 5, {"did": 5})
    assert "unusual_change" not in problems
    _night(source, TOKENS, "thief")
    row, problems = _stands(store, source)
    assert row.changes is not None
    assert row.changes.transfers == TOKENS
    assert problems == ["unusual_change"]


def test_a_night_without_changes_is_one(store: SqlTarget) -> None:
    source = _source(store, tokens={1: {}})
    source.run()
    _night(source, 0, "")
    row, problems = _stands(store, source)
    assert row.changes is not None
    assert (row.changes.transfers, row.changes.nodes, problems) == (0, [], [])


def test_the_report_says_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    nodes = tmp_path / "nodes"
    make_fleet(nodes, FleetPlan(nodes=2, tokens_per_node=10))
    target, name = f"sqlite:///{tmp_path}/t.db", "vm1"
    first = rts.report_of(rts.sync(nodes, target=target, source_ip=name))
    assert first["changes"]["new"] == first["records_inserted"] == 20
    changed = change_status(nodes / "node001/Rubix/rubix.db", 0.5)
    report = json.loads(json.dumps(rts.report_of(rts.sync(nodes, target=target, source_ip=name))))
    told = report["changes"]
    assert (told["statuses"], told["changed"], told["transfers"]) == (len(changed), len(changed), 0)
    (node,) = told["nodes"]
    assert (node["node_name"], node["columns"]) == ("node001", {"token_status": len(changed)})
