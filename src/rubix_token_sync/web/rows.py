"""Tables that several views show: runs, databases, findings, changes; each number a link."""

from __future__ import annotations

from collections.abc import Sequence

import rubix_token_sync as rts
from rubix_token_sync.amounts import ago, length, per_cent, rate, when
from rubix_token_sync.pages.charts import bar
from rubix_token_sync.pages.markup import Element, link, tag
from rubix_token_sync.pages.parts import (
    Cell,
    Column,
    amount,
    badge,
    empty,
    mono,
    notice,
    short_id,
    table,
    with_code,
)
from rubix_token_sync.web.frame import Links

__all__ = [
    "change_counts_table",
    "databases_table",
    "eta",
    "findings_or_not",
    "findings_table",
    "more",
    "problem_rows",
    "progress",
    "round_table",
    "running_table",
    "runs_table",
    "sentence",
    "time_of",
    "token_link",
    "uncounted",
]


def time_of(value: object) -> object:
    """A time of the target, UTC."""
    return when(value) if value else ""  # type: ignore[arg-type]


def token_link(links: Links, token_id: str | None, *, whole: bool = False) -> object:
    """A token's id, as a link to everything about it."""
    if not token_id:
        return tag("span", "without an id", class_="soft")
    shown = token_id if whole else short_id(token_id)
    return link(shown, links("/token", id=token_id), title=token_id, class_="id")


def more(links: Links, url: str | None, said: str, *notes: object) -> Element | None:
    """Where a list goes on."""
    del links
    if url is None and not notes:
        return None
    return tag(
        "p",
        None if url is None else link(said, url, rel="next"),
        *(tag("span", note) for note in notes),
        class_="more",
    )


# --- problems --------------------------------------------------------------------------------


def problem_rows(links: Links, problems: Sequence[rts.Problem]) -> list[dict[str, object]]:
    """Problems with links to the rows behind each."""
    return [{**vars(one), **_behind(links, one)} for one in problems]


def _behind(links: Links, one: rts.Problem) -> dict[str, object]:
    if one.code == "content_missing":
        url = links("/tokens", content=one.detail, database=one.db_path, source=one.source_ip)
        return {"url": url, "rows": "These records"}
    if one.code in ("stuck", "last_run_failed", "last_run_interrupted") and one.session_id:
        return {"url": links("/run", id=one.session_id), "rows": "This run"}
    if one.code == "unusual_change" and one.session_id:
        return {"url": links("/run", id=one.session_id), "rows": "What this run changed"}
    if one.code == "records_rejected":
        url = links("/events", code="record_refused", node=one.node_name, source=one.source_ip)
        return {"url": url, "rows": "These records"}
    if one.node_name:
        url = links("/node", name=one.node_name, source=one.source_ip)
        return {"url": url, "rows": f"The node {one.node_name}"}
    if one.session_id:
        return {"url": links("/run", id=one.session_id), "rows": "The run that found it"}
    return {}


# --- runs ------------------------------------------------------------------------------------


def progress(run: rts.RunRow) -> Element:
    """How far a run is."""
    done = min(100.0, run.progress_percent or 0.0)
    said = f"{done:.0f} %"
    bar_ = tag("progress", said, max=100, value=done, aria_label="Progress")
    return tag("span", bar_, tag("span", said), class_="progress")


def eta(run: rts.RunRow) -> str:
    """How long it will still take, as fast as it has been so far."""
    done, seconds = run.progress_percent or 0.0, run.duration_seconds or 0.0
    if run.stuck or done < 1 or done >= 100:
        return ""
    return length(seconds * (100 - done) / done)


def round_table(links: Links, found: rts.Round) -> Element:
    """The machines of a round, those first that need a look."""

    def sign(run: rts.RunRow) -> str:
        if run.running:
            return ago(run.heartbeat_age_seconds)
        return "" if run.end_time is None else f"ended {run.end_time:%H:%M:%S}"

    return table(
        "Machines that work at the same time",
        [
            Column("Machine and host"), Column("State"), Column("Sign of life", "n"),
            Column("Progress", "wide"), Column("Left", "n"), Column("Databases", "n"),
            Column("Records", "n"), Column("Rate", "n"),
        ],
        [
            [
                tag(
                    "span",
                    link(run.source_ip, links("/run", id=run.session_id)),
                    tag("br"),
                    tag("span", run.host or "", class_="soft"),
                ),
                badge("STUCK" if run.stuck else run.status),
                sign(run),
                progress(run),
                eta(run) if run.running else "",
                f"{run.total_databases_processed:,}/{run.total_databases_found:,}",
                f"{run.total_records_processed:,}",
                rate(run.records_per_second),
            ]
            for run in found.runs
        ],
    )  # fmt: skip


def running_table(links: Links, runs: Sequence[rts.RunRow]) -> Element:
    """Runs under way."""
    return table(
        "Runs under way",
        [
            Column("Machine"), Column("State"), Column("Progress", "wide"), Column("Left", "n"),
            Column("Records", "n"), Column("Rate", "n"), Column("Began", "n"),
            Column("Heartbeat", "n"),
        ],
        [
            [
                link(run.source_ip, links("/run", id=run.session_id)),
                badge("STUCK" if run.stuck else "RUNNING"),
                progress(run),
                eta(run),
                f"{run.total_records_processed:,}",
                rate(run.records_per_second),
                ago(run.duration_seconds),
                ago(run.heartbeat_age_seconds),
            ]
            for run in runs
        ],
    )  # fmt: skip


def runs_table(links: Links, runs: Sequence[rts.RunRow]) -> Element:
    """Runs, the newest first."""
    most = max((run.total_records_processed for run in runs), default=0)
    return table(
        "Runs, the newest first",
        [
            Column("Began (UTC)"), Column("Machine"), Column("Command"), Column("State"),
            Column("Took", "n"), Column("Databases", "n"), Column("Records", "n"),
            Column("Content", "wide"), Column("Rate", "n"), Column("SQL errors", "n"),
            Column("Invalid", "n"),
        ],
        [
            [
                link(when(run.start_time) or "unknown", links("/run", id=run.session_id)),
                link(run.source_ip, links("/runs", source=run.source_ip)),
                run.command or "",
                badge("STUCK" if run.stuck else run.status),
                length(run.duration_seconds),
                f"{run.total_databases_processed:,}/{run.total_databases_found:,}",
                amount(run.total_records_processed),
                bar(
                    [("with", run.total_ipfs_success, "with content"),
                     ("without", run.total_ipfs_failures, "without")],
                    most=most,
                ) if run.total_records_processed else "",
                rate(run.records_per_second),
                amount(run.total_sql_errors, links("/events", session=run.session_id)),
                amount(run.total_validation_errors),
            ]
            for run in runs
        ],
    )  # fmt: skip


# --- databases -------------------------------------------------------------------------------


def databases_table(
    links: Links, rows: Sequence[rts.DatabaseRow], problems: Sequence[rts.Problem]
) -> Element:
    """Databases of nodes, in the order that was given."""
    wrong = {(p.source_ip, p.db_path) for p in problems}
    labels = rts.told_apart([(row.node_name, row.db_path) for row in rows])
    most = max((row.record_count for row in rows), default=0)

    def state(row: rts.DatabaseRow) -> Element:
        if row.state == "current" and (row.source_ip, row.db_path) in wrong:
            return badge("current", "warn", "needs a look")
        return badge(row.state)

    return table(
        "Databases of nodes",
        [
            Column("Node"), Column("Machine"), Column("State"), Column("Records", "n"),
            Column("Content", "wide"), Column("Without", "n"), Column("Invalid", "n"),
            Column("Rejected", "n"), Column("Last success", "n"),
        ],
        [
            [
                link(label, links("/node", name=row.node_name, source=row.source_ip)),
                row.source_ip,
                state(row),
                amount(row.record_count, _tokens(links, row)),
                bar(
                    [("with", row.ipfs_success_count, "with content"),
                     ("without", row.ipfs_fail_count, "without")],
                    most=most,
                ),
                amount(row.ipfs_fail_count, _tokens(links, row, content="no")),
                amount(row.validation_error_count, _tokens(links, row, invalid="yes")),
                amount(
                    row.rejected_count,
                    links("/events", code="record_refused", node=row.node_name,
                          source=row.source_ip),
                ),
                ago(row.age_seconds),
            ]
            for row, label in zip(rows, labels, strict=True)
        ],
    )  # fmt: skip


def _tokens(links: Links, row: rts.DatabaseRow, **filters: str) -> str:
    return links("/tokens", database=row.db_path, source=row.source_ip, **filters)


# --- findings and changes ----------------------------------------------------------------------


def findings_table(links: Links, found: Sequence[rts.Finding]) -> Element:
    """Findings, the worst first."""
    return table(
        "Findings, the worst first",
        [
            Column("What was found", "text"), Column("Severity"), Column("State"),
            Column("Token", "id"), Column("Nodes", "text"), Column("Changed (UTC)"),
        ],
        [
            [
                link(sentence(one.says or one.rule), links("/finding", name=one.fingerprint)),
                badge(one.severity),
                badge(one.state),
                token_link(links, one.token_id),
                _nodes(links, one),
                tag("span", time_of(one.changed_at), tag("span", f" {one.change}", class_="soft")),
            ]
            for one in found
        ],
    )  # fmt: skip


def findings_or_not(
    links: Links, found: Sequence[rts.Finding], unknown: str | None, said: str
) -> Element:
    """Findings; where there are none, ``said``, unless audits cannot know it (``unknown``)."""
    return tag(
        "div",
        notice("warn", with_code(unknown)) if unknown else None,
        findings_table(links, found) if found else None if unknown else empty(said),
    )


def sentence(text: str) -> str:
    """With a capital letter in front."""
    return text[:1].upper() + text[1:]


def _nodes(links: Links, one: rts.Finding) -> object:
    places = sorted({(e.node_name, e.source_ip) for e in one.evidence})
    shown: list[object] = []
    for name, source in places[:5]:
        shown += [", "] if shown else []
        shown.append(link(name, links("/node", name=name, source=source)))
    if len(places) > 5:
        shown.append(f" and {len(places) - 5:,} more")
    return tag("span", *shown) if shown else Cell("", "none").content


def uncounted(counted_from: int, command: str) -> str:
    """That the runs before this one are left out of counts."""
    return (
        f"Runs before {counted_from:,} changed too much to be counted here: "
        f"`rubix-token-sync {command}` counts them."
    )


def change_counts_table(
    links: Links, counts: Sequence[rts.ChangeCounts], *, since: int | None = None
) -> Element:
    """What runs did to the records of each node."""
    by_run = any(one.run is not None for one in counts) and since is None

    def url(one: rts.ChangeCounts) -> str:
        start = since if since is not None else (one.run or 1) - 1
        return links("/changes", since=start, node=one.node_name, source=one.source_ip)

    return table(
        "Changes by node" + (" and run" if by_run else ""),
        [
            Column("Run" if by_run else "Node"), Column("Ended (UTC)" if by_run else "Machine"),
            Column("New", "n"), Column("Changed", "n"), Column("Vanished", "n"),
            Column("Returned", "n"), Column("Columns", "text"),
        ],
        [
            [
                link(f"{one.run:,}" if by_run else one.node_name, url(one)),
                time_of(one.at) if by_run else one.source_ip,
                amount(one.new, url(one)),
                amount(one.changed, url(one)),
                amount(one.vanished, url(one)),
                amount(one.returned, url(one)),
                ", ".join(f"{name} {number:,}" for name, number in one.columns.items()),
            ]
            for one in counts
        ],
    )  # fmt: skip


def percent_of(part: int, whole: int) -> str:
    """A share."""
    return per_cent(part * 100 / whole) if whole else "–"


def code_link(links: Links, code: str, url: str) -> Element:
    """An error's code, as a link to its rows."""
    del links
    return tag("span", link(mono(code), url))
