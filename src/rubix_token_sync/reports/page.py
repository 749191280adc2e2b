"""The report as a page: the same numbers, charts included, in one file.

Nothing is loaded from anywhere, no script runs; light and dark, phone and desktop.
The page is built as a tree, whose writer escapes every text: names come from disk.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any, Final, NamedTuple
from xml.etree.ElementTree import Element, tostring

from rubix_token_sync.records.kinds import tokens_by_kind
from rubix_token_sync.reports.report import write_whole
from rubix_token_sync.text import counted, shown

__all__ = ["render_page", "write_page"]

_MOST_NODES: Final = 40
"""Charts and tables of a page show the nodes that need attention most."""
_MOST_ROWS: Final = 100
_DIGITS: Final = 8
"""Of a finding's fingerprint, as tables of the command line have them."""
_POLICY: Final = "default-src 'none'; style-src 'unsafe-inline'"
_WIDTH, _LEFT, _TOP, _BOTTOM = 900, 90, 12, 280
"""The rate's curve in the units of its picture: letters have 15 of them."""


class _Cell(NamedTuple):
    """A cell with a kind of its own: ``good``, ``warn``, ``bad``."""

    text: object
    kind: str


def write_page(report: dict[str, Any], report_file: Path) -> Path:
    """Write the page beside the JSON report, atomically.

    Raises:
        SyncError: it cannot be written (exit 1: the sync itself is complete).
    """
    return write_whole(report_file.with_suffix(".html"), render_page(report))


def render_page(report: dict[str, Any]) -> str:
    """The page as HTML."""
    start = report["start_time"]
    nodes = sorted(report["databases"], key=_urgency)
    head = _tag(
        "head",
        _tag("meta", charset="utf-8"),
        _tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        _tag("meta", name="color-scheme", content="light dark"),
        _tag("meta", http_equiv="Content-Security-Policy", content=_POLICY),
        _tag("title", f"Sync of {report['source_ip']}, {_minute(start)[:16]}"),
    )
    style = _tag("style")
    style.text = files(__package__).joinpath("page.css").read_text("utf-8")
    head.append(style)
    main = _tag(
        "main",
        *_heading(report),
        _cards(report),
        _problems(report["problems"]),
        _errors(report["errors"]),
        _findings(report),
        _rate_chart(report["rate_samples"]),
        _content_bars(report),
        _node_bars(nodes[:_MOST_NODES]),
        _databases(nodes),
        _skipped(report["skipped"]),
    )
    page = _tag("html", head, _tag("body", main), lang="en")
    return "<!DOCTYPE html>\n" + tostring(page, encoding="unicode", method="html") + "\n"


def _tag(name: str, /, *inside: object, **attributes: object) -> Element:
    """An element with texts (each in one visible line) and elements in it; None is left out."""
    given = {key.rstrip("_").replace("_", "-"): shown(v) for key, v in attributes.items()}
    element = Element(name, {key: value for key, value in given.items() if value})
    for part in inside:
        if isinstance(part, Element):
            part.tail = "\n"
            element.append(part)
        elif part is not None:
            text = shown(part)
            if len(element):
                element[-1].tail = (element[-1].tail or "").strip("\n") + text
            else:
                element.text = (element.text or "") + text
    return element


def _minute(time: str) -> str:
    return time[:19].replace("T", " ")


def _urgency(database: dict[str, Any]) -> tuple[bool, int, str]:
    """What failed first, then where most content is missing."""
    fine = database["status"] in ("processed", "current", "retired")
    return fine, -database["ipfs_failures"] - database["validation_errors"], database["db_path"]


def _length(seconds: float) -> str:
    whole = int(seconds)
    if whole < 60:
        return f"{seconds:.1f} s"
    return f"{whole // 3600}:{whole % 3600 // 60:02}:{whole % 60:02} h"


def _heading(report: dict[str, Any]) -> list[Element]:
    status = report["status"].lower()
    if report["exit_code"] and report["status"] == "COMPLETED":
        status += ", something was left undone"
    times = f"{_minute(report['start_time'])} to {_minute(report['end_time'])} UTC"
    lines = [times + (", dry run" if report["dry_run"] else ""), f"Into {report['target']}"]
    if report["records_by_kind"]:
        lines.append(f"Holds {tokens_by_kind(report['records_by_kind'])}")
    if report["session_id"]:
        lines.append(f"Session {report['session_id']}, version {report['program_version']}")
    how = _tag("span", status, class_="bad" if report["exit_code"] else "good")
    title = _tag("h1", f"{report['command']} of {report['source_ip']}: ", how)
    return [title, *(_tag("p", line, class_="soft") for line in lines)]


def _cards(report: dict[str, Any]) -> Element:
    records, content = report["total_records"], report["ipfs_success_rate"]
    if records is None:  # a dry run: the target was not asked
        records = report["total_records_processed"]
    elif records:
        content = report["total_records_with_content"] * 100 / records
    stored, failed = report["sql_success_rate"], report["total_databases_failed"]
    cards = [
        ("Records", f"{records:,}", False),
        ("Records/s", f"{report['records_per_second']:,.0f}", False),
        ("Content", f"{content:.2f} %", content < 95),
        ("Stored", f"{stored:.2f} %", stored < 100),
        ("Took", _length(report["duration_seconds"]), False),
        ("Databases read", f"{report['total_databases_processed']:,}", False),
        ("Unchanged", f"{report['total_databases_unchanged']:,}", False),
        ("Failed", f"{failed:,}", failed > 0),
    ]
    return _tag(
        "dl",
        *(
            _tag(
                "div",
                _tag("dt", label),
                _tag("dd", value, **({"class_": "bad"} if attention else {})),
                class_="card",
            )
            for label, value, attention in cards
        ),
        class_="cards",
    )


def _problems(problems: Sequence[dict[str, Any]]) -> Element | None:
    return _table(
        "Problems",
        [("Severity", ""), ("Code", ""), ("What is wrong", "text"), ("What to do", "text")],
        problems,
        lambda p: (
            _Cell(p["severity"], "bad" if p["severity"] == "error" else "warn"),
            p["detail"] or p["code"],
            p["message"],
            p["cure"],
        ),
    )


def _errors(errors: Sequence[dict[str, Any]]) -> Element | None:
    columns = [("Category", ""), ("Code", ""), ("Node", "")]
    columns += [("What happened, and what to do", "text"), ("Count", "n")]
    return _table(
        "Errors",
        columns,
        errors,
        lambda e: (
            e["category"],
            e["code"],
            e["node_name"] or "",
            e["message"],
            f"{e['occurrences']:,}",
        ),
    )


def _findings(report: dict[str, Any]) -> Element:
    """What audits found and is open, the worst first; that nobody looked is said as plainly."""
    audit = report["audit"]
    if audit is None:
        asked = report["total_records"] is not None
        said = (
            "No audit has run yet: whether tokens are genuine and held once is not known. "
            "Run rubix-token-sync audit."
            if asked
            else "The target could not be asked what audits found."
        )
        return _tag("section", _tag("h2", "Findings"), _tag("p", said, class_="warn"))
    counts = [(audit[name], name[:-1]) for name in ("errors", "warnings", "infos")]
    said = ", ".join(counted(number, word) for number, word in counts)
    said += f" open by audit {audit['number']}, {_minute(audit['time'])} UTC."
    left = sum(number for number, _ in counts) - len(report["findings"])
    incomplete = _tag(
        "p", "A rule failed in that audit: of what it looks for, nothing is known.", class_="bad"
    )
    table = _table(
        "",
        [("Severity", ""), ("State", ""), ("What was found", "text"), ("Token", "text"),
         ("Nodes", "text"), ("Evidence", "text")],
        report["findings"],
        lambda f: (
            _Cell(f["severity"], {"error": "bad", "warning": "warn"}.get(f["severity"], "")),
            f["state"],
            f["says"] or f["fingerprint"].partition(":")[0],
            f["token_id"] or "",
            ", ".join(f["nodes"]),
            f"rubix-token-sync findings show {_short(f['fingerprint'])}",
        ),
    )  # fmt: skip
    return _tag(
        "section",
        _tag("h2", "Findings"),
        _tag("p", said, class_="bad" if audit["errors"] else "soft"),
        None if audit["complete"] else incomplete,
        *([] if table is None else table[1:]),
        _tag("p", f"… and {left:,} more: rubix-token-sync findings.", class_="soft")
        if left > 0
        else None,
    )


def _short(fingerprint: str) -> str:
    """A finding's name as commands take it."""
    rule, _, digits = fingerprint.partition(":")
    return f"{rule}:{digits[:_DIGITS]}"


def _databases(nodes: Sequence[dict[str, Any]]) -> Element | None:
    counters = ("records", "inserted", "updated", "vanished", "ipfs_failures", "validation_errors")
    titles = ("Records", "New", "Changed", "Gone", "Without content", "Invalid", "Took")

    def status(database: dict[str, Any]) -> _Cell:
        kinds = {"failed": "bad", "missing": "bad", "pending": "warn"}
        kind, said = kinds.get(database["status"], "good"), database["status"]
        if kind != "good" and database["reason"]:
            said += f": {database['reason']}"
        return _Cell(said, kind)

    return _table(
        "Databases",
        [("Node", ""), ("Status", ""), *((title, "n") for title in titles)],
        nodes,
        lambda d: (
            d["node_name"],
            status(d),
            *(f"{d[counter]:,}" for counter in counters),
            _length(d["seconds"]),
        ),
        most=_MOST_NODES,
        stacked=False,
    )


def _skipped(skipped: Sequence[dict[str, Any]]) -> Element | None:
    return _table(
        "Skipped",
        [("Path", "text"), ("Why", "text")],
        skipped,
        lambda s: (s["path"], f"{s['sentence']} {s['remedy']}".strip()),
    )


def _table(
    title: str,
    columns: Sequence[tuple[str, str]],
    items: Sequence[dict[str, Any]],
    cells: Callable[[dict[str, Any]], Iterable[object]],
    *,
    most: int = _MOST_ROWS,
    stacked: bool = True,
) -> Element | None:
    """A section with a row for each item; columns have a title and a kind."""
    if not items:
        return None
    rows = [_tag("tr", *(_tag("th", name, class_=kind) for name, kind in columns))]
    for item in items[:most]:
        row = _tag("tr")
        for cell, (_, kind) in zip(cells(item), columns, strict=True):
            text, own = cell if isinstance(cell, _Cell) else (cell, kind)
            row.append(_tag("td", text, class_=own))
        rows.append(row)
    table = _tag("table", *rows, class_="stacked" if stacked else "")
    left = len(items) - most
    return _tag(
        "section",
        _tag("h2", title),
        _tag("div", table, class_="scroll"),
        _tag("p", f"… and {left:,} more in the JSON report.", class_="soft") if left > 0 else None,
    )


def _content_bars(report: dict[str, Any]) -> Element | None:
    held = report["missing_content"]
    reasons: dict[str, int] = report["content_failures"] if held is None else held
    ordered = sorted(reasons.items(), key=lambda item: -item[1])
    return _bars("Records without content, by reason", [(c, {"without": n}) for c, n in ordered])


def _node_bars(nodes: Sequence[dict[str, Any]]) -> Element | None:
    legend = _tag("p", class_="soft")
    for kind in ("with", "without"):
        legend.append(_tag("span", class_=f"key {kind}"))
        legend[-1].tail = f" {kind} content "
    return _bars(
        "Records by node",
        [
            (n["node_name"], {"with": n["ipfs_success"], "without": n["ipfs_failures"]})
            for n in nodes
        ],
        legend,
    )


def _bars(
    title: str, lines: Sequence[tuple[str, dict[str, int]]], legend: Element | None = None
) -> Element | None:
    """A bar for each line that counts anything: label, and a number for each kind."""
    most = max((sum(counts.values()) for _, counts in lines), default=0)
    rows = []
    for label, counts in lines:
        present = {kind: number for kind, number in counts.items() if number}
        if not present:
            continue
        bar = _tag("td", class_="bar")
        for kind, number in present.items():
            bar.append(_tag("i", class_=kind, style=f"width: {number * 100 / most:.2f}%"))
        numbers = " + ".join(f"{number:,}" for number in present.values())
        rows.append(
            _tag("tr", _tag("th", label, scope="row"), bar, _tag("td", numbers, class_="n"))
        )
    if not rows:
        return None
    return _tag("section", _tag("h2", title), legend, _tag("table", *rows, class_="bars"))


def _rate_chart(samples: Sequence[dict[str, float]]) -> Element | None:
    if len(samples) < 2:
        return None
    first, last = samples[0]["seconds"], samples[-1]["seconds"]
    step = _round_step(max(sample["tokens_per_second"] for sample in samples) / 4)

    def across(seconds: float) -> float:
        return round(_LEFT + (seconds - first) / max(last - first, 0.001) * (_WIDTH - _LEFT), 1)

    def down(rate: float) -> float:
        return round(_TOP + (1 - rate / (4 * step)) * (_BOTTOM - _TOP), 1)

    title = "Tokens read per second"
    picture = _tag("svg", viewBox=f"0 0 {_WIDTH} {_BOTTOM + 30}", role="img", aria_label=title)
    for n in range(5):
        y = down(n * step)
        picture.append(_tag("line", x1=_LEFT, x2=_WIDTH, y1=y, y2=y))
        picture.append(_tag("text", f"{n * step:,.0f}", x=_LEFT - 10, y=y + 5, text_anchor="end"))
        seconds = first + (last - first) * n / 4
        anchor = "start" if n == 0 else "end" if n == 4 else "middle"
        picture.append(
            _tag("text", f"{seconds:,.1f} s", x=across(seconds), y=_BOTTOM + 22, text_anchor=anchor)
        )
    curve = " ".join(f"{across(s['seconds'])},{down(s['tokens_per_second'])}" for s in samples)
    picture.append(_tag("polygon", points=f"{_LEFT},{_BOTTOM} {curve} {_WIDTH},{_BOTTOM}"))
    picture.append(_tag("polyline", points=curve))
    return _tag("section", _tag("h2", title), _tag("div", picture, class_="chart"))


def _round_step(least: float) -> float:
    """1, 2 or 5 times a power of ten, not below ``least``."""
    step = 1.0
    while step < least:
        step *= 2.5 if f"{step:g}"[0] == "2" else 2
    return step
