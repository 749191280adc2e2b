"""Runs: those under way, those of the past, and one with its report."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import rubix_token_sync as rts
from rubix_token_sync.amounts import length, per_cent, rate, when
from rubix_token_sync.documents import sessions_document
from rubix_token_sync.pages.charts import legend, spark
from rubix_token_sync.pages.markup import Element, link, tag
from rubix_token_sync.pages.parts import (
    Column,
    Number,
    amount,
    badge,
    empty,
    mono,
    notice,
    numbers,
    section,
    table,
    with_code,
)
from rubix_token_sync.reports.page import report_parts
from rubix_token_sync.web.desk import Desk
from rubix_token_sync.web.forms import choice_field, filters, text_field
from rubix_token_sync.web.frame import Answer, Links
from rubix_token_sync.web.query import Query
from rubix_token_sync.web.rows import (
    change_counts_table,
    eta,
    more,
    progress,
    running_table,
    runs_table,
)
from rubix_token_sync.web.run_reports import find_report

__all__ = ["LIST_PARAMETERS", "PARAMETERS", "ask_all", "ask_one", "events_table"]

LIST_PARAMETERS: Final = ("source", "status", "since", "limit")
PARAMETERS: Final = ("id",)

_STATUSES: Final = ("RUNNING", "COMPLETED", "FAILED", "INTERRUPTED")
_MOST_EVENTS: Final = 20
_NO_SUMMARY: Final = {"COMPLETED": "Nothing to report."}


def ask_all(desk: Desk, query: Query) -> Answer:
    """`sessions`."""
    sources, statuses = query.texts("source"), query.choices("status", _STATUSES)
    since, limit = query.age("since"), query.limit(40)
    found = desk.reader.sessions(since=since, sources=sources, statuses=statuses, limit=limit)
    trend = desk.reader.trend(found)
    running = [run for run in found if run.running]

    def body(links: Links) -> Sequence[Element | None]:
        if not found:
            said = "No run matches." if query.pairs else "No run has begun yet."
            cure = with_code("Run `rubix-token-sync sync`.", "p")
            return [section("Runs", empty(said, cure))]
        further = None
        if len(found) == limit and limit < 500:
            further = links(
                "/runs", source=sources, status=statuses, since=query.text("since"),
                limit=min(500, limit * 4),
            )  # fmt: skip
        return [
            section("Under way", running_table(links, running)) if running else None,
            numbers(_numbers(links, trend)),
            section(
                "Runs",
                legend([("with", "with content"), ("without", "without")]),
                runs_table(links, found),
                more(links, further, "More runs"),
            ),
        ]

    return Answer(
        title="Runs",
        document=sessions_document(desk.reader, found, trend),
        body=body,
        rows=(rts.RunRow, found),
        at=desk.server_time(),
        live="runs",
        forms=lambda links: [
            filters(
                links("/runs"),
                [
                    text_field("Machine", "source", next(iter(sources), None)),
                    choice_field(
                        "State", "status", next(iter(statuses), None),
                        [("", "every"), *((word, word.lower()) for word in _STATUSES)],
                    ),
                    text_field("Not older than", "since", query.text("since"), hint="7d"),
                ],
                clear=links("/runs") if query.pairs else None,
            )
        ],
    )  # fmt: skip


def _numbers(links: Links, trend: rts.Trend) -> list[Number]:
    finished = trend.runs - trend.running
    rates = [value for value in trend.rates if value is not None]
    note = None
    if len(rates) > 2:
        note = spark(trend.rates, f"Records a second of the last {len(trend.rates)} runs")
    return [
        Number(
            "Completed",
            per_cent(trend.success_rate) or "–",
            f"{trend.completed:,} of {finished:,} that ended",
        ),
        Number("Under way", f"{trend.running:,}"),
        Number(
            "Failed",
            f"{trend.failed:,}",
            f"{trend.interrupted:,} interrupted",
            url=links("/runs", status=["FAILED", "INTERRUPTED"]),
        ),
        Number("Median time", length(trend.median_duration_seconds) or "–"),
        Number("Median rate", rate(trend.median_records_per_second) or "–", note),
    ]


# --- one run -----------------------------------------------------------------------------------


def ask_one(desk: Desk, query: Query) -> Answer:
    """One of `sessions`, with what it changed, what it wrote down, and its report."""
    view = desk.reader.run(query.needed("id"))
    run = view.run
    events = desk.reader.events(session_id=run.session_id, limit=_MOST_EVENTS)
    report, file, unread = find_report(desk.options.reports, run.session_id)
    document: dict[str, Any] = {
        "server_time": desk.server_time(),
        "target": desk.reader.place,
        "sessions": [run],
        "number": view.number,
        "nodes": view.nodes,
        "events": events.events,
        "report": report,
    }

    def body(links: Links) -> Sequence[Element | None]:
        return [
            _state(run),
            numbers(_numbers_of(links, run)) if report is None else None,
            _changed(links, view),
            _events(links, run, events),
            *_report(report, file, unread),
        ]

    return Answer(
        title=f"{(run.command or 'run').capitalize()} of {run.source_ip}",
        document=document,
        body=body,
        at=desk.server_time(),
        live="runs" if run.running else None,
        path=(("Runs", "/runs"),),
        under=_under(run),
    )


def _under(run: rts.RunRow) -> Element:
    where = f" on {run.host}, process {run.pid}" if run.host else ""
    return tag(
        "span",
        f"{when(run.start_time)} to {when(run.end_time) or 'now'} UTC{where}, session ",
        mono(run.session_id),
    )


def _state(run: rts.RunRow) -> Element:
    if run.stuck:
        return notice(
            "bad",
            badge("STUCK"),
            f" Silent for {length(run.heartbeat_age_seconds)}: it died or hangs. Look at its "
            "process; the next sync there takes over once the lease has expired.",
        )
    if run.running:
        left = eta(run)
        return tag(
            "div",
            tag("p", badge("RUNNING"), " ", progress(run), f" about {left} left" if left else None),
            class_="card",
        )
    tone = {"COMPLETED": "good", "FAILED": "bad"}.get(run.status, "warn")
    return notice(
        tone,
        badge(run.status),
        " ",
        with_code(run.error_summary or _NO_SUMMARY.get(run.status, "It left no word of why.")),
    )


def _numbers_of(links: Links, run: rts.RunRow) -> list[Number]:
    return [
        Number("Records read", f"{run.total_records_processed:,}", rate(run.records_per_second)),
        Number(
            "Databases",
            f"{run.total_databases_processed:,} of {run.total_databases_found:,}",
        ),
        Number("Took", length(run.duration_seconds)),
        Number("With content", per_cent(run.ipfs_success_rate) or "–",
               f"{run.total_ipfs_failures:,} without"),
        Number("Stored", f"{run.total_sql_inserts:,}"),
        Number("SQL errors", f"{run.total_sql_errors:,}",
               tone="bad" if run.total_sql_errors else "",
               url=links("/events", session=run.session_id) if run.total_sql_errors else None),
    ]  # fmt: skip


def _changed(links: Links, view: rts.RunView) -> Element:
    if view.number is None:
        return section(
            "What it changed", empty("It is from before history began, or wrote nothing.")
        )
    url = links("/changes", since=view.number - 1, source=view.run.source_ip)
    return section(
        "What it changed",
        change_counts_table(links, view.nodes, since=view.number - 1)
        if view.nodes
        else empty("It replaced no record; what is new is in the list."),
        more(links, url, "The changes one by one"),
        lead=f"Run {view.number:,} on the axis of history, by node, without what is new.",
    )


def _events(links: Links, run: rts.RunRow, page: rts.EventPage) -> Element:
    url = links("/events", session=run.session_id) if page.next is not None else None
    return section(
        "What it wrote down",
        events_table(links, page.events)
        if page.events
        else empty(
            "It met no error." if run.status == "COMPLETED" else "It wrote down no single error."
        ),
        more(links, url, "All of them"),
    )


def events_table(links: Links, events: Sequence[rts.EventRow]) -> Element:
    """Single errors, the newest first."""
    return table(
        "Errors that runs wrote down, the newest first",
        [
            Column("Code"), Column("Category"), Column("Node"), Column("What happened", "text"),
            Column("Times", "n"), Column("When (UTC)", "n"),
        ],
        [
            [
                link(mono(one.code), links("/run", id=one.session_id)),
                one.category,
                link(one.node_name, links("/node", name=one.node_name, source=one.source_ip))
                if one.node_name else one.source_ip,
                tag(
                    "span",
                    None if one.token_id is None
                    else link(mono(one.token_id), links("/token", id=one.token_id)),
                    None if one.token_id is None else ": ",
                    one.message[:600],
                ),
                amount(one.occurrences),
                when(one.occurred_at),
            ]
            for one in events
        ],
    )  # fmt: skip


def _report(
    report: dict[str, Any] | None, file: str | None, unread: Sequence[str]
) -> list[Element]:
    if report is None:
        said = "This server has no report of the run."
        why = "Reports are where the run was; name their directory by `--reports`."
        if unread:
            said = f"Whether there is a report of the run is not known: {'; '.join(unread)}."
            why = "Let the user that serves this page read that directory."
        return [section("Report", empty(said, with_code(why, "p")))]
    return [tag("h2", f"Its report ({file})"), *report_parts(report, findings=False)]
