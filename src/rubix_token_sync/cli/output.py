"""Everything that goes to stdout.

`say`, `print_table`, `print_json` and `print_csv` are the only ways to print: what comes
from nodes, targets and files is escaped here (`rubix_token_sync.text`), so that no
name can move the cursor, forge a line or run as a formula.
"""

from __future__ import annotations

import os
import shutil
import sys
import textwrap
import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import click

import rubix_token_sync as rts
from rubix_token_sync.amounts import ago, count, length, per_cent, rate, when
from rubix_token_sync.documents import columns_of, csv_text, to_json

__all__ = [
    "Cell",
    "Column",
    "ago",
    "answer",
    "columns_of",
    "count",
    "length",
    "per_cent",
    "print_csv",
    "print_json",
    "print_json_line",
    "print_table",
    "rate",
    "say",
    "spark",
    "state",
    "to_json",
    "when",
]

_BARS: Final = "▁▂▃▄▅▆▇█"
_GAP: Final = "  "
_WRAPPED: Final = 24
"""A column that wraps gets at least this much room; else others are dropped first."""
_WORD: Final = 48
"""… and room for its longest word, a token id say, up to this."""
_STYLES: Final = {
    "COMPLETED": "32",
    "processed": "32",
    "current": "32",
    "RUNNING": "36",
    "FAILED": "31",
    "failed": "31",
    "missing": "31",
    "STUCK": "1;31",
    "INTERRUPTED": "33",
    "overdue": "33",
    "pending": "33",
    "error": "31",
    "warning": "33",
    "resolved": "32",
    "suppressed": "2",
}


# --- printing -------------------------------------------------------------------------


def _write(text: str) -> None:
    """
    Raises:
        SyncError: the output cannot be written (a full device).
        BrokenPipeError: its reader has gone.
    """
    try:
        sys.stdout.write(text)
    except BrokenPipeError:
        raise
    except OSError as error:
        raise unwritable(error) from error


def unwritable(error: OSError) -> rts.SyncError:
    """The error of an output that takes nothing."""
    return rts.SyncError(
        f"The output cannot be written: {error.strerror or error}.",
        code="output_unwritable",
        remedy="The command itself did its work; send the output somewhere with room.",
    )


def _coloured() -> bool:
    """As no-color.org and force-color.org have it; empty variables count as not set."""
    if os.environ.get("NO_COLOR"):
        return False
    if os.environ.get("FORCE_COLOR"):
        return True
    return sys.stdout.isatty() and os.environ.get("TERM") != "dumb"


def _painted(text: str, style: str) -> str:
    return f"\x1b[{style}m{text}\x1b[0m" if style and _coloured() else text


def say(line: str = "", style: str = "", indent: str = "") -> None:
    """One line; on a terminal folded between words.  ``style`` is an ANSI number."""
    text = rts.shown(line)
    width = _width()
    if width is not None and _cells(indent + text) > width:
        folded = textwrap.wrap(
            text, max(20, width - len(indent)), break_long_words=False, break_on_hyphens=False
        )
    else:
        folded = [text]
    for part in folded:
        _write(f"{indent}{_painted(part, style)}\n")


def print_text(text: str) -> None:
    """Text of the program's own, as it stands."""
    _write(text)


def _width() -> int | None:
    """Columns of the terminal; None: a file or a pipe, which has as many as it needs."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


# --- tables ----------------------------------------------------------------------------


@dataclass(frozen=True)
class Column:
    """``weight`` 0 is always shown; where a terminal is narrow the heaviest is dropped first."""

    title: str
    weight: int = 0
    right: bool = False
    wraps: bool = False
    """Sentences: folded between words to the room that is left."""


@dataclass(frozen=True)
class Cell:
    """Text with a style (an ANSI number)."""

    text: str
    style: str = ""


def state(word: str) -> Cell:
    """A state in its colour."""
    return Cell(word, _STYLES.get(word, ""))


def print_table(columns: Sequence[Column], rows: Iterable[Sequence[str | Cell]]) -> None:
    """A header and one line a row; columns without any value are left out."""
    plain = [[_cell(value) for value in row] for row in rows]
    shown = [
        index
        for index, column in enumerate(columns)
        if not plain or column.weight == 0 or any(row[index].text for row in plain)
    ]
    widths = [
        max([_cells(column.title), *(_cells(row[index].text) for row in plain)])
        for index, column in enumerate(columns)
    ]
    total = _width()
    if total is not None:
        least = {
            index: min(widths[index], max(_WRAPPED, min(_WORD, _longest_word(plain, index))))
            for index, column in enumerate(columns)
            if column.wraps
        }
        shown = _fitting(columns, widths, shown, total, least)
        for index in shown:
            if columns[index].wraps:
                others = sum(widths[i] + len(_GAP) for i in shown if i != index)
                widths[index] = min(widths[index], max(least[index], total - others))
    titles = [Cell(column.title, "1") for column in columns]
    for row in [titles, *plain]:
        _print_row(columns, widths, shown, row)


def _longest_word(rows: Sequence[Sequence[Cell]], index: int) -> int:
    return max((_cells(word) for row in rows for word in row[index].text.split()), default=0)


def _fitting(
    columns: Sequence[Column],
    widths: Sequence[int],
    shown: list[int],
    total: int,
    least: Mapping[int, int],
) -> list[int]:
    def needed(some: list[int]) -> int:
        room = [least.get(i, widths[i]) for i in some]
        return sum(room) + len(_GAP) * (len(some) - 1)

    while needed(shown) > total:
        heaviest = max(shown, key=lambda index: columns[index].weight)
        if columns[heaviest].weight == 0:
            break
        shown = [index for index in shown if index != heaviest]
    return shown


def _print_row(
    columns: Sequence[Column], widths: Sequence[int], shown: Sequence[int], row: Sequence[Cell]
) -> None:
    parts = {
        index: _folded(row[index].text, widths[index])
        if columns[index].wraps
        else [row[index].text]
        for index in shown
    }
    for line in range(max(len(part) for part in parts.values())):
        cells = []
        for index in shown:
            text = parts[index][line] if line < len(parts[index]) else ""
            gap = " " * (widths[index] - _cells(text))
            text = _painted(text, row[index].style) if text else text
            cells.append(gap + text if columns[index].right else text + gap)
        _write(_GAP.join(cells).rstrip() + "\n")


def _folded(text: str, width: int | None) -> list[str]:
    if width is None:
        return [text]
    return textwrap.wrap(text, width, break_long_words=False, break_on_hyphens=False) or [""]


def _cell(value: str | Cell) -> Cell:
    return (
        Cell(rts.shown(value.text), value.style)
        if isinstance(value, Cell)
        else Cell(rts.shown(value))
    )


def _cells(text: str) -> int:
    """How many columns of a terminal ``text`` takes."""
    if text.isascii():
        return len(text)
    return sum(
        0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1
        for c in text
    )


# --- JSON and CSV -----------------------------------------------------------------------


def print_json(document: Mapping[str, Any]) -> None:
    """One document on stdout."""
    _write(rts.json_text(to_json(document)) + "\n")


def print_json_line(document: Mapping[str, Any]) -> None:
    """One line of JSON Lines on stdout."""
    _write(rts.json_text(to_json(document), indent=None) + "\n")


def print_csv(kind: type[Any], rows: Iterable[Any]) -> None:
    """A header and one line a row on stdout; nested values are JSON."""
    _write(csv_text(kind, rows))


def answer(
    *,
    as_json: bool,
    quiet: bool,
    document: Mapping[str, Any],
    table: Callable[[], None],
    as_csv: bool = False,
    rows: tuple[type[Any], Iterable[Any]] | None = None,
) -> None:
    """An answer in the form that was asked for: JSON, CSV (``rows``), nothing, or for people."""
    if as_json and as_csv:
        raise click.UsageError("Give --json or --csv, not both.")
    if as_json:
        print_json(document)
    elif as_csv and rows is not None:
        print_csv(*rows)
    elif not quiet:
        table()


# --- values ------------------------------------------------------------------------------


def by_severity(number: int, severity: str) -> str:
    """``2 errors``, ``1 warning``, ``3 info``."""
    return f"{number:,} info" if severity == "info" else rts.counted(number, severity)


def spark(values: Sequence[float | None]) -> str:
    """A curve in one line of text; a gap where there is no value."""
    known = [v for v in values if v is not None]
    if not known:
        return ""
    top = max(known) or 1.0
    return "".join(
        " " if v is None else _BARS[min(len(_BARS) - 1, int(v / top * len(_BARS)))] for v in values
    )
