"""What a question needs of a target: tables, a dialect, reading."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Protocol, TypeVar

import sqlalchemy as sa

from rubix_token_sync.targets.sql.tables import Tables

__all__ = ["Answers", "OneMoment", "at_one_moment"]

T = TypeVar("T")


class Answers(Protocol):
    """A target that is asked: each `read` by itself, or all in one (`at_one_moment`)."""

    @property
    def tables(self) -> Tables:
        """Its tables."""

    @property
    def engine(self) -> sa.Engine:
        """For the name of its dialect."""

    def read(self, work: Callable[[sa.Connection], T]) -> T:
        """What ``work`` finds out; it writes nothing."""


class Clock(Protocol):
    """Part of a target."""

    def time(self, conn: sa.Connection) -> datetime:
        """Its time, UTC."""


class Store(Answers, Protocol):
    """A target with its clock."""

    @property
    def database(self) -> Clock:
        """Where its time comes from."""


class OneMoment:
    """Answers every question in one transaction that is under way."""

    def __init__(self, store: Answers, conn: sa.Connection) -> None:
        self.tables = store.tables
        self.engine = store.engine
        self._conn = conn

    def read(self, work: Callable[[sa.Connection], T]) -> T:
        return work(self._conn)


def at_one_moment(store: Store, ask: Callable[[Answers, datetime], T]) -> T:
    """Several questions in one read: fewer round trips to a server far away.

    ``ask`` gets who answers them, and the target's time.
    """
    return store.read(lambda conn: ask(OneMoment(store, conn), store.database.time(conn)))
