"""Fleet: is all well, what is wrong and what cures it, what the last night changed."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Final

import rubix_token_sync as rts
from rubix_token_sync.amounts import ago, rate, when
from rubix_token_sync.documents import status_document
from rubix_token_sync.pages.charts import Day, bar, calendar, legend
from rubix_token_sync.pages.markup import Element, link, tag
from rubix_token_sync.pages.parts import (
    Cell,
    Column,
    Number,
    amount,
    badge,
    empty,
    numbers,
    problem_list,
    section,
    table,
    with_code,
)
from rubix_token_sync.web.desk import Desk
from rubix_token_sync.web.frame import Answer, Links
from rubix_token_sync.web.query import Query
from rubix_token_sync.web.rows import databases_table, more, percent_of, problem_rows, round_table

__all__ = ["ask", "nights_section"]

_MOST_PROBLEMS: Final = 12
_MOST_NODES: Final = 12
_URGENCY: Final = {"failed": 0, "pending": 1, "overdue": 2}
_SIGNS: Final = {"good": "✓", "warn": "!", "bad": "✕"}
_CHANGED: Final = ("new", "changed", "transfers", "statuses", "vanished", "returned")


def ask(desk: Desk, query: Query) -> Answer:
    """`status`, and the nights of the last year."""
    del query
    status = desk.status()
    nights = desk.nights()
    found = desk.round()
    return Answer(
        title="Fleet",
        document={**status_document(desk.reader, status), "round": found},
        body=lambda links: _body(links, status, nights, found),
        rows=(rts.Problem, status.problems),
        at=status.server_time,
        live="runs",
        headed=True,
    )


def _body(
    links: Links, status: rts.Status, nights: Sequence[rts.Night], found: rts.Round | None
) -> Sequence[Element | None]:
    if not status.sources:
        return [
            _verdict("warn", "Nothing has been synced yet", "Whether all is well is not known."),
            _round(links, status, found),
            section("What to do", problem_list(problem_rows(links, status.problems))),
        ]
    return [
        _headline(status),
        _numbers(links, status),
        _problems(links, status),
        _round(links, status, found),
        _last_night(links, status),
        nights_section(status, nights),
        _sources(links, status),
        _nodes(links, status),
    ]


def _verdict(tone: str, title: str, *lines: object) -> Element:
    return tag(
        "div",
        tag("div", _SIGNS[tone], class_="sign", aria_hidden="true"),
        tag("div", tag("h1", title), *(tag("p", line) for line in lines)),
        class_=f"card verdict {tone}",
    )


def _headline(status: rts.Status) -> Element:
    """What was not looked at is not called well."""
    wrong = sum(p.severity == "error" for p in status.problems)
    warnings = len(status.problems) - wrong
    audit = status.audit
    parts = [f"{rts.counted(sum(s.databases for s in status.sources), 'database')} of "
             f"{rts.counted(len(status.sources), 'machine')}"]  # fmt: skip
    if warnings:
        parts.append(rts.counted(warnings, "warning"))
    if audit is None:
        parts.append("no audit has run: whether tokens are genuine and held once is not known")
    elif not audit.complete:
        parts.append("a rule of the last audit failed: of what it looks for, nothing is known")
    elif audit.errors:
        parts.append(f"{rts.counted(audit.errors, 'finding')} of severity error open")
    if audit is not None and audit.unaudited_syncs:
        syncs = rts.counted(audit.unaudited_syncs, "sync")
        parts.append(f"what {syncs} changed since the last audit was not audited")
    said = "; ".join(parts) + "."
    if wrong:
        needs = "needs" if wrong == 1 else "need"
        return _verdict("bad", f"{rts.counted(wrong, 'problem')} {needs} you", said)
    if any(p.code == "never_ran" for p in status.problems):
        return _verdict("warn", "Not all is synced yet", said)
    if audit is not None and audit.errors:
        return _verdict("bad", "All is synced, and the audit found errors", said)
    if audit is None or not audit.complete or audit.unaudited_syncs:
        return _verdict("warn", "All is synced, not all is audited", said)
    if warnings:
        return _verdict("warn", "All is synced, with warnings", said)
    return _verdict("good", "All is well", said)


def _numbers(links: Links, status: rts.Status) -> Element:
    records = sum(s.record_count for s in status.sources)
    content = sum(s.ipfs_success_count for s in status.sources)
    databases = sum(s.databases for s in status.sources)
    current = sum(d.state == "current" for d in status.databases)
    kinds = rts.tokens_by_kind(status.records_by_kind) if status.records_by_kind else None
    ages = [s.age_seconds for s in status.sources]
    oldest = None if None in ages else max((a for a in ages if a is not None), default=None)
    return numbers(
        [
            Number("Records", f"{records:,}", kinds, url=links("/tokens")),
            Number(
                "With content",
                percent_of(content, records),
                tag("span", link(f"{records - content:,} without", links("/tokens", content="no")))
                if records > content
                else "all of them",
                url=links("/tokens", content="yes"),
            ),
            Number(
                "Databases current",
                f"{current:,} of {databases:,}",
                None if current == databases else f"{databases - current:,} are not",
                tone="" if current == databases else "bad",
                url=links("/nodes"),
            ),
            _findings_number(links, status.audit),
            Number(
                "Last success",
                ago(oldest),
                "of the machine that waits longest" if len(ages) > 1 else None,
                url=links("/runs"),
            ),
        ]
    )


def _findings_number(links: Links, audit: rts.OpenFindings | None) -> Number:
    if audit is None:
        return Number("Findings", "not audited", "run `rubix-token-sync audit`".replace("`", ""))
    total = audit.errors + audit.warnings + audit.infos
    note = f"{rts.counted(audit.errors, 'error')}, {rts.counted(audit.warnings, 'warning')}"
    tone = "bad" if audit.errors else "warn" if audit.warnings else ""
    return Number("Open findings", f"{total:,}", note, tone=tone, url=links("/findings"))


def _problems(links: Links, status: rts.Status) -> Element | None:
    if not status.problems:
        return None
    worst = sorted(status.problems, key=lambda p: p.severity != "error")
    left = len(worst) - _MOST_PROBLEMS
    return section(
        "What is wrong",
        problem_list(problem_rows(links, worst[:_MOST_PROBLEMS])),
        more(links, links("/nodes", sort="state"), f"{left:,} more, by node") if left > 0 else None,
    )


def _round(links: Links, status: rts.Status, found: rts.Round | None) -> Element | None:
    """Who works now, who has ended since it began, and who takes no part in it."""
    if found is None:
        return None
    taking_part = {run.source_ip for run in found.runs}
    others = [one for one in status.sources if one.source_ip not in taking_part]
    words = {
        "STUCK": "silent", "RUNNING": "working", "FAILED": "failed",
        "INTERRUPTED": "interrupted", "COMPLETED": "completed",
    }  # fmt: skip
    states = found.states
    parts = ", ".join(f"{states[name]:,} {word}" for name, word in words.items() if states[name])
    said = f"{rts.counted(len(found.runs), 'machine')} since {when(found.began_at)} UTC: {parts}; "
    said += f"{rts.counted(found.records, 'record')} so far"
    if found.records_per_second:
        said += f", {rate(found.records_per_second)} now"
    return section(
        "Under way",
        round_table(links, found),
        _not_in_it(links, others) if others else None,
        lead=f"{said}.",
    )


def _not_in_it(links: Links, others: Sequence[rts.SourceRow]) -> Element:
    shown: list[object] = []
    for one in others[:_MOST_NODES]:
        shown += [", "] if shown else []
        shown += [link(one.source_ip, links("/runs", source=one.source_ip))]
        shown.append(f" (last success {ago(one.age_seconds)})")
    more_ = len(others) - _MOST_NODES
    shown.append(f" and {more_:,} more" if more_ > 0 else "")
    return tag("p", "No run under way or ended since then: ", *shown, ".", class_="more")


def _last_night(links: Links, status: rts.Status) -> Element:
    changes = [(s.source_ip, s.changes) for s in status.sources if s.changes is not None]
    if not changes:
        return section(
            "What the last night changed",
            empty("No sync has ended since history began.", tag("p", "The next one is counted.")),
        )

    def cell(one: rts.LastChanges, source: str, name: str) -> object:
        number, usual = getattr(one, name), one.usual.get(name)
        url = links("/changes", since=one.run - 1, source=source)
        made = amount(number, url)
        if usual is None:
            return made
        note = tag("span", f"usual {usual:,.0f}", class_="soft")
        return Cell(tag("span", made.content, tag("br"), note), "")

    return section(
        "What the last night changed",
        table(
            "Changes of the last completed sync of each machine, in records",
            [Column("Machine"), *(Column(name.capitalize(), "n") for name in _CHANGED),
             Column("Ended (UTC)")],
            [
                [
                    link(source, links("/run", id=one.session_id)),
                    *(cell(one, source, name) for name in _CHANGED),
                    f"{one.ended_at:%Y-%m-%d %H:%M}" if one.ended_at else "under way",
                ]
                for source, one in changes
            ],
        ),
    )  # fmt: skip


def nights_section(status: rts.Status, nights: Sequence[rts.Night]) -> Element | None:
    """A year of nights, in which a missing one is seen."""
    if not nights:
        return None
    today = status.server_time.date()
    first = min(night.day for night in nights)
    days = {night.day: _day(night) for night in nights}
    missed = sum(first + timedelta(days=n) not in days for n in range((today - first).days))
    bad = sum(day.kind == "bad" for day in days.values())
    said = f"{rts.counted(len(days), 'day')} with a sync since {first}"
    said += f", {bad:,} with a failure, {missed:,} without any."
    return section(
        "A year of nights",
        calendar(days, today, f"Syncs by day: {said}"),
        legend(
            [("good", "completed"), ("warn", "interrupted"), ("bad", "failed"), ("none", "no sync")]
        ),
        lead=said,
    )


def _day(night: rts.Night) -> Day:
    kind = "bad" if night.failed else "warn" if night.interrupted else "good"
    if not night.completed and night.running:
        kind = "quiet"
    said = f"{night.completed:,} completed"
    said += f", {night.failed:,} failed" if night.failed else ""
    said += f", {night.interrupted:,} interrupted" if night.interrupted else ""
    return Day(
        kind, f"{said}; {night.new:,} new, {night.changed:,} changed, {night.vanished:,} gone"
    )


def _sources(links: Links, status: rts.Status) -> Element:
    most = max((s.record_count for s in status.sources), default=0)
    return section(
        "Machines",
        table(
            "Machines",
            [
                Column("Machine"), Column("Last run"), Column("Last success", "n"),
                Column("Databases", "n"), Column("Failed", "n"), Column("Pending", "n"),
                Column("Records", "n"), Column("Content", "wide"), Column("Invalid", "n"),
            ],
            [
                [
                    link(s.source_ip, links("/nodes", source=s.source_ip)),
                    "" if s.last_run is None else link(
                        badge("STUCK" if s.last_run.stuck else s.last_run.status),
                        links("/run", id=s.last_run.session_id),
                    ),
                    ago(s.age_seconds),
                    amount(s.databases, links("/nodes", source=s.source_ip)),
                    amount(s.databases_failed, links("/nodes", source=s.source_ip, state="failed")),
                    amount(
                        s.databases_pending, links("/nodes", source=s.source_ip, state="pending")
                    ),
                    amount(s.record_count, links("/tokens", source=s.source_ip)),
                    bar(
                        [("with", s.ipfs_success_count, "with content"),
                         ("without", s.ipfs_fail_count, "without")],
                        most=most,
                    ),
                    amount(
                        s.validation_error_count,
                        links("/tokens", source=s.source_ip, invalid="yes"),
                    ),
                ]
                for s in status.sources
            ],
        ),
    )  # fmt: skip


def _nodes(links: Links, status: rts.Status) -> Element:
    wrong = {(p.source_ip, p.db_path): p.severity == "error" for p in status.problems if p.db_path}
    worst = sorted(
        status.databases,
        key=lambda d: (
            _URGENCY.get(d.state, 9),
            not wrong.get((d.source_ip, d.db_path), False),
            (d.source_ip, d.db_path) not in wrong,
            -d.ipfs_fail_count - d.validation_error_count,
            d.node_name,
        ),
    )
    left = len(worst) - _MOST_NODES
    said = f"All {rts.counted(len(worst), 'database')}" if left > 0 else "With filters"
    return section(
        "Nodes by health",
        legend([("with", "with content"), ("without", "without")]),
        databases_table(links, worst[:_MOST_NODES], status.problems),
        more(links, links("/nodes"), said),
        lead=with_code("Those that need you first."),
    )
