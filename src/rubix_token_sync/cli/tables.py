"""Answers as tables for people, as CSV and as JSON."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from datetime import datetime
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from rubix_token_sync.cli.console import Output
from rubix_token_sync.monitor.export import guarded, iso

__all__ = [
    "ago",
    "console",
    "count",
    "length",
    "new_table",
    "per_cent",
    "plain",
    "print_csv",
    "print_json",
    "shown_rate",
    "spark",
    "to_json",
]

_WIDTH_WITHOUT_TERMINAL = 200
_BARS = "▁▂▃▄▅▆▇█"


def console() -> Console:
    """On stdout; wide where no terminal sets a width, so that nothing is cut in a file."""
    if sys.stdout.isatty():
        return Output(highlight=False)
    return Output(highlight=False, width=_WIDTH_WITHOUT_TERMINAL)


def new_table(*columns: str, right: Iterable[str] = ()) -> Table:
    """A table; the columns named in ``right`` hold numbers."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    numbers = set(right)
    for name in columns:
        table.add_column(name, justify="right" if name in numbers else "left", overflow="fold")
    return table


def plain(value: object, style: str = "") -> Text:
    """Text from databases and file names: neither markup nor control characters count."""
    text = "" if value is None else str(value)
    return Text("".join(c if c.isprintable() else ascii(c)[1:-1] for c in text), style=style)


def count(value: int | None) -> str:
    """A number with its thousands apart."""
    return "" if value is None else f"{value:,}"


def per_cent(value: float | None) -> str:
    """A share with one decimal; nothing of nothing."""
    return "" if value is None else f"{value:.1f} %"


def shown_rate(value: float | None) -> str:
    """Records a second."""
    return "" if value is None else f"{value:,.0f}/s"


def length(seconds: float | None) -> str:
    """A duration in its two largest units."""
    if seconds is None:
        return ""
    if seconds < 60:
        return f"{seconds:.1f} s"
    whole = int(seconds)
    for unit, name, lower, lower_name in (
        (86_400, "d", 3_600, "h"),
        (3_600, "h", 60, "min"),
        (60, "min", 1, "s"),
    ):
        if whole >= unit:
            return f"{whole // unit} {name} {whole % unit // lower} {lower_name}"
    return f"{whole} s"


def ago(seconds: float | None) -> str:
    """An age."""
    return "never" if seconds is None else f"{length(seconds)} ago"


def spark(values: Sequence[float | None]) -> str:
    """A curve in one line of text; a gap where there is no value."""
    known = [v for v in values if v is not None]
    if not known:
        return ""
    top = max(known) or 1.0
    return "".join(
        " " if v is None else _BARS[min(len(_BARS) - 1, int(v / top * len(_BARS)))] for v in values
    )


def to_json(value: Any) -> Any:
    """Plain JSON values: dataclasses are taken apart, times are RFC 3339 in UTC."""
    if isinstance(value, datetime):
        return iso(value)
    if hasattr(value, "__dataclass_fields__") and not isinstance(value, type):
        return to_json(asdict(value))
    if isinstance(value, Mapping):
        return {str(name): to_json(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [to_json(item) for item in value]
    return value


def print_json(document: Mapping[str, Any]) -> None:
    """One document on stdout."""
    print(json.dumps(to_json(document), indent=2, ensure_ascii=False))


def print_csv(rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> None:
    """A header and one line a row on stdout; nested values are JSON."""
    table = csv.writer(sys.stdout, lineterminator="\n")
    table.writerow(columns)
    for row in rows:
        plain_row = to_json(row)
        cells = []
        for name in columns:
            value = plain_row[name]
            if isinstance(value, dict | list):
                value = json.dumps(value, ensure_ascii=False)
            cells.append(guarded(value))
        table.writerow(cells)
