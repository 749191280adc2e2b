"""`findings`, and what is decided about them: `acknowledge`, `suppress`, `reopen`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

import click

import rubix_token_sync as rts
from rubix_token_sync.cli.options import (
    Common,
    age,
    common_options,
    csv_option,
    limit_option,
    node_option,
    since_option,
    takes,
)
from rubix_token_sync.cli.output import (
    Column,
    answer,
    print_json,
    print_table,
    say,
    state,
    when,
)
from rubix_token_sync.cli.terminal import note_unread
from rubix_token_sync.documents import findings_document

if TYPE_CHECKING:
    from rubix_token_sync import Evidence, Finding

__all__ = ["SHOWN", "findings", "print_evidence", "short_id", "show_findings"]

SHOWN: Final = 40
_OPEN: Final = ("suspected", "confirmed", "acknowledged", "reopened")
_STATES: Final = (*_OPEN, "suppressed", "resolved", "all")
_DIGITS: Final = 8
"""Of a fingerprint, in tables; six are enough where they are unique."""


@dataclass(frozen=True, kw_only=True)
class FindingsArguments(Common):
    """Options of `findings`."""

    severities: tuple[str, ...]
    rules: tuple[str, ...]
    nodes: tuple[str, ...]
    states: tuple[str, ...]
    since: timedelta | None
    limit: int | None
    sarif: bool
    as_csv: bool


@click.group(invoke_without_command=True)
@common_options
@click.option(
    "--severity",
    "severities",
    type=click.Choice(["info", "warning", "error"]),
    multiple=True,
    help="Only findings of this severity; repeat.",
)
@click.option("--rule", "rules", multiple=True, metavar="RULE", help="Only of this rule; repeat.")
@node_option
@click.option(
    "--state",
    "states",
    type=click.Choice(_STATES),
    multiple=True,
    help="Only in this state; repeat. Default: those that are open and not suppressed.",
)
@since_option
@limit_option(None)
@click.option("--sarif", is_flag=True, help="SARIF 2.1.0 on stdout.")
@csv_option
@click.pass_context
def findings(ctx: click.Context, /, **given: Any) -> int | None:
    """Show what audits found, the worst first, with the records as evidence.

    --since counts from when an audit last changed a finding.  Exit codes: 0; 2
    usage; 3 the target cannot be reached.  `audit` is the command whose exit code
    says whether findings are open.
    """
    if ctx.invoked_subcommand is not None:
        return None
    arguments = FindingsArguments(**given)
    if sum((arguments.sarif, arguments.as_json, arguments.as_csv)) > 1:
        raise click.UsageError("Give one of --json, --csv and --sarif.")
    states = arguments.states or _OPEN
    if "all" in states:
        states = (*_OPEN, "suppressed", "resolved")
    configuration = arguments.configured()
    with rts.open_target(configuration=configuration) as target:
        note_unread(target, nodes=arguments.nodes, quiet=arguments.quiet)
        found = target.findings(
            severities=arguments.severities,
            rules=arguments.rules,
            nodes=arguments.nodes,
            states=states,
            since=arguments.since,
            limit=arguments.limit,
        )
        if arguments.sarif:
            print_json(rts.sarif_of(found, rts.rules(configuration)))
            return 0
        audits = target.audits(limit=1)
        answer(
            as_json=arguments.as_json,
            as_csv=arguments.as_csv,
            quiet=arguments.quiet,
            document=findings_document(target, audits, found),
            rows=(rts.Finding, found),
            table=lambda: _show(found, audited=bool(audits)),
        )
    return 0


def _show(found: Sequence[Finding], *, audited: bool) -> None:
    if not found:
        say("No findings." if audited else "No audit has run yet: `rubix-token-sync audit`.")
        return
    show_findings(found)
    say()
    say(
        f"{rts.counted(len(found), 'finding')}; `rubix-token-sync findings show FINDING` has the "
        "evidence."
    )


def show_findings(found: Sequence[Finding]) -> None:
    """One line a finding, in 80 columns."""
    print_table(
        [
            Column("Severity"), Column("State"), Column("Finding"), Column("Token"),
            Column("Nodes", 1, wraps=True),
        ],
        [
            [
                state(one.severity), state(one.state),
                f"{one.rule}:{one.fingerprint.partition(':')[2][:_DIGITS]}",
                short_id(one.token_id), ", ".join(sorted({e.node_name for e in one.evidence})),
            ]
            for one in found
        ],
    )  # fmt: skip


def short_id(token_id: str | None) -> str:
    """A token id that leaves room for the rest; never so short that two look alike by chance."""
    text = token_id or ""
    return text if len(text) <= 15 else f"{text[:6]}…{text[-8:]}"


# --- one finding -----------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class FindingArguments(Common):
    """Options of the commands about one finding."""

    name: str
    by: str | None = None
    note: str | None = None
    reason: str = ""
    lasting: timedelta = timedelta()


_name_argument = click.argument("name", metavar="FINDING")
_by_option = click.option("--by", metavar="NAME", help="Who decides. Default: this user.")
_note_option = click.option("--note", metavar="TEXT", help="A sentence that is kept with it.")


@findings.command()
@_name_argument
@common_options
@takes(FindingArguments)
def show(arguments: FindingArguments) -> int:
    """Show one finding with its evidence: all holders side by side.

    FINDING is its name as the table has it (the digits alone will do), or a token id.
    """
    with rts.open_target(configuration=arguments.configured()) as target:
        note_unread(target, quiet=arguments.quiet)
        found = target.finding(arguments.name)
    return _answer(arguments, found)


@findings.command()
@_name_argument
@_by_option
@_note_option
@common_options
@takes(FindingArguments)
def acknowledge(arguments: FindingArguments) -> int:
    """Note that somebody knows of the finding: alerts do not repeat it, it stays open."""
    return _decided(arguments, lambda configuration: rts.acknowledge_finding(
        arguments.name, by=arguments.by, note=arguments.note, configuration=configuration
    ))  # fmt: skip


@findings.command()
@_name_argument
@click.option("--reason", required=True, metavar="TEXT", help="Why it does not count.")
@click.option(
    "--for", "lasting", required=True, callback=age, metavar="AGE",
    help="How long: 12h, 30d, 8w.",
)  # fmt: skip
@_by_option
@common_options
@takes(FindingArguments)
def suppress(arguments: FindingArguments) -> int:
    """Let the finding not count for a time, unless it gets worse."""
    return _decided(arguments, lambda configuration: rts.suppress_finding(
        arguments.name, reason=arguments.reason, lasting=arguments.lasting, by=arguments.by,
        configuration=configuration,
    ))  # fmt: skip


@findings.command()
@_name_argument
@_by_option
@_note_option
@common_options
@takes(FindingArguments)
def reopen(arguments: FindingArguments) -> int:
    """Take back what was decided: the finding counts again."""
    return _decided(arguments, lambda configuration: rts.reopen_finding(
        arguments.name, by=arguments.by, note=arguments.note, configuration=configuration
    ))  # fmt: skip


def _decided(arguments: FindingArguments, decide: Callable[[Any], Finding]) -> int:
    return _answer(arguments, decide(arguments.configured()))


def _answer(arguments: FindingArguments, found: Finding) -> int:
    answer(
        as_json=arguments.as_json,
        quiet=arguments.quiet,
        document={"findings": [found]},
        table=lambda: _show_one(found),
    )
    return 0


def _show_one(found: Finding) -> None:
    say(found.fingerprint, "1")
    say(f"{found.severity}, {found.state}: {found.says}")
    say(f"Token {found.token_id} ({found.token_kind})")
    say(
        f"First seen by audit {found.first_seen_run}, {when(found.first_seen_at)}; last by audit "
        f"{found.last_seen_run}, {when(found.last_seen_at)} UTC."
    )
    for title, text in (
        ("Resolved", found.resolved_at and f"{when(found.resolved_at)} UTC ({found.resolution})"),
        ("Acknowledged", found.acknowledged_by and f"by {found.acknowledged_by}"),
        ("Suppressed", found.state == "suppressed" and f"until {when(found.suppressed_until)} UTC "
         f"by {found.suppressed_by}: {found.suppressed_reason}"),
        ("Note", found.note),
    ):  # fmt: skip
        if text:
            say(f"{title}: {text}")
    say()
    print_evidence(found.evidence, found.token_id)
    if found.cure:
        say()
        say(f"What to do: {found.cure}")


_WHOSE: Final = {
    "this_node": "one of this node's own",
    "another_node": "another node's",
    "no_node": "of no node that was read",
}


def print_evidence(rows: Sequence[Evidence], token_id: str | None) -> None:
    """Each holder with what it says; ids in full, for they are what is compared."""
    for one in rows:
        other = "" if one.token_id == token_id else f" {one.token_id}"
        say(f"{one.role}{other} on {one.node_name} ({one.source_ip})", "1")
        content = "verified" if one.ipfs_fetched else one.ipfs_error or "none"
        decoded = (
            None if one.token_level is None else f"level {one.token_level}, {one.token_number}"
        )
        number = one.latest_block_number
        block = one.latest_block_type and f"{one.latest_block_type}, number {number}"
        for title, value in (
            ("status", one.token_status), ("DID", one.did), ("value", one.token_value),
            ("state hash", one.token_state_hash), ("transaction", one.transaction_id),
            ("parent", one.parent_token_id), ("verdict", one.verdict), ("number", decoded),
            ("its DID", _WHOSE.get(one.did_of or "")),
            ("block", block), ("its owner", one.latest_block_owner),
            ("content", None if one.role == "chain" else content),
            ("read", f"{when(one.read_at)} UTC"), ("file", one.db_path),
        ):  # fmt: skip
            if value:
                say(f"{title + ':':<13}{value}", indent="  ")
