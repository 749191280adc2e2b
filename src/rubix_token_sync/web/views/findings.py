"""Findings: what audits found, the evidence of each, and what people decide about them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import rubix_token_sync as rts
from rubix_token_sync.amounts import when
from rubix_token_sync.documents import findings_document
from rubix_token_sync.pages.markup import Element, link, tag
from rubix_token_sync.pages.parts import (
    Column,
    Number,
    amount,
    badge,
    empty,
    facts,
    left_out,
    mono,
    notice,
    numbers,
    section,
    table,
    with_code,
)
from rubix_token_sync.web.desk import Desk
from rubix_token_sync.web.forms import choice_field, filters, text_field
from rubix_token_sync.web.frame import Answer, Links
from rubix_token_sync.web.query import Query
from rubix_token_sync.web.rows import findings_table, more, sentence, token_link

__all__ = ["LIST_PARAMETERS", "PARAMETERS", "ask_all", "ask_one"]

LIST_PARAMETERS: Final = ("severity", "rule", "node", "state", "since", "after", "limit")
PARAMETERS: Final = ("name",)

_OPEN: Final = ("suspected", "confirmed", "acknowledged", "reopened")
_STATES: Final = (*_OPEN, "suppressed", "resolved", "all")
_SEVERITIES: Final = ("error", "warning", "info")
_SPANS: Final = (("7d", "a week"), ("30d", "a month"), ("90d", "three months"), ("365d", "a year"))


def ask_all(desk: Desk, query: Query) -> Answer:
    """`findings`, a page at a time."""
    states = query.choices("state", _STATES) or list(_OPEN)
    if "all" in states:
        states = [*_OPEN, "suppressed", "resolved"]
    search: dict[str, Any] = {
        "severities": query.choices("severity", _SEVERITIES),
        "rules": query.texts("rule"),
        "nodes": query.texts("node"),
        "states": states,
        "since": query.age("since"),
    }
    page = desk.reader.find_findings(after=query.text("after"), limit=query.limit(), **search)
    counts = desk.reader.count_findings(**search)
    audits = desk.reader.audits(limit=1)
    document = findings_document(desk.reader, audits, page.findings)
    document |= {"next": page.next, "counts": counts}
    rules = rts.rules(desk.configuration)
    unknown = set(query.texts("rule")) - {rule.rule for rule in rules}
    if unknown and not counts:  # findings of a rule that is gone are still there
        raise rts.SettingsError(
            f"No rule is named {', '.join(sorted(unknown))}.",
            code="unknown_rule",
            remedy="`rubix-token-sync rules` lists them.",
        )
    given = {name: query.texts(name) for name in LIST_PARAMETERS if name not in ("after", "limit")}

    def body(links: Links) -> Sequence[Element | None]:
        if not audits:
            cure = with_code("Run `rubix-token-sync audit`.", "p")
            said = "No audit has run yet: whether tokens are genuine and held once is not known."
            return [section("Findings", empty(said, cure))]
        further = None
        if page.next is not None:
            further = links("/findings", **given, limit=query.text("limit"), after=page.next)
        return [
            _audit(audits[0], {rule.rule: rule.blind_to for rule in rules}),
            numbers(_numbers(links, counts, given)),
            _by_rule(links, counts, given) if len(counts) > 1 else None,
            section(
                "Findings",
                findings_table(links, page.findings)
                if page.findings
                else empty("Nothing matches." if any(given.values()) else "Nothing is open."),
                more(links, further, "Next page"),
            ),
        ]

    return Answer(
        title="Findings",
        document=document,
        body=body,
        rows=(rts.Finding, page.findings),
        at=desk.server_time(),
        live="findings",
        under=_under(audits),
        forms=lambda links: [_form(links, query)],
    )


def _under(audits: Sequence[rts.AuditRow]) -> str | None:
    if not audits:
        return None
    last = audits[0]
    return f"By audit {last.number:,} of {rts.counted(last.databases, 'database')}, " \
        f"{when(last.started_at)} UTC"  # fmt: skip


def _audit(last: rts.AuditRow, blind_to: Mapping[str, str]) -> Element | None:
    """What that audit could not look at is said before what it found."""
    said = []
    if last.rules_failed:
        said.append(f"These rules failed, nothing is known of what they look for: "
                    f"{', '.join(sorted(last.rules_failed))}.")  # fmt: skip
    if last.rules_off:
        said.append(f"Switched off: {', '.join(last.rules_off)}.")
    if last.databases_unread:
        said.append(
            f"{rts.counted(last.databases_unread, 'database')} had not been read since the audit "
            "before: nothing of theirs was resolved."
        )
    blind: dict[tuple[int, str], list[str]] = {}
    for rule, number in sorted(last.not_looked_at.items()):
        blind.setdefault((number, blind_to.get(rule) or "records"), []).append(rule)
    said += [
        f"Not looked at: {number:,} {what} ({', '.join(names)})."
        for (number, what), names in blind.items()
    ]
    if not said:
        return None
    return notice("bad" if last.rules_failed else "warn", " ".join(said))


def _numbers(
    links: Links, counts: Sequence[rts.FindingCount], given: dict[str, list[str]]
) -> list[Number]:
    others = {name: value for name, value in given.items() if name != "severity"}
    found = []
    for severity in _SEVERITIES:
        number = sum(one.count for one in counts if one.severity == severity)
        found.append(
            Number(
                {"error": "Errors", "warning": "Warnings", "info": "Info"}[severity],
                f"{number:,}",
                tone={"error": "bad", "warning": "warn"}.get(severity, "") if number else "",
                url=links("/findings", **others, severity=severity),
            )
        )
    return found


def _by_rule(
    links: Links, counts: Sequence[rts.FindingCount], given: dict[str, list[str]]
) -> Element:
    rules: dict[tuple[str, str], dict[str, int]] = {}
    for one in counts:
        rules.setdefault((one.rule, one.severity), {})[one.state] = one.count
    states = [s for s in _STATES if any(s in found for found in rules.values())]
    others = {name: value for name, value in given.items() if name not in ("rule", "state")}

    def url(rule: str, state: str | None = None) -> str:
        return links("/findings", **others, rule=rule, state=state or given["state"])

    return section(
        "By rule",
        table(
            "Findings by rule and state",
            [Column("Rule"), Column("Severity"), *(Column(s.capitalize(), "n") for s in states)],
            [
                [
                    link(rule.replace("_", " "), url(rule)),
                    badge(severity),
                    *(amount(found.get(state, 0), url(rule, state)) for state in states),
                ]
                for (rule, severity), found in rules.items()
            ],
        ),
    )


def _form(links: Links, query: Query) -> Element:
    def first(name: str) -> str | None:
        return next(iter(query.texts(name)), None)

    return filters(
        links("/findings"),
        [
            choice_field("Severity", "severity", first("severity"),
                         [("", "every"), *((s, s) for s in _SEVERITIES)]),
            choice_field("State", "state", first("state"),
                         [("", "open"), *((s, s) for s in _STATES)]),
            text_field("Rule", "rule", first("rule"), hint="held_twice"),
            text_field("Node", "node", first("node")),
            text_field("Changed within", "since", first("since"), hint="7d"),
        ],
        clear=links("/findings") if query.pairs else None,
    )  # fmt: skip


# --- one finding -------------------------------------------------------------------------------

_EVIDENCE: Final = (
    ("Status", "token_status"), ("DID", "did"), ("Its DID is of", "did_of"),
    ("Value", "token_value"), ("State hash", "token_state_hash"),
    ("Transaction", "transaction_id"), ("Parent", "parent_token_id"), ("Verdict", "verdict"),
    ("Level", "token_level"), ("Number", "token_number"), ("Last block", "latest_block_number"),
    ("Its type", "latest_block_type"), ("Its owner", "latest_block_owner"),
    ("Content", "ipfs_error"),
)  # fmt: skip


def ask_one(desk: Desk, query: Query) -> Answer:
    """`findings show`."""
    found = desk.reader.finding(query.needed("name"))
    rules = {rule.rule: rule for rule in rts.rules(desk.configuration)}
    rule = rules.get(found.rule)

    def body(links: Links) -> Sequence[Element | None]:
        return [
            section(
                "What it is",
                tag("p", badge(found.severity), " ", badge(found.state), " ",
                    token_link(links, found.token_id, whole=True)),
                _story(found),
                None if rule is None else with_code(rule.means, "p"),
                with_code(f"What to do: {found.cure}", "p", class_="todo") if found.cure else None,
            ),
            _evidence(links, found),
            _decide(links, desk, found),
        ]  # fmt: skip

    return Answer(
        title=sentence(found.says or found.rule),
        document={"findings": [found]},
        body=body,
        rows=(rts.Finding, [found]),
        at=desk.server_time(),
        path=(
            ("Findings", "/findings"),
            (found.rule.replace("_", " "), f"/findings?rule={found.rule}"),
        ),
        under=mono(found.fingerprint),
    )


def _story(found: rts.Finding) -> Element:
    resolved = acknowledged = suppressed = None
    if found.resolved_at is not None:
        resolved = f"{when(found.resolved_at)} UTC: {found.resolution}"
    if found.acknowledged_by is not None:
        acknowledged = f"by {found.acknowledged_by}, {when(found.acknowledged_at)} UTC"
    if found.state == "suppressed":
        suppressed = f"until {when(found.suppressed_until)} UTC by {found.suppressed_by}: "
        suppressed += found.suppressed_reason or ""
    return facts(
        [
            ("First seen", f"by audit {found.first_seen_run:,}, {when(found.first_seen_at)} UTC"),
            ("Last seen", f"by audit {found.last_seen_run:,}, {when(found.last_seen_at)} UTC"),
            ("Confirmed (UTC)", when(found.confirmed_at)),
            ("Resolved", resolved),
            ("Came back", f"{found.reopened:,} times" if found.reopened else None),
            ("Acknowledged", acknowledged),
            ("Suppressed", suppressed),
            ("Note", found.note),
        ]
    )  # fmt: skip


def _evidence(links: Links, found: rts.Finding) -> Element:
    if not found.evidence:
        return section("Evidence", empty("Its evidence is not kept any more."))
    return section(
        "Evidence",
        *(
            tag(
                "div",
                tag(
                    "h3",
                    badge(one.role, "plain"),
                    link(one.node_name, links("/node", name=one.node_name, source=one.source_ip)),
                    tag("span", f"on {one.source_ip}", class_="soft"),
                    None
                    if one.token_id == found.token_id
                    else token_link(links, one.token_id, whole=True),
                ),
                facts(_said(links, one)),
                class_="holder",
            )
            for one in found.evidence[:50]
        ),
        left_out(len(found.evidence) - 50, "more records in the JSON form."),
        lead=f"{rts.counted(len(found.evidence), 'record')}, as the audit saw them.",
    )


def _said(links: Links, one: rts.Evidence) -> list[tuple[str, object]]:
    pairs: list[tuple[str, object]] = []
    for title, name in _EVIDENCE:
        value: Any = getattr(one, name)
        if name == "ipfs_error":
            shown: object = badge("verified") if one.ipfs_fetched else value
            pairs.append((title, None if one.role == "chain" else shown))
        elif name == "did" and value:
            pairs.append((title, link(mono(value), links("/tokens", did=value, gone="both"))))
        elif name == "verdict" and value:
            pairs.append((title, badge(value)))
        elif isinstance(value, str) and len(value) > 20:
            pairs.append((title, mono(value)))
        else:
            pairs.append((title, f"{value:,}" if isinstance(value, int) else value))
    pairs += [("Node read (UTC)", when(one.read_at)), ("File", mono(one.db_path))]
    return pairs


def _decide(links: Links, desk: Desk, found: rts.Finding) -> Element | None:
    if desk.options.read_only:
        return None
    name = tag("input", type="hidden", name="name", value=found.fingerprint)
    again = tag("input", type="hidden", name="name", value=found.fingerprint)
    if found.state == "resolved":
        return section("Decide", _form_of(links, "reopen", [name, _note()], "Open it again"))
    third = tag("input", type="hidden", name="name", value=found.fingerprint)
    decided = found.state in ("acknowledged", "suppressed")
    return section(
        "Decide",
        tag(
            "div",
            _card("Acknowledge", "Somebody knows of it: alerts do not repeat it. It stays open.",
                  _form_of(links, "acknowledge", [name, _note()], "Acknowledge")),
            _card(
                "Suppress", "It does not count for a time, unless it gets worse.",
                _form_of(
                    links,
                    "suppress",
                    [
                        again,
                        tag("label", "Why it does not count",
                            tag("input", name="reason", required=True, maxlength=1000),
                            class_="field"),
                        tag("label", "For",
                            tag("select", *(tag("option", said, value=age) for age, said in _SPANS),
                                name="for"),
                            class_="field"),
                    ],
                    "Suppress",
                ),
            ),
            _card("Take it back", "What was decided no longer holds: it counts again.",
                  _form_of(links, "reopen", [third, _note()], "Take it back"))
            if decided else None,
            class_="columns",
        ),
    )  # fmt: skip


def _card(title: str, said: str, form: Element) -> Element:
    return tag("div", tag("h3", title), tag("p", said, class_="soft"), form)


def _note() -> Element:
    field = tag("input", name="note", maxlength=1000)
    return tag("label", "A sentence that is kept with it", field, class_="field")


def _form_of(links: Links, what: str, fields: Sequence[Element], said: str) -> Element:
    return tag(
        "form",
        *fields,
        tag("p", tag("button", said), class_="more"),
        method="post",
        action=links(f"/finding/{what}"),
    )
