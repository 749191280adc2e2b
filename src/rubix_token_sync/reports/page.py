"""The report as a page: the same numbers, charts included, in one file.

Nothing is loaded from anywhere, no script runs; light and dark, phone and desktop.
Every text goes through the template's escaping: names come from disk.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import os
import sys
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, Final

from rubix_token_sync.errors import SyncError
from rubix_token_sync.text import shown

if TYPE_CHECKING:
    from jinja2 import Template
    from pygal.graph.graph import Graph
    from pygal.style import Style

__all__ = ["can_make_pages", "render_page", "write_page"]

_SERIES: Final = ("var(--first)", "var(--second)", "var(--third)", "var(--fourth)")
_MOST_NODES: Final = 40
"""Charts and tables of a page show the nodes that need attention most."""


def can_make_pages() -> bool:
    """Whether the extra ``report`` is installed."""
    return all(importlib.util.find_spec(name) for name in ("jinja2", "pygal"))


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
        content_chart=_content_chart(report),
        health_chart=_health_chart(nodes[:_MOST_NODES]),
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


def _pygal() -> ModuleType:
    """The library, without the import hook for its plug-ins that it leaves behind."""
    import pygal

    sys.meta_path[:] = [f for f in sys.meta_path if type(f).__module__ != pygal.__name__]
    library: ModuleType = pygal
    return library


def _style(colours: tuple[str, ...]) -> Style:
    from pygal.style import Style

    return Style(
        background="transparent",
        plot_background="transparent",
        foreground="var(--text)",
        foreground_strong="var(--text)",
        foreground_subtle="var(--faint)",
        colors=colours,
        value_colors=("var(--text)",) * len(colours),
        font_family="inherit",
        label_font_size=15,
        major_label_font_size=15,
        legend_font_size=15,
        opacity=".75",
        transition="none",
    )


def _svg(chart: Graph) -> str:
    """The chart as markup for the page, without the scripts that the library adds to it."""
    from markupsafe import Markup
    from pygal.etree import etree

    tree = chart.render_tree()
    for parent in list(tree.iter()):
        for script in [child for child in parent if str(child.tag).endswith("script")]:
            parent.remove(script)
    text: str = etree.tostring(tree, encoding="unicode")
    return Markup(text)  # noqa: S704 - written by an XML library, which escapes


def _whole(value: float) -> str:
    return f"{value:,.0f}"


def _rate_chart(samples: list[dict[str, float]]) -> str | None:
    if len(samples) < 2:
        return None
    pygal = _pygal()

    chart = pygal.XY(
        style=_style(_SERIES),
        js=(),
        show_legend=False,
        fill=True,
        show_dots=False,
        width=900,
        height=320,
        margin=8,
        value_formatter=_whole,
        x_value_formatter=lambda value: f"{value:,.1f} s",
        x_labels_major_count=6,
        include_x_axis=True,
    )
    chart.add("tokens/s", [(s["seconds"], s["tokens_per_second"]) for s in samples])
    return _svg(chart)


def _content_chart(report: dict[str, Any]) -> str | None:
    held = report["missing_content"]
    reasons = report["content_failures"] if held is None else held
    if not reasons:
        return None
    pygal = _pygal()

    ordered = sorted(reasons.items(), key=lambda item: item[1])
    chart = pygal.HorizontalBar(
        style=_style(_SERIES[1:2]),
        js=(),
        show_legend=False,
        width=900,
        height=90 + 38 * len(ordered),
        margin=8,
        value_formatter=_whole,
        print_values=True,
        print_values_position="top",
        truncate_label=-1,
    )
    chart.x_labels = [code for code, _ in ordered]
    chart.add("records", [count for _, count in ordered])
    return _svg(chart)


def _health_chart(nodes: list[dict[str, Any]]) -> str | None:
    held = [node for node in nodes if node["records"]]
    if not held:
        return None
    pygal = _pygal()

    chart = pygal.HorizontalStackedBar(
        style=_style(_SERIES[2:0:-1]),
        js=(),
        legend_at_bottom=True,
        width=900,
        height=140 + 34 * len(held),
        margin=8,
        value_formatter=_whole,
        truncate_label=24,
    )
    held.reverse()
    chart.x_labels = [shown(node["node_name"]) for node in held]
    chart.add("with content", [node["ipfs_success"] for node in held])
    chart.add("without content", [node["ipfs_failures"] for node in held])
    return _svg(chart)
