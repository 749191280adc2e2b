"""A host's part in a shared source: databases one by one, under the coordinator's lease.

Knows nothing of Dask.  What does the work is what does it in a plain sync on this host: the
same worker processes, with this host's settings, target file and content; they publish by
themselves, and each of their transactions asks the target whether the lease still holds.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from typing import Final

from rubix_token_sync import node_files
from rubix_token_sync.cluster.sharing import Begun, Place, Share, SharedJob, ShareEvent
from rubix_token_sync.errors import SettingsError, SourceError, SyncError
from rubix_token_sync.library.configuration import Configuration
from rubix_token_sync.runs.cancel import CancelToken
from rubix_token_sync.runs.jobs import Job, JobFailed, Report, RowsRead, Tally
from rubix_token_sync.runs.survey import Survey
from rubix_token_sync.targets.registry import open_target

__all__ = ["place_of", "take_part"]

_PACE: Final = 1.0
"""Seconds between two reports of how far databases are, at least."""

Take = Callable[[], SharedJob | None]
Send = Callable[[ShareEvent], None]


def place_of(path: str) -> Place:
    """A path as this host sees it."""
    try:
        return Place(path, node_files.stat(path).st_ino)
    except (OSError, SourceError):  # whoever reads it says what is wrong
        return Place(path, None)


def take_part(
    configuration: Configuration, share: Share, take: Take, send: Send, stop: CancelToken
) -> None:
    """Do jobs until ``take`` has no more; ``send`` gets what becomes of them.

    What ``take`` raises comes when the jobs under way have ended.

    Raises:
        SettingsError: this host does not see the shared roots.
        SyncError: what ended the work here: the target, the lease, a worker.
        Interrupted: ``stop`` came.
    """
    _know(configuration, share)
    options = configuration.run_options("sync")
    roots = tuple(root.path for root in share.roots)
    survey = Survey(replace(options, roots=roots), lambda _progress: None, stop)
    survey.require_extras()
    survey.progress.begin({0: share.size})
    with closing(open_target(options.target, options.store)) as store:
        pool = survey.pool(share.databases, store, lease=share.lease, shared=True)
    jobs, gathered = _Taken(take, send), _Gathered(send)
    with pool:
        survey.work(pool, jobs, gathered, lambda: None)
    if jobs.error is not None:
        raise jobs.error


def _know(configuration: Configuration, share: Share) -> None:
    """A host that does not see what is shared would find every database missing."""
    if configuration.settings.source_ip != share.source:
        raise SettingsError(
            f"This host is {configuration.settings.source_ip} now, and was {share.source} when "
            "it joined.",
            code="host_renamed",
            remedy="Start `cluster worker` again there.",
        )
    for root in share.roots:
        if not _same(root):
            raise SettingsError(
                f"{root.path} on this host is not what the coordinator sees there.",
                code="root_not_shared",
                remedy="Mount the shared file system at the same place on every host that takes "
                "part, then start `cluster sync --shared` again.",
            )


def _same(place: Place) -> bool:
    return place.inode is None or place_of(place.path).inode == place.inode


class _Taken:
    """Jobs, as they are taken."""

    def __init__(self, take: Take, send: Send) -> None:
        self._take, self._send = take, send
        self.error: SyncError | None = None
        """Why there are no more, where it is not that all were taken."""

    def __iter__(self) -> Iterator[Job]:
        while (taken := self._next()) is not None:
            number, place = taken.job.number, taken.database
            self._send(Begun(number))
            if _same(place):
                yield taken.job
                continue
            error = SourceError(
                f"{place.path} on this host is not the file that the coordinator sees there.",
                code="root_not_shared",
                remedy="Mount the shared file system at the same place on every host that takes "
                "part.",
            )
            self._send(JobFailed(number, error))

    def _next(self) -> SharedJob | None:
        try:
            return self._take()
        except SyncError as error:
            self.error = error
            return None


class _Gathered:
    """Sends how far databases are once a second, and everything else at once."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self._held: dict[int, RowsRead] = {}
        self._last = time.monotonic()

    def __call__(self, report: Report) -> None:
        if isinstance(report, RowsRead):
            self._hold(report)
            if time.monotonic() - self._last > _PACE:
                self._last = time.monotonic()
                for held in self._held.values():
                    self._send(held)
                self._held.clear()
            return
        before = self._held.pop(report.job, None)
        if before is not None:
            self._send(before)
        self._send(report)

    def _hold(self, report: RowsRead) -> None:
        before = self._held.get(report.job)
        if before is not None:
            tally = Tally()
            tally.add(before.tally)
            tally.add(report.tally)
            differences = before.differences + report.differences
            report = replace(report, tally=tally, differences=differences)
        self._held[report.job] = report
