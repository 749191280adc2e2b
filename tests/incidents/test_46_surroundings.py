"""Locale, home, user id, standard streams: it works, or one sentence names the cause."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from rubix_token_sync.testing import FleetPlan, make_fleet

PROGRAM = str(Path(sys.executable).parent / "rubix-token-sync")


@pytest.fixture
def place(tmp_path: Path) -> Path:
    make_fleet(tmp_path / "fleet", FleetPlan(nodes=1, tokens_per_node=6))
    first = next(path for path in (tmp_path / "fleet").iterdir() if path.is_dir())
    first.rename(tmp_path / "fleet" / "knöten")
    return tmp_path


def sync(place: Path, *how: str, **environment: str) -> subprocess.CompletedProcess[bytes]:
    """A sync by a shell with the redirections ``how``; the environment is this and no more."""
    command = f"exec {PROGRAM} sync fleet --target sqlite:///t.db --source-ip vm1 {' '.join(how)}"
    return subprocess.run(
        ["/bin/sh", "-c", command],
        cwd=place, env={"PATH": os.environ["PATH"], **environment},
        capture_output=True, check=False, timeout=120,
    )  # fmt: skip


def paths(place: Path) -> set[str]:
    with closing(sqlite3.connect(place / "t.db")) as db:
        return {row[0] for row in db.execute("SELECT db_path FROM TokenRecords")}


@pytest.mark.parametrize("how", [">&-", ">&- 2>&-", "<&- >&- 2>&-", "<&-"])
def test_closed_standard_streams(place: Path, how: str) -> None:
    done = sync(place, how)
    assert done.returncode == 0, done.stderr
    assert len(paths(place)) == 1
    with closing(sqlite3.connect(place / "t.db")) as db:
        assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    assert b"Traceback" not in done.stderr


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_a_full_device_behind_standard_error_stops_nothing(place: Path) -> None:
    done = sync(place, "2>/dev/full")
    assert done.returncode == 0
    assert len(paths(place)) == 1


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
@pytest.mark.parametrize(
    "command",
    [
        "--help",
        "sync --help",
        "cluster sync --help",
        "findings acknowledge -h",
        "config show",
        "config show --json",
        "explain corrupt",
        "explain --json",
        "discover",
    ],
)
def test_a_full_device_behind_standard_output_is_named(place: Path, command: str) -> None:
    done = subprocess.run(
        ["/bin/sh", "-c", f"{PROGRAM} {command} >/dev/full"],
        cwd=place, capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert done.returncode == 1
    assert "[output_unwritable]" in done.stderr


@pytest.mark.parametrize(
    "environment",
    [
        {"LC_ALL": "C"},
        {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"},  # ASCII, as others are
        {"LC_ALL": "xx_YY.nothing"},
        {"LC_ALL": "C.UTF-8", "PYTHONIOENCODING": "ascii"},
    ],
)
def test_a_locale_changes_no_record(place: Path, environment: dict[str, str]) -> None:
    done = sync(place, **environment)
    assert done.returncode == 0, done.stderr
    assert paths(place) == {str(place / "fleet/knöten/Rubix/rubix.db")}


NAMELESS = ["unshare", "--user", "--map-user=54321"]


def nameless_users_work() -> bool:
    done = subprocess.run([*NAMELESS, "true"], capture_output=True, check=False)
    return done.returncode == 0


@pytest.mark.skipif(
    shutil.which("unshare") is None or not nameless_users_work(), reason="no user namespaces here"
)
def test_no_home_and_a_user_id_without_a_name(place: Path) -> None:
    def start(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*NAMELESS, PROGRAM, *arguments],
            cwd=place, env={"PATH": os.environ["PATH"], **environment},
            capture_output=True, text=True, check=False, timeout=120,
        )  # fmt: skip

    target = ("--target", "sqlite:///t.db", "--source-ip", "vm1")
    done = start("sync", "fleet", *target)
    assert "Traceback" not in done.stderr
    assert done.returncode == 0, done.stderr
    alerting = start("sync", "fleet", *target, RUBIX_SYNC_ALERT_URLS="json://127.0.0.1:1/x")
    assert "Traceback" not in alerting.stderr
    assert alerting.returncode == 2
    assert "no home directory" in alerting.stderr
    assert "state_directory" in alerting.stderr
    service = start("install-service")
    assert service.returncode == 2
    assert "--user" in service.stderr
