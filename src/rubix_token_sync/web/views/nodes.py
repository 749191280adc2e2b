"""Nodes: every database of the fleet, and one node with all that is known of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Final

import rubix_token_sync as rts
from rubix_token_sync.amounts import ago, length, when
from rubix_token_sync.documents import databases_document
from rubix_token_sync.pages.charts import bar, legend
from rubix_token_sync.pages.markup import Element, link, tag
from rubix_token_sync.pages.parts import (
    Column,
    Number,
    amount,
    badge,
    empty,
    facts,
    mono,
    numbers,
    problem_list,
    section,
    table,
    with_code,
)
from rubix_token_sync.web.desk import Desk
from rubix_token_sync.web.forms import choice_field, filters, text_field
from rubix_token_sync.web.frame import Answer, Links
from rubix_token_sync.web.query import Query
from rubix_token_sync.web.rows import (
    change_counts_table,
    databases_table,
    findings_or_not,
    more,
    percent_of,
    problem_rows,
    uncounted,
)

__all__ = ["LIST_PARAMETERS", "PARAMETERS", "ask_all", "ask_one"]

LIST_PARAMETERS: Final = ("source", "node", "state", "sort", "limit", "page")
PARAMETERS: Final = ("name", "source", "since")

_STATES: Final = ("current", "failed", "pending", "overdue", "attention")
_ORDERS: Final = ("state", "node", "records", "missing", "age")
_URGENCY: Final = {"failed": 0, "pending": 1, "overdue": 2}
_HISTORY: Final = "30d"
_MOST_RUNS: Final = 30


def ask_all(desk: Desk, query: Query) -> Answer:
    """`databases`, a page at a time for people; JSON and CSV have all that the filters leave."""
    sources, nodes = query.texts("source"), query.texts("node")
    state, order = query.choice("state", _STATES), query.choice("sort", _ORDERS) or "state"
    limit, page = query.limit(60), query.number("page", 10_000, 1) or 1
    status = desk.known()
    found = _of(status, sources, nodes)
    problems = desk.reader.problems_of(found)
    wrong = {(p.source_ip, p.db_path) for p in problems}
    if state == "attention":
        found = [d for d in found if d.state != "current" or (d.source_ip, d.db_path) in wrong]
    elif state is not None:
        found = [d for d in found if d.state == state]
    shown = _ordered(found, order)
    rows = shown[(page - 1) * limit : page * limit]
    filtered = bool(sources or nodes or state)

    def body(links: Links) -> Sequence[Element | None]:
        if not found:
            said = "No database matches." if filtered else "No database is known yet."
            cure = "Run `rubix-token-sync sync`, which finds them below its roots."
            return [section("Databases", empty(said, with_code(cure, "p")))]
        given = {"source": sources, "node": nodes, "state": state, "sort": query.text("sort")}
        further = links("/nodes", **given, page=page + 1) if page * limit < len(shown) else None
        return [
            numbers(_sums(links, found)),
            section(
                "Databases",
                legend([("with", "with content"), ("without", "without")]),
                databases_table(links, rows, problems),
                more(
                    links,
                    further,
                    "Next page",
                    f"{(page - 1) * limit + 1:,} to {(page - 1) * limit + len(rows):,} "
                    f"of {len(shown):,}",
                )
                if rows
                else empty("This page does not exist."),
            ),
        ]

    return Answer(
        title="Nodes",
        document={
            **databases_document(desk.reader, found, problems),
            "server_time": status.server_time,
        },
        body=body,
        rows=(rts.DatabaseRow, found),
        at=status.server_time,
        live="fleet",
        forms=lambda links: [
            filters(
                links("/nodes"),
                [
                    text_field("Node", "node", next(iter(nodes), None)),
                    text_field("Machine", "source", next(iter(sources), None)),
                    choice_field(
                        "State",
                        "state",
                        state,
                        [("", "every"), ("attention", "needs attention"),
                         *((word, word) for word in _STATES[:-1])],
                    ),
                    choice_field(
                        "Order",
                        "sort",
                        query.text("sort"),
                        [("", "failures first"), ("node", "name"), ("records", "records"),
                         ("missing", "missing content"), ("age", "age")],
                    ),
                ],
                clear=links("/nodes") if query.pairs else None,
            )
        ],
    )  # fmt: skip


def _of(status: rts.Status, sources: Sequence[str], nodes: Sequence[str]) -> list[rts.DatabaseRow]:
    return [
        row
        for row in status.databases
        if (not sources or row.source_ip in sources) and (not nodes or row.node_name in nodes)
    ]


def _ordered(rows: Sequence[rts.DatabaseRow], order: str) -> list[rts.DatabaseRow]:
    keys: dict[str, Any] = {
        "state": lambda d: (_URGENCY.get(d.state, 9), -d.ipfs_fail_count, d.node_name, d.db_path),
        "node": lambda d: (d.node_name, d.db_path),
        "records": lambda d: -d.record_count,
        "missing": lambda d: -d.ipfs_fail_count,
        "age": lambda d: -(d.age_seconds if d.age_seconds is not None else float("inf")),
    }
    return sorted(rows, key=keys[order])


def _sums(links: Links, rows: Sequence[rts.DatabaseRow]) -> list[Number]:
    records = sum(d.record_count for d in rows)
    content = sum(d.ipfs_success_count for d in rows)
    current = sum(d.state == "current" for d in rows)
    return [
        Number("Databases", f"{len(rows):,}"),
        Number(
            "Not current",
            f"{len(rows) - current:,}",
            tone="" if current == len(rows) else "bad",
            url=links("/nodes", state="attention"),
        ),
        Number("Nodes", f"{len({(d.source_ip, d.node_name) for d in rows}):,}"),
        Number("Records", f"{records:,}"),
        Number("With content", percent_of(content, records)),
    ]


# --- one node ----------------------------------------------------------------------------------


def ask_one(desk: Desk, query: Query) -> Answer:
    """`databases` of one node, with its history and what audits found on it."""
    name, sources = query.needed("name"), query.texts("source")
    reader = desk.reader
    status = desk.known()
    found = _of(status, sources, [name])
    if not found:
        raise rts.SettingsError(
            "The target knows no such node.",
            code="no_such_node",
            remedy="`rubix-token-sync databases` lists them.",
        )
    problems = reader.problems_of(found)
    history, left_out = _history(desk, found, query.text("since") or _HISTORY)
    findings = reader.find_findings(nodes=[name], limit=8)
    document = {
        **databases_document(reader, found, problems), "server_time": status.server_time,
    }  # fmt: skip
    read = max((d.last_processed for d in found if d.last_processed), default=None)
    unknown = rts.not_audited(desk.last_audit(), read)

    def body(links: Links) -> Sequence[Element | None]:
        return [
            numbers(_sums_of_node(links, found, name, sources)),
            section("What is wrong", problem_list(problem_rows(links, problems)))
            if problems
            else None,
            *(_database(links, one) for one in found),
            _kinds(links, found, name, sources),
            section(
                "What audits found here",
                findings_or_not(links, findings.findings, unknown, "Nothing is open on this node."),
                more(links, links("/findings", node=name), "All findings of this node")
                if findings.next
                else None,
            ),
            section(
                "What runs changed",
                with_code(left_out, "p", class_="lead") if left_out else None,
                change_counts_table(links, history.counts)
                if history.counts
                else None
                if left_out
                else empty("No run has changed them in that time."),
                lead=f"Since {query.text('since') or '30 days ago'}, the newest runs last.",
            ),
        ]

    return Answer(
        title=name,
        document={
            **document,
            "runs": history.counts,
            "counted_from": history.counted_from,
            "findings": findings.findings,
        },
        body=body,
        rows=(rts.DatabaseRow, found),
        at=status.server_time,
        live="fleet",
        path=(("Nodes", "/nodes"),),
        under=f"A node of {', '.join(sorted({d.source_ip for d in found}))}",
    )


def _history(
    desk: Desk, found: Sequence[rts.DatabaseRow], since: str
) -> tuple[rts.CountedChanges, str | None]:
    """What runs did to it; where not all of them are counted, the sentence that says so."""
    try:
        counts = desk.reader.database_changes(found, since)
    except rts.SettingsError as error:
        if error.code != "history_pruned":
            raise
        return rts.CountedChanges([], 0), f"{error.message} {error.remedy}"
    left_out = None
    if counts.counted_from:
        left_out = uncounted(counts.counted_from, "history --node NODE")
    return replace(counts, counts=counts.counts[-_MOST_RUNS:]), left_out


def _sums_of_node(
    links: Links, rows: Sequence[rts.DatabaseRow], name: str, sources: Sequence[str]
) -> list[Number]:
    records = sum(d.record_count for d in rows)
    content = sum(d.ipfs_success_count for d in rows)
    invalid = sum(d.validation_error_count for d in rows)
    here = {"node": name, "source": sources}
    return [
        Number("Records", f"{records:,}", url=links("/tokens", **here)),
        Number(
            "With content",
            percent_of(content, records),
            f"{records - content:,} without" if records > content else None,
            url=links("/tokens", **here, content="no") if records > content else None,
        ),
        Number("Invalid", f"{invalid:,}", url=links("/tokens", **here, invalid="yes")),
        Number("Databases", f"{len(rows):,}"),
    ]


def _database(links: Links, one: rts.DatabaseRow) -> Element:
    here = {"database": one.db_path, "source": one.source_ip}
    reasons = sorted(one.content_failures.items(), key=lambda item: -item[1])
    chains = None
    if one.chains_read_at is not None:
        chains = f"{one.chain_count:,}, read {when(one.chains_read_at)} UTC"
    return section(
        one.db_path.rsplit("/", 1)[-1] or one.db_path,
        tag("p", badge(one.state), " ", mono(one.db_path)),
        facts(
            [
                ("Last success", ago(one.age_seconds)),
                ("File changed (UTC)", when(one.last_modified)),
                ("Read (UTC)", f"{when(one.last_processed)}, "
                 f"{length(one.processing_duration_seconds)}" if one.last_processed else None),
                ("IPFS repository", mono(one.ipfs_path) if one.ipfs_path else "none was found"),
                ("Transactions", f"{one.transaction_count:,}"),
                ("Pledges", f"{one.pledge_count:,}"),
                ("Own DIDs", f"{one.did_count:,}"),
                ("Token chains", chains or "never read"),
                ("Chains", one.chains_error),
                ("Failed", None if one.error is None else tag(
                    "span", one.error.message, " ",
                    link(mono(one.error.code), links("/run", id=one.error.session_id)))),
            ]
        ),
        None
        if not reasons
        else table(
            f"Records of {one.db_path} without content, by reason",
            [Column("Without content because"), Column("Records", "n"), Column("Share", "wide")],
            [
                [
                    mono(code),
                    amount(number, links("/tokens", **here, content=code)),
                    bar([("without", number, code)], most=one.record_count),
                ]
                for code, number in reasons
            ],
        ),
    )  # fmt: skip


def _kinds(
    links: Links, rows: Sequence[rts.DatabaseRow], name: str, sources: Sequence[str]
) -> Element | None:
    kinds: Counter[str] = Counter()
    for row in rows:
        kinds.update(row.kinds)
    if not kinds:
        return None
    most = max(kinds.values())
    return section(
        "Kinds of token",
        table(
            "Records by kind of token",
            [Column("Kind"), Column("Records", "n"), Column("Share", "wide")],
            [
                [
                    rts.tokens_by_kind({kind: 1}).partition(" ")[2] or kind,
                    amount(number, links("/tokens", node=name, source=sources, kind=kind)),
                    bar([("first", number, kind)], most=most),
                ]
                for kind, number in kinds.most_common()
                if number
            ],
        ),
    )
