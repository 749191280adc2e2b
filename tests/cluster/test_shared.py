"""One source on several hosts, through the library's door, on real Dask in this process."""

from __future__ import annotations

import dataclasses
import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import rubix_token_sync as rts
from rubix_token_sync.cli import _run
from rubix_token_sync.cluster import Host, HostSettings, SharedOptions, sharing_hosts
from rubix_token_sync.cluster.greeting import Versions
from rubix_token_sync.cluster.partaking import Send, Take, place_of
from rubix_token_sync.cluster.sharing import Begun, Ended, Place, Share, SharedJob, ShareEvent
from rubix_token_sync.errors import LeaseHeld, LeaseLost, SyncError
from rubix_token_sync.library.results import SyncResult, VerifyResult
from rubix_token_sync.library.work import sync, verify
from rubix_token_sync.nodes.discovery import discover
from rubix_token_sync.records.schema import database_key
from rubix_token_sync.runs.cancel import CancelToken
from rubix_token_sync.runs.jobs import Job, JobDone, JobFailed
from rubix_token_sync.targets.base import TargetOptions
from rubix_token_sync.targets.registry import open_target, parse_target
from rubix_token_sync.testing import FleetPlan, make_fleet
from tests.chaos.target_state import content_of, leftovers
from tests.state import STATE_DIRECTORY

from .conftest import Cluster

SOURCE = "shared"
NODES, TOKENS = 6, 40


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What both hosts see."""
    made = tmp_path_factory.mktemp("shared")
    make_fleet(made, FleetPlan(nodes=NODES, tokens_per_node=TOKENS, seed=5))
    return made


class Partner(Host):
    """Notes what it does; its first database is taken when every partner has taken one."""

    def __init__(self, settings: HostSettings, start: threading.Barrier) -> None:
        super().__init__(settings)
        self.heard: list[ShareEvent] = []
        self.ended = threading.Event()
        self._start: threading.Barrier | None = start

    def take_part(self, share: Share, take: Take, send: Send, wanted: Callable[[], bool]) -> None:
        def taken() -> SharedJob | None:
            job = take()
            start, self._start = self._start, None
            if start is not None:
                start.wait(60)
            return job

        def said(content: ShareEvent) -> None:
            self.heard.append(content)
            self.say(content, send)

        super().take_part(share, taken, said, wanted)
        self.ended.set()

    def say(self, content: ShareEvent, send: Send) -> None:
        send(content)

    @property
    def done(self) -> int:
        return sum(isinstance(content, JobDone) for content in self.heard)


class Pair:
    """Two hosts that see the root, and a coordinator that does."""

    def __init__(self, cluster: Cluster, root: Path, target: str, tmp_path: Path) -> None:
        self.cluster, self.root, self.target = cluster, root, target
        self.start = threading.Barrier(2)
        self.configuration = rts.configure(
            str(root),
            target=target,
            source_ip=SOURCE,
            report=str(tmp_path / "reports"),
            state_directory=STATE_DIRECTORY,
        )

    def partner(self, kind: type[Partner] = Partner) -> Partner:
        """A host that is not connected."""
        return kind(self.cluster.host(SOURCE, self.target, (self.root,)).settings, self.start)

    def join(self, *kinds: type[Partner]) -> list[Partner]:
        partners = [self.partner(kind) for kind in kinds or (Partner, Partner)]
        for partner in partners:
            self.cluster.join(partner)
        return partners

    def sync(self, *, hosts: int = 2, **options: Any) -> SyncResult:
        given = SharedOptions(hosts, wait_seconds=0.0)
        with sharing_hosts(self.cluster.connection, self.configuration, given) as executor:
            return sync(executor=executor, configuration=self.configuration, **options)

    def verify(self, **options: Any) -> VerifyResult:
        given = SharedOptions(wait_seconds=0.0)
        with sharing_hosts(self.cluster.connection, self.configuration, given) as executor:
            return verify(executor=executor, configuration=self.configuration, **options)

    def plain(self, target: str) -> SyncResult:
        """What one host does by itself."""
        configuration = dataclasses.replace(self.configuration, target=parse_target(target))
        return sync(configuration=configuration)


@pytest.fixture
def pair(cluster: Cluster, root: Path, target: str, tmp_path: Path) -> Pair:
    return Pair(cluster, root, target, tmp_path)


@pytest.fixture
def plain(pair: Pair, tmp_path: Path) -> str:
    """The target of one plain sync of everything."""
    made = f"sqlite:///{tmp_path}/plain.db"
    assert pair.plain(made).exit_code == 0
    return made


def test_two_hosts_do_one_sync_and_a_plain_one_finds_everything_unchanged(
    pair: Pair, plain: str
) -> None:
    first, second = pair.join()
    done = pair.sync()
    assert (done.exit_code, done.status) == (0, "COMPLETED"), done.problems
    assert done.counters.inserted == NODES * TOKENS
    assert done.counters.databases_processed == NODES
    assert first.done + second.done == NODES
    assert min(first.done, second.done) > 0
    assert content_of(pair.target).difference(content_of(plain)) == ""
    assert leftovers(pair.target) == []
    (session,) = rts.sessions(target=pair.target)
    assert (session.source_ip, session.command, session.total_databases_processed) == (
        SOURCE, "sync", NODES,
    )  # fmt: skip
    again = pair.plain(pair.target)
    assert (again.counters.databases_current, again.counters.databases_processed) == (NODES, 0)
    assert again.exit_code == 0


def test_what_did_not_change_is_not_read(pair: Pair) -> None:
    pair.join()
    assert pair.sync().exit_code == 0
    again = pair.sync()
    assert (again.exit_code, again.counters.databases_current) == (0, NODES)


def test_two_hosts_verify_one_source(pair: Pair) -> None:
    import sqlite3

    pair.join()
    assert pair.sync().exit_code == 0
    equal = pair.verify()
    assert (equal.exit_code, equal.databases, equal.records) == (0, NODES, NODES * TOKENS)
    with sqlite3.connect(pair.target.removeprefix("sqlite:///")) as database:
        database.execute("UPDATE TokenRecords SET token_value = 77 WHERE id % 50 = 1")
    database.close()
    different = pair.verify()
    assert different.exit_code == 5
    assert different.differences["*"] == different.differences.total() > 1
    assert pair.verify(repair=True).exit_code == 0
    assert pair.verify().exit_code == 0


class Stalled(Partner):
    """Stands still when it has taken a database, and goes on when it is told to."""

    def __init__(self, settings: HostSettings, start: threading.Barrier) -> None:
        super().__init__(settings, start)
        self.taken, self.go_on = threading.Event(), threading.Event()

    def say(self, content: ShareEvent, send: Send) -> None:
        send(content)
        if isinstance(content, Begun):
            self.taken.set()
            assert self.go_on.wait(120)


def test_a_host_that_was_thought_lost_writes_nothing_when_it_comes_back(
    pair: Pair, plain: str
) -> None:
    """It costs the database that it had taken; the other host does the rest."""
    one, lost = pair.join(Partner, Stalled)
    assert isinstance(lost, Stalled)
    worker = pair.cluster.workers[1]

    def cut() -> None:
        assert lost.taken.wait(60)
        pair.cluster.leave(worker)

    cutting = threading.Thread(target=cut)
    cutting.start()
    try:
        done = pair.sync()
        cutting.join()
        assert done.exit_code == 1
        ((path, error),) = done.failed
        assert error.code == "host_lost"
        assert done.counters.databases_processed == one.done == NODES - 1
        assert [d.db_path for d in done.databases if d.status == "failed"] == [path]
        assert not lost.ended.is_set()
        # The next run, here a plain one, does what was left.
        assert pair.plain(pair.target).counters.databases_processed == 1
        before = content_of(pair.target)
        assert before.difference(content_of(plain)) == ""
    finally:
        lost.go_on.set()
    assert lost.ended.wait(60)
    ended = lost.heard[-1]
    assert isinstance(ended, Ended)
    assert isinstance(ended.error, LeaseLost)
    assert content_of(pair.target).difference(before) == ""
    assert leftovers(pair.target) == []


class Mute(Partner):
    """Does its first database, and nobody hears of it."""

    def __init__(self, settings: HostSettings, start: threading.Barrier) -> None:
        super().__init__(settings, start)
        self.published, self.gone = threading.Event(), threading.Event()

    def say(self, content: ShareEvent, send: Send) -> None:
        if isinstance(content, Begun):
            send(content)
        elif isinstance(content, JobDone):
            self.published.set()
            assert self.gone.wait(60)


def test_what_a_lost_host_had_published_is_read_from_the_target(pair: Pair, plain: str) -> None:
    _, mute = pair.join(Partner, Mute)
    assert isinstance(mute, Mute)
    worker = pair.cluster.workers[1]

    def cut() -> None:
        assert mute.published.wait(60)
        pair.cluster.leave(worker)
        mute.gone.set()

    cutting = threading.Thread(target=cut)
    cutting.start()
    done = pair.sync()
    cutting.join()
    assert (done.exit_code, done.counters.databases_processed) == (0, NODES), done.problems
    assert done.counters.records_processed == NODES * TOKENS
    assert content_of(pair.target).difference(content_of(plain)) == ""


def test_it_can_be_stopped_and_goes_on(pair: Pair, plain: str) -> None:
    _, stalled = pair.join(Partner, Stalled)
    assert isinstance(stalled, Stalled)
    stop = CancelToken()

    class Stopper(rts.Observer):
        def on_progress(self, progress: rts.Progress) -> None:
            if progress.counters.databases_processed:
                stop.ask(2)
                stalled.go_on.set()

    done = pair.sync(observers=[Stopper()], stop=stop)
    assert (done.exit_code, done.status) == (130, "INTERRUPTED")
    assert pair.sync().exit_code == 0
    assert content_of(pair.target).difference(content_of(plain)) == ""


def test_too_few_hosts_and_nothing_is_begun(pair: Pair) -> None:
    pair.cluster.join(pair.partner())
    older = dataclasses.replace(Versions.own(), program="0.0.1")
    pair.cluster.join(pair.partner(), versions=older)
    pair.cluster.join(pair.cluster.host("another", pair.target, (pair.root,)))
    with pytest.raises(SyncError) as missing:
        pair.sync(hosts=2)
    assert missing.value.code == "hosts_missing"
    assert not Path(pair.target.removeprefix("sqlite:///")).exists()


def test_a_second_run_is_held_off(pair: Pair) -> None:
    """The lease is the source's, whoever reads its databases."""
    _, stalled = pair.join(Partner, Stalled)
    assert isinstance(stalled, Stalled)
    found: list[SyncResult] = []
    first = threading.Thread(target=lambda: found.append(pair.sync()))
    first.start()
    try:
        assert stalled.taken.wait(60)
        with pytest.raises(LeaseHeld):
            pair.plain(pair.target)
    finally:
        stalled.go_on.set()
        first.join()
    assert found[0].exit_code == 0


def test_hosts_that_cannot_go_on_say_why(pair: Pair, tmp_path: Path) -> None:
    """Their target is another one, which knows nothing of the lease."""
    elsewhere = f"sqlite:///{tmp_path}/elsewhere.db"
    assert pair.plain(elsewhere).exit_code == 0
    pair.cluster.join(pair.cluster.host(SOURCE, elsewhere, (pair.root,)))
    before = content_of(elsewhere)
    with pytest.raises(LeaseLost):
        pair.sync(hosts=1)
    assert content_of(elsewhere).difference(before) == ""


# --- a host by itself -------------------------------------------------------------------------


@pytest.fixture
def share(pair: Pair) -> Share:
    return Share("r", "s", SOURCE, None, (place_of(str(pair.root)),), NODES, 1000)


def partaken(host: Host, share: Share, jobs: list[SharedJob]) -> list[ShareEvent]:
    heard: list[ShareEvent] = []
    waiting: Iterator[SharedJob] = iter(jobs)
    host.take_part(share, lambda: next(waiting, None), heard.append, lambda: True)
    return heard


def test_a_host_that_does_not_see_the_root_takes_nothing(pair: Pair, share: Share) -> None:
    host = pair.cluster.host(SOURCE, pair.target, (pair.root,))
    path = str(pair.root)
    other = dataclasses.replace(share, roots=(Place(path, (place_of(path).inode or 0) + 1),))
    (ended,) = partaken(host, other, [])
    assert isinstance(ended, Ended)
    assert ended.error is not None
    assert ended.error.code == "root_not_shared"
    (renamed,) = partaken(host, dataclasses.replace(share, source="other"), [])
    assert isinstance(renamed, Ended)
    assert renamed.error is not None
    assert renamed.error.code == "host_renamed"


def test_a_file_that_is_another_one_is_not_read(pair: Pair, share: Share) -> None:
    assert pair.plain(pair.target).exit_code == 0
    host = pair.cluster.host(SOURCE, pair.target, (pair.root,))
    node = discover([str(pair.root)]).nodes[0]
    job = Job(0, SOURCE, node, database_key(SOURCE, node.db_path), task="compare")
    other = SharedJob(job, Place(node.db_path, 1))
    begun, failed, ended = partaken(host, share, [other])
    assert (begun, ended) == (Begun(0), Ended())
    assert isinstance(failed, JobFailed)
    assert failed.error.code == "root_not_shared"
    right = partaken(host, share, [SharedJob(job, place_of(node.db_path))])
    assert isinstance(right[-2], JobDone)


def test_a_host_that_was_asked_to_end_takes_nothing_more(pair: Pair, share: Share) -> None:
    host = pair.cluster.host(SOURCE, pair.target, (pair.root,))
    host.end(15)
    node = discover([str(pair.root)]).nodes[0]
    job = Job(0, SOURCE, node, database_key(SOURCE, node.db_path), task="compare")
    heard = partaken(host, share, [SharedJob(job, place_of(node.db_path))])
    assert heard[-1] == Ended(interrupted=15)


# --- the command line ---------------------------------------------------------------------------


def test_the_command_line(pair: Pair, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pair.join()
    given = [
        "--shared", str(pair.root), "--scheduler", str(pair.cluster.connection.address),
        "--certs", str(pair.cluster.directory / "certificates" / "everybody"),
        "--target", pair.target, "--source-ip", SOURCE, "--json", "--quiet",
    ]  # fmt: skip
    assert _run(["cluster", "sync", *given, "--hosts", "2"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["total_databases_processed"] == NODES, document
    assert _run(["cluster", "verify", *given]) == 0
    assert json.loads(capsys.readouterr().out)["equal"]
    assert _run(["cluster", "sync", *given, "--source", "h1"]) == 2
    store = open_target(parse_target(pair.target), TargetOptions(read_only=True))
    assert store.leases() == []
    store.close()
