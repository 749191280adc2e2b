"""One token: every holder side by side, its content, the verdict, findings, history."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from typing import Any, Final

import rubix_token_sync as rts
from rubix_token_sync.amounts import when
from rubix_token_sync.documents import token_document
from rubix_token_sync.pages.markup import Element, link, preformatted, tag
from rubix_token_sync.pages.parts import (
    Cell,
    Column,
    Number,
    badge,
    empty,
    facts,
    left_out,
    mono,
    numbers,
    section,
    table,
    with_code,
)
from rubix_token_sync.web.desk import Desk
from rubix_token_sync.web.frame import Answer, Links
from rubix_token_sync.web.query import Query
from rubix_token_sync.web.rows import findings_or_not, time_of

__all__ = ["PARAMETERS", "ask"]

PARAMETERS: Final = ("id",)

_MOST_HOLDERS: Final = 50
_MOST_VERSIONS: Final = 60
_MOST_CONTENT: Final = 60_000
_BINARY: Final = "data:application/octet-stream;base64,"
_COMPARED: Final = (
    ("Status", "token_status"), ("DID", "did"), ("Value", "token_value"),
    ("State hash", "token_state_hash"), ("Transaction", "transaction_id"),
    ("Parent", "parent_token_id"), ("Kind", "token_kind"), ("Network", "network"),
    ("Verdict", "verdict"), ("Decided by", "verdict_source"), ("Level", "token_level"),
    ("Number", "token_number"), ("Last block", "latest_block_number"),
    ("Its type", "latest_block_type"), ("Its owner", "latest_block_owner"),
    ("Chain", "chain_error"), ("Content", "ipfs_error"), ("Invalid", "validation_errors"),
    ("Created (UTC)", "created_at"), ("Updated (UTC)", "updated_at"),
    ("Synced (UTC)", "synced_at"), ("Node read (UTC)", "read_at"),
    ("Gone since (UTC)", "source_deleted_at"), ("File", "db_path"),
)  # fmt: skip
_IDS: Final = frozenset(
    {"did", "token_state_hash", "transaction_id", "latest_block_owner", "db_path"}
)


def ask(desk: Desk, query: Query) -> Answer:
    """`token`, and its `history`."""
    token_id = query.needed("id")
    found = desk.reader.token(token_id)
    if not found.holders and not found.findings:
        raise rts.SettingsError(
            "The target has no token with this id.",
            code="no_such_token",
            remedy="Give the whole id; the search finds ids by their beginning and *.",
        )
    versions = desk.reader.history(token_id)
    synced = max((one.synced_at for one in found.holders if one.synced_at), default=None)
    unknown = rts.not_audited(desk.last_audit(), synced)

    def body(links: Links) -> Sequence[Element | None]:
        return [
            numbers(_numbers(found)),
            section(
                "What audits found",
                findings_or_not(
                    links, found.findings, unknown, "No audit found anything about it."
                ),
            ),
            _holders(links, found.holders),
            *(_attributes(one) for one in found.holders[:3] if one.attributes),
            _content(found.content),
            _history(links, versions),
        ]

    document = token_document(found)
    return Answer(
        title="Token",
        document=document,
        body=body,
        rows=(rts.Holder, found.holders),
        at=desk.server_time(),
        path=(("Tokens", "/tokens"),),
        under=mono(token_id),
    )


def _numbers(found: rts.TokenView) -> list[Number]:
    live = [one for one in found.holders if one.source_deleted_at is None]
    verdicts = sorted({one.verdict for one in live if one.verdict})
    numbered = next((one for one in found.holders if one.token_level is not None), None)
    open_ones = [f for f in found.findings if f.state not in ("resolved", "suppressed")]
    nodes = {(one.source_ip, one.node_name) for one in live}
    gone = len(found.holders) - len(live)
    return [
        Number("Nodes that have it", f"{len(nodes):,}", f"{gone:,} gone" if gone else None),
        Number("Verdict", ", ".join(v.replace("_", " ") for v in verdicts) or "not judged"),
        Number(
            "Level, number",
            "–" if numbered is None else f"{numbered.token_level}, {numbered.token_number:,}",
        ),
        Number("Content", "verified" if found.content is not None else "missing"),
        Number("Open findings", f"{len(open_ones):,}", tone="bad" if open_ones else ""),
    ]  # fmt: skip


def _holders(links: Links, holders: Sequence[rts.Holder]) -> Element:
    """A column a holder: what differs between them is what an auditor looks for."""
    if not holders:
        return section("Holders", empty("No node has it now; findings remember it."))
    shown = holders[:_MOST_HOLDERS]
    names = rts.told_apart([(one.node_name, one.db_path) for one in shown])
    rows = []
    for title, name in _COMPARED:
        values = [_value(links, one, name) for one in shown]
        if all(value in ("", None) for value in values):
            continue
        plain = {str(getattr(one, name)) for one in shown}
        differs = len(plain) > 1 and name not in ("db_path", "read_at", "synced_at")
        head = tag("span", title, " ", badge("differs", "warn") if differs else None)
        rows.append([head, *(Cell(value, "") for value in values)])
    left = len(holders) - len(shown)
    columns = [Column("Says"), *(Column(name, "id") for name in names)]
    return section(
        "Holders, side by side",
        table("What each holder says", columns, rows, stacked=len(shown) < 2, class_="sides"),
        left_out(left, "more holders in the JSON form."),
        lead=f"{rts.counted(len(holders), 'record')} of this id, vanished ones included.",
    )  # fmt: skip


def _value(links: Links, one: rts.Holder, name: str) -> object:
    value: Any = getattr(one, name)
    if name == "ipfs_error":
        return badge("verified") if one.ipfs_fetched else with_code(str(value or "none"))
    if name == "verdict" and value:
        return badge(value)
    if name == "did" and value:
        return link(mono(value), links("/tokens", did=value, gone="both"))
    if name == "parent_token_id" and value:
        return link(mono(value), links("/token", id=value))
    if name == "db_path":
        return tag(
            "span", link(one.node_name, links("/node", name=one.node_name, source=one.source_ip)),
            f" on {one.source_ip}: ", mono(value),
        )  # fmt: skip
    if name.endswith("_at"):
        return time_of(value)
    if name == "network":
        return value or "unknown"
    if value is None or value == "":
        return ""
    if name in _IDS:
        return mono(value)
    return f"{value:,}" if name == "token_number" else str(value)[:2_000]


def _attributes(one: rts.Holder) -> Element:
    """What only its kind has, by one holder."""
    items = (
        one.attributes.items() if isinstance(one.attributes, dict) else [("value", one.attributes)]
    )
    return section(
        f"What only this kind has, by {one.node_name}",
        facts(
            (
                str(name),
                mono(value if isinstance(value, str) else rts.json_text(value, indent=None)),
            )
            for name, value in items
        ),
    )


def _content(content: str | None) -> Element:
    if content is None:
        return section(
            "Content",
            empty(
                "No node has a verified copy of it in the target.",
                with_code("`rubix-token-sync retry-failed` asks for it again.", "p"),
            ),
        )
    data = _decoded(content)
    if data is None:
        said, shown = f"{len(content):,} characters of text, proven by the id.", content
    else:
        said, shown = f"{len(data):,} bytes, proven by the id; shown in hexadecimal.", _hex(data)
    cut = len(shown) > _MOST_CONTENT
    return section(
        "Content",
        preformatted(shown[:_MOST_CONTENT], tabindex="0"),
        tag("p", "… cut here; the JSON form has all of it.", class_="more") if cut else None,
        lead=said,
    )


def _decoded(content: str) -> bytes | None:
    if not content.startswith(_BINARY):
        return None
    try:
        return base64.b64decode(content[len(_BINARY) :], validate=True)
    except (ValueError, binascii.Error):
        return None


def _hex(data: bytes) -> str:
    lines = []
    for at in range(0, min(len(data), 16_384), 16):
        part = data[at : at + 16]
        text = "".join(chr(b) if 32 <= b < 127 else "." for b in part)
        lines.append(f"{at:06x}  {part.hex(' '):<47}  {text}")
    return "\n".join(lines)


def _history(links: Links, versions: Sequence[rts.Version]) -> Element:
    if not versions:
        return section("History", empty("No version of it is kept."))
    shown = versions[-_MOST_VERSIONS:]
    left = len(versions) - len(shown)
    return section(
        "History",
        table(
            "Versions, holder by holder, the oldest first",
            [
                Column("Node"), Column("From (UTC)"), Column("Until (UTC)"),
                Column("Status"), Column("DID", "id"), Column("Changed then", "text"),
            ],
            [
                [
                    link(one.node_name, links("/node", name=one.node_name, source=one.source_ip)),
                    "before history" if one.since_run == 0 else when(one.since) or "under way",
                    "now" if one.until_run is None else when(one.until),
                    tag("span", "the node does not have it", class_="warn")
                    if one.gone
                    else str(one.values.get("token_status") or ""),
                    mono(str(one.values.get("did") or "")),
                    ", ".join(one.changed) if one.until_run is not None else "",
                ]
                for one in shown
            ],
        ),
        left_out(left, "older: rubix-token-sync history."),
    )  # fmt: skip
