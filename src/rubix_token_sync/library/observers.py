"""Who looks on while a job works."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rubix_token_sync.library.results import SyncResult, VerifyResult
    from rubix_token_sync.runs.jobs import Difference
    from rubix_token_sync.runs.progress import Progress
    from rubix_token_sync.runs.result import DatabaseOutcome, RunOptions, RunResult

__all__ = ["Observer", "Observers"]


class Observer:
    """Looks on at a `sync`, `retry_failed` or `verify`.  Every method may be left out.

    All are called in the thread that called the job.  What an observer raises ends the
    job (`on_start`, `on_progress`, `on_difference`) or is raised once every observer has
    had its turn (`on_database`, `on_end`, `on_failure`); the target is complete by then.
    """

    def on_start(self, options: RunOptions) -> None:
        """Before any work; what is wrong with the observer itself is best raised here."""

    def on_progress(self, progress: Progress) -> None:
        """Several times a second; ``progress`` goes on changing."""

    def on_difference(self, difference: Difference) -> None:
        """`verify` found a record that differs."""

    def on_database(self, database: DatabaseOutcome) -> None:
        """What became of one database; at the latest when the run has ended."""

    def on_end(self, result: SyncResult | VerifyResult) -> None:
        """The job came to its end, or was interrupted."""

    def on_failure(self, error: BaseException, result: RunResult | None) -> None:
        """The job failed with ``error``, which is raised afterwards.

        ``result`` is what was done until then; None where no session had begun.
        """

    def close(self) -> None:
        """The last call, whatever happened."""


class Observers:
    """Several observers as one."""

    def __init__(self, members: Iterable[Observer]) -> None:
        self._members = tuple(members)

    @contextmanager
    def around(self, options: RunOptions) -> Iterator[None]:
        """Start them before a job and close them after it."""
        try:
            for member in self._members:
                member.on_start(options)
            yield
        finally:
            self._all(lambda member: member.close())

    def on_progress(self, progress: Progress) -> None:
        for member in self._members:
            member.on_progress(progress)

    def on_difference(self, difference: Difference) -> None:
        for member in self._members:
            member.on_difference(difference)

    def on_databases(self, databases: Iterable[DatabaseOutcome]) -> None:
        found = list(databases)

        def all_databases(member: Observer) -> None:
            for database in found:
                member.on_database(database)

        self._all(all_databases)

    def on_end(self, result: SyncResult | VerifyResult) -> None:
        self._all(lambda member: member.on_end(result))

    def on_failure(self, error: BaseException, result: RunResult | None) -> None:
        self._all(lambda member: member.on_failure(error, result))

    def _all(self, call: Callable[[Observer], object]) -> None:
        """Everybody gets the call; the first error is raised afterwards."""
        first: Exception | None = None
        for member in self._members:
            try:
                call(member)
            except Exception as error:  # noqa: BLE001 - raised below, once all had their turn
                first = first or error
        if first is not None:
            raise first
