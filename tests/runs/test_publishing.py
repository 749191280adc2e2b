"""From batches to chunks: order, sizes, marks, what is refused."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from datetime import datetime
from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rubix_token_sync.errors import TargetUnavailable
from rubix_token_sync.nodes.discovery import Node
from rubix_token_sync.runs.jobs import ChunkPublished, Job, Report, Tally
from rubix_token_sync.runs.publishing import DatabasePublisher
from rubix_token_sync.targets.base import (
    Chunk,
    DatabaseMark,
    ErrorEntry,
    Lease,
    MarkCounts,
    Published,
    Rejected,
    Target,
)
from tests.runs.makers import make_job, make_records

LEASE = Lease("10.0.0.4", "session")
JOB = make_job(Node("/fleet/0/Rubix/rubix.db", "0", None), 0)


class FakeTarget:
    """Takes chunks, refuses some records, fails where a test wants that."""

    def __init__(self) -> None:
        self.chunks: list[Chunk] = []
        self.errors: list[ErrorEntry] = []
        self.fail: Callable[[Chunk], None] = lambda _chunk: None
        self.refuse: set[str] = set()

    def publish(self, lease: Lease, chunk: Chunk) -> Published:
        assert lease == LEASE
        self.fail(chunk)
        self.chunks.append(chunk)
        refused = [
            Rejected(row["record_key"], row["token_id"], "too bad")
            for row in chunk.rows.to_pylist()
            if row["token_id"] in self.refuse
        ]
        count = chunk.rows.num_rows - len(refused)
        mark = None if chunk.mark is None else MarkCounts(chunk.mark.record_count, 0, 0)
        return Published(inserted=count, rejected=refused, batches=1, marked=mark)

    def record_errors(self, _lease: Lease, entries: list[ErrorEntry]) -> None:
        self.errors += entries

    @property
    def tokens(self) -> list[str]:
        return [
            str(token)
            for chunk in self.chunks
            for token in chunk.rows.column("token_id").to_pylist()
        ]


class Publishing:
    """A publisher of one job, and what it reported."""

    def __init__(self, target: FakeTarget, bulk: int = 10, **limits: int) -> None:
        self.reports: list[Report] = []
        self._publisher = DatabasePublisher(
            cast(Target, target), LEASE, JOB, self.reports.append, bulk_insert_size=bulk,
            turn=nullcontext, **limits,
        )  # fmt: skip

    def add(self, start: int, count: int, **tally: int) -> None:
        self._publisher.add(Tally(read=count, **tally), make_records(JOB, start, count))

    def add_tally(self, tally: Tally) -> None:
        self._publisher.add(tally, make_records(JOB, 0, 1))

    def finish(self, records: int, rejected: int = 0, errors: tuple[ErrorEntry, ...] = ()) -> None:
        self._publisher.finish(_mark(JOB, records, rejected), b"", errors)

    @property
    def published(self) -> list[ChunkPublished]:
        return [report for report in self.reports if isinstance(report, ChunkPublished)]


def _mark(job: Job, records: int, rejected: int) -> DatabaseMark:
    return DatabaseMark(
        job.database_key, job.source, job.node.name, job.node.db_path, None, "f", None,
        datetime(2025, 1, 1), records, rejected, 1.0,
    )  # fmt: skip


@given(st.lists(st.integers(0, 12), max_size=12), st.integers(1, 30))
def test_every_row_once_in_order_and_the_mark_last(sizes: list[int], bulk: int) -> None:
    target = FakeTarget()
    publishing = Publishing(target, bulk)
    start = 0
    for size in sizes:
        publishing.add(start, size)
        start += size
    publishing.finish(start)
    assert target.tokens == [f"token {n}" for n in range(start)]
    marks = [chunk.mark for chunk in target.chunks]
    assert marks[:-1] == [None] * (len(marks) - 1)
    assert marks[-1] is not None
    assert (marks[-1].record_count, marks[-1].db_path) == (start, JOB.node.db_path)
    # No chunk waits for more than it must, none is larger than one batch past the limit.
    for chunk in target.chunks[:-1]:
        assert bulk <= chunk.rows.num_rows < bulk + 12
    assert target.chunks[-1].rows.num_rows < bulk
    # Bulk loading is for databases with as many changed rows as that.
    seen = 0
    for chunk in target.chunks:
        seen += chunk.rows.num_rows
        assert chunk.bulk == (seen >= bulk)
    assert sum(report.inserted for report in publishing.published) == start
    assert [report.marked is not None for report in publishing.published] == [
        mark is not None for mark in marks
    ]


def test_a_huge_bulk_size_does_not_hold_everything_in_memory() -> None:
    target = FakeTarget()
    publishing = Publishing(target, bulk=1_000_000, largest_chunk=25)
    for start in range(0, 100, 10):
        publishing.add(start, 10)
    publishing.finish(100)
    assert [chunk.rows.num_rows for chunk in target.chunks] == [30, 30, 30, 10]
    assert not any(chunk.bulk for chunk in target.chunks)


def test_a_chunk_is_bounded_by_its_bytes_too() -> None:
    target = FakeTarget()
    size = 3 * make_records(JOB, 0, 10).nbytes
    publishing = Publishing(target, bulk=1_000, largest_chunk_bytes=size)
    for start in range(0, 100, 10):
        publishing.add(start, 10)
    publishing.finish(100)
    sizes = [chunk.rows.num_rows for chunk in target.chunks]
    assert sum(sizes) == 100
    assert len(sizes) > 3
    assert not any(chunk.bulk for chunk in target.chunks)  # which is a matter of rows


def test_rows_that_are_all_new_are_said_to_be() -> None:
    target = FakeTarget()
    publishing = Publishing(target, bulk=4)
    publishing.add(0, 4, new=4)
    publishing.add(4, 4, new=3)
    publishing.finish(8)
    assert [chunk.new for chunk in target.chunks] == [True, False, False]


def test_counts_of_refused_records_reach_the_mark_and_the_errors() -> None:
    target = FakeTarget()
    target.refuse = {"token 1", "token 3"}
    publishing = Publishing(target, bulk=2)
    publishing.add(0, 2)
    publishing.add(2, 2)
    publishing.finish(4, rejected=5)
    mark = target.chunks[-1].mark
    assert mark is not None
    assert (mark.record_count, mark.rejected_count) == (2, 7)
    assert [(e.code, e.token_id, e.message) for e in target.errors] == [
        ("record_refused", "token 1", "too bad"),
        ("record_refused", "token 3", "too bad"),
    ]
    assert sum(report.rejected for report in publishing.published) == 2


def test_reasons_without_content_go_with_the_mark() -> None:
    target = FakeTarget()
    publishing = Publishing(target)
    for _ in range(2):
        tally = Tally(read=1, invalid=2, healed=1)
        tally.failures.update({"no_cid": 2, "damaged": 1})
        publishing.add_tally(tally)
    publishing.finish(1, errors=(ErrorEntry("validation", "duplicate_token_id", "x"),))
    assert [(e.category, e.code, e.occurrences) for e in target.chunks[-1].errors] == [
        ("validation", "duplicate_token_id", 1),
        ("ipfs", "damaged", 2),
        ("ipfs", "no_cid", 4),
        ("validation", "invalid_records", 4),
        ("ipfs", "healed", 2),
    ]


def test_an_error_of_the_target_is_the_callers() -> None:
    target = FakeTarget()

    def fail(_chunk: Chunk) -> None:
        raise TargetUnavailable("gone", code="gone")

    target.fail = fail
    publishing = Publishing(target, bulk=1)
    with pytest.raises(TargetUnavailable):
        publishing.add(0, 1)
    assert publishing.reports == []
