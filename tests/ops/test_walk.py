"""The walk of an operator who has only the guides: three machines, one PostgreSQL, three breaks.

Each machine has nodes, settings, a connection file and a cron line of its own, and is run
by that line.  Then one breaks: its repository is removed, its disk is full, the password
is changed.  Alert, `status` and TROUBLESHOOTING.md must be enough to know what is
wrong and to mend it.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from rubix_token_sync.testing import Fleet, FleetPlan, add_tokens, make_fleet

from .conftest import Webhook

PROGRAM = str(Path(sys.executable).parent / "rubix-token-sync")
GUIDE = (Path(__file__).parents[2] / "docs" / "TROUBLESHOOTING.md").read_text(encoding="utf-8")


def namespaces_work() -> bool:
    """Whether a small disk can be had: a mount in a namespace of its own."""
    done = subprocess.run(
        ["unshare", "-rm", "sh", "-c", "mount -t tmpfs -o size=64k tmpfs /mnt"],
        capture_output=True,
        check=False,
    ) if shutil.which("unshare") else None  # fmt: skip
    return done is not None and done.returncode == 0


@dataclass
class Machine:
    """One VM: a directory with nodes, settings, and what cron would run."""

    name: str
    home: Path
    fleet: Fleet

    @property
    def environment(self) -> dict[str, str]:
        return {
            "PATH": os.environ["PATH"],
            "HOME": str(self.home),
            "XDG_STATE_HOME": str(self.home / "state"),
        }

    def settings(self, address: str, webhook: Webhook) -> None:
        """The files that the guide has every machine made, mode 600."""
        for name, text in {
            "connection.txt": address,
            "alert_urls.txt": webhook.url,
            "settings.toml": f'roots = ["{self.fleet.directory}"]\n'
            f'target_file = "{self.home}/connection.txt"\n'
            f'source_ip = "{self.name}"\n'
            f'report = "{self.home}/reports"\n'
            f'log_file = "{self.home}/sync.log"\n'
            f'alert_urls_file = "{self.home}/alert_urls.txt"\n'
            "retry_attempts = 1\n",
        }.items():
            (self.home / name).write_text(text)
            (self.home / name).chmod(0o600)

    def ask(self, *arguments: str) -> tuple[int, Any]:
        """A question at this machine's terminal."""
        done = subprocess.run(
            [PROGRAM, *arguments, "--config", str(self.home / "settings.toml"), "--json"],
            env=self.environment, cwd=self.home, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.stdout, done.stderr
        return done.returncode, json.loads(done.stdout)

    def cron_line(self) -> str:
        """What `install-service` gives this machine's cron to run every night."""
        table = subprocess.run(
            [PROGRAM, "install-service", "--form", "cron", "--user", "rubix",
             "--config", str(self.home / "settings.toml")],
            capture_output=True, text=True, check=True,
        ).stdout  # fmt: skip
        line = next(line for line in table.splitlines() if " sync " in line)
        return line.split(" ", 6)[6].replace("/var/lib/rubix-token-sync", str(self.home))

    def night(self, *around: str) -> subprocess.CompletedProcess[str]:
        """Cron's run."""
        return subprocess.run(
            [*around, "/bin/sh", "-c", self.cron_line()],
            env=self.environment, capture_output=True, text=True, check=False,
        )  # fmt: skip


@pytest.fixture
def machines(tmp_path: Path) -> list[Machine]:
    """Three machines with the same paths below their homes, and nodes of their own."""
    made = []
    for number in (1, 2, 3):
        home = tmp_path / f"vm{number}"
        home.mkdir()
        fleet = make_fleet(
            home / "nodes", FleetPlan(nodes=2, tokens_per_node=40, seed=number), jobs=1
        )
        made.append(Machine(f"vm{number}", home, fleet))
    return made


def told(webhook: Webhook) -> str:
    """The one message that came since the last time."""
    (message,) = webhook.take()
    return f"{message['title']}\n{message['message']}"


def cure(alert: str) -> str:
    """What the guide says about the code that stands in brackets in an alert."""
    found = re.findall(r"\[([a-z0-9_]+)\]", alert)
    assert found, alert
    row = re.search(rf"^\| `{found[0]}` \|.*\|([^|]*)\|$", GUIDE, re.MULTILINE)
    assert row, f"the guide does not know {found[0]}"
    return row[1].strip()


@pytest.mark.long
@pytest.mark.timeout(300)
def test_three_machines_and_three_breaks(
    machines: list[Machine],
    webhook: Webhook,
    postgres_server: Any,
    fresh_postgres: Callable[..., str],
    tmp_path: Path,
) -> None:
    database = urlsplit(fresh_postgres()).path.lstrip("/")
    role = f"walker_{database}"
    postgres_server.admin(
        f"CREATE ROLE {role} LOGIN PASSWORD 'first'", f"GRANT ALL ON DATABASE {database} TO {role}"
    )
    postgres_server.admin(f"GRANT ALL ON SCHEMA public TO {role}", database=database)
    try:
        _walk(machines, webhook, postgres_server, database, role)
    finally:
        postgres_server.drop(database)
        postgres_server.admin(f"DROP ROLE {role}")


def _walk(machines: list[Machine], webhook: Webhook, server: Any, database: str, role: str) -> None:
    for machine in machines:
        machine.settings(server.tcp_url(database, user=role, password="first"), webhook)
        code, checked = machine.ask("check")
        assert code == 0, checked
        night = machine.night()
        assert (night.returncode, night.stdout, night.stderr) == (0, "", "")
    code, status = machines[0].ask("status", "--max-age", "26h")
    assert code == 0
    assert [s["source_ip"] for s in status["sources"]] == ["vm1", "vm2", "vm3"]
    assert {s["record_count"] for s in status["sources"]} == {80}
    assert webhook.messages == []
    _repository_removed(machines[0], webhook)
    if namespaces_work():
        _disk_full(machines[1], webhook)
    _password_changed(machines[2], webhook, server, database, role)
    for machine in machines[:2]:  # the same password
        machine.settings(server.tcp_url(database, user=role, password="second"), webhook)
        assert machine.night().returncode == 0
    code, status = machines[1].ask("status", "--max-age", "26h")
    assert (code, status["problems"]) == (0, [])
    for machine in machines:
        code, verified = machine.ask("verify")
        assert code == 0, verified


def _repository_removed(machine: Machine, webhook: Webhook) -> None:
    """New tokens come, but their content cannot: the node's repository is gone."""
    node = machine.fleet.nodes[0]
    add_tokens(machine.fleet, node, 7)
    repository = Path(node.repository)
    repository.rename(repository.with_name("ipfs-elsewhere"))
    night = machine.night()
    assert night.returncode == 0, "missing content is data, not a failure"
    alert = told(webhook)
    assert "vm1" in alert
    lacks = "7 of 47 records without content: the node has no IPFS repository"
    assert f"{node.name}: {lacks}" in alert
    _, answer = machine.ask("databases", "--source", "vm1", "--node", node.name)
    (row,) = answer["databases"]
    assert row["content_failures"] == {"no_repository": 7}, "what was known stays"
    assert cure(alert) == (
        "restore it; the next run fetches what is missing, and `retry-failed` also takes over what "
        "the target has from other nodes"
    )
    repository.with_name("ipfs-elsewhere").rename(repository)
    assert machine.night().returncode == 0
    _, answer = machine.ask("databases", "--source", "vm1", "--node", node.name)
    assert answer["databases"][0]["content_failures"] == {}
    assert "resolved" in told(webhook)


def _disk_full(machine: Machine, webhook: Webhook) -> None:
    """The disk that reports go to is full, for real: a small one, mounted for this run."""
    (machine.home / "reports").mkdir(exist_ok=True)
    script = (
        f'mount -t tmpfs -o size=64k tmpfs "{machine.home}/reports" && '
        f'dd if=/dev/zero of="{machine.home}/reports/x" bs=1k count=60 2>/dev/null; "$@"'
    )
    night = machine.night("unshare", "-rm", "sh", "-c", script, "sh")
    assert night.returncode == 1
    assert "No space left on device" in night.stderr, "cron mails it, too"
    alert = told(webhook)
    assert "[report_unwritable]" in alert
    assert "No space left on device" in alert
    assert cure(alert) == "another `--report`; a sync that ended is complete"
    assert machine.night().returncode == 0
    assert "resolved" in told(webhook)


def _password_changed(
    machine: Machine, webhook: Webhook, server: Any, database: str, role: str
) -> None:
    server.admin(f"ALTER ROLE {role} PASSWORD 'second'")
    night = machine.night()
    assert night.returncode == 3
    alert = told(webhook)
    assert "vm3" in alert
    assert "[login_failed]" in alert
    code, status = machine.ask("status")
    assert (code, status["error"]["code"]) == (3, "login_failed")
    assert cure(alert) == "correct the connection file, then `rubix-token-sync check`"
    assert machine.night().returncode == 3
    assert webhook.take() == [], "told before"
    machine.settings(server.tcp_url(database, user=role, password="second"), webhook)
    assert machine.ask("check")[0] == 0
    assert machine.night().returncode == 0
    assert "resolved" in told(webhook)
    for secret in ("first", "second"):
        assert f":{secret}@" not in (machine.home / "sync.log").read_text()
