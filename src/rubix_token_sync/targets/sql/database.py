"""A target as a place where work is done: connections, transactions, retries, errors."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Any, Final, TypeVar

import sqlalchemy as sa
from tenacity import (
    RetryCallState,
    Retrying,
    retry_if_exception,
    stop_after_attempt,
    stop_after_delay,
)

from rubix_token_sync import failpoints
from rubix_token_sync.errors import (
    CommitAmbiguous,
    TargetError,
    TargetUnavailable,
    TransactionTooLarge,
)
from rubix_token_sync.records.schema import RECORDS, RecordTable
from rubix_token_sync.targets.base import TargetOptions
from rubix_token_sync.targets.sql.backend import Backend
from rubix_token_sync.targets.sql.tables import build_tables

__all__ = ["Database"]

T = TypeVar("T")

_USUAL_WAIT: Final = 0.5
_LONGEST_WAIT: Final = 60.0
_MOST_JITTER: Final = 1.5


class Database:
    """One database: what the parts of a target do their work with.

    Methods may be called from several threads at once.
    """

    def __init__(
        self, backend: Backend, options: TargetOptions, records: RecordTable = RECORDS
    ) -> None:
        self.backend = backend
        self.options = options
        self.engine = backend.engine
        self.tables = build_tables(backend.spelling(), records)
        self.now = sa.text(backend.now)
        self.retries = 0
        """Attempts beyond the first, of all calls."""
        self._closed = False
        sa.event.listen(self.engine, "checkin", self._close_late)

    def close(self) -> None:
        """Close every connection: one that another thread works with, as soon as it is done."""
        self._closed = True
        self.backend.close()
        self.engine.dispose()

    def _close_late(self, _connection: Any, record: Any) -> None:
        if self._closed:
            record.invalidate()

    def later(self, seconds: float) -> sa.TextClause:
        """The server's time and so many seconds, as SQL."""
        return sa.text(self.backend.later(seconds))

    @property
    def clock(self) -> sa.ColumnElement[datetime]:
        """The server's UTC time, as a column."""
        kind = self.tables.leases.c.heartbeat_at.type
        return sa.type_coerce(sa.literal_column(self.now.text), kind)

    def time(self, conn: sa.Connection) -> datetime:
        """The server's UTC time."""
        found: datetime = conn.execute(sa.select(self.clock)).scalar_one()
        return found

    def transact(
        self, work: Callable[[sa.Connection], T], *, divisible: bool = False, alone: bool = False
    ) -> T:
        """Run ``work`` in a transaction and commit; retried where that can help.

        ``work`` must be idempotent: after a lost acknowledgement of a COMMIT it
        runs again.  ``divisible``: a transaction that is too large is the caller's to halve.
        ``alone``: it executes one statement, or one call of `Backend.together`, and takes
        nothing back; the message may be the transaction.

        Raises:
            SyncError: what ``work`` raised, or the driver's error as one of ours.
        """

        def attempt() -> T:
            return self.attempt(work, commit=True, alone=alone)

        return self.retrying(attempt, divisible=divisible)

    def read(self, work: Callable[[sa.Connection], T]) -> T:
        """What ``work`` finds out; it writes nothing.

        Its statements need not see the same moment: that is what `moment` is for.
        """
        return self.retrying(lambda: self.attempt(work, commit=False))

    @contextlib.contextmanager
    def view(self) -> Iterator[sa.Connection]:
        """One consistent view, for as long as the context lasts, where the database has such."""
        with self.translated():
            failpoints.point("store.records")
            with self.engine.connect() as conn:
                yield conn.execution_options(reading=True, view=True)

    @contextlib.contextmanager
    def moment(self) -> Iterator[tuple[sa.Connection, bool]]:
        """One transaction for several questions, and whether all of them see the same moment.

        It is never committed.  The database decides: a server that keeps no old versions of
        rows has nothing to answer from while others write.
        """
        with self.view() as conn:
            conn, frozen = self.backend.freeze(conn)
            self.time(conn)  # the transaction begins
            yield conn, frozen

    def retrying(self, attempt: Callable[[], T], *, divisible: bool = False) -> T:
        """The result of ``attempt``, made again after errors that can pass."""

        def worth_it(error: BaseException) -> bool:
            if isinstance(error, TransactionTooLarge) and divisible:
                return False
            return isinstance(error, TargetError) and error.kind != "permanent"

        retrying = Retrying(
            stop=stop_after_attempt(self.options.attempts)
            | stop_after_delay(self.options.retry_seconds),
            wait=self._wait,
            retry=retry_if_exception(worth_it),
            before_sleep=self._count_retry,
            reraise=True,
        )
        return retrying(attempt)

    def _wait(self, state: RetryCallState) -> float:
        """Seconds until the next attempt: doubled each time, with jitter."""
        error = state.outcome.exception() if state.outcome is not None else None
        first = self.backend.waits.get(getattr(error, "code", ""), _USUAL_WAIT)
        wait = min(_LONGEST_WAIT / _MOST_JITTER, first * 2.0 ** (state.attempt_number - 1))
        jitter = random.uniform(1.0, _MOST_JITTER)  # noqa: S311 - spreads retries, hides nothing
        return wait * jitter * self.options.wait_factor

    def _count_retry(self, _state: RetryCallState) -> None:
        self.retries += 1

    def attempt(
        self, work: Callable[[sa.Connection], T], *, commit: bool, alone: bool = False
    ) -> T:
        """Run ``work`` in a transaction, once."""
        with self.translated():
            failpoints.point("store.connect")
            with self.engine.connect() as conn:
                if not commit or alone:
                    conn = conn.execution_options(**{"alone" if commit else "reading": True})
                with conn.begin() as transaction:
                    result = work(conn)
                    if not commit:
                        transaction.rollback()
                        return result
                    failpoints.point("store.commit.before")
                    self._commit(transaction)
                return result

    @contextlib.contextmanager
    def translated(self) -> Iterator[None]:
        """The driver's errors leave as ours."""
        try:
            yield
        except failpoints.FaultInjected as error:
            raise TargetUnavailable(f"The connection failed: {error}.", code="injected") from error
        except self._errors as error:
            raise self.backend.translate(error) from error

    def _commit(self, transaction: sa.Transaction) -> None:
        try:
            transaction.commit()
            failpoints.point("store.commit.after")
        except failpoints.FaultInjected as error:
            raise CommitAmbiguous(
                "The acknowledgement of a commit was lost.", code="commit_unknown"
            ) from error
        except self._errors as error:
            raise self.backend.translate(error, committing=True) from error

    @property
    def _errors(self) -> tuple[type[BaseException], ...]:
        return (sa.exc.SQLAlchemyError, *self.backend.driver_errors)
