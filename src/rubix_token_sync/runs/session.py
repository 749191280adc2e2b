"""A session: the lease, the heartbeat, and the row that tells how a run ended."""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Final, Literal

from rubix_token_sync import node_files, threads
from rubix_token_sync.errors import SyncError, TargetError, WorkerCrashed
from rubix_token_sync.log import log_event
from rubix_token_sync.process_identity import Machine, own_holder
from rubix_token_sync.targets.base import Lease, SessionTotals, Target

__all__ = ["Session"]

_LOG = logging.getLogger(__name__)

_STALL_SECONDS: Final = 600.0
"""Longer than any call to a target or to a node's files may take."""

Status = Literal["COMPLETED", "FAILED", "INTERRUPTED"]


class Session:
    """Holds the lease of a source from `start` to `finish`.

    The heartbeat runs in a thread of its own; `error` says when it found that
    the lease is lost or the target has been silent for longer than a lease lasts.
    It vouches for progress, not for a thread: where neither the run (`touch`) nor a
    node's file system has moved for ``stall_seconds``, and the target is not at work
    (`occupied`), it stays silent, so that `status` shows the run as stuck and another
    one may take over.
    """

    def __init__(
        self,
        store: Target,
        source: str,
        command: str,
        *,
        totals: Callable[[], SessionTotals],
        heartbeat_seconds: float,
        lease_seconds: float,
        machine: Machine | None = None,
        stall_seconds: float = _STALL_SECONDS,
    ) -> None:
        """``machine``: it must be the source's own, or the first to use it."""
        self.lease = Lease(source, str(uuid.uuid4()), lease_seconds)
        self.error: SyncError | None = None
        self._store = store
        self._machine = machine
        self._command = command
        self._totals = totals
        self._pause = heartbeat_seconds
        self._patience = lease_seconds
        self._stall = stall_seconds
        self._touched = time.monotonic()
        self._occupied = False
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None

    @property
    def id(self) -> str:
        """The session's UUID."""
        return self.lease.session_id

    def start(self) -> int:
        """Take the lease and write the RUNNING row; how many dead sessions were found.

        Raises:
            LeaseHeld: another run works for this source.
            SourceTaken: it belongs to another machine.
        """
        self._store.acquire_lease(self.lease, own_holder(), self._machine)
        source = self.lease.source
        try:
            dead = self._store.start_session(
                self.id, source, socket.gethostname(), os.getpid(), self._command
            )
            self._thread = threads.daemon(self._beat, "rubix-heartbeat")
        except BaseException:
            with contextlib.suppress(SyncError):  # the first error is the one to tell
                self._store.release_lease(self.lease)
            raise
        return dead

    def touch(self) -> None:
        """The run has got on."""
        self._touched = time.monotonic()

    @contextlib.contextmanager
    def occupied(self) -> Iterator[None]:
        """The target is at work, and may be for long: indexes of many records."""
        self._occupied = True
        try:
            yield
        finally:
            self._occupied = False
            self.touch()

    def _stands_still(self) -> bool:
        moved = max(self._touched, node_files.last_answer())
        return not self._occupied and time.monotonic() - moved > self._stall

    def _beat(self) -> None:
        heard = time.monotonic()
        silent = False
        while not self._ended.wait(self._pause):
            if self._stands_still():
                if not silent:
                    log_event(
                        _LOG, logging.ERROR, "no_progress",
                        f"Nothing has moved for {self._stall:g} s; the lease is not renewed.",
                    )  # fmt: skip
                silent = True
                continue
            silent = False
            try:
                self._store.heartbeat(self.lease, self._totals())
                heard = time.monotonic()
            except TargetError as error:
                log_event(_LOG, logging.WARNING, "heartbeat_failed", str(error), code=error.code)
                if time.monotonic() - heard > self._patience:
                    self.error = error
                    return
            except SyncError as error:  # the lease is lost
                self.error = error
                return
            except Exception as error:  # noqa: BLE001 - handed to the run, which ends with it
                crash = WorkerCrashed(
                    f"The heartbeat failed: {type(error).__name__}: {error}",
                    code="heartbeat_crashed",
                    remedy="This is a bug; please report it with the log of a --verbose run.",
                )
                crash.__cause__ = error
                self.error = crash
                return

    def finish(self, status: Status, totals: SessionTotals, error_summary: str | None) -> None:
        """Stop the heartbeat, write how it ended, give the lease back."""
        self._stop_beating()
        self._store.finish_session(self.lease, status, totals, error_summary)

    def __enter__(self) -> Session:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop_beating()

    def _stop_beating(self) -> None:
        self._ended.set()
        if self._thread is not None:
            self._thread.join()
