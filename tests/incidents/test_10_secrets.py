"""10: secrets appear in no log, report, error, trace, process list or target."""

from __future__ import annotations

import os
import re
from pathlib import Path
from urllib.parse import quote

import pytest

import rubix_token_sync
from tests.incidents.conftest import Site
from tests.postgres_server import PostgresServer

_PASSWORD = "Canary/p@ss w0rd%;'}é"
_API_TOKEN = "bearer:CanaryApiToken12345"
_GATEWAY = "https://reader:CanaryGateway99@127.0.0.1:9/"


def _traces(found: list[tuple[str, str]]) -> list[str]:
    """Where any form of a canary shows."""
    return [where for where, text in found if re.search("canary", text, re.IGNORECASE)]


@pytest.fixture
def secretive(site: Site, postgres_server: PostgresServer) -> Site:
    """A PostgreSQL target whose password is in a file of mode 600."""
    name = postgres_server.database()
    user = f"secretive_{name}"
    quoted = _PASSWORD.replace("'", "''")
    postgres_server.admin(
        f"CREATE ROLE {user} LOGIN PASSWORD '{quoted}'", f"ALTER DATABASE {name} OWNER TO {user}"
    )
    url = postgres_server.tcp_url(name, user=user, password=quote(_PASSWORD, safe=""))
    file = site.home / "target.txt"
    file.write_text(url)
    file.chmod(0o600)
    return site


@pytest.mark.parametrize(
    ("fault", "form"),
    [
        ("", "json"),
        ("store.publish:2:error", "text"),
        ("store.connect:9:error:forever", "json"),
        ("worker.job:1:error", "text"),
    ],
)
def test_no_output_of_a_run_holds_one(secretive: Site, fault: str, form: str) -> None:
    site = secretive
    log = site.home / "run.log"
    env = {
        "RUBIX_SYNC_IPFS_API_TOKEN": _API_TOKEN,
        "RUBIX_SYNC_FAULT": fault,
        "RETRY_ATTEMPTS": "2",
    }
    running = site.door.start(
        "sync", str(site.fleet), "--target-file", str(site.home / "target.txt"),
        "--report", str(site.reports), "--log-file", str(log), "--log-format", form,
        "--verbose", "--json", "--source-ip", "vm1", "--gateway", _GATEWAY, env=env,
        processes=True,
    )  # fmt: skip
    listed = []
    while not running.ended_within(0.05):
        listed += [(f"process {pid}", text) for pid, text in _command_lines(running.pid)]
    finished = running.wait()
    assert finished.code in ((0, 1) if "forever" not in fault else (3,))
    found = [
        ("stdout", finished.stdout), ("stderr", finished.stderr), ("log", log.read_text()),
        *((str(path), path.read_text()) for path in site.reports.glob("*")),
    ]  # fmt: skip
    assert len(found[2][1]) > 200
    assert _traces(found) == []
    assert listed
    shown = [(name, text.replace(_GATEWAY, "")) for name, text in listed]  # a flag of our own
    assert _traces(shown) == []


def _command_lines(session: int) -> list[tuple[int, str]]:
    """What the process list shows of a run and its workers."""
    found = []
    for entry in os.listdir("/proc"):
        if not entry.isdigit():
            continue
        try:
            if os.getsid(int(entry)) == session:
                line = Path(f"/proc/{entry}/cmdline").read_bytes().decode(errors="replace")
                found.append((int(entry), line))
        except (ProcessLookupError, FileNotFoundError):
            continue
    return found


@pytest.mark.parametrize(
    "address",
    [
        "postgresql://u:CanaryOne77@127.0.0.1:9/db",
        "postgresql://u:CanaryOne77@no-such-host.invalid/db?sslmode=bogus",
        "postgresql://u:Canary%ZZOne77@127.0.0.1:nine/db",
        "Server=tcp:127.0.0.1,9;Database=d;Uid=u;Pwd={Canary;}}One77};Connection Timeout=1;",
        "Driver={x};Server=;Pwd=CanaryOne77;Nonsense",
        "mssql://u:CanaryOne77@/db?nonsense=1",
        "nonsense://u:CanaryOne77@h/db",
    ],
)
def test_addresses_that_fail_are_told_without_their_secrets(site: Site, address: str) -> None:
    for how in ("file", "environment"):
        env, more = {"RUBIX_SYNC_TARGET": address}, []
        if how == "file":
            file = site.home / "address.txt"
            file.write_text(address)
            file.chmod(0o600)
            env, more = {}, ["--target-file", str(file)]
        failed = site.door.run(
            "sync", str(site.fleet), *more, "--verbose", "--json", "--log-file",
            str(site.home / "log"), "--report", str(site.reports), "--retry-attempts", "1",
            env=env, cwd=site.home,
        )  # fmt: skip
        assert failed.code in (2, 3), failed.stderr
        texts = [("stdout", failed.stdout), ("stderr", failed.stderr)]
        if (site.home / "log").exists():
            texts.append(("log", (site.home / "log").read_text()))
        assert _traces(texts) == []


def test_the_source_code_holds_none() -> None:
    package = Path(rubix_token_sync.__file__).parent
    literal = re.compile(
        r"""(?i)(pwd|password|token|secret|api_key)\s*[=:]\s*["'][^"'{}<\s]{6,}["']"""
    )
    connection = re.compile(r"(?i)\b(pwd|password)=(?!\{|<|\*|\.\.\.|your)[^;\s\"'{}]{4,};")
    bot = re.compile(r"\b\d{8,10}:[A-Za-z0-9_-]{35}\b")
    allowed = ("S105", "noqa")
    found = []
    for path in package.rglob("*"):
        if path.suffix not in (".py", ".txt", ".toml", ".json"):
            continue
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            if any(p.search(line) for p in (literal, connection, bot)) and not any(
                word in line for word in allowed
            ):
                found.append(f"{path.name}:{number}: {line.strip()}")
    assert found == []
