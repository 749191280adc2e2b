"""From events to chunks: order, sizes, marks, back-pressure, and how it ends."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rubix_token_sync.errors import SourceError, TargetUnavailable, WorkerCrashed
from rubix_token_sync.nodes.discovery import Node
from rubix_token_sync.runs import publisher as publishing
from rubix_token_sync.runs.cancel import CancelToken, Interrupted
from rubix_token_sync.runs.jobs import Batch, Done, Failed, Job, Summary, Tally
from rubix_token_sync.runs.publisher import Publisher
from rubix_token_sync.targets.base import (
    Chunk,
    ErrorEntry,
    Lease,
    MarkCounts,
    Published,
    Rejected,
    Store,
)
from tests.runs.makers import make_job, make_records

LEASE = Lease("10.0.0.4", "session")
LONG = 20.0


class FakeStore:
    """Takes chunks down; waits at the ``gate`` and raises ``error`` where a test wants that."""

    def __init__(self, writers: int = 1) -> None:
        self.writers = writers
        self.chunks: list[Chunk] = []
        self.threads: set[int] = set()
        self.errors: list[ErrorEntry] = []
        self.gate = threading.Event()
        self.gate.set()
        self.entered = threading.Event()
        self.fail: Callable[[Chunk], None] = lambda _chunk: None
        self.refuse: set[str] = set()
        self._lock = threading.Lock()

    def publish(self, lease: Lease, chunk: Chunk) -> Published:
        assert lease == LEASE
        self.entered.set()
        assert self.gate.wait(LONG)
        self.fail(chunk)
        with self._lock:
            self.chunks.append(chunk)
            self.threads.add(threading.get_ident())
        refused = [
            Rejected(row["record_key"], row["token_id"], "too bad")
            for row in chunk.rows.to_pylist()
            if row["token_id"] in self.refuse
        ]
        count = chunk.rows.num_rows - len(refused)
        mark = None if chunk.mark is None else MarkCounts(chunk.mark.record_count, 0, 0)
        return Published(inserted=count, rejected=refused, batches=1, marked=mark)

    def record_errors(self, lease: Lease, entries: list[ErrorEntry]) -> None:
        self.errors += entries

    def rows_of(self, job: Job) -> list[str]:
        return [
            str(row["token_id"])
            for chunk in self.chunks
            for row in chunk.rows.to_pylist()
            if row["db_path"] == job.node.db_path
        ]


def _jobs(count: int) -> dict[int, Job]:
    nodes = [Node(f"/fleet/{n}/Rubix/rubix.db", str(n), None) for n in range(count)]
    return {n: make_job(node, n) for n, node in enumerate(nodes)}


@contextmanager
def _publisher(
    store: FakeStore,
    jobs: dict[int, Job],
    bulk: int = 10,
    while_waiting: Callable[[], None] = lambda: None,
) -> Iterator[tuple[Publisher, list[Published]]]:
    told: list[Published] = []
    publisher = Publisher(
        cast(Store, store), LEASE, jobs, bulk_insert_size=bulk,
        on_change=lambda _result, published: told.append(published), while_waiting=while_waiting,
    )  # fmt: skip
    try:
        yield publisher, told
    finally:
        store.gate.set()
        publisher.stop()
        assert not [t for t in threading.enumerate() if t.name.startswith("rubix-writer")]


def _batch(job: Job, start: int, count: int, **tally: int) -> Batch:
    rows = make_records(job, start, count) if count else None
    return Batch(job.number, Tally(read=count, **tally), 100, rows)


def _done(job: Job, stored: int, **changes: object) -> Done:
    values: dict[str, object] = {
        "fingerprint": "f", "repository_fingerprint": None, "modified": datetime(2025, 1, 1),
        "stored": stored, "known": 0, "vanished": b"", "rejected": 0, "errors": (), "seconds": 1.0,
    }  # fmt: skip
    return Done(job.number, Summary(**(values | changes)))  # type: ignore[arg-type]


@given(
    st.lists(st.integers(0, 12), max_size=12),
    st.integers(1, 30),
)
def test_every_row_once_in_order_and_the_mark_last(sizes: list[int], bulk: int) -> None:
    store, jobs = FakeStore(), _jobs(1)
    with _publisher(store, jobs, bulk) as (publisher, told):
        start = 0
        for size in sizes:
            publisher.take(_batch(jobs[0], start, size))
            start += size
        publisher.take(_done(jobs[0], start))
        publisher.finish()
    assert store.rows_of(jobs[0]) == [f"token {n}" for n in range(start)]
    assert [chunk.mark is not None for chunk in store.chunks] == [False] * (
        len(store.chunks) - 1
    ) + [True]
    mark = store.chunks[-1].mark
    assert mark is not None
    assert (mark.record_count, mark.db_path) == (start, jobs[0].node.db_path)
    # No chunk waits for more than it must, none is larger than one batch past the limit.
    for chunk in store.chunks[:-1]:
        assert bulk <= chunk.rows.num_rows < bulk + 12
    assert store.chunks[-1].rows.num_rows < bulk
    # Bulk loading is for databases with as many changed rows as that.
    seen = 0
    for chunk in store.chunks:
        seen += chunk.rows.num_rows
        assert chunk.bulk == (seen >= bulk)
    assert sum(published.inserted for published in told) == start


def test_a_huge_bulk_size_does_not_hold_everything_in_memory(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("rubix_token_sync.runs.publisher._LARGEST_CHUNK", 25)
    store, jobs = FakeStore(), _jobs(1)
    with _publisher(store, jobs, bulk=1_000_000) as (publisher, _):
        for start in range(0, 100, 10):
            publisher.take(_batch(jobs[0], start, 10))
        publisher.take(_done(jobs[0], 100))
        publisher.finish()
    assert [chunk.rows.num_rows for chunk in store.chunks] == [30, 30, 30, 10]
    assert not any(chunk.bulk for chunk in store.chunks)


def test_interleaved_databases_do_not_mix() -> None:
    store, jobs = FakeStore(writers=3), _jobs(7)
    with _publisher(store, jobs, bulk=4) as (publisher, _):
        for start in range(0, 9, 3):
            for job in jobs.values():
                publisher.take(_batch(job, start, 3))
        for job in jobs.values():
            publisher.take(_done(job, 9))
        publisher.finish()
    for job in jobs.values():
        assert store.rows_of(job) == [f"token {n}" for n in range(9)]
    assert len(store.threads) == 3
    assert publisher.results.keys() == jobs.keys()
    for chunk in store.chunks:
        assert len(set(chunk.rows.column("db_path").to_pylist())) <= 1


def test_a_few_changes_take_one_writer() -> None:
    store, jobs = FakeStore(writers=2), _jobs(6)
    store.gate.clear()
    with _publisher(store, jobs) as (publisher, _):
        for job in jobs.values():
            publisher.take(_batch(job, 0, 0))  # read, and nothing new so far
            publisher.take(_batch(job, 0, 3))
            publisher.take(_done(job, 3))
        assert store.entered.wait(LONG)
        store.gate.set()
        publisher.finish()
    assert len(store.chunks) == 6
    assert len(store.threads) == 1  # a second one would have opened a connection for this


def test_a_second_writer_helps_where_much_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(publishing, "_LITTLE_BYTES", 3 * 4_096)
    store, jobs = FakeStore(writers=2), _jobs(8)
    store.gate.clear()
    with _publisher(store, jobs, bulk=1) as (publisher, _):
        for start, count in ((0, 0), (0, 3), (3, 3)):
            for job in jobs.values():
                publisher.take(_batch(job, start, count))
        for job in jobs.values():
            publisher.take(_done(job, 6))
        store.gate.set()
        publisher.finish()
    assert len(store.threads) == 2
    for job in jobs.values():
        assert store.rows_of(job) == [f"token {n}" for n in range(6)]


def test_counts_of_refused_records_reach_the_mark_and_the_errors() -> None:
    store, jobs = FakeStore(), _jobs(1)
    store.refuse = {"token 1", "token 3"}
    with _publisher(store, jobs, bulk=2) as (publisher, _):
        publisher.take(_batch(jobs[0], 0, 2))
        publisher.take(_batch(jobs[0], 2, 2))
        publisher.take(_done(jobs[0], 4, rejected=5))
        publisher.finish()
    mark = store.chunks[-1].mark
    assert mark is not None
    assert (mark.record_count, mark.rejected_count) == (2, 7)
    assert [(e.code, e.token_id, e.message) for e in store.errors] == [
        ("record_refused", "token 1", "too bad"),
        ("record_refused", "token 3", "too bad"),
    ]


def test_reasons_without_content_go_with_the_mark() -> None:
    store, jobs = FakeStore(), _jobs(1)
    own = ErrorEntry("validation", "duplicate_token_id", "x")
    with _publisher(store, jobs) as (publisher, _):
        for _ in range(2):
            batch = _batch(jobs[0], 0, 1, invalid=2, healed=1)
            batch.tally.failures.update({"no_cid": 2, "damaged": 1})
            publisher.take(batch)
        publisher.take(_done(jobs[0], 1, errors=(own,)))
        publisher.finish()
    assert [(e.category, e.code, e.occurrences) for e in store.chunks[-1].errors] == [
        ("validation", "duplicate_token_id", 1),
        ("ipfs", "damaged", 2),
        ("ipfs", "no_cid", 4),
        ("validation", "invalid_records", 4),
        ("ipfs", "healed", 2),
    ]


def test_a_failed_database_is_not_marked_and_holds_no_memory() -> None:
    store, jobs = FakeStore(), _jobs(2)
    with _publisher(store, jobs) as (publisher, _):
        publisher.take(_batch(jobs[0], 0, 5))
        publisher.take(_batch(jobs[1], 0, 5))
        publisher.take(Failed(0, SourceError("torn", code="corrupt")))
        publisher.take(_done(jobs[1], 5))
        publisher.finish()
        assert publisher._open == {}
    assert store.rows_of(jobs[0]) == []
    assert [chunk.mark.node_name for chunk in store.chunks if chunk.mark] == ["1"]


def test_whoever_reads_faster_than_the_target_takes_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(publishing, "_QUEUED_BYTES", 4 * 4_096)
    store, jobs = FakeStore(), _jobs(1)
    store.gate.clear()
    taken = []
    with _publisher(store, jobs, bulk=1) as (publisher, _):

        def read() -> None:
            for start in range(20):
                publisher.take(_batch(jobs[0], start, 1))
                taken.append(start)

        reader = threading.Thread(target=read)
        reader.start()
        assert store.entered.wait(LONG)
        reader.join(0.5)
        assert reader.is_alive()
        assert len(taken) <= 5 + 1  # one under way, four in the queue, one being handed over
        store.gate.set()
        reader.join(LONG)
        publisher.take(_done(jobs[0], 20))
        publisher.finish()
    assert len(store.rows_of(jobs[0])) == 20


def _raise(error: BaseException) -> Callable[[Chunk], None]:
    def fail(_chunk: Chunk) -> None:
        raise error

    return fail


def _run_into(publisher: Publisher, job: Job) -> None:
    for start in range(1000):
        publisher.take(_batch(job, start, 1))
    publisher.finish()


def test_an_error_of_the_target_ends_it_as_it_is() -> None:
    store, jobs = FakeStore(), _jobs(1)
    error = TargetUnavailable("gone", code="gone")
    store.fail = _raise(error)
    with _publisher(store, jobs, bulk=1) as (publisher, _):
        with pytest.raises(TargetUnavailable) as raised:
            _run_into(publisher, jobs[0])
        assert raised.value is error
        with pytest.raises(TargetUnavailable):  # and it stays so, at every door
            publisher.check()
        with pytest.raises(TargetUnavailable):
            publisher.finish()


def test_anything_else_is_told_as_a_crash_with_its_cause() -> None:
    store, jobs = FakeStore(), _jobs(1)
    store.fail = _raise(ZeroDivisionError("oops"))
    with (
        _publisher(store, jobs, bulk=1) as (publisher, _),
        pytest.raises(WorkerCrashed, match="ZeroDivisionError: oops") as raised,
    ):
        _run_into(publisher, jobs[0])
    assert isinstance(raised.value.__cause__, ZeroDivisionError)


def test_an_error_in_one_writer_is_seen_while_waiting_for_another() -> None:
    store, jobs = FakeStore(writers=2), _jobs(2)
    store.gate.clear()

    def fail(chunk: Chunk) -> None:
        if chunk.rows.column("db_path")[0].as_py() == jobs[1].node.db_path:
            raise TargetUnavailable("gone", code="gone")

    store.fail = fail
    with _publisher(store, jobs, bulk=1) as (publisher, _):
        publisher.take(_batch(jobs[1], 0, 1))
        store.gate.set()
        with pytest.raises(TargetUnavailable):
            _run_into(publisher, jobs[0])


def test_what_is_raised_while_waiting_ends_the_waiting() -> None:
    store, jobs = FakeStore(), _jobs(1)
    store.gate.clear()
    stop = CancelToken()
    with _publisher(store, jobs, bulk=1, while_waiting=stop.check) as (publisher, _):
        publisher.take(_batch(jobs[0], 0, 1))
        assert store.entered.wait(LONG)
        threading.Timer(0.1, stop.give, [15]).start()
        with pytest.raises(Interrupted):
            publisher.finish()
        store.gate.set()
    # The chunk under way was finished, whatever was queued behind it dropped.
    assert store.rows_of(jobs[0]) == ["token 0"]


def test_a_chunk_is_bounded_by_its_bytes_too(monkeypatch: pytest.MonkeyPatch) -> None:
    store, jobs = FakeStore(), _jobs(1)
    rows = _batch(jobs[0], 0, 10).rows
    assert rows is not None
    monkeypatch.setattr(publishing, "_LARGEST_CHUNK_BYTES", 3 * rows.nbytes)
    with _publisher(store, jobs, bulk=1_000) as (publisher, _):
        for start in range(0, 100, 10):
            publisher.take(_batch(jobs[0], start, 10))
        publisher.take(_done(jobs[0], 100))
        publisher.finish()
    sizes = [chunk.rows.num_rows for chunk in store.chunks]
    assert sum(sizes) == 100
    assert len(sizes) > 3
    assert not any(chunk.bulk for chunk in store.chunks)  # which is a matter of rows


def test_stopping_drops_what_is_queued() -> None:
    store, jobs = FakeStore(), _jobs(1)
    store.gate.clear()
    with _publisher(store, jobs, bulk=1) as (publisher, _):
        for start in range(4):
            publisher.take(_batch(jobs[0], start, 1))
        assert store.entered.wait(LONG)
        stopping = threading.Thread(target=publisher.stop)
        stopping.start()
        stopping.join(0.3)
        assert stopping.is_alive()  # it waits for the chunk under way
        store.gate.set()
        stopping.join(LONG)
        assert not stopping.is_alive()
    assert store.rows_of(jobs[0]) == ["token 0"]
