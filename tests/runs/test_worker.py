"""One job: what is new travels, what is wrong with a database stays its own, losses are guarded."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import pytest

from rubix_token_sync import failpoints
from rubix_token_sync.errors import (
    LeaseLost,
    RecordRefused,
    ReportMismatch,
    SyncError,
    TargetRefused,
    TargetUnavailable,
)
from rubix_token_sync.nodes.discovery import Node
from rubix_token_sync.records.schema import RECORD_KEY_BYTES, RECORDS, RecordTable
from rubix_token_sync.runs.jobs import (
    ChunkPublished,
    Job,
    JobDone,
    JobFailed,
    Report,
    RowsRead,
    Summary,
    Tally,
)
from rubix_token_sync.runs.worker import Worker
from rubix_token_sync.targets.base import (
    Chunk,
    DatabaseMark,
    KnownContent,
    Lease,
    MarkCounts,
    Published,
    Target,
)
from rubix_token_sync.testing import (
    change_status,
    create_database,
    delete_tokens,
    write_block,
)
from tests.runs.makers import make_context, make_job, make_node


class Held:
    """A target that takes what workers publish, and knows it afterwards."""

    def __init__(self) -> None:
        self.records: dict[bytes, dict[str, Any]] = {}
        self.chunks: list[Chunk] = []
        self.asked_failed = 0

    def known_rows(self, _database: bytes, table: RecordTable = RECORDS) -> tuple[bytes, bytes]:
        held = self.records if table is RECORDS else {}
        return b"".join(held), b"".join(row["row_digest"] for row in held.values())

    def failed_tokens(self, _database: bytes) -> set[bytes]:
        self.asked_failed += 1
        return {key for key, row in self.records.items() if not row["ipfs_fetched"]}

    def known_content(self, keys: list[bytes]) -> dict[bytes, KnownContent]:
        rows = {key: self.records[key] for key in keys if key in self.records}
        return {
            key: KnownContent(row["ipfs_data"], row["ipfs_fetched"], row["ipfs_error"])
            for key, row in rows.items()
        }

    def content_of_tokens(self, ids: list[str]) -> dict[str, KnownContent]:
        return {}

    def publish(self, lease: Lease, chunk: Chunk) -> Published:
        assert lease == LEASE
        self.chunks.append(chunk)
        rows = {row["record_key"]: row for row in chunk.rows.to_pylist()}
        new = len(rows.keys() - self.records.keys())
        self.records |= rows
        for key in _split(chunk.vanished):
            del self.records[key]
        marked = MarkCounts(len(self.records), 0, 0) if chunk.mark is not None else None
        return Published(inserted=new, updated=len(rows) - new, marked=marked)

    @property
    def mark(self) -> DatabaseMark:
        """The last chunk's."""
        mark = self.chunks[-1].mark
        assert mark is not None
        return mark


@dataclass
class Done:
    """What a job reported and published."""

    result: JobDone | JobFailed
    reports: list[Report]
    chunks: list[Chunk]

    @property
    def summary(self) -> Summary:
        assert isinstance(self.result, JobDone)
        return self.result.summary

    @property
    def error(self) -> SyncError:
        assert isinstance(self.result, JobFailed)
        return self.result.error

    @property
    def tally(self) -> Tally:
        total = Tally()
        for report in self.reports:
            if isinstance(report, RowsRead):
                total.add(report.tally)
        return total

    @property
    def changed(self) -> set[str]:
        """Token ids of all records that were published."""
        return {
            token for chunk in self.chunks for token in chunk.rows.column("token_id").to_pylist()
        }


LEASE = Lease("10.0.0.4", "session")


def _worker(held: Held, batch_size: int = 100, **how: Any) -> Worker:
    context = make_context(Path("/nowhere.db"), batch_size, LEASE, **how)
    return Worker(context, opener=lambda _address, _options: cast(Target, held))


def _work(job: Job, held: Held | None = None, batch_size: int = 100, **how: Any) -> Done:
    """Do a job; with ``held`` it is compared with what that holds."""
    into = held or Held()
    reports: list[Report] = []
    before = len(into.chunks)
    result = _worker(into, batch_size, **how).run(
        replace(job, read_known=held is not None), reports.append
    )
    return Done(result, reports, into.chunks[before:])


def _split(keys: bytes) -> list[bytes]:
    width = RECORD_KEY_BYTES
    return [keys[i : i + width] for i in range(0, len(keys), width)]


@pytest.mark.parametrize("batch_size", [1, 7, 50, 1000])
def test_a_new_database_is_published_whole_in_batches(tmp_path: Path, batch_size: int) -> None:
    node, held = make_node(tmp_path / "a", 50), Held()
    done = _work(make_job(node), held, batch_size=batch_size, bulk_insert_size=1)
    sizes = [chunk.rows.num_rows for chunk in held.chunks]
    assert sum(sizes) == len(held.records) == 50
    assert all(size == batch_size for size in sizes[:-2])
    assert [chunk.mark is not None for chunk in held.chunks] == [False] * (len(sizes) - 1) + [True]
    tally = done.tally
    assert tally.read == tally.new == tally.changed == 50
    assert tally.fetched == tally.via["blockstore"]
    assert {r.expected for r in done.reports if isinstance(r, RowsRead)} == {50}
    summary = done.summary
    assert (summary.records, summary.vanished, summary.rejected) == (50, 0, 0)
    published = [report for report in done.reports if isinstance(report, ChunkPublished)]
    assert sum(report.inserted for report in published) == 50
    assert published[-1].marked == MarkCounts(50, 0, 0)


def test_large_contents_are_finished_few_at_a_time(tmp_path: Path) -> None:
    """Where a batch of a thousand would hold 50 MB."""
    node = make_node(tmp_path / "a")
    repository = tmp_path / "a" / ".ipfs"
    tokens = [write_block(repository, b"%07d" % number * 7_000) for number in range(900)]
    rows = [(token, "", 1.0, "did", 0, "", "", 0) for token in tokens]
    Path(node.db_path).unlink()
    create_database(Path(node.db_path), rows)
    held = Held()
    done = _work(make_job(node), held, batch_size=1_000, bulk_insert_size=1)
    sizes = [(c.rows.num_rows, c.rows.nbytes) for c in held.chunks if c.rows.num_rows]
    assert sum(count for count, _ in sizes) == 900
    assert sum(size for _, size in sizes) > 40 << 20
    assert max(size for _, size in sizes) < 12 << 20
    assert done.tally.read == done.summary.records == 900


def test_an_empty_database_is_marked_without_a_record(tmp_path: Path) -> None:
    held = Held()
    done = _work(make_job(make_node(tmp_path / "a")), held)
    assert [chunk.rows.num_rows for chunk in held.chunks] == [0]
    assert held.mark.record_count == done.summary.records == 0


def test_without_a_lease_nothing_is_published(tmp_path: Path) -> None:
    held, reports = Held(), list[Report]()
    worker = Worker(make_context(), opener=lambda _address, _options: cast(Target, held))
    result = worker.run(make_job(make_node(tmp_path / "a", 5)), reports.append)
    assert isinstance(result, JobDone)
    assert result.summary.records == 5
    assert held.chunks == []


@pytest.mark.parametrize("batch_size", [3, 1000])
def test_only_changes_travel(tmp_path: Path, batch_size: int) -> None:
    node, held = make_node(tmp_path / "a", 60), Held()
    job = make_job(node)
    _work(job, held, batch_size)
    assert len(held.records) == 60
    again = _work(job, held, batch_size)
    assert again.changed == set()
    assert again.tally.read == 60
    changed = change_status(node.db_path, 0.1)
    lost = delete_tokens(node.db_path, 0.1, seed=2)
    done = _work(job, held, batch_size)
    assert done.changed == set(changed) - set(lost)
    assert (done.summary.records, done.summary.vanished) == (60 - len(lost), len(lost))
    assert len(held.records) == 60 - len(lost)
    assert done.tally.new == 0
    # Their content was known: the node was not asked for it again.
    assert done.tally.known == len(done.changed)


def test_failed_content_is_asked_for_again_only_when_due(tmp_path: Path) -> None:
    node, held = make_node(tmp_path / "a", 10), Held()
    aside = tmp_path / "aside"
    Path(str(node.repository), "blocks").rename(aside)
    job = make_job(node)
    assert _work(job, held).tally.failures.total() == 10
    asked = held.asked_failed
    aside.rename(Path(str(node.repository), "blocks"))
    early = _work(replace(job, retry_content=False), held)
    assert (early.changed, held.asked_failed) == (set(), asked)
    assert held.mark.content_checked is False
    due = _work(job, held)
    assert len(due.changed) == due.tally.fetched == 10
    assert held.mark.content_checked is True
    assert _work(job, held).changed == set()


def test_a_repository_that_was_not_asked_again_stays_to_be_asked(tmp_path: Path) -> None:
    node, held = make_node(tmp_path / "a", 3), Held()
    _work(make_job(node), held)
    now = held.mark.repository_fingerprint
    assert now
    _work(make_job(node, retry_content=False, asked_repository="long ago"), held)
    assert held.mark.repository_fingerprint == "long ago"
    _work(make_job(node, retry_content=True, asked_repository="long ago"), held)
    assert held.mark.repository_fingerprint == now


@pytest.mark.parametrize(
    ("lost", "share", "rows", "ok"),
    [
        (0, 0.5, 20, True),
        (50, 0.5, 20, True),  # not more than the share
        (51, 0.5, 20, False),
        (100, 0.5, 20, False),
        (19, 0.1, 20, True),  # fewer than the rows that always may
        (20, 0.1, 20, False),
        (100, None, 20, True),  # --allow-shrink
        (1, 0.0, 0, False),
        (1, 0.0, 2, True),
        (100, 1.0, 0, True),
    ],
)
def test_losses_beyond_the_share_are_held_back(
    tmp_path: Path, lost: int, share: float | None, rows: int, ok: bool
) -> None:
    node, held = make_node(tmp_path / "a", 100), Held()
    job = make_job(node, max_shrink=share, max_shrink_rows=rows)
    _work(job, held)
    delete_tokens(node.db_path, lost / 100)
    done = _work(job, held)
    if ok:
        assert len(held.records) == 100 - lost
        return
    assert (done.reports, done.chunks) == ([], [])  # before anything was read or published
    assert done.error.code == "shrunk"
    assert done.error.context == {"known": 100, "lost": lost}
    assert "--allow-shrink" in done.error.remedy


def test_a_database_whose_rows_were_all_replaced_is_held_back_too(tmp_path: Path) -> None:
    node, held = make_node(tmp_path / "a", 100), Held()
    _work(make_job(node), held)
    with closing(sqlite3.connect(node.db_path)) as db, db:
        db.execute("UPDATE TokensTable SET token_id = token_id || 'x'")
    done = _work(make_job(node), held)
    assert done.error.code == "shrunk"
    assert not any(chunk.mark for chunk in done.chunks)


def test_what_is_wrong_with_a_database_is_its_own(tmp_path: Path) -> None:
    path = tmp_path / "a/Rubix/rubix.db"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"no database at all")
    done = _work(make_job(Node(str(path), "a", None)))
    assert isinstance(done.result, JobFailed)
    assert done.chunks == []


def test_a_database_that_its_node_holds_is_waited_for_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = make_node(tmp_path / "a", 1)
    monkeypatch.setenv("RUBIX_SYNC_FAULT_LOG", str(tmp_path / "points"))
    failpoints.arm()
    try:
        with closing(sqlite3.connect(node.db_path, isolation_level=None)) as db:
            db.execute("BEGIN EXCLUSIVE")
            result = Worker(make_context(), busy_s=0).run(make_job(node), lambda _report: None)
    finally:
        monkeypatch.undo()
        failpoints.arm()
    assert isinstance(result, JobFailed)
    assert result.error.code == "busy"
    assert (tmp_path / "points").read_text().count("source.open") == 1


@pytest.mark.parametrize(
    "error",
    [
        ReportMismatch("the server counts otherwise", code="count_mismatch"),
        RecordRefused("the mark does not fit", code="refused"),
    ],
)
def test_a_mark_that_fails_costs_its_database_only(tmp_path: Path, error: SyncError) -> None:
    class Strict(Held):
        def publish(self, lease: Lease, chunk: Chunk) -> Published:
            if chunk.mark is not None and chunk.mark.node_name == "a":
                raise error
            return super().publish(lease, chunk)

    held = Strict()
    worker = _worker(held)
    first = worker.run(make_job(make_node(tmp_path / "a", 3)), lambda _report: None)
    second = worker.run(make_job(make_node(tmp_path / "b", 3), 1), lambda _report: None)
    assert isinstance(first, JobFailed)
    assert first.error is error
    assert isinstance(second, JobDone)


@pytest.mark.parametrize(
    "error", [TargetUnavailable("gone", code="gone"), LeaseLost("taken", code="lease_lost")]
)
def test_a_target_that_cannot_be_written_ends_the_run(tmp_path: Path, error: SyncError) -> None:
    class Gone(Held):
        def publish(self, lease: Lease, chunk: Chunk) -> Published:
            raise error

    with pytest.raises(type(error)) as raised:
        _work(make_job(make_node(tmp_path / "a", 3)), Gone())
    assert raised.value is error


def test_a_target_that_cannot_be_read_ends_the_run(tmp_path: Path) -> None:
    worker = Worker(make_context(tmp_path / "nowhere" / "target.db"))
    job = make_job(make_node(tmp_path / "a", 3), read_known=True)
    with pytest.raises(TargetRefused):
        worker.run(job, lambda _report: None)
    worker.close()


def test_nothing_unforeseen_is_swallowed(tmp_path: Path) -> None:
    class Broken(Held):
        def known_rows(self, _database: bytes, table: RecordTable = RECORDS) -> tuple[bytes, bytes]:
            raise ZeroDivisionError("oops")

    with pytest.raises(ZeroDivisionError):
        _work(make_job(make_node(tmp_path / "a", 3)), Broken())
