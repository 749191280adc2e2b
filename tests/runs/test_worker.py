"""One job: what is new travels, what is wrong with a database stays its own, losses are guarded."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest

from rubix_token_sync.errors import TargetRefused
from rubix_token_sync.nodes.discovery import Node
from rubix_token_sync.records.schema import RECORD_KEY_BYTES
from rubix_token_sync.runs.jobs import Batch, Done, Event, Failed, Job, Summary
from rubix_token_sync.runs.worker import Worker
from rubix_token_sync.targets.base import KnownContent, Store
from rubix_token_sync.testing import (
    change_status,
    create_database,
    delete_tokens,
    write_block,
)
from tests.runs.makers import make_context, make_job, make_node


class Held:
    """A target that holds what earlier runs of a job finished."""

    def __init__(self) -> None:
        self.records: dict[bytes, dict[str, Any]] = {}
        self.asked_failed = 0

    def known_rows(self, _database: bytes) -> tuple[bytes, bytes]:
        rows = self.records.values()
        return b"".join(self.records), b"".join(row["row_digest"] for row in rows)

    def failed_tokens(self, _database: bytes) -> set[bytes]:
        self.asked_failed += 1
        return {key for key, row in self.records.items() if not row["ipfs_fetched"]}

    def known_content(self, keys: list[bytes]) -> dict[bytes, KnownContent]:
        rows = {key: self.records[key] for key in keys if key in self.records}
        return {
            key: KnownContent(row["ipfs_data"], row["ipfs_fetched"], row["ipfs_error"])
            for key, row in rows.items()
        }

    def content_of_tokens(self, ids: list[str]) -> dict[str, str]:
        return {}


def _work(job: Job, held: Held | None = None, batch_size: int = 100) -> list[Event]:
    worker = Worker(make_context(batch_size=batch_size))
    worker._store = cast(Any, held)
    events: list[Event] = []
    worker.run(replace(job, read_known=held is not None), events.append)
    if held is not None:
        for event in events:
            if isinstance(event, Batch) and event.rows is not None:
                held.records |= {row["record_key"]: row for row in event.rows.to_pylist()}
        for key in _split(_summary(events).vanished) if isinstance(events[-1], Done) else ():
            del held.records[key]
    return events


def _split(keys: bytes) -> list[bytes]:
    width = RECORD_KEY_BYTES
    return [keys[i : i + width] for i in range(0, len(keys), width)]


def _summary(events: list[Event]) -> Summary:
    done = events[-1]
    assert isinstance(done, Done)
    return done.summary


def _batches(events: list[Event]) -> list[Batch]:
    return [event for event in events if isinstance(event, Batch)]


def _changed(events: list[Event]) -> set[str]:
    return {
        token
        for batch in _batches(events)
        if batch.rows is not None
        for token in batch.rows.column("token_id").to_pylist()
    }


@pytest.mark.parametrize("batch_size", [1, 7, 50, 1000])
def test_a_new_database_travels_whole_in_batches(tmp_path: Path, batch_size: int) -> None:
    node = make_node(tmp_path / "a", 50)
    events = _work(make_job(node), batch_size=batch_size)
    batches, summary = _batches(events), _summary(events)
    sizes = [b.rows.num_rows for b in batches if b.rows is not None]
    assert sum(sizes) == 50
    assert all(size == batch_size for size in sizes[:-1])
    assert sum(b.tally.read for b in batches) == 50
    assert sum(b.tally.new for b in batches) == sum(b.tally.changed for b in batches) == 50
    assert sum(b.tally.fetched for b in batches) == sum(b.tally.via["blockstore"] for b in batches)
    assert {b.expected for b in batches} == {50}
    assert (summary.stored, summary.known, summary.vanished, summary.rejected) == (50, 0, b"", 0)
    assert isinstance(events[-1], Done)
    assert not any(isinstance(event, Done | Failed) for event in events[:-1])


def test_large_contents_travel_few_at_a_time(tmp_path: Path) -> None:
    """Where a batch of a thousand would hold 50 MB."""
    node = make_node(tmp_path / "a")
    repository = tmp_path / "a" / ".ipfs"
    tokens = [write_block(repository, b"%07d" % number * 7_000) for number in range(900)]
    rows = [(token, "", 1.0, "did", 0, "", "", 0) for token in tokens]
    Path(node.db_path).unlink()
    create_database(Path(node.db_path), rows)
    events = _work(make_job(node), batch_size=1_000)
    sizes = [(b.rows.num_rows, b.rows.nbytes) for b in _batches(events) if b.rows is not None]
    assert sum(count for count, _ in sizes) == 900
    assert sum(size for _, size in sizes) > 40 << 20
    assert max(size for _, size in sizes) < 12 << 20
    assert sum(b.tally.read for b in _batches(events)) == 900
    assert _summary(events).stored == 900


def test_an_empty_database_is_done_without_a_record(tmp_path: Path) -> None:
    events = _work(make_job(make_node(tmp_path / "a")))
    assert all(batch.rows is None for batch in _batches(events))
    assert _summary(events).stored == 0


@pytest.mark.parametrize("batch_size", [3, 1000])
def test_only_changes_travel(tmp_path: Path, batch_size: int) -> None:
    node, held = make_node(tmp_path / "a", 60), Held()
    job = make_job(node)
    _work(job, held, batch_size)
    assert len(held.records) == 60
    again = _work(job, held, batch_size)
    assert _changed(again) == set()
    assert sum(batch.tally.read for batch in _batches(again)) == 60
    changed = change_status(node.db_path, 0.1)
    lost = delete_tokens(node.db_path, 0.1, seed=2)
    events = _work(job, held, batch_size)
    assert _changed(events) == set(changed) - set(lost)
    summary = _summary(events)
    assert (summary.known, summary.stored) == (60, 60 - len(lost))
    assert len(_split(summary.vanished)) == len(lost)
    assert len(held.records) == 60 - len(lost)
    assert sum(batch.tally.new for batch in _batches(events)) == 0
    # Their content was known: the node was not asked for it again.
    assert sum(batch.tally.known for batch in _batches(events)) == len(_changed(events))


def _drop_blocks(node: Node, keep: int) -> None:
    blocks = sorted(Path(str(node.repository), "blocks").glob("*/*.data"))
    for block in blocks[keep:]:
        block.unlink()


def test_failed_content_is_asked_for_again_only_when_due(tmp_path: Path) -> None:
    node, held = make_node(tmp_path / "a", 10), Held()
    aside = tmp_path / "aside"
    Path(str(node.repository), "blocks").rename(aside)
    job = make_job(node)
    first = _work(job, held)
    assert sum(b.tally.failures.total() for b in _batches(first)) == 10
    asked = held.asked_failed
    aside.rename(Path(str(node.repository), "blocks"))
    early = _work(replace(job, retry_content=False), held)
    assert (_changed(early), held.asked_failed) == (set(), asked)
    assert _summary(early).content_checked is False
    due = _work(job, held)
    assert len(_changed(due)) == 10
    assert sum(b.tally.fetched for b in _batches(due)) == 10
    assert _summary(due).content_checked is True
    assert _changed(_work(job, held)) == set()


def test_a_repository_that_was_not_asked_again_stays_to_be_asked(tmp_path: Path) -> None:
    node = make_node(tmp_path / "a", 3)
    now = _summary(_work(make_job(node))).repository_fingerprint
    assert now
    kept = make_job(node, retry_content=False, asked_repository="long ago")
    assert _summary(_work(kept)).repository_fingerprint == "long ago"
    asked = make_job(node, retry_content=True, asked_repository="long ago")
    assert _summary(_work(asked)).repository_fingerprint == now


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
    events = _work(job, held)
    if ok:
        assert len(held.records) == 100 - lost
        return
    assert [type(event) for event in events] == [Failed]  # before anything was read or sent
    (failed,) = events
    assert isinstance(failed, Failed)
    assert failed.error.code == "shrunk"
    assert failed.error.context == {"known": 100, "lost": lost}
    assert "--allow-shrink" in failed.error.remedy


def test_a_database_whose_rows_were_all_replaced_is_held_back_too(tmp_path: Path) -> None:
    node, held = make_node(tmp_path / "a", 100), Held()
    _work(make_job(node), held)
    with closing(sqlite3.connect(node.db_path)) as db, db:
        db.execute("UPDATE TokensTable SET token_id = token_id || 'x'")
    events = _work(make_job(node), held)
    assert isinstance(events[-1], Failed)
    assert events[-1].error.code == "shrunk"


def test_what_is_wrong_with_a_database_is_its_own(tmp_path: Path) -> None:
    path = tmp_path / "a/Rubix/rubix.db"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"no database at all")
    events = _work(make_job(Node(str(path), "a", None)))
    assert [type(event) for event in events] == [Failed]


def test_a_target_that_cannot_be_read_ends_the_run(tmp_path: Path) -> None:
    worker = Worker(make_context(tmp_path / "nowhere" / "target.db"))
    job = make_job(make_node(tmp_path / "a", 3), read_known=True)
    with pytest.raises(TargetRefused):
        worker.run(job, lambda _event: None)
    worker.close()


def test_nothing_unforeseen_is_swallowed(tmp_path: Path) -> None:
    class Broken(Held):
        def known_rows(self, _database: bytes) -> tuple[bytes, bytes]:
            raise ZeroDivisionError("oops")

    worker = Worker(make_context())
    worker._store = cast(Store, Broken())
    job = make_job(make_node(tmp_path / "a", 3), read_known=True)
    with pytest.raises(ZeroDivisionError):
        worker.run(job, lambda _event: None)
