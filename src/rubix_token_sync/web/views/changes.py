"""Changes: what runs did to records, one by one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import rubix_token_sync as rts
from rubix_token_sync.amounts import when
from rubix_token_sync.documents import changes_document
from rubix_token_sync.pages.markup import Element, link, tag
from rubix_token_sync.pages.parts import Column, empty, mono, section, table, with_code
from rubix_token_sync.web.desk import Desk
from rubix_token_sync.web.forms import filters, text_field
from rubix_token_sync.web.frame import Answer, Links
from rubix_token_sync.web.query import Query
from rubix_token_sync.web.rows import change_counts_table, more, token_link, uncounted

__all__ = ["PARAMETERS", "ask"]

PARAMETERS: Final = ("since", "source", "node", "database", "column", "limit")

_LONGEST: Final = 80


def ask(desk: Desk, query: Query) -> Answer:
    """`changes`."""
    since, limit = query.text("since") or "24h", query.limit(100)
    given: dict[str, Any] = {
        name: query.texts(name) for name in ("source", "node", "database", "column")
    }
    feed = desk.reader.changes(
        since,
        sources=given["source"],
        nodes=given["node"],
        databases=given["database"],
        columns=given["column"],
    )
    counted = feed.newest_counts()
    counts = counted.counts
    begun = feed.first(limit + 1)
    rows, whole = begun[:limit], len(begun) <= limit
    total = sum(one.new + one.changed + one.vanished + one.returned for one in counts)

    def body(links: Links) -> Sequence[Element | None]:
        if not counts and not rows and not counted.counted_from:
            return [section("Changes", empty("Nothing has changed."))]
        further = None
        if not whole and limit < 500:
            further = links("/changes", since=since, **given, limit=min(500, limit * 5))
        note = f"the first {len(rows):,}"
        if not counted.counted_from:
            note = f"{len(rows):,} of {total:,}"
        return [
            section(
                "By node",
                with_code(uncounted(counted.counted_from, f"changes --since {feed.since}"), "p",
                          class_="lead") if counted.counted_from else None,
                _counts(links, counts, since) if counts else None,
            ),
            section(
                "Changes",
                _table(links, rows) if rows else empty("None of them has these columns."),
                more(links, further, "More of them", note),
                with_code(
                    "All of them, and from here on: "
                    f"`rubix-token-sync changes --since {feed.since} --jsonl`.", "p", class_="soft",
                ),
            ),
        ]  # fmt: skip

    return Answer(
        title="Changes",
        document={
            **changes_document(desk.reader, feed, counts, rows),
            "counted_from": counted.counted_from,
        },
        body=body,
        rows=(rts.Change, rows),
        at=desk.server_time(),
        live="fleet",
        path=(("Runs", "/runs"),),
        under=f"Of the runs that ended after {since}",
        forms=lambda links: [
            filters(
                links("/changes"),
                [
                    text_field("After (run, age or time)", "since", since),
                    text_field("Node", "node", next(iter(given["node"]), None)),
                    text_field("Machine", "source", next(iter(given["source"]), None)),
                    text_field("Column", "column", next(iter(given["column"]), None), hint="did"),
                ],
                clear=links("/changes") if query.pairs else None,
            )
        ],
    )


def _counts(links: Links, counts: Sequence[rts.ChangeCounts], since: str) -> Element:
    start = int(since) if since.isascii() and since.isdigit() and len(since) < 18 else None
    return change_counts_table(links, counts, since=start)


def _table(links: Links, rows: Sequence[rts.Change]) -> Element:
    return table(
        "Changes, run by run",
        [
            Column("Token", "id"), Column("What"), Column("Node"), Column("Column", "text"),
            Column("Before", "text"), Column("After", "text"), Column("Run", "n"),
            Column("Ended (UTC)", "n"),
        ],
        [
            [
                token_link(links, one.token_id),
                one.what,
                link(one.node_name, links("/node", name=one.node_name, source=one.source_ip)),
                ", ".join(one.columns),
                _side(one.old, one.columns),
                _side(one.new, one.columns or ["did", "token_status"]),
                f"{one.run:,}",
                when(one.at),
            ]
            for one in rows
        ],
    )  # fmt: skip


def _side(values: dict[str, Any], names: Sequence[str]) -> object:
    """One side of a change; a column without a value is a dash."""
    if not values:
        return ""
    parts: list[object] = []
    for name in names[:12]:
        value = values.get(name)
        text = "–" if value is None else str(value)
        parts += [", "] if parts else []
        parts.append(mono(text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…", title=name))
    return tag("span", *parts)
