"""The fleet's run through its library door, on real Dask in this process, with mutual TLS."""

from __future__ import annotations

import dataclasses
import gc
import socket
import ssl
import threading
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from rubix_token_sync.cluster import (
    FleetOptions,
    FleetResult,
    Host,
    HostSettings,
    HostView,
    run_fleet,
    run_scheduler,
)
from rubix_token_sync.cluster.greeting import Refused, Versions, greet, knock
from rubix_token_sync.cluster.host import Speak
from rubix_token_sync.cluster.messages import HostProgress, HostReport, Order
from rubix_token_sync.errors import SettingsError
from rubix_token_sync.library.work import sync
from rubix_token_sync.runs.cancel import CancelToken
from tests.chaos.target_state import content_of, leftovers

from .conftest import HOSTS, Cluster

if TYPE_CHECKING:  # collecting the tests does not load Dask
    from rubix_token_sync.cluster.worker import HostWorker

Three = Callable[[], "list[HostWorker]"]
NOW = 0.0


def codes(result: FleetResult) -> set[str]:
    return {problem.code for problem in result.problems}


def states(result: FleetResult) -> dict[str, str]:
    return {host.source: host.state for host in result.hosts}


def run(cluster: Cluster, target: str, command: str = "sync", **options: object) -> FleetResult:
    given = {"wait_seconds": NOW, **options}
    return run_fleet(
        cluster.connection,
        cluster.coordinator(target),
        FleetOptions(command, **given),  # type: ignore[arg-type]
    )


def test_sync_again_verify_and_audit(
    cluster: Cluster, three: Three, target: str, tmp_path: Path
) -> None:
    three()
    done = run(cluster, target, hosts=3, audit=True)
    assert (done.exit_code, states(done)) == (0, dict.fromkeys(HOSTS, "completed")), done
    assert sum(host.inserted for host in done.hosts) == 180
    assert {host.read_from for host in done.hosts} == {"host"}
    assert done.audit is not None
    assert done.audit["databases"] == 3
    again = run(cluster, target)
    assert (again.exit_code, sum(h.databases_unchanged for h in again.hosts)) == (0, 3)
    verified = run(cluster, target, "verify")
    assert (verified.exit_code, states(verified)) == (0, dict.fromkeys(HOSTS, "equal"))
    assert sum(host.records for host in verified.hosts) == 180
    # The same as three plain syncs.
    plain = f"sqlite:///{tmp_path}/plain.db"
    for host in HOSTS:
        sync(cluster.directory / host, target=plain, source_ip=host, report=tmp_path)
    assert content_of(target).difference(content_of(plain)) == ""
    assert leftovers(target) == []


def test_differences_end_with_5_and_are_repaired(
    cluster: Cluster, three: Three, target: str
) -> None:
    import sqlite3

    three()
    assert run(cluster, target, hosts=3).exit_code == 0
    with sqlite3.connect(target.removeprefix("sqlite:///")) as database:
        database.execute("UPDATE TokenRecords SET token_value = 77 WHERE source_ip = 'h2'")
    database.close()
    found = run(cluster, target, "verify")
    assert (found.exit_code, states(found)["h2"]) == (5, "different")
    assert codes(found) == {"records_differ"}
    assert run(cluster, target, "verify", repair=True).exit_code == 0
    assert run(cluster, target, "verify").exit_code == 0


def test_a_source_without_a_host_is_never_passed_over(
    cluster: Cluster, three: Three, target: str
) -> None:
    workers = three()
    assert run(cluster, target, hosts=3).exit_code == 0
    cluster.leave(workers[1])
    done = run(cluster, target)
    assert (done.exit_code, codes(done), states(done)["h2"]) == (1, {"host_absent"}, "absent")
    assert run(cluster, target, sources=("h1", "h3")).exit_code == 0
    too_few = run(cluster, target, sources=("h1", "h3"), hosts=3)
    assert (too_few.exit_code, codes(too_few)) == (1, {"hosts_missing"})


@pytest.mark.parametrize("there", ["nothing", "another"])
def test_work_that_went_elsewhere_is_named(
    cluster: Cluster, three: Three, target: str, tmp_path: Path, there: str
) -> None:
    """The hosts' settings name another target than the coordinator's."""
    three()
    mine = f"sqlite:///{tmp_path}/mine.db"
    if there == "another":
        sync(cluster.directory / "h1", target=mine, source_ip="h1", report=tmp_path)
    done = run(cluster, mine, hosts=3, audit=True)
    wrong = [p for p in done.problems if p.code == "target_differs"]
    assert (done.exit_code, {p.source_ip for p in wrong}) == (1, set(HOSTS))
    compared = run(cluster, mine, "verify")
    elsewhere = {p.source_ip for p in compared.problems if p.code == "target_differs"}
    known = {"h1"} if there == "another" else set()
    assert (compared.exit_code, elsewhere) == (1, set(HOSTS) - known)
    audited = run(cluster, mine, "audit")
    assert (audited.exit_code, codes(audited)) == (1, {"target_differs"})
    assert run(cluster, target).exit_code == 0


def test_a_name_that_no_address_has_is_not_tried_for_ever(cluster: Cluster, target: str) -> None:
    from rubix_token_sync.cluster import run_worker

    for name in ("nowhere.invalid", "a" * 64):
        with pytest.raises(SettingsError) as refused:
            run_worker(cluster.connection, cluster.host("h1", target), listen=name)
        assert refused.value.code == "cluster_port_taken"
        assert name in refused.value.message


def test_nobody_is_connected(cluster: Cluster, target: str) -> None:
    done = run(cluster, target)
    assert done.exit_code == 1
    assert "hosts_missing" in codes(done)


def test_another_version_is_left_out_and_named(cluster: Cluster, target: str) -> None:
    older = dataclasses.replace(Versions.own(), program="0.0.1")
    cluster.join(cluster.host("h1", target))
    cluster.join(cluster.host("h2", target), versions=older, clock_ahead=-400.0)
    done = run(cluster, target)
    assert (done.exit_code, states(done)) == (1, {"h1": "completed", "h2": "left_out"})
    (problem,) = [p for p in done.problems if p.code == "version_differs"]
    assert "rubix-token-sync 0.0.1 here" in problem.message


def test_a_clock_that_is_wrong_is_named(cluster: Cluster, target: str) -> None:
    cluster.join(cluster.host("h1", target), clock_ahead=-400.0)
    done = run(cluster, target)
    assert (done.exit_code, codes(done)) == (0, {"host_clock"}), "leases go by the target's clock"


def test_two_hosts_of_one_name_are_left_out(cluster: Cluster, target: str) -> None:
    for _ in range(2):
        cluster.join(cluster.host("h1", target))
    done = run(cluster, target)
    assert (done.exit_code, codes(done)) == (1, {"source_twice", "hosts_missing"})


def test_a_host_that_fails_says_why(cluster: Cluster, target: str, tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    host = cluster.host("h2", target, (gone,))
    gone.rmdir()
    cluster.join(cluster.host("h1", target))
    cluster.join(host)
    done = run(cluster, target)
    assert (done.exit_code, states(done)) == (2, {"h1": "completed", "h2": "failed"})
    (problem,) = [p for p in done.problems if p.code == "host_failed"]
    assert problem.detail == "no_such_root"


def test_no_secret_leaves_a_host(
    cluster: Cluster, three: Three, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every message is looked at where Dask hands it over."""
    held: list[object] = []
    three_target = f"sqlite:///{tmp_path}/sesame-opens-nothing.db"
    workers = [cluster.join(cluster.host(name, three_target)) for name in HOSTS]
    for worker in workers:
        send = worker.log_event

        def keep(topic: str, message: object, send: Callable[..., None] = send) -> None:
            held.append(message)
            send(topic, message)

        monkeypatch.setattr(worker, "log_event", keep)
    assert run(cluster, three_target, hosts=3).exit_code == 0
    assert len(held) >= 3
    assert "sesame" not in str(held)
    with pytest.raises(ValueError, match="not for another machine"):
        run(cluster, three_target, settings={"target": "sqlite:///elsewhere.db"})


class LateHost(Host):
    """Carries out its order only when its connection is gone."""

    def __init__(self, settings: HostSettings) -> None:
        super().__init__(settings)
        self.cut_off = threading.Event()

    def carry_out(self, order: Order, speak: Speak, wanted: Callable[[], bool]) -> None:
        assert self.cut_off.wait(60)
        super().carry_out(order, speak, wanted=lambda: True)


def test_a_host_is_lost_and_its_report_is_read_from_the_target(
    cluster: Cluster, target: str
) -> None:
    """The connection of h2 ends; its run goes on, and the target has the truth."""
    cluster.join(cluster.host("h1", target))
    late = LateHost(cluster.host("h2", target).settings)
    worker = cluster.join(late)

    def cut(_views: Sequence[HostView]) -> None:
        if not late.cut_off.is_set():
            cluster.leave(worker)
            late.cut_off.set()

    done = run_fleet(
        cluster.connection,
        cluster.coordinator(target),
        FleetOptions("sync", hosts=2, wait_seconds=NOW),
        on_update=cut,
    )
    assert states(done) == {"h1": "completed", "h2": "completed"}, done.problems
    assert {h.source: h.read_from for h in done.hosts} == {"h1": "host", "h2": "target"}
    assert (done.exit_code, codes(done)) == (0, {"host_lost"})
    assert {p.severity for p in done.problems} == {"warning"}


def test_a_host_that_is_lost_for_good_is_an_error(cluster: Cluster, target: str) -> None:
    """It verifies, which leaves nothing in the target to read the outcome from."""
    cluster.join(cluster.host("h1", target))
    assert run(cluster, target).exit_code == 0
    late = LateHost(cluster.host("h2", target).settings)
    worker = cluster.join(late)

    def cut(_views: Sequence[HostView]) -> None:
        if not late.cut_off.is_set():
            cluster.leave(worker)
            late.cut_off.set()

    done = run_fleet(
        cluster.connection,
        cluster.coordinator(target),
        FleetOptions("verify", hosts=2, wait_seconds=NOW),
        on_update=cut,
    )
    assert (done.exit_code, states(done)) == (1, {"h1": "equal", "h2": "lost"})
    (problem,) = done.problems
    assert (problem.code, problem.severity, problem.source_ip) == ("host_lost", "error", "h2")


def test_a_host_stops_at_its_next_safe_point(cluster: Cluster, target: str) -> None:
    host = cluster.host("h1", target)
    order = Order(run="r", command="sync", source="h1")
    heard: list[HostProgress | HostReport] = []

    def speak(content: HostProgress | HostReport) -> None:
        heard.append(content)
        host.stop("another run", 15)
        if len(heard) == 2:
            host.stop("r", 2)

    host.carry_out(order, speak, wanted=lambda: True)
    assert isinstance(heard[-1], HostReport)
    host.stop("r", 2)  # it has ended: nothing happens
    heard.clear()
    host.end(15)
    host.carry_out(order, heard.append, wanted=lambda: True)
    (report,) = [content for content in heard if isinstance(content, HostReport)]
    assert (report.status, report.exit_code) == ("INTERRUPTED", 143)
    heard.clear()
    host.carry_out(order, heard.append, wanted=lambda: False)
    assert heard == [], "its coordinator is gone"


def test_it_can_be_stopped(cluster: Cluster, target: str) -> None:
    """Ctrl-C reaches the hosts; what they had stored stays."""
    late = LateHost(cluster.host("h1", target).settings)
    cluster.join(late)
    stop = CancelToken()

    def first(views: Sequence[HostView]) -> None:
        stop.ask(2)
        late.cut_off.set()

    done = run_fleet(
        cluster.connection,
        cluster.coordinator(target),
        FleetOptions("sync", wait_seconds=NOW),
        on_update=first,
        stop=stop,
    )
    assert done.exit_code == 130
    assert run(cluster, target).exit_code == 0


def test_who_is_let_in(cluster: Cluster, tmp_path: Path) -> None:
    """A foreign certificate, another version, and what is no scheduler of ours."""
    from rubix_token_sync.cluster import Certificates, make_certificates

    knock(cluster.connection)
    assert abs(cluster.do(greet(cluster.connection, Versions.own()))) < 5
    make_certificates(tmp_path, ["stranger"])
    stranger = Certificates(str(tmp_path / "stranger"))
    with pytest.raises(Refused, match="not one of this cluster's authority") as refused:
        knock(dataclasses.replace(cluster.connection, certificates=stranger))
    assert refused.value.code == "certificate_foreign"
    # It believes us, and we do not believe it.
    authority = Path(cluster.certificates.authority).read_bytes()
    Path(stranger.authority).write_bytes(authority)
    with pytest.raises(Refused, match="does not accept this machine's certificate") as refused:
        knock(dataclasses.replace(cluster.connection, certificates=stranger))
    assert refused.value.code == "certificate_refused"
    older = dataclasses.replace(Versions.own(), program="0.0.1")
    with pytest.raises(Refused, match=r"rubix-token-sync 0\.0\.1 here") as refused:
        cluster.do(greet(cluster.connection, older))
    assert refused.value.code == "version_differs"
    del cluster.scheduler.handlers["rubix_hello"]
    try:
        with pytest.raises(Refused) as refused:
            cluster.do(greet(cluster.connection, Versions.own()))
    finally:
        from rubix_token_sync.cluster.greeting import answer_hello

        cluster.scheduler.handlers["rubix_hello"] = answer_hello(Versions.own())
    assert refused.value.code == "scheduler_foreign"


def greeting_of(port: int, context: ssl.SSLContext | None) -> bytes:
    """The first byte that a server of Dask says to whom it lets in; empty: it did not."""
    with socket.create_connection(("127.0.0.1", port), 20) as raw:
        try:
            if context is None:
                raw.sendall(b"\0" * 64)
                return raw.recv(1).replace(b"\x15", b"")  # an alert of TLS
            with context.wrap_socket(raw) as wrapped:
                return wrapped.recv(1)
        except (ssl.SSLError, ConnectionError):
            return b""


def test_nobody_gets_in_otherwise(cluster: Cluster, target: str) -> None:
    """Neither to the scheduler nor to a host: with a certificate and TLS 1.3, or not at all."""
    worker = cluster.join(cluster.host("h1", target))
    held = cluster.certificates

    def context(*, certificate: bool = True) -> ssl.SSLContext:
        made = ssl.create_default_context(cafile=held.authority)
        made.check_hostname = False
        if certificate:
            made.load_cert_chain(held.certificate, held.key)
        return made

    older = context()
    older.maximum_version = ssl.TLSVersion.TLSv1_2
    for port in (cluster.scheduler.port, worker.port):
        assert greeting_of(port, context()) != b"", "this is what it looks like"
        assert greeting_of(port, context(certificate=False)) == b""
        assert greeting_of(port, older) == b""
        assert greeting_of(port, None) == b""


def test_a_port_that_is_taken_is_named(cluster: Cluster, target: str) -> None:
    from rubix_token_sync.cluster import run_worker

    port = cluster.connection.address.port
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # tornado leaves the socket behind
        with pytest.raises(SettingsError) as scheduler:
            run_scheduler(cluster.connection)
        with pytest.raises(SettingsError) as worker:
            run_worker(cluster.connection, cluster.host("h1", target), port=port)
        for caught in (scheduler, worker):
            assert caught.value.code == "cluster_port_taken"
            assert "in use" in caught.value.message
        del caught, scheduler, worker
        gc.collect()


def test_nothing_is_served_without_encryption(cluster: Cluster, three: Three) -> None:
    """Dask's HTTP ports are on loopback and empty."""
    import httpx

    for server in [cluster.scheduler, *three()]:
        (port,) = {s.getsockname()[1] for s in server.http_server._sockets.values()}
        (address,) = {s.getsockname()[0] for s in server.http_server._sockets.values()}
        assert address == "127.0.0.1"
        for path in ("/", "/status", "/metrics", "/health", "/info/main/workers.html"):
            assert httpx.get(f"http://127.0.0.1:{port}{path}").status_code == 404
