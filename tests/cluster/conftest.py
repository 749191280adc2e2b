"""A cluster in this process: a scheduler and hosts on loopback, with mutual TLS."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import pytest

from rubix_token_sync.cluster import (
    Address,
    Certificates,
    Connection,
    Host,
    HostSettings,
    make_certificates,
)
from rubix_token_sync.cluster.engine import running_dask
from rubix_token_sync.cluster.greeting import Versions
from rubix_token_sync.cluster.scheduler import scheduling
from rubix_token_sync.library.configuration import Configuration, configure
from rubix_token_sync.testing import FleetPlan, make_fleet
from tests.state import STATE_DIRECTORY

if TYPE_CHECKING:  # collecting the tests does not load Dask
    from rubix_token_sync.cluster.worker import HostWorker

T = TypeVar("T")
HOSTS = ("h1", "h2", "h3")


class Cluster:
    """Runs Dask's servers in a thread of their own."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        make_certificates(directory / "certificates", ["everybody"])
        self.certificates = Certificates(str(directory / "certificates" / "everybody"))
        for number, host in enumerate(HOSTS, start=1):
            plan = FleetPlan(nodes=1, tokens_per_node=60, seed=number)
            make_fleet(directory / host, plan)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()
        self._stack = contextlib.ExitStack()
        self._scratch = self._stack.enter_context(running_dask())
        self._scheduling = scheduling(self._at("127.0.0.1", 0), Versions.own())
        self.scheduler = self.do(self._scheduling.__aenter__())
        self.connection = self._at("127.0.0.1", self.scheduler.port)
        self.workers: list[HostWorker] = []

    def _at(self, host: str, port: int) -> Connection:
        return Connection(Address("tls", host, port), self.certificates)

    def do(self, work: Coroutine[Any, Any, T]) -> T:
        """Have something done in the servers' thread."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(60)

    def join(
        self, host: Host, *, versions: Versions | None = None, clock_ahead: float = 0.0
    ) -> HostWorker:
        """Connect a host."""
        from rubix_token_sync.cluster.worker import HostWorker

        async def begin() -> HostWorker:
            worker = HostWorker(
                self.connection,
                host,
                versions or Versions.own(),
                directory=self._scratch,
                clock_ahead=clock_ahead,
            )
            await worker
            return worker

        self.workers.append(self.do(begin()))
        return self.workers[-1]

    def leave(self, worker: HostWorker) -> None:
        """End a host's worker."""
        self.do(worker.close())
        self.workers.remove(worker)

    def host(self, name: str, target: str, roots: tuple[Path, ...] | None = None) -> Host:
        """A host of this directory's nodes, with settings of its own."""
        found = roots if roots is not None else (self.directory / name,)
        return Host(
            HostSettings(
                roots=tuple(map(str, found)),
                overrides={
                    "target": target,
                    "source_ip": name,
                    "report": str(self.directory / "reports" / name),
                    "state_directory": STATE_DIRECTORY,
                },
            )
        )

    def coordinator(self, target: str, **settings: Any) -> Configuration:
        """The coordinator's own configuration."""
        return configure(target=target, source_ip="coordinator", **settings)

    def close(self) -> None:
        for worker in list(self.workers):
            self.leave(worker)
        self.do(self._scheduling.__aexit__(None, None, None))
        self._stack.close()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


@pytest.fixture(scope="session")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    made = Cluster(tmp_path_factory.mktemp("cluster"))
    yield made
    made.close()


@pytest.fixture
def cluster(running: Cluster) -> Iterator[Cluster]:
    """The session's cluster, without any host; the test's hosts leave after it."""
    yield running
    for worker in list(running.workers):
        running.leave(worker)


@pytest.fixture
def target(tmp_path: Path) -> str:
    """An empty embedded target."""
    return f"sqlite:///{tmp_path}/target.db"


@pytest.fixture
def three(cluster: Cluster, target: str) -> Callable[[], list[HostWorker]]:
    """Connects three hosts."""
    return lambda: [cluster.join(cluster.host(name, target)) for name in HOSTS]
