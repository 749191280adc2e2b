"""The scheduler of a cluster: Dask's, with our settings, and a greeting."""

from __future__ import annotations

import asyncio
import errno
import logging
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from rubix_token_sync.cluster.board import serve_board
from rubix_token_sync.cluster.engine import NO_HTTP, Address, Connection, root_of, running_dask
from rubix_token_sync.cluster.greeting import HELLO, Versions, answer_hello
from rubix_token_sync.errors import SettingsError, SyncError
from rubix_token_sync.log import log_event

if TYPE_CHECKING:
    from distributed import Scheduler

__all__ = ["run_scheduler", "scheduling"]

_LOG = logging.getLogger(__name__)


@asynccontextmanager
async def scheduling(connection: Connection, own: Versions) -> AsyncIterator[Scheduler]:
    """A scheduler that listens there, until the block is left.

    Raises:
        SettingsError: it cannot listen there.
    """
    from distributed import Scheduler

    address = connection.address
    scheduler = Scheduler(
        host=address.host,
        port=address.port,
        protocol=f"{address.scheme}://",
        security=connection.security(),
        dashboard=False,
        dashboard_address=NO_HTTP,
    )
    scheduler.handlers[HELLO] = answer_hello(own)
    serve_board(scheduler)
    try:
        await scheduler
    except (OSError, RuntimeError) as error:
        await scheduler.close()
        cause = root_of(error)
        if isinstance(cause, OSError):
            raise _deaf(address, cause) from error
        raise
    try:
        yield scheduler
    finally:
        await scheduler.close()


def run_scheduler(
    connection: Connection, *, on_listening: Callable[[str], None] = lambda _address: None
) -> int:
    """Serve until SIGTERM or Ctrl-C; the exit code that follows.

    Raises:
        SettingsError: it cannot listen there.
        SyncError: it ended without being asked to.
    """

    async def serve() -> int:
        loop, ended = asyncio.get_running_loop(), asyncio.Event()
        seen: list[int] = []

        def stop(number: int) -> None:
            seen.append(number)
            ended.set()

        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, stop, number)
        async with scheduling(connection, Versions.own()) as scheduler:
            log_event(
                _LOG, logging.INFO, "scheduler_listening",
                f"The scheduler listens at {scheduler.address}",
            )  # fmt: skip
            on_listening(scheduler.address)
            waits = [asyncio.ensure_future(w) for w in (ended.wait(), scheduler.finished())]
            _, others = await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            for other in others:
                other.cancel()
        if seen:
            return 128 + seen[0]
        raise SyncError(
            "The scheduler ended by itself.",
            code="scheduler_ended",
            remedy="Its log says why; start it again.",
        )

    with running_dask():
        return asyncio.run(serve())


def _deaf(address: Address, error: OSError) -> SettingsError:
    taken = error.errno == errno.EADDRINUSE
    return SettingsError(
        f"The scheduler cannot listen at {address}: {error.strerror or error}.",
        code="cluster_port_taken",
        remedy="Another one is running there; stop it, or choose another port."
        if taken
        else "Give an address of this machine by --listen.",
    )
