"""Files that put the program to work: each is held against the tool that reads it."""

from __future__ import annotations

import configparser
import json
import os
import pwd
import re
import shlex
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path

import pytest
from prometheus_client.core import Metric

from rubix_token_sync.metrics.families import outcome_families, progress_families
from rubix_token_sync.runs.progress import Progress

from .conftest import Answer, Webhook

Run = Callable[..., Answer]


def metric_names() -> set[str]:
    """Every name that a run or its textfile can show."""
    from datetime import datetime

    from rubix_token_sync.nodes.discovery import Discovery
    from rubix_token_sync.runs.progress import Counters
    from rubix_token_sync.runs.result import RunOptions, RunResult
    from rubix_token_sync.targets.registry import parse_target

    outcome = RunResult(
        options=RunOptions(("/",), "vm1", parse_target("sqlite:///x")),
        session_id=None,
        started_at=datetime(2026, 1, 1),
        seconds=1.0,
        status="COMPLETED",
        counters=Counters(),
        discovery=Discovery([], [], 0),
        databases=[],
        errors=[],
    )
    families: list[Metric] = [
        *progress_families("vm1", Progress()),
        *outcome_families("vm1", 1.0, 1.0, 0, outcome),
    ]
    return {f.name + ("_total" if f.type == "counter" else "") for f in families}


def written(run: Run, directory: Path, *arguments: str) -> dict[str, str]:
    directory.mkdir(exist_ok=True)
    assert run("install-service", "--to", str(directory), *arguments).exit_code == 0
    return {path.name: path.read_text() for path in directory.iterdir()}


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="no systemd-analyze here")
@pytest.mark.parametrize("roots", [(), ("/mnt/drived",), ("/mnt/a b", "/srv/nodes")])
def test_systemd_accepts_the_units(run: Run, tmp_path: Path, roots: tuple[str, ...]) -> None:
    units = written(run, tmp_path, "--user", "daemon", *roots)
    assert set(units) == {
        "rubix-token-sync.service",
        "rubix-token-sync.timer",
        "rubix-token-sync-status.service",
        "rubix-token-sync-status.timer",
        "rubix-token-sync-web.service",
    }
    done = subprocess.run(
        ["systemd-analyze", "verify", *(str(tmp_path / name) for name in units)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "rubix-token-sync" not in done.stderr, done.stderr
    for name in (
        "rubix-token-sync.service",
        "rubix-token-sync-status.service",
        "rubix-token-sync-web.service",
    ):
        rating = subprocess.run(
            ["systemd-analyze", "security", "--offline=true", "--threshold=25",
             str(tmp_path / name)],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert rating.returncode == 0, rating.stdout[-400:]


CLUSTER = {
    "cluster-scheduler": ("rubix-token-sync-scheduler.service",),
    "cluster-worker": ("rubix-token-sync-worker.service",),
    "cluster-fleet": ("rubix-token-sync-fleet.service", "rubix-token-sync-fleet.timer"),
}


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="no systemd-analyze here")
def test_systemd_accepts_the_units_of_a_cluster(run: Run, tmp_path: Path) -> None:
    for form, names in CLUSTER.items():
        written(
            run, tmp_path, "--form", form, "--user", "daemon", "--scheduler", "vm0", "/mnt/drived"
        )
        done = subprocess.run(
            ["systemd-analyze", "verify", *(str(tmp_path / name) for name in names)],
            capture_output=True,
            text=True,
            check=False,
        )
        assert (done.returncode, "rubix-token-sync" in done.stderr) == (0, False), done.stderr


@pytest.mark.parametrize("form", list(CLUSTER))
def test_the_units_of_a_cluster_run_commands_that_exist(
    run: Run, tmp_path: Path, form: str
) -> None:
    there = ("--form", form, "--user", "daemon", "--scheduler", "vm0", "/mnt/a b")
    units = written(run, tmp_path, *there)
    assert set(units) == set(CLUSTER[form])
    unit = configparser.ConfigParser(strict=False, interpolation=None)
    unit.optionxform = str  # type: ignore[assignment,method-assign]
    unit.read_string(units[CLUSTER[form][0]])
    arguments = shlex.split(unit["Service"]["ExecStart"])[1:]
    assert "tls://vm0:8786" in arguments
    assert "@" not in " ".join(arguments)
    assert unit["Service"]["ProtectSystem"] == "strict"
    assert run(*arguments, "--help").exit_code == 0, "what is unknown is an error"
    assert run("install-service", "--form", form, "--user", "daemon").exit_code == 2
    hostile = ("--scheduler", "vm0$(id)")
    assert run("install-service", "--form", form, "--user", "daemon", *hostile).exit_code == 2
    run("install-service", "--form", form, "--to", str(tmp_path), "--remove")
    assert list(tmp_path.iterdir()) == []


def test_the_unit_runs_what_a_user_would_run(run: Run, tmp_path: Path, fleet: Path) -> None:
    config = tmp_path / "settings.toml"
    config.write_text(
        f'target = "sqlite:///{tmp_path}/target.db"\nsource_ip = "vm1"\n'
        f'report = "{tmp_path}/reports"\nlog_file = "{tmp_path}/sync.log"\n'
    )
    units = written(
        run, tmp_path / "units", "--config", str(config), "--user", "rubix", str(fleet / "node032")
    )
    unit = configparser.ConfigParser(strict=False, interpolation=None)
    unit.optionxform = str  # type: ignore[assignment,method-assign]
    unit.read_string(units["rubix-token-sync.service"])
    command = shlex.split(unit["Service"]["ExecStart"])
    assert Path(command[0]).is_absolute()
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "120 records" in done.stdout
    assert unit["Service"]["User"] == "rubix"
    assert unit["Service"]["ProtectSystem"] == "strict"
    assert unit["Service"]["CapabilityBoundingSet"] == ""
    assert "Install" not in unit, "the timer starts it, not every boot"


def test_the_unit_that_looks_at_runs_tells_what_is_wrong(
    run: Run, tmp_path: Path, fleet: Path, webhook: Webhook
) -> None:
    config = tmp_path / "settings.toml"
    config.write_text(
        f'target = "sqlite:///{tmp_path}/target.db"\nsource_ip = "vm1"\n'
        f'alert_urls = ["{webhook.url}"]\n'
    )
    config.chmod(0o600)
    units = written(run, tmp_path / "units", "--config", str(config), "--user", "rubix")
    unit = configparser.ConfigParser(strict=False, interpolation=None)
    unit.optionxform = str  # type: ignore[assignment,method-assign]
    unit.read_string(units["rubix-token-sync-status.service"])
    command = shlex.split(unit["Service"]["ExecStart"])[1:]
    assert run("sync", str(fleet / "node032"), "--config", str(config)).exit_code == 0
    assert run(*command).exit_code == 0
    assert webhook.take() == []
    with sqlite3.connect(tmp_path / "target.db") as db:
        db.execute("UPDATE ProcessedDatabases SET last_seen_at = '2025-01-01 00:00:00'")
    db.close()
    done = run(*command)
    assert str(done.exit_code) in unit["Service"]["SuccessExitStatus"].split()
    assert "node032" in webhook.take()[0]["message"]


def test_what_was_written_can_be_removed(run: Run, tmp_path: Path) -> None:
    directory = tmp_path / "units"
    written(run, directory, "--user", "rubix")
    (directory / "other.service").write_text("mine")
    done = run("install-service", "--to", str(directory), "--remove")
    assert done.exit_code == 0
    assert "Removed" in done.err
    assert [path.name for path in directory.iterdir()] == ["other.service"]
    assert run("install-service", "--to", str(directory), "--remove").exit_code == 0
    assert run("install-service", "--remove").exit_code == 2
    (directory / "rubix-token-sync.timer").mkdir()
    assert "cannot be removed" in run("install-service", "--to", str(directory), "--remove").err


def test_what_a_service_still_needs_is_said(run: Run, tmp_path: Path) -> None:
    config = tmp_path / "settings.toml"
    done = run("install-service", "--to", str(tmp_path), "--user", "nobody-here", "--config",
               str(config))  # fmt: skip
    assert "the user nobody-here does not exist here" in done.err
    assert f"init --system --user nobody-here {tmp_path}`" in done.err
    assert run("init", "--system", str(tmp_path)).exit_code == 0
    config.write_text(f'target = "sqlite:///{tmp_path}/t.db"\nsource_ip = "vm1"\n')
    (tmp_path / "azure_sql_connection.txt").unlink()
    own = pwd.getpwuid(os.getuid()).pw_name
    done = run("install-service", "--to", str(tmp_path), "--user", own, "--config",
               str(config), str(tmp_path))  # fmt: skip
    assert "Before it runs" not in done.err
    config.write_text("batch_size = 0\nbatchsize = 1\n")
    done = run("install-service", "--to", str(tmp_path), "--user", "daemon", "--config",
               str(config), str(tmp_path / "no-such-root"))  # fmt: skip
    assert f"daemon cannot read {config}: chown daemon {config}" in done.err
    assert "[setting_unknown]" in done.err
    assert "no-such-root is not a directory" in done.err


def test_crons_lines_run_too(run: Run, tmp_path: Path, fleet: Path) -> None:
    config = tmp_path / "settings.toml"
    config.write_text(f'target = "sqlite:///{tmp_path}/target.db"\nsource_ip = "vm1"\n')
    table = written(
        run, tmp_path / "cron", "--form", "cron", "--user", "rubix", "--config", str(config),
        str(fleet / "node032"),
    )["rubix-token-sync.cron"]  # fmt: skip
    lines = [line for line in table.splitlines() if line and not line.startswith("#")]
    assert len(lines) == 2
    for line in lines:
        *when, user, command = line.split(" ", 6)[:5] + line.split(" ", 6)[5:]
        assert len(when) == 5
        assert user == "rubix"
        assert "%" not in command, "cron would end the line there"
    sync = lines[0].split(" ", 6)[6].replace("/var/lib/rubix-token-sync", str(tmp_path))
    done = subprocess.run(["/bin/sh", "-c", sync], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", ""), "cron mails what is printed"


@pytest.mark.skipif(
    not Path("/usr/sbin/logrotate").exists(), reason="logrotate is not installed here"
)
def test_logrotate_accepts_its_file(run: Run, tmp_path: Path) -> None:
    written(run, tmp_path, "--form", "logrotate", "--user", "root")
    file = tmp_path / "rubix-token-sync.logrotate"
    file.chmod(0o644)
    done = subprocess.run(
        ["/usr/sbin/logrotate", "--debug", str(file)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "error" not in done.stderr.lower()


@pytest.mark.parametrize("name", ["grafana-dashboard.json", "prometheus-rules.yml"])
def test_only_metrics_that_exist_are_asked_for(name: str) -> None:
    text = files("rubix_token_sync.deploy").joinpath(name).read_text()
    asked = set(re.findall(r"rubix_sync_[a-z_]+", text))
    assert asked
    assert asked <= metric_names()


def test_the_dashboard_is_one() -> None:
    document = json.loads(
        files("rubix_token_sync.deploy").joinpath("grafana-dashboard.json").read_text()
    )
    assert len({panel["id"] for panel in document["panels"]}) == len(document["panels"]) > 8
    for panel in document["panels"]:
        assert panel["targets"]
        at = panel["gridPos"]
        assert at["x"] + at["w"] <= 24


def test_printed_files_are_the_written_ones(run: Run, tmp_path: Path) -> None:
    for form in ("cron", "logrotate", "container", "prometheus", "grafana"):
        (text,) = written(run, tmp_path / form, "--form", form, "--user", "rubix").values()
        assert run("install-service", "--form", form, "--user", "rubix").out == text
        assert "@USER@" not in text
        assert "@PROGRAM@" not in text


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("--user", "root\nExecStart=/bin/sh"), "bad_user_name"),
        (("--calendar", "daily\nUnit=x"), "bad_calendar"),
        (("/mnt/x\nExecStartPre=/bin/sh",), "path_not_plain"),
        (("/mnt/%h",), "path_not_plain"),
        (("--config", "/etc/$(id)",), "path_not_plain"),
        (("--to", "/nonexistent/place"), "service_unwritable"),
    ],
)  # fmt: skip
def test_what_could_add_a_directive_is_refused(
    run: Run, arguments: tuple[str, ...], code: str
) -> None:
    from rubix_token_sync.cli import command_line
    from rubix_token_sync.errors import SettingsError

    with pytest.raises(SettingsError) as caught:
        command_line.main(["install-service", *arguments], standalone_mode=False)
    assert caught.value.code == code
    assert run("install-service", *arguments).exit_code == 2


def test_python_runs_it_where_there_is_no_script(monkeypatch: pytest.MonkeyPatch) -> None:
    from rubix_token_sync.cli.service import render

    monkeypatch.setattr(sys, "executable", "/usr/local/python/bin/python3")
    unit = render("rubix-token-sync.service", roots=(), user="u", config="/c", calendar="daily")
    assert "ExecStart=/usr/local/python/bin/python3 -P -m rubix_token_sync sync" in unit
