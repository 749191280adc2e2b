"""The table of fault points is the truth: about the code, and in the guide."""

from __future__ import annotations

import re
from pathlib import Path

import rubix_token_sync
from rubix_token_sync.failpoints import POINTS
from tests.chaos.battlefield import Battlefield

_GUIDE = Path(__file__).parents[2] / "docs" / "RELIABILITY.md"


def test_every_point_in_the_code_is_in_the_table() -> None:
    package = Path(rubix_token_sync.__file__).parent
    passed = {
        name
        for path in package.rglob("*.py")
        if path.name != "failpoints.py"
        for name in re.findall(r'failpoints\.point\(\s*"([^"]+)"', path.read_text(encoding="utf-8"))
    }
    assert passed == POINTS.keys()


def test_every_point_is_in_the_guide() -> None:
    rows = re.findall(r"^\| `([a-z.]+)` \| (.+?) \|", _GUIDE.read_text(encoding="utf-8"), re.M)
    assert dict(rows) == POINTS


def test_the_battlefield_passes_what_a_sync_can_pass(battlefield: Battlefield) -> None:
    phases = battlefield.first, battlefield.change
    passed = {name for phase in phases for name in phase.points | phase.in_workers | phase.in_run}
    elsewhere = {
        "chains.copy",  # only where chains are read: test_sweep.py
        "chains.read",
        "store.clean",  # Azure SQL: test_mssql.py
        "store.insert",  # Azure SQL: tests/targets/tds, tests/targets/test_faults.py
        "store.heartbeat",  # after seconds: test_two_at_once.py
        "store.publish.rows",  # PostgreSQL: test_sweep.py
        "store.source.adopt",  # only where it is asked for: tests/targets/test_faults.py
        "history.prune",  # tests/history/test_changes.py
        "store.records",  # verify: test_verify_faults.py
        *(name for name in POINTS if name.startswith("migrate.")),  # tests/migrate
        *(name for name in POINTS if name.startswith("audit.")),  # tests/audit
        *(name for name in POINTS if name.startswith("evidence.")),  # tests/evidence
    }
    assert elsewhere <= POINTS.keys()
    # The heart beats where a run takes seconds, as on a busy machine.
    assert passed - {"store.heartbeat"} == POINTS.keys() - elsewhere


def test_worker_processes_do_the_work(battlefield: Battlefield) -> None:
    for phase in (battlefield.first, battlefield.change):
        work = {
            "worker.job", "source.read", "content.resolve", "store.publish", "store.stage",
            "store.mark",
        }  # fmt: skip
        assert work <= phase.in_workers.keys()
        assert work.isdisjoint(phase.in_run)
