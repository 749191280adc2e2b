"""How far a run is: one set of counters for log, bar, heartbeat and report."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from rubix_token_sync.log import progress_line
from rubix_token_sync.records.schema import RECORDS
from rubix_token_sync.runs.curve import Curve
from rubix_token_sync.runs.jobs import ChunkPublished, RowsRead
from rubix_token_sync.targets.base import SessionTotals

__all__ = ["Counters", "Progress", "TableCounts"]


@dataclass
class TableCounts:
    """Rows of one table that a run wrote."""

    inserted: int = 0
    updated: int = 0
    vanished: int = 0


@dataclass
class Counters:
    """What a run did so far."""

    databases_found: int = 0
    databases_processed: int = 0
    databases_current: int = 0
    databases_failed: int = 0
    tokens_read: int = 0
    records_processed: int = 0
    ipfs_success: int = 0
    ipfs_failures: int = 0
    validation_errors: int = 0
    inserted: int = 0
    updated: int = 0
    vanished: int = 0
    rejected: int = 0
    sql_errors: int = 0
    bulk_loads: int = 0
    batches: int = 0
    retries: int = 0
    content_via: Counter[str] = field(default_factory=Counter)
    content_failures: Counter[str] = field(default_factory=Counter)
    healed: int = 0
    companions: dict[str, TableCounts] = field(default_factory=dict)
    """What was done in the tables beside TokenRecords, by their names."""
    curve: Curve = field(default_factory=Curve)


class Progress:
    """Thread-safe counters of one run.

    While a database is under way its records count as they are read; when it
    is marked, what the server counted takes their place.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._started = time.monotonic()
        self._weights: dict[int, int] | None = None
        self._shares: dict[int, float] = {}
        self._running: dict[int, tuple[int, int]] = {}
        self.counters = Counters()

    def begin(self, weights: Mapping[int, int]) -> None:
        """The jobs of this run, with their sizes (any unit)."""
        with self._lock:
            self._weights = {job: max(1, weight) for job, weight in weights.items()}

    def read(self, report: RowsRead) -> None:
        """Rows were read."""
        tally = report.tally
        with self._lock:
            read, fetched = self._running.get(report.job, (0, 0))
            read += tally.read
            self._running[report.job] = (read, fetched + tally.fetched)
            self._shares[report.job] = min(1.0, read / report.expected) if report.expected else 1.0
            counters = self.counters
            counters.tokens_read += tally.read
            counters.curve.note(self.seconds, counters.tokens_read)
            counters.content_via.update(tally.via)
            counters.content_failures.update(tally.failures)
            counters.healed += tally.healed

    def published(self, report: ChunkPublished) -> None:
        """A chunk was published; with its mark, a database is done."""
        with self._lock:
            counters = self.counters
            if report.table == RECORDS.name:
                counters.inserted += report.inserted
                counters.updated += report.updated
                counters.vanished += report.vanished
            else:
                beside = counters.companions.setdefault(report.table, TableCounts())
                beside.inserted += report.inserted
                beside.updated += report.updated
                beside.vanished += report.vanished
            counters.rejected += report.rejected
            counters.sql_errors += report.rejected
            counters.bulk_loads += report.bulk_loads
            counters.batches += report.batches
            counters.retries += report.retries
            counts = report.marked
            if counts is None:
                return
            self._running.pop(report.job, None)
            self._shares[report.job] = 1.0
            counters.databases_processed += 1
            counters.records_processed += counts.records
            counters.ipfs_success += counts.ipfs_success
            counters.ipfs_failures += counts.ipfs_failures
            counters.validation_errors += counts.validation_errors

    def failed(self, job: int | None) -> None:
        """A database could not be processed."""
        with self._lock:
            self.counters.databases_failed += 1
            if job is not None:
                self._running.pop(job, None)
                self._shares[job] = 1.0

    @property
    def weights(self) -> Mapping[int, int]:
        """Sizes of the jobs."""
        return self._weights or {}

    @property
    def share(self) -> float:
        """0 to 1, by the size of the databases; 0 until it is known what there is to do."""
        if self._weights is None:
            return 0.0
        total = sum(self._weights.values())
        if not total:
            return 1.0
        return sum(self._weights[j] * s for j, s in list(self._shares.items())) / total

    @property
    def seconds(self) -> float:
        """Since the run began."""
        return time.monotonic() - self._started

    def so_far(self) -> tuple[int, int]:
        """Records and contents, of databases that are done and of those under way."""
        with self._lock:
            running = list(self._running.values())
            return (
                self.counters.records_processed + sum(read for read, _ in running),
                self.counters.ipfs_success + sum(fetched for _, fetched in running),
            )

    def line(self) -> str:
        """The guide's progress line."""
        records, success = self.so_far()
        rate = records / self.seconds if self.seconds else 0.0
        return progress_line(self.share, records, rate, success, self.counters.sql_errors)

    def totals(self) -> SessionTotals:
        """For the SyncSessions row."""
        records, success = self.so_far()
        counters = self.counters
        return SessionTotals(
            total_databases_found=counters.databases_found,
            total_databases_processed=counters.databases_processed,
            total_records_processed=records,
            total_ipfs_success=success,
            total_ipfs_failures=counters.ipfs_failures,
            total_sql_inserts=counters.inserted,
            total_sql_errors=counters.sql_errors,
            total_validation_errors=counters.validation_errors,
            progress_percent=round(self.share * 100, 1),
        )
