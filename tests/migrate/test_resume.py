"""Killed anywhere and called again: exact all the same, in bounded memory."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rubix_token_sync import failpoints
from rubix_token_sync.errors import SyncError
from rubix_token_sync.migrate import DatabaseOutcome, MigrateOptions, MigrationReport, migrate
from rubix_token_sync.targets.registry import TargetAddress, parse_target
from tests.chaos.door import Door
from tests.targets.conftest import named_server

from .exact import is_exact
from .older_system import oracle

ROWS = 1_200
MEMORY_BYTES = 300_000_000

PROGRAM = """
import sys
from rubix_token_sync.cli import main
from rubix_token_sync.surroundings import hide_unused
hide_unused()  # as the program does where it starts
try:
    main(sys.argv[1:])
finally:
    # Not getrusage: its peak is the parent's, where that had more at the fork.
    with open("/proc/self/status") as status:
        [peak] = [line.split()[1] for line in status if line.startswith("VmHWM")]
    print("peak", int(peak) * 1024, file=sys.stderr)
"""


def arguments(source: Path, target: Path, *more: str) -> list[str]:
    return ["migrate", "--from-file", str(source), "--to-file", str(target), "--json", *more]


def command(source: Path, target: Path, *more: str) -> list[str]:
    return [sys.executable, "-c", PROGRAM, *arguments(source, target, *more)]


def file_of(target: TargetAddress, path: Path) -> Path:
    path.write_text(target.address.get_secret_value())
    path.chmod(0o600)
    return path


def report_of(document: dict[str, Any]) -> MigrationReport:
    return MigrationReport(
        migration_id=document["migration_id"],
        mode=document["mode"],
        source=document["source"],
        target=document["target"],
        source_timezone=document["source_timezone"],
        databases=[DatabaseOutcome(**one) for one in document["databases"]],
        rows_without_database=document["rows_without_database"],
        complete=document["complete"],
    )


_ELSEWHERE = (
    "migrate.begin:1", "migrate.fetch:4", "migrate.chunk:1", "migrate.homeless:1",
    "store.publish:6", "store.commit.after:9",
)  # fmt: skip
"""Points beside which another one is tried by the short form."""


@pytest.mark.parametrize(
    "fault",
    [
        "migrate.plan:1",
        "migrate.database:3",
        "migrate.chunk:5",
        "migrate.verify:2",
        "migrate.done:1",
        "migrate.status:2",
        "store.commit.before:8",
        "store.mark:2",
        *(pytest.param(fault, marks=pytest.mark.long) for fault in _ELSEWHERE),
    ],
)
def test_killed_at_a_point_and_called_again(
    door: Door,
    older: Callable[..., TargetAddress],
    target: TargetAddress,
    tmp_path: Path,
    fault: str,
) -> None:
    source = older(ROWS)
    files = file_of(source, tmp_path / "from"), file_of(target, tmp_path / "to")
    killed = door.run(*arguments(*files), env={"RUBIX_SYNC_FAULT": f"{fault}:kill"})
    assert killed.code == -signal.SIGKILL, killed.stderr
    report = migrate(MigrateOptions(source, target))
    assert report.complete
    is_exact(target, report, ROWS)
    proof = migrate(MigrateOptions(source, target, verify_only=True))
    assert proof.exit_code == 0


def test_a_fault_anywhere_is_survived_or_told(
    older: Callable[..., TargetAddress], tmp_path: Path
) -> None:
    """What can be repeated is repeated; what cannot ends with an error, and the next call."""
    source = older(ROWS)
    told = 0
    for point in (
        "migrate.begin",
        "migrate.plan",
        "migrate.read",
        "migrate.fetch",
        "migrate.database",
        "migrate.chunk",
        "migrate.verify",
        "migrate.done",
        "migrate.homeless",
        "migrate.status",
        "store.commit.after",
    ):
        target = parse_target(f"sqlite:///{tmp_path}/{point}.db")
        failpoints.arm(f"{point}:2:error")
        try:
            migrate(MigrateOptions(source, target))
        except (SyncError, failpoints.FaultInjected):
            told += 1
        failpoints.arm("")
        report = migrate(MigrateOptions(source, target))
        assert report.complete
        is_exact(target, report, ROWS)
    assert told > 0


def test_an_interrupt_leaves_its_word(older: Callable[..., TargetAddress], tmp_path: Path) -> None:
    import sqlite3

    source = older(ROWS)
    target = parse_target(f"sqlite:///{tmp_path}/t.db")

    def interrupt(outcome: DatabaseOutcome, number: int, _count: int) -> None:
        if number == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        migrate(MigrateOptions(source, target), interrupt)
    with sqlite3.connect(tmp_path / "t.db") as conn:
        statuses = [row[0] for row in conn.execute("SELECT status FROM SyncSessions")]
        assert conn.execute("SELECT count(*) FROM SyncLeases").fetchone() == (0,)
    conn.close()
    assert statuses == ["INTERRUPTED"]
    report = migrate(MigrateOptions(source, target))
    is_exact(target, report, ROWS)


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_many_records_and_ten_kills(
    older: Callable[..., TargetAddress], fresh_postgres: Callable[..., str], tmp_path: Path
) -> None:
    """To SQLite undisturbed, to servers with ten SIGKILLs; all exact, in bounded memory."""
    count, kills = 100_000, 10
    seed = random.SystemRandom().randrange(2**32)
    print(f"seed {seed}")
    dice = random.Random(seed)
    source = older(count, databases=40)
    expected = oracle(count, databases=40)
    source_file = file_of(source, tmp_path / "from")
    sqlite = parse_target(f"sqlite:///{tmp_path}/t.db")
    begun = time.monotonic()
    done = subprocess.run(
        command(source_file, file_of(sqlite, tmp_path / "to-sqlite")),
        capture_output=True,
        text=True,
        check=False,
    )
    alone = time.monotonic() - begun
    assert done.returncode == 1, done.stderr  # rows without a home are set aside
    assert peak_of(done.stderr) < MEMORY_BYTES
    is_exact(sqlite, report_of(json.loads(done.stdout)), count, expected)

    disturbed = {"postgresql": parse_target(fresh_postgres()), "mssql": named_server()}
    for kind, target in disturbed.items():
        if target is None:
            continue
        call = command(source_file, file_of(target, tmp_path / f"to-{kind}"))
        landed = 0
        while landed < kills:
            running = subprocess.Popen(call, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
            try:
                # Mostly soon after the start, so that ten fit into one migration.
                out, _ = running.communicate(timeout=dice.uniform(0.2, 3 * alone / kills))
            except subprocess.TimeoutExpired:
                running.kill()
                running.communicate()
                landed += 1
            else:
                assert json.loads(out)["complete"]
                break  # it was quicker: nothing is left to kill
        done = subprocess.run(call, capture_output=True, text=True, check=False)
        assert done.returncode == 1, done.stderr
        assert peak_of(done.stderr) < MEMORY_BYTES
        is_exact(target, report_of(json.loads(done.stdout)), count, expected)
        proof = subprocess.run([*call, "--verify-only"], capture_output=True, text=True)
        assert proof.returncode == 0, proof.stderr
        assert peak_of(proof.stderr) < MEMORY_BYTES


def peak_of(stderr: str) -> int:
    [line] = [line for line in stderr.splitlines() if line.startswith("peak ")]
    return int(line.split()[1])
