"""Errors: what failed by reason, and the single events that runs wrote down."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import rubix_token_sync as rts
from rubix_token_sync.amounts import when
from rubix_token_sync.documents import errors_document
from rubix_token_sync.pages.charts import bar, legend
from rubix_token_sync.pages.markup import Element, link, tag
from rubix_token_sync.pages.parts import Column, amount, empty, mono, section, table, with_code
from rubix_token_sync.web.desk import Desk
from rubix_token_sync.web.forms import choice_field, filters, text_field
from rubix_token_sync.web.frame import Answer, Links
from rubix_token_sync.web.query import Query
from rubix_token_sync.web.rows import more
from rubix_token_sync.web.views.runs import events_table

__all__ = ["EVENT_PARAMETERS", "PARAMETERS", "ask", "ask_events"]

PARAMETERS: Final = ("since", "source", "node", "category", "limit")
EVENT_PARAMETERS: Final = ("session", "category", "code", "source", "node", "before", "limit")

_MOST_RECORDS: Final = 50_000
"""Counted by node at once, where a time is asked for."""
_CATEGORIES: Final = ("ipfs", "database", "validation", "system")


def ask(desk: Desk, query: Query) -> Answer:
    """`errors`."""
    sources, nodes = query.texts("source"), query.texts("node")
    category = query.choice("category", _CATEGORIES)
    asked: dict[str, Any] = {
        "sources": sources, "nodes": nodes, "category": category, "limit": query.limit(20),
    }  # fmt: skip
    since = query.age("since")
    by_node = since is None or not desk.reader.more_stored_since(since, _MOST_RECORDS)
    counted = desk.failures(since, by_node=by_node)
    found, at = desk.reader.errors_of(counted, **asked), counted.at
    given = {"source": sources, "node": nodes}

    def body(links: Links) -> Sequence[Element | None]:
        if not (found.content or found.validation or found.events):
            said = "No errors match." if query.pairs else "Nothing has failed."
            if not desk.known().databases:
                said = "Nothing has been synced yet, so nothing is known."
            return [section("Errors", empty(said))]
        return [
            _reasons(links, "Records without content", found.content, given, "content"),
            _reasons(links, "Records with validation errors", found.validation, given, "invalid"),
            _reasons(links, "What runs wrote down", found.events, given, None),
            _nodes(links, found.nodes) if by_node else _too_many(query),
        ]

    return Answer(
        title="Errors",
        document={
            **errors_document(desk.reader, found), "server_time": at,
            **({} if by_node else {"nodes": None}),
        },
        body=body,
        rows=(rts.Reason, [*found.content, *found.validation, *found.events]),
        at=at,
        live="fleet",
        under="Records as they are now; events as runs wrote them down.",
        forms=lambda links: [
            filters(
                links("/errors"),
                [
                    choice_field("Category", "category", category,
                                 [("", "every"), *((c, c) for c in _CATEGORIES)]),
                    text_field("Node", "node", next(iter(nodes), None)),
                    text_field("Machine", "source", next(iter(sources), None)),
                    text_field("Not older than", "since", query.text("since"), hint="24h"),
                ],
                clear=links("/errors") if query.pairs else None,
            )
        ],
    )  # fmt: skip


def _reasons(
    links: Links,
    title: str,
    reasons: Sequence[rts.Reason],
    given: dict[str, list[str]],
    parameter: str | None,
) -> Element | None:
    if not reasons:
        return None
    most = max(reason.count for reason in reasons)

    def url(reason: rts.Reason) -> str:
        if parameter is None:
            return links("/events", **given, category=reason.category, code=reason.code)
        return links("/tokens", **given, **{parameter: reason.code})

    return section(
        title,
        table(
            title,
            [
                Column("Reason"), Column("Count", "n"), Column("Share", "wide"),
                Column("Last (UTC)", "n"), Column("An example", "text"),
            ],
            [
                [
                    link(mono(reason.code), url(reason)),
                    amount(reason.count, url(reason)),
                    bar([("without", reason.count, reason.code)], most=most),
                    when(reason.last_at),
                    _example(links, reason),
                ]
                for reason in reasons
            ],
        ),
    )  # fmt: skip


def _example(links: Links, reason: rts.Reason) -> object:
    one = reason.example
    if one is None:
        return ""
    said = reason.said
    return tag(
        "span",
        link(one.node_name, links("/node", name=one.node_name, source=one.source_ip))
        if one.node_name
        else one.source_ip,
        ": ",
        None
        if one.token_id is None
        else link(mono(one.token_id[:64]), links("/token", id=one.token_id)),
        None if one.token_id is None else " ",
        with_code(said if len(said) <= 240 else f"{said[:240]}…"),
    )


def _too_many(query: Query) -> Element:
    return section(
        "By node",
        with_code(
            f"More than {_MOST_RECORDS:,} records were stored since then: "
            f"`rubix-token-sync errors --since {query.text('since')}` counts them by node.",
            "p",
        ),
    )


def _nodes(links: Links, nodes: Sequence[rts.NodeRow]) -> Element | None:
    if not nodes:
        return None
    most = max(node.total_records for node in nodes)
    return section(
        "By node",
        legend([("with", "with content"), ("without", "without")]),
        table(
            "Records by node",
            [
                Column("Node"), Column("Machine"), Column("Records", "n"),
                Column("Content", "wide"), Column("Without", "n"), Column("Invalid", "n"),
            ],
            [
                [
                    link(n.node_name, links("/node", name=n.node_name, source=n.source_ip))
                    if n.node_name else "",
                    n.source_ip,
                    amount(n.total_records, links("/tokens", node=n.node_name, source=n.source_ip)),
                    bar(
                        [("with", n.ipfs_success, "with content"),
                         ("without", n.ipfs_failures, "without")],
                        most=most,
                    ),
                    amount(n.ipfs_failures, links("/tokens", node=n.node_name,
                                                  source=n.source_ip, content="no")),
                    amount(n.validation_errors, links("/tokens", node=n.node_name,
                                                      source=n.source_ip, invalid="yes")),
                ]
                for n in nodes
            ],
        ),
    )  # fmt: skip


# --- single events -----------------------------------------------------------------------------


def ask_events(desk: Desk, query: Query) -> Answer:
    """What runs wrote into SyncErrors, one by one."""
    session = query.text("session")
    if session is not None:
        desk.reader.run(session)  # an id that is mistyped has no events, and is no answer
    page = desk.reader.events(
        session_id=session,
        categories=query.choices("category", _CATEGORIES),
        codes=query.texts("code"),
        sources=query.texts("source"),
        nodes=query.texts("node"),
        before=query.number("before"),
        limit=query.limit(),
    )
    given = {
        name: query.texts(name) for name in EVENT_PARAMETERS if name not in ("before", "limit")
    }

    def body(links: Links) -> Sequence[Element | None]:
        further = None
        if page.next is not None:
            further = links("/events", **given, limit=query.text("limit"), before=page.next)
        return [
            section(
                "Events",
                events_table(links, page.events) if page.events else empty("No event matches."),
                more(links, further, "Older ones"),
            )
        ]

    return Answer(
        title="Events",
        document={
            "server_time": desk.server_time(),
            "target": desk.reader.place,
            "events": page.events,
            "next": page.next,
        },
        body=body,
        rows=(rts.EventRow, page.events),
        at=desk.server_time(),
        path=(("Errors", "/errors"),),
        under=", ".join(f"{name} {value}" for name, value in query.pairs if name != "before")
        or None,
    )
