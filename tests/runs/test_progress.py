"""One set of counters for log, bar, heartbeat and report."""

from __future__ import annotations

import re

import pytest

from rubix_token_sync.runs.jobs import ChunkPublished, RowsRead, Tally
from rubix_token_sync.runs.progress import Progress
from rubix_token_sync.targets.base import MarkCounts


def _read(job: int, rows: int, expected: int, fetched: int = 0) -> RowsRead:
    return RowsRead(job, Tally(read=rows, fetched=fetched), expected)


def _published(job: int, marked: MarkCounts | None = None, **counts: int) -> ChunkPublished:
    kinds = ("inserted", "updated", "vanished", "rejected", "bulk_loads", "batches", "retries")
    return ChunkPublished(job, marked=marked, **(dict.fromkeys(kinds, 0) | counts))


def test_nothing_is_done_before_it_is_known_what_there_is_to_do() -> None:
    progress = Progress()
    assert progress.share == 0.0
    assert progress.totals().progress_percent == 0.0
    assert dict(progress.weights) == {}


def test_nothing_to_do_is_all_done() -> None:
    progress = Progress()
    progress.begin({})
    assert progress.share == 1.0


def test_the_share_goes_by_the_size_of_databases() -> None:
    progress = Progress()
    progress.begin({0: 300, 1: 100, 2: 0})
    progress.read(_read(0, 50, 100))
    assert progress.share == pytest.approx(150 / 401)
    progress.published(_published(0, MarkCounts(100, 100, 0)))
    progress.failed(1)
    assert progress.share == pytest.approx(400 / 401)
    progress.read(_read(2, 0, 0))
    assert progress.share == 1.0


def test_more_rows_than_expected_are_no_more_than_all() -> None:
    progress = Progress()
    progress.begin({0: 10})
    progress.read(_read(0, 50, 10))
    assert progress.share == 1.0


def test_what_the_server_counted_takes_the_place_of_what_was_read() -> None:
    progress = Progress()
    progress.begin({0: 1, 1: 1})
    progress.read(_read(0, 60, 100, fetched=50))
    progress.read(_read(1, 10, 10, fetched=9))
    assert progress.so_far() == (70, 59)
    progress.published(_published(0, MarkCounts(99, 80, 3)))
    assert progress.so_far() == (109, 89)
    progress.failed(1)
    assert progress.so_far() == (99, 80)
    totals = progress.totals()
    assert (totals.total_records_processed, totals.total_ipfs_success) == (99, 80)
    assert (totals.total_ipfs_failures, totals.total_validation_errors) == (19, 3)
    assert (totals.total_databases_processed, progress.counters.databases_failed) == (1, 1)


def test_published_counts_add_up() -> None:
    progress = Progress()
    for _ in range(2):
        progress.published(
            _published(0, inserted=3, updated=2, vanished=1, rejected=1, bulk_loads=1, batches=4,
                       retries=5)
        )  # fmt: skip
    counters = progress.counters
    assert (counters.inserted, counters.updated, counters.vanished) == (6, 4, 2)
    assert (counters.rejected, counters.sql_errors) == (2, 2)
    assert (counters.bulk_loads, counters.batches, counters.retries) == (2, 8, 10)
    assert progress.totals().total_sql_inserts == 6


def test_ways_and_reasons_are_counted() -> None:
    progress = Progress()
    batch = _read(0, 3, 3)
    batch.tally.via.update({"blockstore": 2, "target": 1})
    batch.tally.failures.update({"no_cid": 1})
    batch.tally.healed = 1
    progress.read(batch)
    progress.read(batch)
    assert dict(progress.counters.content_via) == {"blockstore": 4, "target": 2}
    assert dict(progress.counters.content_failures) == {"no_cid": 2}
    assert (progress.counters.healed, progress.counters.tokens_read) == (2, 6)


def test_the_line_is_the_guides() -> None:
    progress = Progress()
    progress.begin({0: 1})
    progress.read(_read(0, 1500, 3000, fetched=1200))
    assert re.fullmatch(
        r"Progress: 50\.0% \| Records: 1,500 \| Rate: [\d,]+\.\d/sec"
        r" \| IPFS Success: 1,200 \| SQL Errors: 0",
        progress.line(),
    )
