"""`token`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import click

import rubix_token_sync as rts
from rubix_token_sync.cli.findings import show_findings
from rubix_token_sync.cli.options import Common, as_of_option, common_options, takes
from rubix_token_sync.cli.output import answer, say, when
from rubix_token_sync.cli.terminal import note_unread
from rubix_token_sync.documents import token_document

if TYPE_CHECKING:
    from rubix_token_sync import AuditRow, Holder, TokenView

__all__ = ["token"]

_MOST_CONTENT = 400


@dataclass(frozen=True, kw_only=True)
class TokenArguments(Common):
    """Options of `token`."""

    token_id: str
    as_of: str | None


@click.command()
@click.argument("token_id", metavar="ID")
@as_of_option
@common_options
@takes(TokenArguments)
def token(arguments: TokenArguments) -> int:
    """Show everything that the target knows of one token.

    Every holder side by side, on all machines, those included whose row is gone; its
    proven content, what was judged of it, and what audits found.  With --as-of the
    holders as they were; findings are those of today.  Exit codes: 0; 2 usage, or the
    target has no such token; 3 the target cannot be reached.
    """
    with rts.open_target(configuration=arguments.configured()) as target:
        target.require_token(arguments.token_id)
        note_unread(target, quiet=arguments.quiet)
        if arguments.as_of is None:
            found = target.token(arguments.token_id)
        else:
            found = target.token_as_of(arguments.token_id, arguments.as_of)
        audits = target.audits(limit=1)
    if not found.holders and not found.findings:
        raise rts.SettingsError(
            "The target has no token with this id.",
            code="no_such_token",
            remedy="Give the whole id, as `rubix-token-sync findings show FINDING` prints it "
            "(tables shorten it); `rubix-token-sync databases` shows which nodes were synced.",
        )
    answer(
        as_json=arguments.as_json,
        quiet=arguments.quiet,
        document=token_document(found),
        table=lambda: _show(found, audits[0] if audits else None),
    )
    return 0


def _show(found: TokenView, audit: AuditRow | None) -> None:
    say(found.token_id, "1")
    if found.content is not None:
        cut = "…" if len(found.content) > _MOST_CONTENT else ""
        say(f"Content: {found.content[:_MOST_CONTENT]}{cut}")
    else:
        say("Content: no node has a verified copy of it in the target.")
    for holder in found.holders:
        say()
        _show_holder(holder)
    say()
    if found.findings:
        show_findings(found.findings)
    synced = max((one.synced_at for one in found.holders if one.synced_at), default=None)
    unknown = rts.not_audited(audit, synced)
    if unknown is not None:
        say(unknown)
    elif not found.findings:
        say("No audit found anything about it.")


def _show_holder(one: Holder) -> None:
    gone = (
        "" if one.source_deleted_at is None else f", gone since {when(one.source_deleted_at)} UTC"
    )
    say(f"{one.node_name} ({one.source_ip}){gone}", "1")
    level = None if one.token_level is None else f"level {one.token_level}, {one.token_number}"
    number = one.latest_block_number
    block = one.latest_block_type and f"{one.latest_block_type}, number {number}"
    kind = one.token_kind + (f", {one.network} net" if one.network else ", network unknown")
    for title, value in (
        ("kind", kind), ("status", one.token_status), ("DID", one.did), ("value", one.token_value),
        ("state hash", one.token_state_hash), ("transaction", one.transaction_id),
        ("parent", one.parent_token_id), ("verdict", one.verdict), ("number", level),
        ("block", block), ("its owner", one.latest_block_owner), ("chain", one.chain_error),
        ("content", "verified" if one.ipfs_fetched else one.ipfs_error or "none"),
        ("read", f"{when(one.read_at)} UTC" if one.read_at else None), ("file", one.db_path),
    ):  # fmt: skip
        if value:
            say(f"{title + ':':<13}{value}", indent="  ")
    for name, value in (one.attributes or {}).items():
        say(f"{name + ':':<13}{value}", indent="  ")
