"""What a benchmark found: rows of the table, as plain JSON values."""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

__all__ = ["Outcome", "Row", "Unit", "summary"]

Unit = Literal["tokens/s", "s", "MB", "ratio", "s/Mtoken"]


@dataclass(frozen=True)
class Row:
    """One measured thing: the values of its runs, and what it is held against.

    Attributes:
        scenario, name: where it belongs and what it is, for people.
        values: one for each run, the warm-up left out.
        kind: ``ours``, a ``bare`` limit, a ``peer``, or a ``ratio`` of these.
        goal: the promised value; ``at_least`` tells on which side of it is good.
        note: what the value means or what limits it.
    """

    scenario: str
    name: str
    unit: Unit
    values: tuple[float, ...]
    kind: Literal["ours", "bare", "peer", "ratio"] = "ours"
    goal: float | None = None
    at_least: bool = True
    note: str = ""

    @property
    def median(self) -> float:
        return statistics.median(self.values)

    @property
    def spread(self) -> float:
        """(largest - smallest) / median."""
        return (max(self.values) - min(self.values)) / self.median if self.median else 0.0

    @property
    def met(self) -> bool | None:
        """Whether the median keeps the promise; None where nothing was promised."""
        if self.goal is None:
            return None
        return self.median >= self.goal if self.at_least else self.median <= self.goal


@dataclass
class Outcome:
    """All rows of one benchmark run, and where and when it was."""

    machine: dict[str, Any]
    options: dict[str, Any]
    rows: list[Row] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)

    def to_json(self) -> str:
        document = {
            "machine": self.machine,
            "options": self.options,
            "rows": [
                {**asdict(row), "median": row.median, "spread": row.spread, "met": row.met}
                for row in self.rows
            ],
            "skipped": self.skipped,
        }
        return json.dumps(document, indent=2)

    @classmethod
    def load(cls, path: Path) -> Outcome:
        document = json.loads(path.read_text(encoding="utf-8"))
        derived = {"median", "spread", "met"}
        rows = []
        for stored in document["rows"]:
            plain: dict[str, Any] = {k: v for k, v in stored.items() if k not in derived}
            rows.append(Row(**{**plain, "values": tuple(plain["values"])}))
        return cls(document["machine"], document["options"], rows, document["skipped"])


def summary(rows: Sequence[Row]) -> str:
    """The rows as a Markdown table."""
    lines = [
        "| scenario | what | median | min – max | spread | goal | |",
        "|---|---|---:|---:|---:|---:|---|",
    ]
    for row in rows:
        goal = "" if row.goal is None else f"{'≥' if row.at_least else '≤'} {_say(row, row.goal)}"
        met = {None: "", True: "met", False: "**missed**"}[row.met]
        span = f"{_say(row, min(row.values))} – {_say(row, max(row.values))}"
        lines.append(
            f"| {row.scenario} | {row.name} | {_say(row, row.median)} | {span}"
            f" | {row.spread:.0%} | {goal} | {met} |"
        )
    return "\n".join(lines)


def _say(row: Row, value: float) -> str:
    if row.unit == "tokens/s":
        return f"{value:,.0f}/s"
    if row.unit == "ratio":
        return f"{value:.0%}"
    if row.unit == "MB":
        return f"{value:,.0f} MB"
    return f"{value:.2f} {row.unit}"
