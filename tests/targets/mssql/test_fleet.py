"""The fixture fleet on a real server: synced, again, changed, verified; the guide's SQL."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rubix_token_sync.targets.sql.target import SqlTarget

# As the guide prints them; the parameters of its DATEADD and its brackets are untouched.
GUIDE_QUERIES = {
    "running": "SELECT * FROM [dbo].[SyncSessions] WHERE [status] = 'RUNNING'",
    "performance": """
        SELECT
            [session_id], [start_time], [end_time], [total_records_processed],
            [total_records_processed] / NULLIF(DATEDIFF(SECOND, [start_time], [end_time]), 0)
                as [records_per_second],
            ([total_ipfs_success] * 100.0 / NULLIF([total_records_processed], 0))
                as [ipfs_success_rate],
            [status]
        FROM [dbo].[SyncSessions]
        ORDER BY [start_time] DESC""",
    "by node": """
        SELECT
            [node_name],
            COUNT(*) as [total_records],
            SUM(CAST([ipfs_fetched] AS INT)) as [ipfs_success],
            COUNT(*) - SUM(CAST([ipfs_fetched] AS INT)) as [ipfs_failures],
            SUM(CASE WHEN [validation_errors] IS NOT NULL THEN 1 ELSE 0 END)
                as [validation_errors]
        FROM [dbo].[TokenRecords]
        WHERE [synced_at] > DATEADD(HOUR, -24, GETUTCDATE())
        GROUP BY [node_name]
        ORDER BY [total_records] DESC""",
    "ipfs errors": """
        SELECT [ipfs_error], COUNT(*) as [error_count]
        FROM [dbo].[TokenRecords]
        WHERE [ipfs_error] IS NOT NULL
            AND [synced_at] > DATEADD(HOUR, -24, GETUTCDATE())
        GROUP BY [ipfs_error]
        ORDER BY [error_count] DESC""",
    "validation": """
        SELECT TOP 10 [token_id], [validation_errors]
        FROM [dbo].[TokenRecords]
        WHERE [validation_errors] IS NOT NULL
        ORDER BY [synced_at] DESC""",
}


@pytest.fixture
def program(address: str, fleet: Path, tmp_path: Path) -> Callable[..., tuple[int, Any]]:
    """Runs a command on the fleet; gives exit code and the JSON it printed."""
    file = tmp_path / "connection.txt"
    file.write_text(address)
    file.chmod(0o600)

    def run(command: str, *more: str, fault: str = "") -> tuple[int, Any]:
        environment = {**os.environ, "RUBIX_SYNC_FAULT": fault}
        done = subprocess.run(
            [
                sys.executable, "-m", "rubix_token_sync", command, str(fleet),
                "--target-file", str(file), "--source-ip", "vm1", "--json", *more,
            ],
            capture_output=True, text=True, timeout=110, check=False, cwd=tmp_path,
            env=environment,
        )  # fmt: skip
        return done.returncode, json.loads(done.stdout) if done.stdout else done.stderr

    return run


def expected_records(expected: dict[str, Any]) -> int:
    return sum(len(tokens) for tokens in expected.values())


def assert_equal(program: Callable[..., tuple[int, Any]]) -> None:
    """Nothing differs; three databases cannot be read, so that 0 would say too much."""
    code, found = program("verify")
    assert code == 1, found
    assert set(found["differences"].values()) == {0}


def test_the_fleet_goes_in_and_stays_right(
    program: Callable[..., tuple[int, Any]],
    opened: Callable[..., SqlTarget],
    fleet: Path,
    expected: dict[str, Any],
) -> None:
    code, report = program("sync")
    assert code == 1  # three databases of the fixture cannot be read
    total = report["records_inserted"]
    assert total == expected_records(expected)
    code, report = program("sync")
    assert (report["tokens_read"], report["records_inserted"], report["records_updated"]) == (
        0,
    ) * 3
    assert_equal(program)

    with sqlite3.connect(fleet / "node032/Rubix/rubix.db") as node:
        node.execute("UPDATE TokensTable SET token_status = 4 WHERE rowid % 10 = 0")
        changed = node.total_changes
        node.execute("DELETE FROM TokensTable WHERE rowid = 1")
    node.close()
    assert program("verify")[0] == 5
    code, report = program("sync")
    assert report["records_updated"] == changed
    assert report["records_vanished"] == 1
    assert_equal(program)

    store = opened()

    def query(name: str) -> list[tuple[Any, ...]]:
        rows = store.read(lambda conn: list(conn.exec_driver_sql(GUIDE_QUERIES[name])))
        return [tuple(row) for row in rows]

    assert query("running") == []
    assert [row[-1] for row in query("performance")] == ["COMPLETED"] * 3
    assert sum(row[1] for row in query("by node")) == total
    assert query("ipfs errors")
    assert 0 < len(query("validation")) <= 10


@pytest.mark.parametrize("fault", ["store.publish:3:kill", "store.commit.after:6:kill"])
def test_a_run_that_is_killed_is_finished_by_the_next(
    program: Callable[..., tuple[int, Any]], fault: str
) -> None:
    code, _ = program("sync", fault=fault)
    assert code == -9
    assert program("sync")[0] == 1
    assert_equal(program)
