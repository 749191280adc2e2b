"""A target as a place where work is done: transactions, retries, schema.

A target adds `translate` (its errors into ours) and how it keeps others out of an upgrade.
"""

from __future__ import annotations

import abc
import contextlib
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from typing import Any, TypeVar

import sqlalchemy as sa
from tenacity import (
    RetryCallState,
    Retrying,
    retry_if_exception,
    stop_after_attempt,
    stop_after_delay,
    wait_random_exponential,
)

from rubix_token_sync import failpoints
from rubix_token_sync.errors import (
    CommitAmbiguous,
    SchemaError,
    SyncError,
    TargetError,
    TargetUnavailable,
    TransactionTooLarge,
)
from rubix_token_sync.targets.base import SCHEMA_VERSION, TargetOptions
from rubix_token_sync.targets.sql.tables import build_tables, can_cover

__all__ = ["SqlTarget"]

T = TypeVar("T")


def _worth_retrying(error: BaseException) -> bool:
    return (
        isinstance(error, TargetError)
        and error.kind != "permanent"
        and not isinstance(error, TransactionTooLarge)
    )


class SqlTarget(abc.ABC):
    """One target: its engine, its tables, how work on it is tried and told."""

    kind: str
    place: str
    writers: int = 1
    now: sa.TextClause
    """The server's UTC time, as SQL."""

    def __init__(self, engine: sa.Engine, options: TargetOptions) -> None:
        self.engine = engine
        self.options = options
        self.tables = build_tables(engine.dialect.name)
        self.retries = 0
        self.made_tables = False
        """By this object, in an empty database: a first load follows."""

    def close(self) -> None:
        self.engine.dispose()

    @abc.abstractmethod
    def translate(self, error: BaseException, *, committing: bool = False) -> SyncError:
        """The driver's error as one of ours; the only place that looks into it."""

    @contextlib.contextmanager
    def _schema_lock(self, conn: sa.Connection) -> Iterator[None]:  # noqa: ARG002 - for others
        """Only one process at a time creates or upgrades."""
        yield

    def wait_before_retry(self, state: RetryCallState) -> float:
        """Seconds until the next attempt: exponential with jitter."""
        return wait_random_exponential(multiplier=0.5, min=0.1, max=60)(state)

    def transact(self, work: Callable[[sa.Connection], T]) -> T:
        """Run ``work`` in a transaction and commit; retried where that can help.

        ``work`` must be idempotent: after a lost acknowledgement of a COMMIT it
        runs again.
        """
        return self._retrying(lambda: self._attempt(work, commit=True))

    def read(self, work: Callable[[sa.Connection], T]) -> T:
        """Run ``work`` in a transaction that is never committed."""
        return self._retrying(lambda: self._attempt(work, commit=False))

    def stream(self, query: sa.Select[Any], rows: int) -> Iterator[Sequence[sa.Row[Any]]]:
        """The rows of one statement in blocks of at most ``rows``; not retried."""
        with self._translated(), self.engine.connect() as conn:
            reading = conn.execution_options(reading=True, yield_per=rows)
            yield from reading.execute(query).partitions()

    def _retrying(self, attempt: Callable[[], T]) -> T:
        retrying = Retrying(
            stop=stop_after_attempt(self.options.attempts)
            | stop_after_delay(self.options.retry_seconds),
            wait=self.wait_before_retry,
            retry=retry_if_exception(_worth_retrying),
            before_sleep=self._count_retry,
            reraise=True,
        )
        return retrying(attempt)

    def _count_retry(self, _state: RetryCallState) -> None:
        self.retries += 1

    def _attempt(self, work: Callable[[sa.Connection], T], *, commit: bool) -> T:
        with self._translated():
            failpoints.point("store.connect")
            with self.engine.connect() as conn:
                if not commit:
                    conn = conn.execution_options(reading=True)
                with conn.begin() as transaction:
                    result = work(conn)
                    if not commit:
                        transaction.rollback()
                        return result
                    failpoints.point("store.commit.before")
                    self._commit(transaction)
                return result

    @contextlib.contextmanager
    def _translated(self) -> Iterator[None]:
        """The driver's errors leave as ours."""
        try:
            yield
        except failpoints.FaultInjected as error:
            raise TargetUnavailable(f"The connection failed: {error}.", code="injected") from error
        except self._database_errors() as error:
            raise self.translate(error) from error

    def _commit(self, transaction: sa.Transaction) -> None:
        try:
            transaction.commit()
            failpoints.point("store.commit.after")
        except failpoints.FaultInjected as error:
            raise CommitAmbiguous(
                "The acknowledgement of a commit was lost.", code="commit_unknown"
            ) from error
        except self._database_errors() as error:
            raise self.translate(error, committing=True) from error

    def _database_errors(self) -> tuple[type[BaseException], ...]:
        return (sa.exc.SQLAlchemyError, *self._driver_errors())

    def _driver_errors(self) -> tuple[type[BaseException], ...]:
        """Errors of the driver that SQLAlchemy does not wrap."""
        dbapi = self.engine.dialect.dbapi
        return (dbapi.Error,) if dbapi is not None else ()

    # ---------------------------------------------------------------- schema

    def schema_version(self) -> str | None:
        def work(conn: sa.Connection) -> str | None:
            if not sa.inspect(conn).has_table("alembic_version"):
                return None
            version: str | None = conn.execute(
                sa.text("SELECT version_num FROM alembic_version")
            ).scalar()
            return version

        return self.read(work)

    def holds_tables(self) -> bool:
        name = self.tables.records.name
        return self.read(lambda conn: sa.inspect(conn).has_table(name))

    def ensure_schema(self) -> bool:
        version = self.schema_version()
        if version == SCHEMA_VERSION:
            return False
        if version is not None and version > SCHEMA_VERSION:
            raise SchemaError(
                f"The target's schema is of version {version}, "
                f"newer than this program's {SCHEMA_VERSION}.",
                code="schema_newer",
                remedy="Install the newer rubix-token-sync that made it.",
            )
        if self.options.read_only:
            raise SchemaError(
                "The target holds no tables of this program's version.",
                code="schema_missing",
                remedy="Run `rubix-token-sync schema upgrade` or a first `sync`.",
            )
        from rubix_token_sync.targets import migrations

        def work(conn: sa.Connection) -> None:
            failpoints.point("store.upgrade")
            with self._schema_lock(conn):
                migrations.upgrade(conn)

        self.transact(work)
        self.made_tables = version is None
        return True

    def schema_script(self) -> str:
        from sqlalchemy.schema import CreateIndex, CreateTable

        dialect = self.engine.dialect
        parts = []
        for table in build_tables(dialect.name, covering=can_cover(dialect)).all():
            parts.append(str(CreateTable(table).compile(dialect=dialect)).strip() + ";")
            parts += [
                str(CreateIndex(index).compile(dialect=dialect)).strip() + ";"
                for index in sorted(table.indexes, key=lambda i: str(i.name))
            ]
        parts.append("CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL PRIMARY KEY);")
        parts.append(
            f"INSERT INTO alembic_version (version_num) VALUES ('{SCHEMA_VERSION}');"  # noqa: S608
        )
        return "\n\n".join(parts) + "\n"

    def describe_connection(self) -> str:
        version = self.read(lambda conn: ".".join(map(str, _server_version(conn))))
        return f"{self.kind} {version}"

    def server_time(self) -> datetime:
        column = self.tables.sessions.c.start_time.type
        query = sa.select(sa.type_coerce(sa.literal_column(self.now.text), column))
        value: datetime = self.read(lambda conn: conn.execute(query).scalar_one())
        return value


def _server_version(conn: sa.Connection) -> tuple[object, ...]:
    return conn.dialect.server_version_info or ()
