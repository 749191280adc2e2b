"""`audit` and `rules`."""

from __future__ import annotations

from dataclasses import dataclass
from textwrap import wrap
from typing import TYPE_CHECKING, Literal

import click

import rubix_token_sync as rts
from rubix_token_sync.cli import events
from rubix_token_sync.cli.findings import SHOWN, show_findings
from rubix_token_sync.cli.options import (
    Common,
    common_options,
    events_option,
    limit_option,
    takes,
)
from rubix_token_sync.cli.output import (
    Column,
    answer,
    by_severity,
    length,
    print_json,
    print_table,
    say,
    state,
)
from rubix_token_sync.cli.terminal import print_problems

if TYPE_CHECKING:
    from rubix_token_sync import AuditOutcome, Finding, Problem, RuleRow

__all__ = ["audit", "rules"]

Severity = Literal["info", "warning", "error"]
SEVERITIES = ("info", "warning", "error")


@dataclass(frozen=True, kw_only=True)
class AuditArguments(Common):
    """Options of `audit`."""

    audit_fail_on: Severity | None
    audit_rules_off: tuple[str, ...]
    sarif: bool
    events: bool
    limit: int


@click.command()
@common_options
@click.option(
    "--fail-on",
    "audit_fail_on",
    type=click.Choice(SEVERITIES),
    help="Exit 6 when a finding of this severity or a worse one is open. Default: error.",
)
@click.option(
    "--without",
    "audit_rules_off",
    multiple=True,
    metavar="RULE",
    help="Do not run this rule, and close its findings; repeat. Default: audit_rules_off.",
)
@events_option
@click.option("--sarif", is_flag=True, help="Open findings as SARIF 2.1.0 on stdout.")
@limit_option(SHOWN)
@takes(AuditArguments)
def audit(arguments: AuditArguments) -> int:
    """Run the rules over the target, all machines together, and show what is open.

    Nodes are not read: what a rule sees is what the last syncs stored.  Exit codes:
    0 nothing is open that matters; 6 findings of --fail-on or worse are open; 1 a
    rule could not run, or the last sync of a machine could not read everything;
    2 usage; 3 the target cannot be reached; 4 another audit is
    under way.
    """
    if arguments.sarif and arguments.as_json:
        raise click.UsageError("Give --json or --sarif, not both.")
    if arguments.sarif and arguments.events:
        raise click.UsageError("Give --events or --sarif, not both.")
    configuration = arguments.configured()
    if arguments.events:
        events.started("audit", configuration, as_json=arguments.as_json)
    done = rts.audit_records(configuration=configuration)
    with rts.open_target(configuration=configuration) as target:
        found = target.findings()
        suppressed = target.findings(states=("suppressed",)) if arguments.sarif else []
        unread = target.unread()
    exit_code = done.exit_code or (1 if unread else 0)
    rts.send_finding_alerts(configuration)
    if arguments.events:
        return events.ended_audit(done, found)
    if arguments.sarif:
        print_json(rts.sarif_of([*found, *suppressed], rts.rules(configuration)))
        return exit_code
    answer(
        as_json=arguments.as_json,
        quiet=arguments.quiet,
        document={
            "ok": exit_code == 0,
            "exit_code": exit_code,
            "target": done.place,
            "audit": done.number,
            "run_id": done.run_id,
            "server_time": done.started_at,
            "duration_seconds": done.seconds,
            "fail_on": done.fail_on,
            "databases": done.databases,
            "unread_databases": done.unread,
            "rules": done.rules,
            "changes": done.changes,
            "open": done.open,
            "findings": found,
            "problems": unread,
        },
        table=lambda: _show(done, found, unread, arguments.limit),
    )
    return exit_code


def _show(done: AuditOutcome, found: list[Finding], unread: list[Problem], limit: int) -> None:
    """What is open, the worst first; then what could not be looked at; then the sum."""
    if found:
        show_findings(found[:limit])
        if len(found) > limit:
            say(f"… and {len(found) - limit:,} more: `rubix-token-sync findings`.")
        say()
    if unread:
        say("Not looked at, because the last syncs did not read it:", "31")
        print_problems(unread)
    for failed in done.failed:
        say(f"The rule {failed.rule} failed: {failed.message} [{failed.code}]", "31")
    if done.unread_databases:
        say(
            f"{done.unread_databases:,} of {rts.counted(done.databases, 'database')} "
            f"{'was' if done.unread_databases == 1 else 'were'} not read since the previous audit; "
            "their findings stay as they were."
        )
    blind: dict[tuple[int, str], list[str]] = {}
    for rule in done.blind:
        blind.setdefault((rule.not_looked_at, rule.blind_to), []).append(rule.rule)
    for (number, what), names in blind.items():
        text = f"Not looked at: {number:,} {what} ({', '.join(names)})."
        for line in wrap(text, 80, subsequent_indent="  "):
            say(line)
    ran = sum(rule.state == "ran" for rule in done.rules)
    say(
        f"Audit {done.number}: {rts.counted(ran, 'rule')} over "
        f"{rts.counted(done.databases, 'database')} in {length(done.seconds)}."
    )
    changed = ", ".join(f"{number:,} {name}" for name, number in done.changes.items() if number)
    parts = [by_severity(done.open[severity], severity) for severity in reversed(SEVERITIES)]
    say(f"Open: {', '.join(parts)}. Changed: {changed or 'nothing'}.")


@dataclass(frozen=True, kw_only=True)
class RulesArguments(Common):
    """Options of `rules`."""

    names: tuple[str, ...]


@click.command()
@click.argument("names", nargs=-1, metavar="[RULE]...")
@common_options
@takes(RulesArguments)
def rules(arguments: RulesArguments) -> int:
    """Show the rules of the audit: what they look for, how severe, whether they run.

    With names of rules, also how each is to be read, its causes and its cure.  The
    settings audit_rules_off and audit_severities change them.  Exit codes: 0; 2 usage.
    """
    configuration = arguments.configured(needs_target=False)
    known = rts.rules(configuration)
    unknown = set(arguments.names) - {rule.rule for rule in known}
    if unknown:
        raise rts.SettingsError(
            f"No rule is named {', '.join(sorted(unknown))}.",
            code="unknown_rule",
            remedy="`rubix-token-sync rules` lists them.",
        )
    shown = [rule for rule in known if not arguments.names or rule.rule in arguments.names]
    answer(
        as_json=arguments.as_json,
        quiet=arguments.quiet,
        document={"rules": shown},
        table=lambda: _show_rules(shown, in_full=bool(arguments.names)),
    )
    return 0


def _show_rules(shown: list[RuleRow], *, in_full: bool) -> None:
    if in_full:
        for number, rule in enumerate(shown):
            if number:
                say()
            say(f"{rule.rule} ({rule.severity}{'' if rule.enabled else ', off'})", "1")
            for title, text in (
                ("Found:", rule.says), ("Means:", rule.means), ("Cause:", rule.cause),
                ("Cure:", rule.cure),
            ):  # fmt: skip
                say(f"{title:<7}{text}", indent="  ")
        return
    print_table(
        [Column("Rule"), Column("Severity"), Column(""), Column("What it finds", wraps=True)],
        [
            [rule.rule, state(rule.severity), "" if rule.enabled else "off", rule.says]
            for rule in shown
        ],
    )
