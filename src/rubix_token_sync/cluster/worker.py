"""A host's process in the cluster: Dask's worker, with our settings, which carries out orders.

One task at a time, no spilling, no stealing, no HTTP.  Where the scheduler is lost, an order
that is under way goes on to its end (the target is what counts), and the host joins again.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import signal
import socket
import time
from collections.abc import Callable
from typing import Any, Final

from distributed import Worker, get_worker
from distributed.core import Status
from distributed.utils import sync

from rubix_token_sync.cluster.board import TAKE
from rubix_token_sync.cluster.engine import NO_HTTP, Connection, root_of, running_dask
from rubix_token_sync.cluster.greeting import (
    SchedulerUnreachable,
    Versions,
    greet,
    knock,
    unreachable,
)
from rubix_token_sync.cluster.host import Host
from rubix_token_sync.cluster.messages import (
    TOPIC,
    HostProgress,
    HostReport,
    Order,
    event,
)
from rubix_token_sync.cluster.sharing import (
    SHARE_TOPIC,
    SharedJob,
    ShareEvent,
    read_job,
    read_share,
    share_event,
)
from rubix_token_sync.errors import SettingsError, SyncError
from rubix_token_sync.log import log_event

__all__ = ["HostWorker", "carry_out", "resource", "run_worker", "stop_order", "take_part"]

_LOG = logging.getLogger(__name__)
_AGAIN_SECONDS: Final = 2.0
_TOLD_SECONDS: Final = 60.0
_NOT_HERE: Final = frozenset({errno.EADDRINUSE, errno.EADDRNOTAVAIL, errno.EACCES})
_LEAVING_SECONDS: Final = 600.0
"""How long a host that was asked to end waits for the transaction that it is in."""


def resource(source: str) -> str:
    """Name of the resource that a host of this source has, and nobody else."""
    return f"source={source}"


class HostWorker(Worker):
    """Dask's worker for one `Host`."""

    def __init__(
        self,
        connection: Connection,
        host: Host,
        versions: Versions,
        *,
        directory: str,
        listen: str | None = None,
        port: int = 0,
        clock_ahead: float = 0.0,
    ) -> None:
        self.host_of_fleet = host
        self._connection = connection
        super().__init__(
            str(connection.address),
            nthreads=1,
            resources={resource(host.source): 1},
            security=connection.security(),
            host=listen or _way_to(connection),
            port=port,
            protocol=f"{connection.address.scheme}://",
            dashboard=False,
            dashboard_address=NO_HTTP,
            local_directory=directory,
            memory_limit=0,
            startup_information={
                "rubix": lambda _worker: {
                    "source": host.source,
                    "host_name": socket.gethostname(),
                    "versions": versions.plain(),
                    "clock_ahead": round(clock_ahead, 1),
                }
            },
        )

    async def close(  # type: ignore[override] # as Dask's own class has it
        self,
        timeout: float = 30,
        executor_wait: bool = False,
        nanny: bool = True,
        reason: str = "worker-close",
    ) -> str | None:
        """As Dask has it, without waiting for an order that is under way: that one goes on."""
        del executor_wait
        return await super().close(timeout, False, nanny, reason)

    def without_scheduler(self, error: BaseException) -> SchedulerUnreachable:
        """What happened to an order for which the scheduler is needed."""
        return unreachable(self._connection, str(error))

    async def gone(self) -> None:
        """Wait until it is closed, by whomever."""
        await super().finished()  # type: ignore[no-untyped-call]


def carry_out(given: dict[str, Any]) -> None:
    """The task of a host: what its coordinator submits.  What it reports are events.

    Raises:
        ValueError: it is not an order.
    """
    order = Order.read(given)
    worker = get_worker()
    if not isinstance(worker, HostWorker):
        raise ValueError("this is not a host of the fleet")

    def speak(content: HostProgress | HostReport) -> None:
        worker.log_event(TOPIC, event(order.run, order.source, content))

    worker.host_of_fleet.carry_out(
        order, speak, wanted=lambda: worker.status in (Status.running, Status.paused)
    )


def take_part(given: dict[str, Any]) -> None:
    """The task of a host that shares a source with others.

    Raises:
        ValueError: it is not a share.
    """
    share = read_share(given)
    worker = get_worker()
    if not isinstance(worker, HostWorker):
        raise ValueError("this is not a host of the fleet")

    def connected() -> bool:
        return worker.status in (Status.running, Status.paused)

    def send(content: ShareEvent) -> None:
        worker.log_event(SHARE_TOPIC, share_event(share, content))

    def take() -> SharedJob | None:
        try:
            found = sync(worker.loop, getattr(worker.scheduler, TAKE), run=share.run)
        except (OSError, RuntimeError, asyncio.CancelledError) as error:
            raise worker.without_scheduler(error) from error
        return None if found is None else read_job(found)

    worker.host_of_fleet.take_part(share, take, send, connected)


def stop_order(run: str, signal_number: int, dask_worker: Worker) -> None:
    """Run on a host by its coordinator: the order of this run is to end."""
    if isinstance(dask_worker, HostWorker):
        dask_worker.host_of_fleet.stop(run, signal_number)


def run_worker(
    connection: Connection,
    host: Host,
    *,
    listen: str | None = None,
    port: int = 0,
    on_joined: Callable[[str], None] = lambda _address: None,
) -> int:
    """Carry out orders until SIGTERM or Ctrl-C; the exit code that follows.

    Raises:
        SettingsError: it cannot take part: its certificate, version or address.
        SyncError: the scheduler does not let it join.
    """
    with running_dask(host.scratch) as directory:
        serving = _Serving(connection, host, directory, listen, port, on_joined)
        return asyncio.run(serving.run())


class _Serving:
    """Joins, and joins again, until it is asked to end."""

    def __init__(
        self,
        connection: Connection,
        host: Host,
        directory: str,
        listen: str | None,
        port: int,
        on_joined: Callable[[str], None],
    ) -> None:
        self._connection = connection
        self._host = host
        self._place = (directory, listen, port)
        self._on_joined = on_joined
        self._versions = Versions.own()

    async def run(self) -> int:
        loop, ended, asked = asyncio.get_running_loop(), asyncio.Event(), list[int]()

        def stop(number: int) -> None:
            if asked:  # a second time: at once, as any command
                os._exit(128 + number)
            asked.append(number)
            self._host.end(number)
            ended.set()

        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, stop, number)
        worker: HostWorker | None = None
        while not asked:
            joining = asyncio.ensure_future(self._joined())
            await _either(ended.wait(), joining)
            if not joining.done() or joining.cancelled():
                break
            worker = joining.result()
            self._on_joined(worker.address)
            await _either(ended.wait(), worker.gone())
            if not asked:
                log_event(
                    _LOG, logging.WARNING, "scheduler_lost",
                    f"The connection to the scheduler at {self._connection.address} is lost. What "
                    "is under way goes on; this host joins again when the scheduler answers.",
                )  # fmt: skip
        await self._leave(worker)
        return 128 + asked[0]

    async def _joined(self) -> HostWorker:
        """Join, however long no scheduler answers."""
        told = 0.0
        while True:
            try:
                return await self._join()
            except SchedulerUnreachable as error:
                if time.monotonic() - told > _TOLD_SECONDS:
                    told = time.monotonic()
                    log_event(
                        _LOG, logging.WARNING, "scheduler_unreachable",
                        f"{error.message} This host goes on trying.", code=error.code,
                    )  # fmt: skip
                await asyncio.sleep(_AGAIN_SECONDS)

    async def _join(self) -> HostWorker:
        await asyncio.to_thread(knock, self._connection)
        ahead = await greet(self._connection, self._versions)
        directory, listen, port = self._place
        _require_place(listen, port)
        try:
            worker = HostWorker(
                self._connection,
                self._host,
                self._versions,
                directory=directory,
                listen=listen,
                port=port,
                clock_ahead=ahead,
            )
            await worker
        except (OSError, RuntimeError, ValueError) as error:
            raise self._why_not(error) from error
        log_event(
            _LOG, logging.INFO, "host_joined",
            f"{self._host.source} has joined {self._connection.address} as {worker.address}",
        )  # fmt: skip
        return worker

    def _why_not(self, error: Exception) -> SyncError:
        """Why this host could not join."""
        cause = root_of(error)
        _, listen, port = self._place
        if isinstance(cause, OSError) and cause.errno in _NOT_HERE:
            return SettingsError(
                f"This host cannot listen at {listen or 'its address'}, port {port}: "
                f"{cause.strerror}.",
                code="cluster_port_taken",
                remedy="Choose another port by --port, or an address of this machine by --listen.",
            )
        if isinstance(cause, OSError):  # gone since it was greeted
            return unreachable(self._connection, str(cause))
        return SyncError(
            f"The scheduler at {self._connection.address} did not let this host join: "
            f"{str(cause).partition(chr(10))[0]}",
            code="join_refused",
            remedy="Its log says why.",
        )

    async def _leave(self, worker: HostWorker | None) -> None:
        """Ended on request: report how the order ended before the connection is closed."""
        deadline = time.monotonic() + _LEAVING_SECONDS
        while time.monotonic() < deadline:
            if await asyncio.to_thread(self._host.idle, 1.0):
                break
        if worker is not None:
            await asyncio.sleep(0.2)  # Dask sends what was reported in batches
            await worker.close(reason="asked to end")


def _require_place(listen: str | None, port: int) -> None:
    """
    Raises:
        SettingsError: no address has this name.
    """
    try:
        if listen is not None:
            socket.getaddrinfo(listen, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "no address can be called that"
        raise SettingsError(
            f"This host cannot listen at {listen}, port {port}: {why}.",
            code="cluster_port_taken",
            remedy="Give an address of this machine by --listen, or leave it out.",
        ) from error


async def _either(*waits: Any) -> None:
    """Until the first of them is done."""
    tasks = [asyncio.ensure_future(one) for one in waits]
    _, others = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for other in others:
        other.cancel()


def _way_to(connection: Connection) -> str:
    """This machine's address on the way to the scheduler; nothing is sent to find it out."""
    address = connection.address
    family, _, _, _, place = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_DGRAM)[
        0
    ]
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        probe.connect(place)
        own: str = probe.getsockname()[0]
    return own
