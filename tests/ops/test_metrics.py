"""Metrics: asked for during a run by a real client, and left behind for node_exporter."""

from __future__ import annotations

import socket
import threading
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

import rubix_token_sync as rts
from rubix_token_sync.metrics import MetricsEndpoint
from rubix_token_sync.runs.progress import Progress
from rubix_token_sync.testing import FleetPlan, make_fleet

from .conftest import Answer

Sync = Callable[..., Answer]


def samples(text: str) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    """Everything that Prometheus's own parser reads."""
    found = {}
    for family in text_string_to_metric_families(text):
        assert family.documentation, family.name
        for sample in family.samples:
            found[sample.name, tuple(sorted(sample.labels.items()))] = sample.value
    return found


def ask(port: int) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
        text: str = answer.read().decode()
    return text


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def test_the_endpoint_shows_the_runs_own_counters() -> None:
    with MetricsEndpoint("127.0.0.1", free_port(), "vm1") as endpoint:
        before = samples(ask(endpoint.port))
        assert before["rubix_sync_up", (("source", "vm1"),)] == 1
        assert before["rubix_sync_tokens_read_total", (("source", "vm1"),)] == 0
        progress = Progress()
        progress.counters.tokens_read = 4711
        progress.counters.content_failures["no_cid"] = 3
        progress.counters.databases_failed = 2
        endpoint.observe(progress)
        now = samples(ask(endpoint.port))
        assert now["rubix_sync_tokens_read_total", (("source", "vm1"),)] == 4711
        key = (("reason", "no_cid"), ("source", "vm1"))
        assert now["rubix_sync_content_failures_total", key] == 3
        assert now["rubix_sync_databases", (("source", "vm1"), ("state", "failed"))] == 2
        progress.counters.tokens_read = 4712
        assert samples(ask(endpoint.port))[
            "rubix_sync_tokens_read_total", (("source", "vm1"),)
        ] == 4712  # fmt: skip
        port = endpoint.port
    with pytest.raises(OSError, match="refused"):
        socket.create_connection(("127.0.0.1", port), timeout=1)


def test_a_run_serves_while_it_works(
    sync: Sync, fleet: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A real scrape from inside of a run: the bar's callback is called while it is under way."""
    from rubix_token_sync.runs.sync import Run

    port, seen = free_port(), []
    tick = Run.tick

    def scraped(self: Any, **arguments: Any) -> None:
        tick(self, **arguments)
        seen.append(samples(ask(port)))

    monkeypatch.setattr(Run, "tick", scraped)
    assert sync("--metrics-port", str(port)).exit_code == 0
    assert seen[-1]["rubix_sync_tokens_read_total", (("source", "vm1"),)] == 120
    assert seen[-1]["rubix_sync_progress_ratio", (("source", "vm1"),)] == 1
    with pytest.raises(OSError, match="refused"):
        socket.create_connection(("127.0.0.1", port), timeout=1)


def test_a_port_that_is_taken_stops_a_run_before_it_begins(sync: Sync, tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        done = sync("--metrics-port", port, "--json")
    assert (done.exit_code, done.json["error"]["code"]) == (2, "metrics_port_taken")
    assert not (tmp_path / "target.db").exists()


def test_a_slow_client_does_not_hold_up_the_end() -> None:
    endpoint = MetricsEndpoint("127.0.0.1", free_port(), "vm1")
    with socket.create_connection(("127.0.0.1", endpoint.port)) as idle:
        idle.send(b"GET /metrics HTTP/1.1\r\n")
        began = time.monotonic()
        closing = threading.Thread(target=endpoint.close, daemon=True)
        closing.start()
        closing.join(5)
        assert not closing.is_alive()
        assert time.monotonic() - began < 5


def test_the_textfile_has_the_runs_numbers(sync: Sync, fleet: Path, tmp_path: Path) -> None:
    file = tmp_path / "rubix.prom"
    roots = (fleet / "node033", fleet / "node037")
    assert sync("--metrics-file", str(file), roots=roots).exit_code == 1
    found = samples(file.read_text())
    vm = (("source", "vm1"),)
    assert found["rubix_sync_last_run_exit_code", vm] == 1
    assert found["rubix_sync_last_run_records_inserted", vm] == 123
    assert found["rubix_sync_records", (("kind", "rbt"), *vm)] == 123
    assert abs(found["rubix_sync_last_success_timestamp_seconds", vm] - time.time()) < 60
    by_node = {
        dict(labels)["node"]: value
        for (name, labels), value in found.items()
        if name == "rubix_sync_node_records"
    }
    assert by_node == {"node033": 123, "node037": 0}, "what the target holds of each"
    failed = {
        dict(labels)["node"]: value
        for (name, labels), value in found.items()
        if name == "rubix_sync_node_failed"
    }
    assert failed == {"node033": 0, "node037": 1}
    assert not [p for p in tmp_path.iterdir() if p.name.startswith("rubix.prom.")]


def test_the_last_success_outlives_failures(sync: Sync, tmp_path: Path) -> None:
    file = tmp_path / "rubix.prom"
    assert sync("--metrics-file", str(file)).exit_code == 0
    success = samples(file.read_text())["rubix_sync_last_success_timestamp_seconds", (("source", "vm1"),)]  # fmt: skip  # noqa: E501
    (tmp_path / "target.db").write_bytes(b"this is no database any more, whatever its name" * 9)
    assert sync("--metrics-file", str(file)).exit_code == 3
    after = samples(file.read_text())
    assert after["rubix_sync_last_success_timestamp_seconds", (("source", "vm1"),)] == success
    assert after["rubix_sync_last_run_exit_code", (("source", "vm1"),)] == 3
    assert after["rubix_sync_last_run_timestamp_seconds", (("source", "vm1"),)] > success


@pytest.mark.parametrize("place", ["no/such/file.prom", "fleet/node032/Rubix/x.prom"])
def test_a_file_that_cannot_be_is_said_before_the_run(
    sync: Sync, tmp_path: Path, place: str
) -> None:
    done = sync("--metrics-file", str(tmp_path / place), "--json")
    assert done.exit_code == 2
    assert done.json["error"]["code"] in ("metrics_unwritable", "inside_a_node")
    assert not (tmp_path / "target.db").exists()


def test_hostile_node_names_are_labels_only(sync: Sync, fleet: Path, tmp_path: Path) -> None:
    hostile = fleet / 'x"}\nrubix_sync_up{source="evil'
    (fleet / "node032").rename(hostile)
    file = tmp_path / "rubix.prom"
    sync("--metrics-file", str(file), roots=(hostile,))
    names = {name for name, _ in samples(file.read_text())}
    assert "rubix_sync_up" not in names
    assert "rubix_sync_node_records" in names


def test_a_nodes_name_brings_no_control_characters_into_the_file(tmp_path: Path) -> None:
    fleet = make_fleet(tmp_path / "fleet", FleetPlan(nodes=1, tokens_per_node=2))
    name = "a\x1b]0;owned\x07\n\u202eb"
    Path(fleet.directory, fleet.nodes[0].name).rename(fleet.directory / name)
    file = tmp_path / "m.prom"
    rts.sync(
        fleet.directory, target=f"sqlite:///{tmp_path}/t.db", source_ip="vm1",
        observers=[rts.MetricsFileObserver(file)],
    )  # fmt: skip
    text = file.read_text(encoding="utf-8")
    assert 'node="a\\\\x1b]0;owned' in text
    assert all(line.isprintable() for line in text.splitlines())
