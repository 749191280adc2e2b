"""The report as a page: the same numbers, charts included, in one file.

Nothing is loaded from anywhere, no script runs; light and dark, phone and desktop.
Every text goes through the template's escaping: names come from disk.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from rubix_token_sync.errors import SyncError
from rubix_token_sync.text import shown

if TYPE_CHECKING:
    from jinja2 import Template

__all__ = ["can_make_pages", "render_page", "write_page"]

_MOST_NODES: Final = 40
"""Charts and tables of a page show the nodes that need attention most."""

_WIDTH, _LEFT, _TOP, _BOTTOM = 900, 90, 12, 280
"""The rate's curve in the units of its picture: letters have 15 of them."""


class _Bar(NamedTuple):
    """One line of a bar chart, and its parts: per cent of the width, kind, value."""

    label: str
    parts: tuple[tuple[float, str, int], ...]


class _RateChart(NamedTuple):
    """A curve, and where its axes are labelled with what."""

    points: str
    rates: list[tuple[float, str]]
    times: list[tuple[float, str]]


def can_make_pages() -> bool:
    """Whether the extra ``report`` is installed."""
    return importlib.util.find_spec("jinja2") is not None


def write_page(report: dict[str, Any], report_file: Path) -> Path:
    """Write the page beside the JSON report, atomically.

    Raises:
        SyncError: it cannot be written (exit 1: the sync itself is complete).
    """
    path = report_file.with_suffix(".html")
    temporary = path.with_suffix(".html.tmp")
    try:
        with temporary.open("w", encoding="utf-8", errors="backslashreplace") as file:
            file.write(render_page(report))
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise SyncError(
            f"The report {path} cannot be written: {error.strerror or error}.",
            code="report_unwritable",
            remedy="Choose another directory by --report; the sync itself is complete.",
        ) from error
    return path


@functools.cache
def _template() -> Template:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("rubix_token_sync.reports", ""),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["number"] = lambda value: f"{value:,}"
    environment.filters["took"] = _length
    # Every value goes through both: markup and control characters of names from disk.
    environment.finalize = _visible
    return environment.get_template("page.html.j2")


def _visible(value: object) -> object:
    return shown(value) if type(value) is str else value


def render_page(report: dict[str, Any]) -> str:
    """The page as HTML."""
    nodes = sorted(report["databases"], key=_urgency)
    return _template().render(
        report=report,
        cards=_cards(report),
        nodes=nodes[:_MOST_NODES],
        nodes_left=max(0, len(nodes) - _MOST_NODES),
        rate_chart=_rate_chart(report["rate_samples"]),
        content_bars=_content_bars(report),
        node_bars=_node_bars(nodes[:_MOST_NODES]),
    )


def _urgency(database: dict[str, Any]) -> tuple[bool, int, str]:
    """What failed first, then where most content is missing."""
    fine = database["status"] in ("processed", "current", "retired")
    return fine, -database["ipfs_failures"] - database["validation_errors"], database["db_path"]


def _length(seconds: float) -> str:
    whole = int(seconds)
    if whole < 60:
        return f"{seconds:.1f} s"
    return f"{whole // 3600}:{whole % 3600 // 60:02}:{whole % 60:02} h"


def _cards(report: dict[str, Any]) -> list[tuple[str, str, bool]]:
    """Label, value, and whether it calls for attention."""
    records, content = report["total_records"], report["ipfs_success_rate"]
    if records is None:  # a dry run: the target was not asked
        records = report["total_records_processed"]
    elif records:
        content = report["total_records_with_content"] * 100 / records
    return [
        ("Records", f"{records:,}", False),
        ("Records/s", f"{report['records_per_second']:,.0f}", False),
        ("Content", f"{content:.2f} %", content < 95),
        ("Stored", f"{report['sql_success_rate']:.2f} %", report["sql_success_rate"] < 100),
        ("Took", _length(report["duration_seconds"]), False),
        ("Databases read", f"{report['total_databases_processed']:,}", False),
        ("Unchanged", f"{report['total_databases_unchanged']:,}", False),
        ("Failed", f"{report['total_databases_failed']:,}", report["total_databases_failed"] > 0),
    ]


def _content_bars(report: dict[str, Any]) -> list[_Bar]:
    held = report["missing_content"]
    reasons: dict[str, int] = report["content_failures"] if held is None else held
    most = max(reasons.values(), default=0)
    ordered = sorted(reasons.items(), key=lambda item: -item[1])
    return [_Bar(code, ((n * 100 / most, "without", n),)) for code, n in ordered if n]


def _node_bars(nodes: list[dict[str, Any]]) -> list[_Bar]:
    most = max((node["records"] for node in nodes), default=0)
    return [
        _Bar(
            node["node_name"],
            tuple(
                (node[counter] * 100 / most, kind, node[counter])
                for counter, kind in (("ipfs_success", "with"), ("ipfs_failures", "without"))
                if node[counter]
            ),
        )
        for node in nodes
        if node["records"]
    ]


def _rate_chart(samples: list[dict[str, float]]) -> _RateChart | None:
    if len(samples) < 2:
        return None
    first, last = samples[0]["seconds"], samples[-1]["seconds"]
    step = _round_step(max(sample["tokens_per_second"] for sample in samples) / 4)
    top = 4 * step

    def across(seconds: float) -> float:
        return round(_LEFT + (seconds - first) / max(last - first, 0.001) * (_WIDTH - _LEFT), 1)

    def down(rate: float) -> float:
        return round(_TOP + (1 - rate / top) * (_BOTTOM - _TOP), 1)

    return _RateChart(
        points=" ".join(f"{across(s['seconds'])},{down(s['tokens_per_second'])}" for s in samples),
        rates=[(down(n * step), f"{n * step:,.0f}") for n in range(5)],
        times=[
            (across(seconds), f"{seconds:,.1f} s")
            for seconds in (first + (last - first) * part / 4 for part in range(5))
        ],
    )


def _round_step(least: float) -> float:
    """1, 2 or 5 times a power of ten, not below ``least``."""
    step = 1.0
    while step < least:
        step *= 2.5 if f"{step:g}"[0] == "2" else 2
    return step
