"""A run's complete output holds no password, however hostile, whatever goes wrong."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest

from tests.chaos.door import Door

from .engine import SqliteEngine
from .faults import Drop, Fault, Stall, refusal
from .server import TdsServer


def forms(password: str) -> set[str]:
    """The password as it may be written somewhere."""
    return {
        password,
        password.replace('"', '""'),
        password.replace("}", "}}"),
        quote(password),
        quote(password, safe=""),
        password.encode("unicode_escape").decode(),
        repr(password)[1:-1],
        password.split(";", 1)[1],
    }


@pytest.fixture
def target_file(address: str, tmp_path: Path) -> Path:
    path = tmp_path / "connection.txt"
    path.write_text(address, encoding="utf-8")
    path.chmod(0o600)
    return path


ENVIRONMENT = {"RETRY_ATTEMPTS": "1"}


def arguments(fleet: Path, target_file: Path, out: Path) -> list[str]:
    """A sync of a healthy node and of one whose database cannot be read."""
    return [
        "sync", str(fleet / "node032"), str(fleet / "node038"),
        "--target-file", str(target_file), "--source-ip", "vm1", "--verbose",
        "--report", str(out / "reports"), "--log-file", str(out / "run.log"),
    ]  # fmt: skip


def everything(out: Path, *streams: str) -> Iterator[tuple[str, str]]:
    for number, stream in enumerate(streams):
        yield f"stream {number}", stream
    for path in out.rglob("*"):
        if path.is_file():
            yield str(path), path.read_text("utf-8", "replace")


SITUATIONS = {
    "nothing wrong": None,
    "login refused": Fault("login", refusal(18456), times=99),
    "half way": Fault("sql", refusal(40544), r"^SET NOCOUNT ON; DECLARE @inserted", times=99),
    "hung up": Fault("sql", Drop(), r"TokenRecordStaging", times=99),
    "not allowed": Fault("sql", refusal(229), r"SyncSessions", times=99),
}


@pytest.mark.parametrize("situation", list(SITUATIONS))
def test_no_output_holds_the_password(
    situation: str,
    door: Door,
    unpacked_fleet: Path,
    target_file: Path,
    tmp_path: Path,
    server: TdsServer,
    engine: SqliteEngine,
) -> None:
    fault = SITUATIONS[situation]
    if fault is not None:
        server.faults.append(fault)
    out = tmp_path / "out"
    out.mkdir()
    done = door.run(
        *arguments(unpacked_fleet, target_file, out), env=ENVIRONMENT, cwd=tmp_path, seconds=100
    )
    assert done.code == (1 if fault is None else 3), done.stderr
    found = list(everything(out, done.stdout, done.stderr))
    assert len(found) > 2
    assert server.logins[0][:2] == (server.user, server.password)
    stored = engine.query("SELECT error_summary FROM SyncSessions")
    stored += engine.query("SELECT message FROM SyncErrors")
    found += [("the target", str(row[0])) for row in stored]
    for where, text in found:
        for form in forms(server.password):
            assert form not in text, where


def test_no_process_shows_the_password(
    unpacked_fleet: Path, target_file: Path, tmp_path: Path, server: TdsServer
) -> None:
    if not Path("/proc/self/cmdline").exists():
        pytest.skip("this system has no /proc")
    fault = Fault("sql", Stall(), r"^SET NOCOUNT ON; DECLARE @inserted")
    server.faults.append(fault)
    out = tmp_path / "out"
    out.mkdir()
    with subprocess.Popen(
        [sys.executable, "-m", "rubix_token_sync", *arguments(unpacked_fleet, target_file, out)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**os.environ, **ENVIRONMENT},
        cwd=tmp_path,
        start_new_session=True,
    ) as run:
        try:
            until = time.monotonic() + 60
            while not fault.fired and run.poll() is None and time.monotonic() < until:
                os.sched_yield()
            assert fault.fired
            lines = [
                path.read_bytes().decode("utf-8", "replace")
                for process in Path("/proc").iterdir()
                if process.name.isdigit()
                for path in [process / "cmdline"]
                if path.exists()
            ]
            assert any("rubix_token_sync" in line for line in lines)
            for line in lines:
                for form in forms(server.password):
                    assert form not in line
        finally:
            os.killpg(run.pid, 9)
