"""Alerts through a real webhook: what is told, once, and never at the cost of a run."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rubix_token_sync.alerts import Alert
from rubix_token_sync.alerts.memory import Memory
from rubix_token_sync.testing import delete_tokens

from .conftest import SECRET, Answer, Webhook

Sync = Callable[..., Answer]
Run = Callable[..., Answer]


@pytest.fixture
def alerting(webhook: Webhook, monkeypatch: pytest.MonkeyPatch) -> Webhook:
    monkeypatch.setenv("RUBIX_SYNC_ALERT_URLS", webhook.url)
    return webhook


def change(tmp_path: Path, sql: str, *values: Any) -> None:
    conn = sqlite3.connect(tmp_path / "target.db")
    with conn:
        assert conn.execute(sql, values).rowcount > 0
    conn.close()


def ago(**age: float) -> str:
    return (datetime.now(UTC) - timedelta(**age)).strftime("%Y-%m-%d %H:%M:%S.%f")


# --- runs -----------------------------------------------------------------------


def test_nothing_is_told_of_a_healthy_run(sync: Sync, alerting: Webhook) -> None:
    assert sync().exit_code == 0
    assert alerting.messages == []


def test_a_failed_database_is_told_once_and_when_it_is_mended(
    sync: Sync, alerting: Webhook, fleet: Path
) -> None:
    broken = fleet / "node032" / "Rubix" / "rubix.db"
    good = broken.read_bytes()
    assert sync().exit_code == 0
    broken.write_bytes(b"no database" * 100)
    assert sync().exit_code == 1
    (message,) = alerting.take()
    assert message["title"] == "Rubix sync, vm1: 1 problem"
    assert "node032" in message["message"]
    assert "[not_a_database]" in message["message"]
    assert message["type"] == "failure"
    assert sync().exit_code == 1
    assert alerting.take() == [], "told before"
    broken.write_bytes(good)
    assert sync().exit_code == 0
    (message,) = alerting.take()
    assert message["title"] == "Rubix sync, vm1: resolved"
    assert "node032" in message["message"]
    assert message["type"] == "success"
    assert sync().exit_code == 0
    assert alerting.take() == []


def test_a_lasting_problem_is_told_again(
    sync: Sync, alerting: Webhook, fleet: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RUBIX_SYNC_ALERT_REPEAT_HOURS", "0")
    sync(roots=(fleet / "node037",))
    sync(roots=(fleet / "node037",))
    first, second = alerting.take()
    assert "Still:" not in first["message"]
    assert "Still:" in second["message"]


def test_a_run_that_cannot_go_on_is_told(
    run: Run, sync: Sync, alerting: Webhook, fleet: Path, tmp_path: Path
) -> None:
    (tmp_path / "target.db").write_bytes(b"not a database, but long enough to be read as one" * 9)
    done = sync()
    assert done.exit_code == 3
    (message,) = alerting.take()
    assert "The run failed" in message["message"]
    assert "[damaged_target]" in message["message"]
    assert sync().exit_code == 3
    assert alerting.take() == []
    (tmp_path / "target.db").unlink()
    assert sync().exit_code == 0
    assert [m["title"] for m in alerting.take()] == ["Rubix sync, vm1: resolved"]


def test_a_run_that_only_waits_its_turn_is_no_problem(
    sync: Sync, alerting: Webhook, tmp_path: Path
) -> None:
    assert sync().exit_code == 0
    change(
        tmp_path,
        "INSERT INTO SyncLeases (source_ip, session_id, holder, acquired_at, heartbeat_at)"
        " VALUES ('vm1', 'x', 'elsewhere|-|1|1', ?, ?)",
        ago(seconds=5),
        ago(seconds=1),
    )
    assert sync().exit_code == 4
    assert alerting.take() == []


def test_missing_content_that_lies_with_the_machine(
    sync: Sync, alerting: Webhook, fleet: Path
) -> None:
    assert sync(roots=(fleet / "node033",)).exit_code == 0
    assert alerting.take() == [], "absent blocks and large contents are data"
    assert sync(roots=(fleet / "node034",)).exit_code == 0
    (message,) = alerting.take()
    assert "20 of 20 records without content: the node has no" in message["message"]
    assert "[no_repository]" in message["message"]


def test_rules_of_content_and_records(
    sync: Sync, alerting: Webhook, fleet: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RUBIX_SYNC_ALERT_CONTENT_BELOW", "95")
    monkeypatch.setenv("RUBIX_SYNC_ALERT_RECORDS_DROP", "10")
    root = fleet / "node033"
    sync(roots=(root,))
    (message,) = alerting.take()
    assert "Only 88.62 % of the records have content" in message["message"]
    delete_tokens(root / "Rubix" / "rubix.db", 0.15)
    sync(roots=(root,))
    (message,) = alerting.take()
    assert "Records fell by" in message["message"]
    assert "from 123 to" in message["message"]
    assert "Only" not in message["message"], "told before"


def test_overdue_nodes_of_this_source(
    sync: Sync, alerting: Webhook, fleet: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RUBIX_SYNC_ALERT_MAX_AGE_HOURS", "26")
    sync(roots=(fleet / "node033",))
    change(tmp_path, "UPDATE ProcessedDatabases SET last_seen_at = ?", ago(hours=50))
    assert sync().exit_code == 0
    (message,) = alerting.take()
    assert "node033 was last synced 50.0 hours ago" in message["message"]


def test_success_is_told_where_it_is_wanted(
    sync: Sync, alerting: Webhook, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RUBIX_SYNC_ALERT_ON", "success")
    assert sync().exit_code == 0
    (message,) = alerting.take()
    assert message["title"] == "Rubix sync, vm1: completed"
    assert "120 new records" in message["message"]


# --- what no run can tell -------------------------------------------------------


def test_status_tells_of_the_dead(run: Run, sync: Sync, alerting: Webhook, tmp_path: Path) -> None:
    assert sync().exit_code == 0
    change(
        tmp_path,
        "UPDATE SyncSessions SET status = 'RUNNING', end_time = NULL, heartbeat_at = ?",
        ago(minutes=5),
    )
    target = ("--target", f"sqlite:///{tmp_path}/target.db")
    assert run("status", *target, "--alert", "--max-age", "26h").exit_code == 1
    (message,) = alerting.take()
    assert message["title"] == "Rubix sync, monitor: 1 problem"
    assert "has been silent for 30" in message["message"]
    run("status", *target, "--alert")
    assert alerting.take() == [], "told before"
    assert sync().exit_code == 0, "the next run closes the dead one"
    run("status", *target, "--alert")
    # The dead session ended as FAILED or INTERRUPTED; the newest run is fine.
    assert [m["title"] for m in alerting.take()] == ["Rubix sync, monitor: resolved"]


def test_stopped_night_after_night_is_told_once(
    run: Run, sync: Sync, alerting: Webhook, tmp_path: Path
) -> None:
    target = ("--target", f"sqlite:///{tmp_path}/target.db")
    for night in range(3):
        assert sync("--force").exit_code == 0
        change(
            tmp_path,
            "UPDATE SyncSessions SET status = 'INTERRUPTED' WHERE status = 'COMPLETED'",
        )
        run("status", *target, "--alert")
        assert len(alerting.take()) == (1 if night == 0 else 0)


def test_status_alert_needs_somebody(run: Run, sync: Sync, tmp_path: Path) -> None:
    sync()
    done = run("status", "--target", f"sqlite:///{tmp_path}/target.db", "--alert", "--json")
    assert done.exit_code == 2
    assert done.json["error"]["code"] == "no_alert_urls"


# --- heartbeats -----------------------------------------------------------------


def test_a_completed_run_beats(
    sync: Sync, webhook: Webhook, fleet: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RUBIX_SYNC_HEARTBEAT_URL", webhook.beat_url)
    assert sync().exit_code == 0
    assert webhook.beats == [f"/ping/{SECRET}"]
    (fleet / "target-is-a-directory").mkdir()
    sync("--dry-run")
    assert len(webhook.beats) == 1, "a dry run is no run"


def test_a_failed_run_does_not_beat(
    sync: Sync, webhook: Webhook, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RUBIX_SYNC_HEARTBEAT_URL", webhook.beat_url)
    (tmp_path / "target.db").write_bytes(b"no database at all, whatever its name may say" * 9)
    assert sync().exit_code == 3
    assert webhook.beats == []


# --- channels that fail ---------------------------------------------------------


@pytest.mark.parametrize("how", ["refused", "answers 500"])
def test_a_failing_channel_changes_nothing_and_is_tried_again(
    sync: Sync, webhook: Webhook, fleet: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    url = webhook.url if how == "answers 500" else f"json://127.0.0.1:1/{SECRET}"
    webhook.status = 500
    monkeypatch.setenv("RUBIX_SYNC_ALERT_URLS", url)
    monkeypatch.setenv("RUBIX_SYNC_HEARTBEAT_URL", webhook.beat_url)
    done = sync(roots=(fleet / "node037",))
    assert done.exit_code == 1, "the run's own code"
    assert "An alert could not be delivered" in done.err
    assert "The heartbeat URL could not be reached" in done.err
    assert SECRET not in done.out + done.err
    webhook.status = 200
    monkeypatch.setenv("RUBIX_SYNC_ALERT_URLS", webhook.url)
    sync(roots=(fleet / "node037",))
    assert len(webhook.take()) == 1, "what did not arrive is told by the next run"


def test_a_memory_that_cannot_be_kept_is_told(
    sync: Sync, alerting: Webhook, fleet: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("RUBIX_SYNC_STATE_DIRECTORY", str(tmp_path / "file" / "below"))
    done = sync(roots=(fleet / "node037",))
    assert done.exit_code == 1
    assert "cannot be written" in done.err
    assert len(alerting.take()) == 1


def test_a_broken_memory_is_told(
    sync: Sync, alerting: Webhook, fleet: Path, tmp_path: Path
) -> None:
    sync(roots=(fleet / "node037",))
    (memory,) = (tmp_path / "state" / "rubix-token-sync").glob("alerts-*")
    assert memory.stat().st_mode & 0o077 == 0
    assert SECRET not in memory.read_text()
    memory.write_text("{")
    done = sync(roots=(fleet / "node037",))
    assert "cannot be used" in done.err
    assert len(alerting.take()) == 2


# --- addresses ------------------------------------------------------------------


def test_addresses_from_a_file_of_ones_own(
    sync: Sync, webhook: Webhook, fleet: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "urls.txt"
    file.write_text(f"# on call\n{webhook.url}\n\n")
    file.chmod(0o600)
    monkeypatch.setenv("RUBIX_SYNC_ALERT_URLS_FILE", str(file))
    sync(roots=(fleet / "node037",))
    assert len(webhook.take()) == 1
    file.chmod(0o644)
    done = sync("--json")
    assert (done.exit_code, done.json["error"]["code"]) == (2, "alert_urls_insecure")
    file.unlink()
    done = sync("--json")
    assert (done.exit_code, done.json["error"]["code"]) == (2, "alert_urls_unreadable")


def test_an_address_that_is_none_is_said_before_the_run(
    sync: Sync, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RUBIX_SYNC_ALERT_URLS", f"nosuchservice://{SECRET}/x")
    done = sync("--json")
    assert (done.exit_code, done.json["error"]["code"]) == (2, "alert_url_invalid")
    assert SECRET not in done.out + done.err
    assert not (tmp_path / "target.db").exists()


def test_secrets_of_addresses_show_up_nowhere(
    sync: Sync, webhook: Webhook, fleet: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Incident 10, for alerts: log, report, target, state, output."""
    webhook.status = 403
    monkeypatch.setenv("RUBIX_SYNC_ALERT_URLS", webhook.url)
    monkeypatch.setenv("RUBIX_SYNC_HEARTBEAT_URL", webhook.beat_url)
    log = tmp_path / "log.txt"
    done = sync("--verbose", "--log-file", str(log), roots=(fleet / "node037",))
    shown = done.out + done.err + log.read_text()
    assert "alert" in shown
    assert SECRET not in shown
    for directory, _, names in os.walk(tmp_path):
        for name in names:
            assert SECRET.encode() not in (Path(directory) / name).read_bytes(), name


def test_state_is_kept_out_of_nodes(
    sync: Sync, alerting: Webhook, fleet: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RUBIX_SYNC_STATE_DIRECTORY", str(fleet / "node032" / "Rubix" / "state"))
    done = sync("--json")
    assert (done.exit_code, done.json["error"]["code"]) == (2, "inside_a_node")


# --- memory ---------------------------------------------------------------------


@given(
    steps=st.lists(
        st.tuples(st.sets(st.sampled_from("abcd")), st.integers(1, 100)), min_size=1, max_size=30
    ),
    repeat=st.sampled_from([0, 50, 1000]),
)
def test_each_problem_begins_and_ends_once(steps: list[tuple[set[str], int]], repeat: int) -> None:
    memory, now = Memory(), 1_000_000.0
    told: dict[str, float] = {}
    for wrong, passed in steps:
        now += passed
        news, memory = memory.compare([Alert(k, f"m{k}") for k in sorted(wrong)], now, repeat)
        new, again = {a.key for a in news.new}, {a.key for a in news.again}
        over = {message[1:] for message in news.over}
        assert new == wrong - set(told)
        assert over == set(told) - wrong
        assert again == {k for k in wrong & set(told) if now - told[k] >= repeat}
        told = {k: now if k in new | again else told[k] for k in wrong}


def test_every_alert_ends_with_a_message() -> None:
    """Incident 28: also one whose cause ended while nobody looked, told by an older version."""
    happened = Alert("content/x", "20 tokens")
    changes, memory = Memory().compare([happened], 0.0, 3600)
    assert changes.new == [happened]
    changes, memory = memory.compare([], 10.0, 3600)
    assert changes.over == ["20 tokens"]
    changes, memory = memory.compare([happened], 20.0, 3600)
    assert changes.new == [happened]


def test_what_nobody_looked_at_is_not_over() -> None:
    database, failed = Alert("database_failed/x", "x"), Alert("run/login_failed", "y")
    _, memory = Memory().compare([database], 0.0, 100)
    news, memory = memory.compare([failed], 10.0, 100, about="run/")
    assert (news.new, news.over) == ([failed], [])
    news, memory = memory.compare([database], 20.0, 100)
    assert (news.new, news.over) == ([], ["y"])


def test_another_code_of_a_failed_run_is_news() -> None:
    first, second = Alert("run/login_failed", "login"), Alert("run/disk_full", "full")
    _, memory = Memory().compare([first], 0.0, 100, about="run/")
    news, _ = memory.compare([second], 10.0, 100, about="run/")
    assert (news.new, news.over) == ([second], ["login"])
