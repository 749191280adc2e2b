"""What decides in a cluster, without a network: who takes part, what a message is, how it ended."""

from __future__ import annotations

import dataclasses
from datetime import datetime
from typing import Any

import pytest

from rubix_token_sync.cluster.engine import SAFE, Address
from rubix_token_sync.cluster.greeting import Versions
from rubix_token_sync.cluster.messages import (
    FORWARDED,
    HostProgress,
    HostReport,
    Order,
    event,
    read_event,
)
from rubix_token_sync.cluster.outcome import HostOutcome, Judged, exit_code_of, judge_fleet
from rubix_token_sync.cluster.roster import Member, members_of, roster_of
from rubix_token_sync.cluster.target import fate
from rubix_token_sync.errors import SettingsError
from rubix_token_sync.monitor.problems import Problem
from rubix_token_sync.monitor.runs import RunRow
from rubix_token_sync.settings import Settings
from rubix_token_sync.settings.model import SECRETS

OWN = Versions("1.0", "3.11", "2026.8.0")

# --- addresses ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "plain", "expected"),
    [
        ("tls://vm0:8786", False, "tls://vm0:8786"),
        ("vm0", False, "tls://vm0:8786"),
        ("tls://[fd00::1]:9", False, "tls://[fd00::1]:9"),
        ("tcp://127.0.0.1:9", True, "tcp://127.0.0.1:9"),
        ("localhost:9", True, "tcp://localhost:9"),
    ],
)
def test_addresses(text: str, plain: bool, expected: str) -> None:
    assert str(Address.parse(text, plain=plain)) == expected


@pytest.mark.parametrize(
    ("text", "plain", "code"),
    [
        ("tcp://127.0.0.1:9", False, "plain_refused"),
        ("tcp://10.0.0.1:9", True, "plain_refused"),
        ("tcp://localhost.example.org:9", True, "plain_refused"),
        ("tls://vm0:9", True, "plain_refused"),
        ("http://vm0:9", False, "bad_scheduler_address"),
        ("tls://user@vm0:9", False, "bad_scheduler_address"),
        ("tls://vm0:x", False, "bad_scheduler_address"),
        ("tls://", False, "bad_scheduler_address"),
        ("tls://vm0:9/path", False, "bad_scheduler_address"),
        (f"tls://{'a' * 64}:9", False, "bad_scheduler_address"),
        ("tls://vm0..example:9", False, "bad_scheduler_address"),
    ],
)
def test_addresses_that_are_refused(text: str, plain: bool, code: str) -> None:
    with pytest.raises(SettingsError) as refused:
        Address.parse(text, plain=plain)
    assert refused.value.code == code


def test_dask_knows_our_settings() -> None:
    """A name that a later version drops would silently be nothing."""
    import dask
    import distributed  # noqa: F401 - brings its defaults

    nowhere = object()
    assert [name for name in SAFE if dask.config.get(name, nowhere) is nowhere] == []
    seconds = [SAFE[f"distributed.scheduler.{n}"] for n in ("no-workers-timeout", "worker-ttl")]
    assert sum(int(s.removesuffix("s")) for s in seconds) < 60, "a loss is named within a minute"
    assert int(SAFE["distributed.comm.timeouts.tcp"].removesuffix("s")) >= 11


# --- messages ----------------------------------------------------------------------------


def test_an_order_arrives_as_it_was_given() -> None:
    order = Order("r", "sync", "h1", {"batch_size": 7, "chains": True}, force=True)
    assert Order.read(order.plain()) == order


def test_what_an_order_may_set() -> None:
    assert Settings.model_fields.keys() >= FORWARDED
    assert not FORWARDED & SECRETS
    assert not {name for name in FORWARDED if "file" in name or "target" in name}
    with pytest.raises(ValueError, match="target"):
        Order("r", "sync", "h1", {"target": "sqlite:///x"}).plain()


@pytest.mark.parametrize(
    "given",
    [
        None,
        {},
        {"run": "r", "command": "rm", "source": "h1", "settings": {}},
        {"run": "r", "command": "sync", "source": 1, "settings": {}},
        {"run": "r", "command": "sync", "source": "h1", "settings": {"target_file": "/etc/x"}},
        {"run": "r", "command": "sync", "source": "h1", "settings": {"ipfs_program": "/bin/x"}},
        {"run": "r", "command": "sync", "source": "h1", "settings": {}, "force": "yes"},
        {"run": "r", "command": "sync", "source": "h1", "settings": {}, "shell": "x"},
    ],
)
def test_what_is_not_an_order(given: object) -> None:
    with pytest.raises(ValueError, match="not an order"):
        Order.read(given)


def test_reports_arrive_as_they_were_sent() -> None:
    problem = Problem("no_nodes", "None.", "h1", severity="warning")
    report = HostReport("h1", "sync", 0, "COMPLETED", problems=(problem,), document={"audit": 1})
    progress = HostProgress(0.5, 10, 9, seconds=2)
    for content in (report, progress):
        assert read_event(event("r", "h1", content), "r") == ("h1", content)
    assert read_event(event("other", "h1", progress), "r") is None
    assert read_event("anything", "r") is None


def test_a_long_text_is_cut() -> None:
    report = HostReport("h1", "sync", 1, "FAILED", message="x" * 100_000)
    heard = read_event(event("r", "h1", report), "r")
    assert heard is not None
    assert isinstance(heard[1], HostReport)
    assert heard[1].message is not None
    assert len(heard[1].message) < 5000


@pytest.mark.parametrize(
    "change",
    [
        {"exit_code": "0"},
        {"source": None},
        {"unheard_of": 1},
        {"problems": "none"},
        {"problems": [{"code": 1, "message": "x"}]},
        {"problems": [{"code": "x", "message": "x", "severity": "catastrophe"}]},
        {"document": []},
    ],
)
def test_what_is_not_a_report(change: dict[str, Any]) -> None:
    message = event("r", "h1", HostReport("h1", "sync", 0, "COMPLETED"))
    message["body"].update(change)
    with pytest.raises(ValueError, match=r"."):
        read_event(message, "r")


# --- who takes part --------------------------------------------------------------------------


def member(source: str, **given: Any) -> Member:
    return Member(source, f"vm-{source}", f"tls://{source}:1", given.pop("versions", OWN), **given)


def test_all_that_are_connected_or_known_take_part() -> None:
    roster = roster_of([member("a"), member("b")], OWN, named=(), known=("a", "c"))
    assert (sorted(roster.members), roster.absent) == (["a", "b"], ["c"])
    named = roster_of([member("a"), member("b")], OWN, named=("b",), known=("a", "c"))
    assert (sorted(named.members), named.absent) == (["b"], [])


def test_a_host_of_unknown_version_is_left_out() -> None:
    roster = roster_of([member("a", versions=None)], OWN, named=(), known=())
    assert roster.left_out["a"].code == "version_differs"
    assert roster.absent == []


def test_what_dask_says_of_workers() -> None:
    said = {"source": "a", "host_name": "vm1", "versions": OWN.plain(), "clock_ahead": 3}
    found = members_of({"tls://1": {"rubix": said}, "tls://2": {}, "tls://3": {"rubix": "x"}})
    assert found == [Member("a", "vm1", "tls://1", OWN, 3.0)]


# --- lost hosts ------------------------------------------------------------------------------


def row(status: str, age: float | None = None) -> RunRow:
    zeros = {f.name: 0 for f in dataclasses.fields(RunRow) if f.name.startswith("total_")}
    empty = {f.name: None for f in dataclasses.fields(RunRow)}
    given = {"session_id": "s", "source_ip": "a", "status": status, "stuck": False}
    return RunRow(**{**empty, **zeros, **given, "heartbeat_age_seconds": age})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("run", "silent", "expected"),
    [
        (None, 1, "wait"),
        (None, 16, "lost"),
        (row("RUNNING", 5), 1000, "wait"),
        (row("RUNNING", 61), 1, "lost"),
        (row("COMPLETED"), 1, "known"),
        (row("FAILED"), 1, "known"),
    ],
)
def test_what_the_target_says_of_a_lost_host(
    run: RunRow | None, silent: float, expected: str
) -> None:
    assert fate(run, silent_seconds=silent, lease_seconds=60) == expected


# --- how it ended ------------------------------------------------------------------------------


def host(source: str, state: str = "completed", code: int | None = 0, **more: Any) -> HostOutcome:
    return HostOutcome(source, f"vm-{source}", "tls://x", state, exit_code=code, **more)


def ended(*hosts: HostOutcome, command: str = "sync", **more: Any) -> tuple[int, list[Problem]]:
    signal_number = more.pop("signal_number", None)
    audit = more.pop("audit", 0)
    judged = Judged(command, hosts, more.pop("problems", ()), **more)
    problems = judge_fleet(judged)
    return exit_code_of(judged, problems, audit=audit, signal_number=signal_number), problems


def test_exit_codes() -> None:
    failed = host("b", "failed", 3, message="No.")
    assert ended(host("a"), host("b"))[0] == 0
    assert ended(host("a"), failed)[0] == 3, "they all say the same"
    assert ended(host("a"), failed, host("c", "failed", 4))[0] == 1
    assert ended(host("a"), failed, host("c", "absent", None))[0] == 1
    assert ended(host("a", "equal"), host("b", "different", 5), command="verify")[0] == 5
    assert ended(host("a", "lost", None), host("b", "different", 5), command="verify")[0] == 5
    assert ended(host("a", "interrupted", 143))[0] == 1
    assert ended(host("a"), signal_number=2)[0] == 130
    assert ended(host("a"), audit=6)[0] == 6
    assert ended(host("a", "completed", 1), audit=6)[0] == 1
    assert ended(problems=[Problem("hosts_missing", "None.")])[0] == 1


def test_lost_and_recovered() -> None:
    code, problems = ended(host("a"), host("b", "lost", None), lost={"b": "cut off"})
    assert (code, [(p.code, p.severity) for p in problems]) == (1, [("host_lost", "error")])
    code, problems = ended(host("a", read_from="target"), lost={"a": "cut off"})
    assert (code, [(p.code, p.severity) for p in problems]) == (0, [("host_lost", "warning")])
    code, problems = ended(host("a", read_from="target"), lost={"a": "cut off"}, strict=True)
    assert (code, problems[0].severity) == (1, "error")


def test_a_lost_scheduler() -> None:
    code, problems = ended(host("a", read_from="target"), scheduler_lost="it ended")
    assert (code, problems[0].code, problems[0].severity) == (0, "scheduler_lost", "warning")
    code, problems = ended(host("a", "lost", None), scheduler_lost="it ended")
    assert (code, problems[0].severity) == (1, "error")


def test_a_run_of_the_target_as_an_outcome() -> None:
    held = HostOutcome.of_run(
        dataclasses.replace(row("COMPLETED"), start_time=datetime(2026, 1, 1)), "vm1", "tls://x"
    )
    assert (held.state, held.exit_code, held.read_from) == ("completed", 0, "target")
    assert HostOutcome.of_run(row("FAILED"), "vm1", "tls://x").exit_code == 1
