"""What failed, by category and reason, with an example of each.

Contents and validation are counted over the records as they are now (those that
still exist at the source); events are what runs wrote into SyncErrors.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final

import sqlalchemy as sa

from rubix_token_sync.monitor.answers import Answers
from rubix_token_sync.monitor.failure_counts import (
    Failed,
    FailureCounts,
    NodeRow,
    count_failures,
)
from rubix_token_sync.monitor.filters import Filters

__all__ = ["Example", "FailureReport", "Reason", "failure_report", "report_of"]

_IDS: Final = 500


@dataclass(frozen=True)
class Example:
    """One record or event of many."""

    source_ip: str
    node_name: str
    db_path: str
    token_id: str | None
    message: str


@dataclass(frozen=True)
class Reason:
    """Everything that failed for one reason.  ``category`` is the guide's."""

    category: str
    code: str
    count: int
    last_at: datetime | None
    example: Example | None

    @property
    def said(self) -> str:
        """What the example says, without what the reason says already; empty without one."""
        if self.example is None:
            return ""
        message = self.example.message
        if self.category == "validation" and message.startswith("["):
            with contextlib.suppress(ValueError, TypeError, KeyError):
                found = [e for e in json.loads(message) if e["code"] == self.code]
                message = " ".join(str(entry["message"]) for entry in found)
        return message.removeprefix(f"{self.code}: ")


@dataclass(frozen=True)
class FailureReport:
    """The answer of `failure_report`: each list the most frequent first."""

    nodes: list[NodeRow]
    content: list[Reason]
    validation: list[Reason]
    events: list[Reason]


def failure_report(
    store: Answers, filters: Filters, now: datetime, *, by_node: bool = True
) -> FailureReport:
    """The guide's error queries; ``filters.limit`` holds for each list.

    ``by_node`` with ``filters.since`` looks at every record since then.

    ``filters.since`` looks at records by ``synced_at`` and at events by when they
    happened.  ``filters.category`` leaves the lists of other categories empty.
    """
    counted = count_failures(store, filters, now, by_node=by_node)
    return report_of(store, counted, replace(filters, sources=(), nodes=()))


def report_of(store: Answers, counted: FailureCounts, filters: Filters) -> FailureReport:
    """The report on the machines, nodes and category of ``filters``, with an example of each.

    Nothing is counted anew; names are compared letter by letter.
    """

    def asked(one: Failed | NodeRow) -> bool:
        return (not filters.sources or one.source_ip in filters.sources) and (
            not filters.nodes or one.node_name in filters.nodes
        )

    def reasons(failed: Sequence[Failed]) -> list[_Sum]:
        kept = [one for one in failed if asked(one) and filters.category in (None, one.category)]
        return _summed(kept)[: filters.limit]

    content, validation = reasons(counted.content), reasons(counted.validation)
    events = reasons(counted.events)
    by_node = filters.category in (None, "ipfs", "validation")
    records = _examples(store, store.tables.records, "ipfs_error", [one.example for one in content])
    invalid = _examples(
        store, store.tables.records, "validation_errors", [one.example for one in validation]
    )
    written = _examples(store, store.tables.errors, "message", [one.example for one in events])
    return FailureReport(
        nodes=[one for one in counted.nodes if asked(one)][: filters.limit] if by_node else [],
        content=[one.reason(records) for one in content],
        validation=[one.reason(invalid) for one in validation],
        events=[one.reason(written) for one in events],
    )


@dataclass
class _Sum:
    """What failed for one reason, on whatever node."""

    category: str
    code: str
    count: int = 0
    last_at: datetime | None = None
    example: int = 0

    def reason(self, examples: Mapping[int, Example]) -> Reason:
        found = examples.get(self.example)
        return Reason(self.category, self.code, self.count, self.last_at, found)


def _summed(failed: Sequence[Failed]) -> list[_Sum]:
    """By reason, the most frequent first."""
    sums: dict[tuple[str, str], _Sum] = {}
    for one in failed:
        total = sums.setdefault((one.category, one.code), _Sum(one.category, one.code))
        total.count += one.count
        total.example = max(total.example, one.example)
        times = [at for at in (total.last_at, one.last_at) if at is not None]
        total.last_at = max(times, default=None)
    return sorted(sums.values(), key=lambda one: (-one.count, one.category, one.code))


def _examples(
    store: Answers, table: sa.Table, message: str, ids: Sequence[int]
) -> dict[int, Example]:
    columns = ("id", "source_ip", "node_name", "db_path", "token_id", message)
    found: dict[int, Example] = {}
    for start in range(0, len(ids), _IDS):
        query = sa.select(*(table.c[name] for name in columns)).where(
            table.c.id.in_(ids[start : start + _IDS])
        )
        for row in store.read(lambda conn, q=query: conn.execute(q).all()):  # type: ignore[misc]
            place = (row.source_ip, row.node_name or "", row.db_path or "")
            found[row.id] = Example(*place, row.token_id, getattr(row, message))
    return found
