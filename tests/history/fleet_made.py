"""A source that changes by turns, and what it was after each run."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sa

from rubix_token_sync.records.schema import RECORDS, database_key
from rubix_token_sync.targets.base import Chunk, Lease
from rubix_token_sync.targets.sql.history_tables import all_versions
from rubix_token_sync.targets.sql.target import SqlTarget
from tests.targets.records_made import batch, record

Token = Mapping[str, Any]
"""What the source says of a token, where it is not what `record` says."""


@dataclass
class Source:
    """One database of one source.  ``states``: after each run, what it said of each token."""

    store: SqlTarget
    name: str
    path: str = "/mnt/n/rubix.db"
    tokens: dict[int, Token] = field(default_factory=dict)
    states: dict[int, dict[int, Token]] = field(default_factory=dict)
    _held: dict[int, Token] = field(default_factory=dict)

    def begin(self) -> Lease:
        lease = Lease(self.name, str(uuid.uuid4()))
        self.store.acquire_lease(lease, "elsewhere|-|1|1")
        return lease

    def rows(self, numbers: Any) -> Any:
        return batch(
            *(
                record(n, source=self.name, path=self.path, **self.tokens[n])
                for n in sorted(numbers)
            )
        )

    def key(self, number: int) -> bytes:
        return record(number, source=self.name, path=self.path)["record_key"]

    def chunk(self, **more: Any) -> Chunk:
        """What a sync would publish now."""
        known = self._held
        rows = self.rows(n for n, token in self.tokens.items() if known.get(n) != token)
        gone = b"".join(self.key(n) for n in known if n not in self.tokens)
        return Chunk(rows, vanished=gone, **more)

    def publish(self, lease: Lease, **more: Any) -> None:
        self.store.publish(lease, self.chunk(**more))
        self._held = dict(self.tokens)

    def end(self, lease: Lease) -> int:
        """Give the lease back; the run's number."""
        self.store.release_lease(lease)
        number = run_of(self.store, lease)
        self.states[number] = dict(self.tokens)
        return number

    def run(self, change: Callable[[], None] = lambda: None, **more: Any) -> int:
        """The source changes, and a run brings it into the target."""
        change()
        lease = self.begin()
        self.publish(lease, **more)
        return self.end(lease)

    def as_of(self, number: int, columns: tuple[str, ...] = ("did", "token_status")) -> Any:
        """Token id → what the target says that it was, of tokens that were there."""
        versions = all_versions(
            RECORDS, self.store.tables.records, self.store.tables.stored[RECORDS.name].history
        ).subquery()
        v = versions.c
        query = sa.select(v.token_id, *(v[name] for name in columns)).where(
            v.source_ip == self.name,
            v.since_run <= number,
            sa.or_(v.ended_run > number, v.ended_run.is_(None)),
            v.source_deleted_at.is_(None),
        )
        found = self.store.read(lambda conn: conn.execute(query).all())
        assert len({row[0] for row in found}) == len(found), "two versions at once"
        return {row[0]: tuple(row[1:]) for row in found}

    def said(self, number: int, columns: tuple[str, ...] = ("did", "token_status")) -> Any:
        """The same, as the source said it."""
        whole = {n: record(n, **token) for n, token in self.states[number].items()}
        return {row["token_id"]: tuple(row[name] for name in columns) for row in whole.values()}

    def is_exact(self) -> None:
        """As of every run, the target says what the source was."""
        for number in self.states:
            assert self.as_of(number) == self.said(number)

    def versions(self, number: int) -> list[tuple[Any, ...]]:
        """Old versions of a token: since, ended, what changed then."""
        history = self.store.tables.stored[RECORDS.name].history
        assert history is not None
        query = (
            sa.select(history.c.since_run, history.c.ended_run, history.c.changed)
            .where(history.c.record_key == self.key(number))
            .order_by(history.c.ended_run)
        )
        return [tuple(row) for row in self.store.read(lambda conn: conn.execute(query).all())]

    @property
    def database_key(self) -> bytes:
        return database_key(self.name, self.path)


def run_of(store: SqlTarget, lease: Lease) -> int:
    """The number of the run that a lease belonged to."""
    runs = store.tables.runs
    query = sa.select(runs.c.number).where(runs.c.session_id == lease.session_id)
    return int(store.read(lambda conn: conn.execute(query).scalar_one()))
