"""Tokens: records by what is looked for, page by page, and as CSV."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final

import rubix_token_sync as rts
from rubix_token_sync.amounts import when
from rubix_token_sync.documents import csv_head, csv_lines
from rubix_token_sync.pages.markup import Element, link, tag
from rubix_token_sync.pages.parts import Column, badge, empty, mono, section, table, with_code
from rubix_token_sync.web.desk import Desk
from rubix_token_sync.web.forms import choice_field, filters, text_field
from rubix_token_sync.web.frame import Answer, Links
from rubix_token_sync.web.query import Query
from rubix_token_sync.web.rows import more, token_link

__all__ = ["FILTERS", "PARAMETERS", "ask", "csv_of", "find"]

FILTERS: Final = (
    "id", "did", "source", "node", "database", "kind", "status", "verdict", "level", "number",
    "content", "invalid", "gone",
)  # fmt: skip
PARAMETERS: Final = (*FILTERS, "after", "limit")

_VERDICTS: Final = (
    "genuine", "disputed", "out_of_range", "forged_form", "not_decidable", "signature_checked",
    "signature_not_checked", "signature_wrong", "none",
)  # fmt: skip
_KINDS: Final = ("rbt", "ft", "nft", "data", "contract")
_CSV_ROWS: Final = 500
_CSV_SECONDS: Final = 1.0


def _search(query: Query) -> dict[str, Any]:
    """The filters, as `TargetReader.find_tokens` takes them."""
    gone = query.choice("gone", ("no", "yes", "both"))
    return {
        "token": query.text("id"),
        "did": query.text("did"),
        "sources": query.texts("source"),
        "nodes": query.texts("node"),
        "databases": query.texts("database"),
        "kinds": query.texts("kind"),
        "statuses": query.texts("status"),
        "verdicts": query.choices("verdict", _VERDICTS),
        "level": query.number("level", 999),
        "number": query.number("number", 10**9),
        "content": query.text("content"),
        "invalid": query.text("invalid"),
        "gone": None if gone == "both" else gone == "yes",
    }


def ask(desk: Desk, query: Query) -> Answer:
    """One page of records."""
    found = desk.reader.find_tokens(
        after=query.text("after"), limit=query.limit(), **_search(query)
    )
    given = {name: query.texts(name) for name in FILTERS}
    filtered = any(given.values())
    document = {
        "server_time": desk.server_time(),
        "target": desk.reader.place,
        "tokens": found.tokens,
        "next": found.next,
        "in_time": found.in_time,
    }

    def body(links: Links) -> Sequence[Element | None]:
        further = None
        if found.next is not None:
            further = links("/tokens", **given, limit=query.text("limit"), after=found.next)
        said = "Next page" if found.in_time else "Go on looking"
        note = () if found.in_time else ("Not everything has been looked through yet.",)
        if not found.tokens:
            return [
                section("Records", _nothing(filtered, found), more(links, further, said, *note))
            ]
        return [
            section(
                "Records",
                tokens_table(links, found.tokens),
                more(links, further, said, *note),
            )
        ]

    return Answer(
        title="Tokens",
        document=document,
        body=body,
        rows=(rts.TokenRow, found.tokens),
        at=document["server_time"],  # type: ignore[arg-type]
        forms=lambda links: [_form(links, query, filtered)],
        under="Each record is one token on one node.",
    )


def _nothing(filtered: bool, found: rts.TokenPage) -> Element:
    if not found.in_time:
        return empty("Nothing so far.")
    if not filtered:
        cure = with_code("Run `rubix-token-sync sync`.", "p")
        return empty("The target holds no records yet.", cure)
    return empty(
        "No record matches.",
        with_code(
            "Ids are compared letter by letter; end one with `*` to find ids that begin so.", "p"
        ),
    )


def _kind(one: rts.TokenRow) -> str:
    """The main net's tokens are what a reader expects; of all others it is said."""
    if one.network == "main":
        return one.token_kind
    net = f"{one.network} net" if one.network else "network unknown"
    return f"{one.token_kind}, {net}"


def tokens_table(links: Links, rows: Sequence[rts.TokenRow]) -> Element:
    """Records with what each says of its token."""
    return table(
        "Records",
        [
            Column("Token", "id"), Column("Node"), Column("Kind"), Column("Status"),
            Column("Value", "n"), Column("Level, number", "n"), Column("Verdict"),
            Column("Content"), Column("DID", "id"), Column("Changed (UTC)", "n"),
        ],
        [
            [
                token_link(links, one.token_id),
                link(one.node_name, links("/node", name=one.node_name, source=one.source_ip)),
                _kind(one),
                one.token_status or "",
                (one.token_value or "")[:24],
                "" if one.token_level is None else f"{one.token_level}, {one.token_number:,}",
                badge(one.verdict, text=one.verdict.replace("_", " ")) if one.verdict else "",
                _content(one),
                _did(links, one.did),
                tag("span", when(one.synced_at), _gone(one)),
            ]
            for one in rows
        ],
    )  # fmt: skip


def _content(one: rts.TokenRow) -> Element:
    if one.ipfs_fetched:
        return badge("verified")
    code = (one.ipfs_error or "none").partition(":")[0]
    return tag("span", mono(code[:60]), title=one.ipfs_error)


def _did(links: Links, did: str | None) -> object:
    if not did:
        return ""
    shown = did if len(did) <= 14 else f"{did[:7]}…{did[-5:]}"
    return link(shown, links("/tokens", did=did), title=did, class_="id")


def _gone(one: rts.TokenRow) -> Element | None:
    if one.source_deleted_at is None:
        return None
    return tag("span", f" gone {when(one.source_deleted_at)}", class_="warn")


def _form(links: Links, query: Query, filtered: bool) -> Element:
    def first(name: str) -> str | None:
        return next(iter(query.texts(name)), None)

    return filters(
        links("/tokens"),
        [
            text_field("Token id, or its beginning and *", "id", first("id"), wide=True),
            text_field("DID, or its beginning and *", "did", first("did"), wide=True),
            text_field("Node", "node", first("node")),
            choice_field("Kind", "kind", first("kind"), [("", "every"), *((k, k) for k in _KINDS)]),
            text_field("Status", "status", first("status"), numeric=True),
            text_field("Level", "level", first("level"), numeric=True),
            text_field("Number", "number", first("number"), numeric=True),
            choice_field(
                "Verdict", "verdict", first("verdict"),
                [("", "every"), *((word, word.replace("_", " ")) for word in _VERDICTS)],
            ),
            choice_field(
                "Content", "content", first("content"),
                [("", "either"), ("yes", "verified"), ("no", "missing")],
            ),
            choice_field(
                "Invalid", "invalid", first("invalid"), [("", "either"), ("yes", "only invalid")]
            ),
            choice_field(
                "Gone from its node", "gone", first("gone"),
                [("", "no"), ("yes", "yes"), ("both", "either")],
            ),
            *(
                tag("input", type="hidden", name=name, value=value)
                for name in ("source", "database")
                for value in query.texts(name)
            ),
        ],
        clear=links("/tokens") if filtered else None,
    )  # fmt: skip


def csv_of(desk: Desk, query: Query) -> Iterator[str]:
    """Every record that matches, from page to page: what is shown as a list, whole."""
    search, after = _search(query), query.text("after")
    yield csv_head(rts.TokenRow)
    while True:
        page = desk.reader.find_tokens(after=after, limit=_CSV_ROWS, seconds=_CSV_SECONDS, **search)
        yield csv_lines(rts.TokenRow, page.tokens)
        if page.next is None:
            return
        after = page.next


def find(desk: Desk, text: str) -> str:
    """The address that answers what somebody pasted: a token, its beginning, or a DID."""
    links = Links()
    if text.startswith("did:"):
        text = text.rpartition(":")[2]
    if desk.reader.find_tokens(token=text, limit=1, gone=None).tokens:
        return links("/token", id=text)
    if desk.reader.find_tokens(did=text, limit=1, gone=None).tokens:
        return links("/tokens", did=text, gone="both")
    start = text if text.endswith("*") else f"{text}*"
    if len(start) > 10 and desk.reader.find_tokens(did=start, limit=1, gone=None).tokens:
        return links("/tokens", did=start, gone="both")
    return links("/tokens", id=start, gone="both")
