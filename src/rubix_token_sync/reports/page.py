"""The report as a page: the same numbers, charts included, in one file.

It is made of the parts that the page of `serve` is made of, and looks the same.  Nothing is
loaded from anywhere, no script runs; light and dark, phone, desktop and paper.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

from rubix_token_sync.amounts import length, per_cent
from rubix_token_sync.pages.charts import bar, curve, legend
from rubix_token_sync.pages.markup import Element, style, style_sheet, tag, written
from rubix_token_sync.pages.parts import (
    Column,
    Number,
    amount,
    badge,
    empty,
    mono,
    notice,
    numbers,
    problem_list,
    section,
    short_id,
    table,
    with_code,
)
from rubix_token_sync.records.kinds import tokens_by_kind
from rubix_token_sync.reports.report import write_whole
from rubix_token_sync.text import counted, told_apart

__all__ = ["render_page", "report_parts", "write_page"]

_MOST_NODES: Final = 40
"""Tables of a page show the nodes that need attention most."""
_MOST_ROWS: Final = 100
_MOST_FINDINGS: Final = 25
_DIGITS: Final = 8
"""Of a finding's fingerprint, as tables of the command line have them."""
_POLICY: Final = "default-src 'none'; style-src 'unsafe-inline'"
_SHORT_RUN: Final = 20.0
"""Seconds below which a rate over time says nothing."""
_MARKS: Final = {"good": "✓", "warn": "!", "bad": "✕"}


def write_page(report: dict[str, Any], report_file: Path) -> Path:
    """Write the page beside the JSON report, atomically.

    Raises:
        SyncError: it cannot be written (exit 1: the sync itself is complete).
    """
    return write_whole(report_file.with_suffix(".html"), render_page(report))


def render_page(report: dict[str, Any]) -> str:
    """The page as HTML."""
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="color-scheme", content="light dark"),
        tag("meta", http_equiv="Content-Security-Policy", content=_POLICY),
        tag("title", f"Sync of {report['source_ip']}, {_minute(report['start_time'])[:16]}"),
        style(style_sheet()),
    )
    main = tag("main", _heading(report), *report_parts(report))
    return written(head, tag("body", main))


def report_parts(report: dict[str, Any], *, findings: bool = True) -> list[Element]:
    """Everything below the heading: for the page of this report, and for the page of its run."""
    nodes = sorted(report["databases"], key=_urgency)
    parts = [
        _numbers(report),
        _problems(report["problems"]),
        _errors(report["errors"]),
        _findings(report) if findings else None,
        _rate(report),
        _content_reasons(report),
        _databases(nodes),
        _skipped(report["skipped"]),
    ]
    return [part for part in parts if part is not None]


def _minute(time: str) -> str:
    return time[:19].replace("T", " ")


def _urgency(database: dict[str, Any]) -> tuple[bool, int, str]:
    """What failed first, then where most content is missing."""
    fine = database["status"] in ("processed", "current", "retired")
    return fine, -database["ipfs_failures"] - database["validation_errors"], database["db_path"]


def _heading(report: dict[str, Any]) -> Element:
    status, tone = report["status"].lower(), "bad" if report["exit_code"] else "good"
    if report["exit_code"] and report["status"] == "COMPLETED":
        status, tone = "completed, something was left undone", "warn"
    elif not report["databases"] and not report["exit_code"]:
        status, tone = "completed, and no node was found", "warn"
    times = f"{_minute(report['start_time'])} to {_minute(report['end_time'])} UTC"
    lines = [times + (", dry run" if report["dry_run"] else ""), f"Into {report['target']}"]
    if report["records_by_kind"]:
        lines.append(f"Holds {tokens_by_kind(report['records_by_kind'])}")
    if report["session_id"]:
        lines.append(f"Session {report['session_id']}, version {report['program_version']}")
    return tag(
        "div",
        tag("div", _MARKS[tone], class_="sign", aria_hidden="true"),
        tag(
            "div",
            tag("h1", f"{report['command']} of {report['source_ip']}: {status}"),
            *(tag("p", line, class_="soft") for line in lines),
        ),
        class_=f"card verdict {tone}",
    )


def _numbers(report: dict[str, Any]) -> Element:
    records, content = report["total_records"], report["ipfs_success_rate"]
    if records is None:  # a dry run: the target was not asked
        records = report["total_records_processed"]
    elif records:
        content = report["total_records_with_content"] * 100 / records
    stored, failed = report["sql_success_rate"], report["total_databases_failed"]
    long_enough = report["duration_seconds"] >= _SHORT_RUN
    rate = f"{report['records_per_second']:,.0f}/s" if long_enough else None
    return numbers(
        [
            Number("Records", f"{records:,}"),
            Number(
                "With content",
                per_cent(content) if records else "–",
                tone="warn" if records and content < 95 else "",
            ),
            Number("Stored", per_cent(stored), tone="bad" if stored < 100 else ""),
            Number("Took", length(report["duration_seconds"]), note=rate),
            Number("Databases read", f"{report['total_databases_processed']:,}"),
            Number("Unchanged", f"{report['total_databases_unchanged']:,}"),
            Number("Failed", f"{failed:,}", tone="bad" if failed else ""),
        ]
    )


def _problems(problems: Sequence[dict[str, Any]]) -> Element | None:
    if not problems:
        return None
    return section(
        "Problems",
        problem_list(problems[:_MOST_ROWS]),
        _left(len(problems) - _MOST_ROWS),
    )


def _errors(errors: Sequence[dict[str, Any]]) -> Element | None:
    return _listed(
        "Errors",
        [
            Column("Code"), Column("Category"), Column("Node"),
            Column("What happened, and what to do", "text"), Column("Count", "n"),
        ],
        errors,
        lambda e: [
            mono(e["code"]),
            e["category"],
            e["node_name"] or "",
            with_code(e["message"]),
            f"{e['occurrences']:,}",
        ],
    )  # fmt: skip


def _findings(report: dict[str, Any]) -> Element:
    """What audits found and is open, the worst first; that nobody looked is said as plainly."""
    audit = report["audit"]
    if audit is None:
        if report["total_records"] is None:
            return section(
                "Findings", notice("warn", "The target could not be asked what audits found.")
            )
        said = "No audit has run yet: whether tokens are genuine and held once is not known."
        return section("Findings", empty(said, with_code("Run `rubix-token-sync audit`.", "p")))
    words = {
        "errors": ("error", "errors"),
        "warnings": ("warning", "warnings"),
        "infos": ("info", "info"),
    }
    counts = [(audit[name], forms) for name, forms in words.items()]
    said = ", ".join(counted(number, one, many) for number, (one, many) in counts)
    said += f" open by audit {audit['number']}, {_minute(audit['time'])} UTC."
    shown = report["findings"][:_MOST_FINDINGS]
    left = sum(number for number, _ in counts) - len(shown)
    return section(
        "Findings",
        None
        if audit["complete"]
        else notice("bad", "A rule failed in that audit: of what it looks for, nothing is known."),
        _table_of_findings(shown),
        with_code(f"… and {left:,} more: `rubix-token-sync findings`.", "p", class_="more")
        if left > 0
        else None,
        lead=said,
    )


def _table_of_findings(findings: Sequence[dict[str, Any]]) -> Element | None:
    if not findings:
        return None
    return table(
        "Open findings, the worst first",
        [
            Column("Severity"), Column("State"), Column("What was found", "text"),
            Column("Token", "id"), Column("Nodes", "text"), Column("Evidence", "text"),
        ],
        [
            [
                badge(f["severity"]),
                f["state"],
                f["says"] or f["fingerprint"].partition(":")[0],
                mono(short_id(f["token_id"]), title=f["token_id"], class_="short"),
                ", ".join(f["nodes"]),
                mono(f"rubix-token-sync findings show {_short(f['fingerprint'])}"),
            ]
            for f in findings
        ],
    )  # fmt: skip


def _short(fingerprint: str) -> str:
    """A finding's name as commands take it."""
    rule, _, digits = fingerprint.partition(":")
    return f"{rule}:{digits[:_DIGITS]}"


def _databases(nodes: Sequence[dict[str, Any]]) -> Element | None:
    counters = ("inserted", "updated", "vanished", "ipfs_failures", "validation_errors")
    titles = ("New", "Changed", "Gone", "Without content", "Invalid")
    most = max((n["ipfs_success"] + n["ipfs_failures"] for n in nodes), default=0)
    labels = told_apart([(n["node_name"], n["db_path"]) for n in nodes])
    names = {n["db_path"]: label for n, label in zip(nodes, labels, strict=True)}

    def status(database: dict[str, Any]) -> object:
        tone = {"failed": "bad", "missing": "bad", "pending": "warn"}.get(
            database["status"], "good"
        )
        if tone == "good" or not database["reason"]:
            return badge(database["status"], tone)
        return tag("span", badge(database["status"], tone), " ", mono(database["reason"]))

    return _listed(
        "Databases",
        [
            Column("Node"), Column("Status"), Column("Records", "n"), Column("Content", "wide"),
            *(Column(title, "n") for title in titles), Column("Took", "n"),
        ],
        nodes,
        lambda d: [
            names[d["db_path"]],
            status(d),
            f"{d['records']:,}",
            bar(
                [("with", d["ipfs_success"], "with content"),
                 ("without", d["ipfs_failures"], "without")],
                most=most,
            ),
            *(amount(d[counter]) for counter in counters),
            length(d["seconds"]),
        ],
        above=legend([("with", "with content"), ("without", "without")]),
        most=_MOST_NODES,
    )  # fmt: skip


def _skipped(skipped: Sequence[dict[str, Any]]) -> Element | None:
    return _listed(
        "Skipped",
        [Column("Path", "text"), Column("Why", "text")],
        skipped,
        lambda s: [mono(s["path"]), with_code(f"{s['sentence']} {s['remedy']}".strip())],
    )


def _listed(
    title: str,
    columns: Sequence[Column],
    items: Sequence[dict[str, Any]],
    cells: Callable[[dict[str, Any]], Sequence[object]],
    *,
    most: int = _MOST_ROWS,
    above: Element | None = None,
) -> Element | None:
    """A section with a row for each item; None where there is none."""
    if not items:
        return None
    rows = [cells(item) for item in items[:most]]
    return section(title, above, table(title, columns, rows), _left(len(items) - most))


def _left(number: int) -> Element | None:
    return (
        tag("p", f"… and {number:,} more in the JSON report.", class_="more")
        if number > 0
        else None
    )


def _content_reasons(report: dict[str, Any]) -> Element | None:
    held = report["missing_content"]
    reasons: dict[str, int] = report["content_failures"] if held is None else held
    ordered = sorted(reasons.items(), key=lambda item: -item[1])
    ordered = [(code, number) for code, number in ordered if number]
    if not ordered:
        return None
    most = ordered[0][1]
    return section(
        "Records without content, by reason",
        table(
            "Records without content, by reason",
            [Column("Reason"), Column("Records", "n"), Column("Share", "wide")],
            [
                [mono(code), f"{number:,}", bar([("without", number, code)], most=most)]
                for code, number in ordered
            ],
        ),
    )


def _rate(report: dict[str, Any]) -> Element | None:
    if report["duration_seconds"] < _SHORT_RUN:
        return None
    samples = [(s["seconds"], s["tokens_per_second"]) for s in report["rate_samples"]]
    picture = curve(samples, "Tokens read per second")
    if picture is None:
        return None
    top, mean = max(rate for _, rate in samples), sum(rate for _, rate in samples) / len(samples)
    return section(
        "Tokens read per second",
        tag("div", picture, class_="chart"),
        lead=f"{mean:,.0f}/s on average, {top:,.0f}/s at most.",
    )
