"""The pool of a shared source: jobs go to hosts, and reports come back, or what the target knows.

See `rubix_token_sync.cluster.shared`.
"""

from __future__ import annotations

import contextlib
import logging
import queue
import time
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Protocol

from rubix_token_sync import node_files
from rubix_token_sync.cluster.board import POST
from rubix_token_sync.cluster.greeting import SchedulerUnreachable
from rubix_token_sync.cluster.roster import Member
from rubix_token_sync.cluster.sharing import (
    SHARE_TOPIC,
    Begun,
    Ended,
    Place,
    Share,
    SharedJob,
    ShareEvent,
    read_share_event,
    to_plain,
)
from rubix_token_sync.cluster.target import FleetTarget
from rubix_token_sync.cluster.watching import why_failed
from rubix_token_sync.errors import LeaseLost, SourceError, SyncError
from rubix_token_sync.log import log_event
from rubix_token_sync.runs.cancel import CancelToken
from rubix_token_sync.runs.jobs import ChunkPublished, Job, JobDone, JobFailed, Report, Summary
from rubix_token_sync.targets.base import DatabaseState, Lease, MarkCounts

if TYPE_CHECKING:
    from distributed import Client, Future

__all__ = ["Hosts", "SharedPool"]

_LOG = logging.getLogger(__name__)
_PACE: Final = 0.25
_LATE_SECONDS: Final = 5.0
"""A message comes before its task's end does, or within this time."""
_AGAIN_SECONDS: Final = 5.0
"""So long after a host was lost its address is not given another share."""
_RETURN_SECONDS: Final = 20.0
"""So long hosts may take to come back when none is left."""
_FINISH_SECONDS: Final = 30.0
"""So long a run that was asked to stop waits for the chunks under way."""
_LEAVE_SECONDS: Final = 2.0
_POSTED: Final = 500
"""Jobs in one message."""


class Hosts(Protocol):
    """Who shares the source, and what all shares of it have in common."""

    client: Client
    source: str
    roots: tuple[Place, ...]
    settings: Mapping[str, Any]
    target: FleetTarget

    def now(self) -> Sequence[Member]:
        """Those that are connected."""


@dataclass
class _Part:
    """What one host does in the run."""

    member: Member
    future: Future[None]
    state: str = "open"
    """``open``, ``done`` (nothing was left to take), ``failed`` or ``lost``."""
    error: SyncError | None = None
    begun: set[int] = field(default_factory=set)
    """Taken and not ended."""
    finished: float | None = None
    """When its task ended, without a word so far."""
    left: float = 0.0
    """When it was lost."""

    def lose(self, error: SyncError) -> None:
        """Its host reports no more."""
        self.state, self.error, self.left = "lost", error, time.monotonic()


class SharedPool:
    """Has jobs done by the hosts; as `runs.worker_pool.WorkerPool`, a context that ends them."""

    def __init__(self, hosts: Hosts, lease: Lease | None, stop: CancelToken) -> None:
        self._hosts = hosts
        self._lease = lease
        self._stop = stop
        self._run = str(uuid.uuid4())
        self._jobs: dict[int, Job] = {}
        """Those that have not ended."""
        self._parts: dict[str, _Part] = {}
        self._events: queue.SimpleQueue[object] = queue.SimpleQueue()
        self._on_report: Callable[[Report], None] = lambda _report: None
        self._marked: dict[bytes, datetime] = {}
        self._work = (0, 0)
        """Databases, and their bytes."""
        self._quiet: float | None = None

    def run(
        self,
        jobs: Iterable[Job],
        on_report: Callable[[Report], None],
        on_idle: Callable[[], None],
    ) -> None:
        """Have the jobs done, the first ones first; returns when all have ended.

        Raises:
            LeaseLost: another run has taken over.
            SyncError: the scheduler or every host is lost, and there is something left to do.
            Interrupted: the token was given.
        """
        self._on_report = on_report
        self._jobs = {job.number: job for job in jobs}
        self._marked = {key: state.last_processed for key, state in self._marks().items()}
        self._hosts.client.subscribe_topic(SHARE_TOPIC, lambda event: self._events.put(event[1]))
        self._post()
        while self._jobs:
            self._look_at_scheduler()
            self._give_shares()
            self._hear(time.monotonic() + _PACE)
            on_idle()
            self._look_at_futures()
            if not self._working():
                self._settle()

    # --------------------------------------------------------------------- giving

    def _post(self) -> None:
        client = self._hosts.client
        seen = [(job, *_seen(job.node.db_path)) for job in self._jobs.values()]
        self._work = (len(seen), sum(size for _, _, size in seen))
        plain = [to_plain(SharedJob(job, place)) for job, place, _ in seen]
        try:
            for start in range(0, len(plain), _POSTED):
                client.sync(
                    getattr(client.scheduler, POST),
                    run=self._run,
                    client=client.id,
                    jobs=plain[start : start + _POSTED],
                )
        except OSError as error:
            raise _scheduler_lost() from error

    def _give_shares(self) -> None:
        """To every host that has none; also to one that came later, or back."""
        if not self._untaken():
            return
        from rubix_token_sync.cluster.worker import resource, take_part

        now = time.monotonic()
        busy = {
            part.member.address
            for part in self._parts.values()
            if part.state != "lost" or now - part.left < _AGAIN_SECONDS
        }
        databases, size = self._work
        try:
            members = self._hosts.now()
        except SchedulerUnreachable:
            self._end_without_scheduler()
            return
        for member in members:
            if member.address in busy:
                continue
            share = Share(
                self._run,
                str(uuid.uuid4()),
                self._hosts.source,
                self._lease,
                self._hosts.roots,
                databases,
                size,
                self._hosts.settings,
            )
            future = self._hosts.client.submit(
                take_part,
                to_plain(share),
                key=f"share-{share.name}",
                workers=[member.address],
                resources={resource(member.source): 1},
                allow_other_workers=False,
                pure=False,
                retries=0,
            )
            self._parts[share.name] = _Part(member, future)
            log_event(
                _LOG, logging.INFO, "host_shares",
                f"{member.host} ({member.address}) takes part", host=member.host,
            )  # fmt: skip

    def _untaken(self) -> set[int]:
        taken = {number for part in self._parts.values() for number in part.begun}
        return self._jobs.keys() - taken

    # --------------------------------------------------------------------- hearing

    def _hear(self, until: float) -> None:
        """Take in what hosts reported, until then at most."""
        while self._jobs and (left := until - time.monotonic()) > 0:
            try:
                heard = read_share_event(self._events.get(timeout=left), self._run)
            except queue.Empty:
                return
            except ValueError as error:
                log_event(_LOG, logging.WARNING, "message_refused", f"Not understood: {error}")
                continue
            if heard is not None and heard[0] in self._parts:
                self._note(self._parts[heard[0]], heard[1])

    def _note(self, part: _Part, content: ShareEvent) -> None:
        if isinstance(content, Ended):
            self._ended(part, content)
        elif isinstance(content, Begun):
            part.begun.add(content.job)
        elif content.job in self._jobs:
            if content.ends_job:
                part.begun.discard(content.job)
                del self._jobs[content.job]
            self._on_report(content)

    def _ended(self, part: _Part, content: Ended) -> None:
        error = content.error
        if content.interrupted is not None:
            error = SyncError(
                f"{part.member.host} was asked to end before it was done.",
                code="host_interrupted",
                remedy="Run the command again; it goes on from what is stored.",
            )
            part.lose(error)
        elif error is not None:
            part.state, part.error = "failed", error
        else:
            part.state = "done"
            return
        log_event(
            _LOG, logging.WARNING, "host_failed",
            f"{part.member.host} takes no further part: {error}",
            host=part.member.host, code=error.code,
        )  # fmt: skip
        if isinstance(error, LeaseLost):
            raise error

    # --------------------------------------------------------------------- losing

    def _look_at_scheduler(self) -> None:
        if self._hosts.client.status != "running":
            self._end_without_scheduler()

    def _end_without_scheduler(self) -> None:
        """Nobody reports any more: what has a mark is done, the rest is the next run's."""
        error = _scheduler_lost()
        for part in self._parts.values():
            if part.state == "open":
                part.lose(error)
        self._close(self._begun())
        if self._jobs:
            raise error

    def _look_at_futures(self) -> None:
        for part in self._parts.values():
            if part.state != "open":
                continue
            status = part.future.status
            if status == "error":
                self._lose(part, why_failed(part.future.exception(timeout=_LATE_SECONDS)))
            elif status == "finished":
                part.finished = part.finished or time.monotonic()
                if time.monotonic() - part.finished > _LATE_SECONDS:
                    self._lose(part, "its report did not arrive")
            elif status != "pending":
                self._lose(part, f"its task was {status}")

    def _lose(self, part: _Part, how: str) -> None:
        part.lose(
            SyncError(
                f"{part.member.host} was lost ({how}) while it had this database.",
                code="host_lost",
                remedy="Look at that machine and its `cluster worker`; the next `cluster sync "
                "--shared` does what was left.",
                context={"host": part.member.host},
            )
        )
        log_event(
            _LOG, logging.WARNING, "host_lost",
            f"{part.member.host} ({part.member.address}) was lost: {how}.", host=part.member.host,
        )  # fmt: skip

    # --------------------------------------------------------------------- ending

    def _working(self) -> bool:
        """Somebody works, or may come back to."""
        if any(part.state == "open" for part in self._parts.values()):
            self._quiet = None
            return True
        self._quiet = self._quiet or time.monotonic()
        states = {part.state for part in self._parts.values()}
        back = "done" not in states and (not states or "lost" in states) and bool(self._untaken())
        return back and time.monotonic() - self._quiet < _RETURN_SECONDS

    def _settle(self) -> None:
        """Nobody works any more: what became of the rest, as far as the target knows.

        Raises:
            SyncError: jobs are left, and no host can do them.
        """
        if any(part.state == "done" for part in self._parts.values()):
            self._close(set(self._jobs))  # the board was empty: the rest was lost on its way
            return
        self._close(self._begun())
        if self._jobs:
            last = [part.error for part in self._parts.values() if part.error is not None]
            raise last[-1] if last else _nobody(self._hosts.source)

    def _begun(self) -> set[int]:
        return {number for part in self._parts.values() for number in part.begun}

    def _close(self, numbers: Iterable[int]) -> None:
        """End jobs of which no more will be heard: as the target has them, or as failed."""
        marks = self._marks() if self._lease is not None else {}
        errors = {n: part.error for part in self._parts.values() for n in part.begun}
        for number in sorted(numbers):
            job = self._jobs.pop(number)
            state = marks.get(job.database_key)
            if state is not None and state.last_processed != self._marked.get(job.database_key):
                for report in _as_marked(number, state):
                    self._on_report(report)
                continue
            error = errors.get(number) or SyncError(
                "A host was lost when it had just taken this database.",
                code="host_lost",
                remedy="The next `cluster sync --shared` does what was left.",
            )
            self._on_report(JobFailed(number, error))

    def _marks(self) -> dict[bytes, DatabaseState]:
        """What the target holds; nothing where it cannot be asked: then jobs count as failed."""
        if self._lease is None:
            return {}
        try:
            return self._hosts.target.marks(self._hosts.source)
        except SyncError as error:
            log_event(
                _LOG, logging.WARNING, "target_not_asked",
                f"The target's state could not be read: {error}", code=error.code,
            )  # fmt: skip
            return {}

    def __enter__(self) -> SharedPool:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End the hosts' work after the transactions under way; what they publish is reported."""
        working = [part for part in self._parts.values() if part.state == "open"]
        if self._jobs and working and self._hosts.client.status == "running":
            self._end(working)
        if self._hosts.client.status == "running":
            with contextlib.suppress(ValueError):  # it was never subscribed
                self._hosts.client.unsubscribe_topic(SHARE_TOPIC)

    def _end(self, working: list[_Part]) -> None:
        from rubix_token_sync.cluster.worker import stop_order

        number = self._stop.signal_number
        try:
            self._hosts.client.run(
                stop_order,
                self._run,
                number or 15,
                workers=[part.member.address for part in working],
                on_error="ignore",
            )
        except OSError as error:  # the run ends, and with it their lease
            _LOG.debug("The hosts could not be asked to end: %s", error)
            return
        until = time.monotonic() + (_LEAVE_SECONDS if number is None else _FINISH_SECONDS)
        while time.monotonic() < until and any(part.state == "open" for part in working):
            with contextlib.suppress(LeaseLost):
                self._hear(min(until, time.monotonic() + _PACE))
            self._look_at_futures()


def _nobody(source: str) -> SyncError:
    return SyncError(
        f"No host of the source {source} is left.",
        code="hosts_missing",
        remedy="Start `cluster worker` there, then run the command again; it goes on from what is "
        "stored.",
    )


def _scheduler_lost() -> SyncError:
    return SyncError(
        "The connection to the scheduler was lost.",
        code="scheduler_lost",
        remedy="Look at its log; when it runs, hosts join again by themselves. Then run the "
        "command again; it goes on from what is stored.",
    )


def _seen(path: str) -> tuple[Place, int]:
    """A database as this machine sees it, and its bytes."""
    try:
        status = node_files.stat(path)
    except (OSError, SourceError):  # whoever reads it says what is wrong
        return Place(path, None), 0
    return Place(path, status.st_ino), status.st_size


def _as_marked(number: int, state: DatabaseState) -> tuple[Report, ...]:
    """The reports that were lost, as far as the mark has them."""
    counts = MarkCounts(state.record_count, state.ipfs_success_count, state.validation_error_count)
    seconds = state.processing_duration_seconds
    return (
        ChunkPublished(number, 0, 0, 0, 0, 0, 0, 0, marked=counts),
        JobDone(number, Summary(state.record_count, 0, state.rejected_count, seconds)),
    )
