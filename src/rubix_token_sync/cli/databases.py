"""`databases`."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Final, Literal

import click

import rubix_token_sync as rts
from rubix_token_sync.cli.options import (
    Judging,
    Looking,
    as_of_option,
    common_options,
    csv_option,
    judging_options,
    limit_option,
    max_age_option,
    node_option,
    since_option,
    source_option,
    takes,
)
from rubix_token_sync.cli.output import (
    Cell,
    Column,
    ago,
    answer,
    count,
    per_cent,
    print_table,
    say,
    state,
)
from rubix_token_sync.cli.terminal import print_problems
from rubix_token_sync.documents import databases_document

if TYPE_CHECKING:
    from rubix_token_sync import DatabaseRow, PastDatabase, Problem

__all__ = ["databases"]

Order = Literal["state", "node", "records", "missing", "age"]
_ORDERS: Final = ("state", "node", "records", "missing", "age")
_LONGEST_WHY: Final = 250
_URGENCY: Final = {"failed": 0, "pending": 1, "overdue": 2}


@dataclass(frozen=True, kw_only=True)
class DatabasesArguments(Looking, Judging):
    """Options of `databases`."""

    since: timedelta | None
    nodes: tuple[str, ...]
    max_age: timedelta | None
    failed: bool
    sort: Order | None
    limit: int | None
    as_of: str | None


@click.command()
@common_options
@judging_options
@since_option
@source_option
@node_option
@max_age_option
@click.option(
    "--failed", is_flag=True, help="Only those that are not current, or have an error otherwise."
)
@click.option(
    "--sort",
    type=click.Choice(_ORDERS),
    help="By state (failures first; the default of the table), name, records, missing content "
    "or age.",
)
@as_of_option
@limit_option(None)
@csv_option
@takes(DatabasesArguments)
def databases(arguments: DatabasesArguments) -> int:
    """Show every node's database: records, content missing by reason, invalid, age.

    Exit codes: 0 every database is current; 1 one failed, was not reached by the
    last run, lacks records or content that a cure would bring, or (with --max-age) is
    overdue, or a directory that may hold nodes could not be looked into; 2 usage; 3 the
    target cannot be reached.  With --as-of: what the target held of each then, and 0.
    """
    if arguments.as_of is not None:
        return _as_of(arguments, arguments.as_of)
    with rts.open_target(configuration=arguments.configured()) as target:
        target.require_known(sources=arguments.sources, nodes=arguments.nodes)
        found = target.databases(
            since=arguments.since,
            sources=arguments.sources,
            nodes=arguments.nodes,
            max_age=arguments.max_age,
        )
        problems = target.problems_of(found)
        if not arguments.nodes:  # of what could not be looked into it is not known whose it is
            problems = [*problems, *target.unread_directories(sources=arguments.sources)]
        exit_code = 1 if any(problem.severity == "error" for problem in problems) else 0
        machine = arguments.as_json or arguments.as_csv
        order = arguments.sort or (None if machine else "state")
        rows = list(found) if order is None else _ordered(found, order)
        if arguments.failed:
            wrong = {(p.source_ip, p.db_path) for p in problems if p.severity == "error"}
            rows = [r for r in rows if r.state != "current" or (r.source_ip, r.db_path) in wrong]
        left = len(rows) - len(rows[: arguments.limit])
        rows = rows[: arguments.limit]
        answer(
            as_json=arguments.as_json,
            as_csv=arguments.as_csv,
            quiet=arguments.quiet,
            document=databases_document(target, rows, problems),
            rows=(rts.DatabaseRow, rows),
            table=lambda: _show(rows, left, found, problems),
        )
    return exit_code


def _as_of(arguments: DatabasesArguments, as_of: str) -> int:
    given = (arguments.since, arguments.max_age, arguments.failed or None, arguments.sort)
    if any(value is not None for value in given):
        raise click.UsageError("--as-of goes with --source, --node and --limit only.")
    with rts.open_target(configuration=arguments.configured()) as target:
        target.require_known(sources=arguments.sources, nodes=arguments.nodes)
        found = target.databases_as_of(as_of, sources=arguments.sources, nodes=arguments.nodes)
        rows = found[: arguments.limit]
        answer(
            as_json=arguments.as_json,
            as_csv=arguments.as_csv,
            quiet=arguments.quiet,
            document={
                "server_time": target.server_time(),
                "target": target.place,
                "as_of": as_of,
                "databases": rows,
            },
            rows=(rts.PastDatabase, rows),
            table=lambda: _show_past(rows, found),
        )
    return 0


def _show_past(rows: list[PastDatabase], everything: list[PastDatabase]) -> None:
    print_table(
        [
            Column("Source", 4), Column("Node"), Column("Records", right=True),
            Column("Content", 1, right=True), Column("Missing", 1, right=True),
            Column("Invalid", 1, right=True), Column("File", 2),
        ],
        [
            [
                row.source_ip, row.node_name, count(row.record_count),
                count(row.ipfs_success_count), count(row.ipfs_fail_count),
                count(row.validation_error_count), row.db_path,
            ]
            for row in rows
        ],
    )  # fmt: skip
    total = sum(row.record_count for row in everything)
    say(f"{rts.counted(len(everything), 'database')}, {rts.counted(total, 'record')} then.")


def _ordered(rows: list[DatabaseRow], order: Order) -> list[DatabaseRow]:
    if order == "state":
        return sorted(rows, key=lambda row: _URGENCY.get(row.state, 9))
    if order == "node":
        return sorted(rows, key=lambda row: (row.node_name, row.db_path))
    if order == "records":
        return sorted(rows, key=lambda row: -row.record_count)
    if order == "missing":
        return sorted(rows, key=lambda row: -row.ipfs_fail_count)
    return sorted(rows, key=lambda row: -(row.age_seconds or float("inf")))


def _show(
    rows: list[DatabaseRow],
    left: int,
    everything: list[DatabaseRow],
    problems: list[Problem],
) -> None:
    """One line a database, how many were left out by --limit, then the sum."""
    wrong = {(problem.source_ip, problem.db_path) for problem in problems}
    directories = [problem for problem in problems if problem.db_path is None]
    if not everything:
        say("No databases.")
        print_problems(directories)
        return
    labels = rts.told_apart([(row.node_name, row.db_path) for row in everything])
    names = {r.db_path: label for r, label in zip(everything, labels, strict=True)}
    print_table(
        [
            Column("Source", 4), Column("Node"), Column("Records", right=True),
            Column("Content", 2, right=True), Column("Missing", 5, right=True),
            Column("Invalid", 6, right=True), Column("Rejected", 7, right=True),
            Column("Last success", 3), Column(""), Column("Why", 1, wraps=True),
        ],
        [
            [
                row.source_ip, names[row.db_path], count(row.record_count),
                per_cent(row.ipfs_success_rate), count(row.ipfs_fail_count),
                count(row.validation_error_count),
                count(row.rejected_count), ago(row.age_seconds),
                Cell(row.state, "33")
                if row.state == "current" and (row.source_ip, row.db_path) in wrong
                else state(row.state),
                _why(row),
            ]
            for row in rows
        ],
    )  # fmt: skip
    if left:
        say(f"… and {left:,} more.")
    say()
    parts = [rts.counted(len(everything), "database")]
    for word in _URGENCY:
        number = sum(row.state == word for row in everything)
        if number or word == "failed":
            parts.append(f"{number:,} {word}")
    parts.append(rts.counted(sum(row.record_count for row in everything), "record"))
    kinds: Counter[str] = Counter()
    for row in everything:
        kinds.update(row.kinds)
    if kinds.keys() - {"rbt"}:
        parts[-1] += f" ({rts.tokens_by_kind(kinds)})"
    for word, total in (
        ("transaction", sum(row.transaction_count for row in everything)),
        ("pledge", sum(row.pledge_count for row in everything)),
    ):
        if total:
            parts.append(rts.counted(total, word))
    read = [row.chains_read_at for row in everything if row.chains_read_at is not None]
    if read:
        chains = rts.counted(sum(row.chain_count for row in everything), "chain")
        parts.append(f"{chains} (read {min(read):%Y-%m-%d %H:%M} UTC or later)")
    say(", ".join(parts) + ".")
    print_problems(directories)
    errors = {
        (p.source_ip, p.db_path)
        for p in problems
        if p.severity == "error" and p.db_path is not None
    }
    if errors:
        needs = "needs" if len(errors) == 1 else "need"
        say(
            f"{rts.counted(len(errors), 'database')} {needs} attention: `rubix-token-sync status` "
            "says why, and what to do.",
            "31",
        )


def _why(row: DatabaseRow) -> str:
    if row.error is not None:
        said = row.error.message
        said = said if len(said) <= _LONGEST_WHY else f"{said[: _LONGEST_WHY - 1]}…"
        return f"{said} [{row.error.code}]"
    parts = [f"{code} {number:,}" for code, number in row.content_failures.items()]
    if row.rejected_count:
        parts.insert(0, f"rejected {row.rejected_count:,}")
    return ", ".join(parts)
