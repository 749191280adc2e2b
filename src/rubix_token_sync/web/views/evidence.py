"""Evidence: what was signed, and how others check it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import rubix_token_sync as rts
from rubix_token_sync.pages.markup import Element, preformatted, tag
from rubix_token_sync.pages.parts import badge, empty, facts, mono, notice, section, with_code
from rubix_token_sync.web.desk import Desk
from rubix_token_sync.web.frame import Answer, Links
from rubix_token_sync.web.query import Query

__all__ = ["ask"]

_CHECK = """\
# With this program; the key as you got it by another way than the evidence:
rubix-token-sync evidence verify DIR --key SIGNER.pub
# Without it, with Python alone:
python3 -I -S DIR/verify.py DIR --key SIGNER.pub
# A proof of one token's records, small enough to be sent:
rubix-token-sync evidence prove TOKEN --from DIR --to .
rubix-token-sync evidence verify-proof FILE.tlog-proof --key SIGNER.pub"""


def ask(desk: Desk, query: Query) -> Answer:
    """What the directories of evidence say of themselves."""
    del query
    found = rts.list_evidence(*desk.options.evidence)
    document = {
        "server_time": desk.server_time(),
        "target": desk.reader.place,
        "evidence": [_document(one) for one in found],
    }

    def body(links: Links) -> Sequence[Element | None]:
        del links
        return [*([_none(desk)] if not found else map(_section, found)), _how()]

    return Answer(
        title="Evidence",
        document=document,
        body=body,
        at=desk.server_time(),
        under="What the target held in one moment, signed, so that others can check it alone.",
    )


def _document(one: rts.EvidenceGlance) -> dict[str, Any]:
    checkpoint = None
    if one.checkpoint is not None:
        checkpoint = {**vars(one.checkpoint), "root": one.checkpoint.root.hex()}
    return {**vars(one), "checkpoint": checkpoint}


def _none(desk: Desk) -> Element:
    if desk.options.evidence:
        return section("Exports", empty("There is no evidence in the directories of `--evidence`."))
    return section(
        "Exports",
        empty(
            "This server was told of no evidence.",
            with_code("Make it by `rubix-token-sync evidence create DIR --key FILE`, and start "
                      "the page with `--evidence DIR`.", "p"),
        ),
    )  # fmt: skip


def _section(one: rts.EvidenceGlance) -> Element:
    if one.checkpoint is None:
        return section(
            one.directory,
            notice("bad", f"{one.problem} ", tag("code", one.code)),
            with_code("Do not rely on it: `rubix-token-sync evidence verify DIR` says more.", "p"),
        )
    made = one.checkpoint
    states = ", ".join(f"{number:,} {state}" for state, number in sorted(one.findings.items()))
    return section(
        f"{made.made_at[:19].replace('T', ' ')} UTC",
        tag(
            "p",
            badge("complete", "good", "everything had been read")
            if one.complete
            else badge("incomplete", "warn", "not everything had been read"),
            " ",
            badge("moment", "good", "one moment")
            if one.one_moment
            else badge("moments", "warn", "not of one moment"),
            *_stamp(one),
        ),
        facts(
            [
                ("Records", f"{made.size:,}"),
                ("With content", f"{one.counts.get('with_content', 0):,}"),
                ("Findings", states or "none"),
                ("Vanished records, not in it", f"{one.counts.get('vanished', 0):,}"),
                ("Root", mono(made.root.hex())),
                ("Run", mono(made.run)),
                ("Signed by (compare it with the key you know)", mono(one.key)),
                ("Directory on the server", mono(one.directory)),
            ]
        ),
    )


def _stamp(one: rts.EvidenceGlance) -> list[Element | str]:
    if one.time_stamp_from is None:
        return []
    if one.stamped:
        words = f"time stamp asked of {one.time_stamp_from}, not checked here"
        return [" ", badge("stamped", "plain", words)]
    return [" ", badge("stamp", "warn", f"no time stamp of {one.time_stamp_from}")]


def _how() -> Element:
    return section(
        "How to check it",
        preformatted(_CHECK, tabindex="0"),
        lead="Here the signature of each checkpoint was checked, by the key that came with it, and "
        "that its manifest is the signed one. Its records were not: check a copy of your own.",
    )
