"""Is all well?  The one place that decides, from facts; no I/O.

`status`, the end of `sync`, `check`, `verify`, the report, the page, metrics and alerts
all quote what `judge` and `judge_comparison` say.  The table in docs/RELIABILITY.md lists
every state with the exit code of every command in it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import TYPE_CHECKING, Final, Literal

from rubix_token_sync.ipfs.cures import CURES, REASONS, curable
from rubix_token_sync.nodes.skipped import REMEDIES, Skipped
from rubix_token_sync.text import counted, told_apart

if TYPE_CHECKING:
    from rubix_token_sync.monitor.changes import LastChanges
    from rubix_token_sync.monitor.databases import DatabaseFailure, DatabaseRow, UnreadDirectory
    from rubix_token_sync.monitor.health import SourceRow
    from rubix_token_sync.monitor.runs import RunRow
    from rubix_token_sync.runs.result import ContentLeft

__all__ = [
    "MAX_MISSING_CONTENT",
    "PENDING",
    "Facts",
    "Problem",
    "Rules",
    "Severity",
    "judge",
    "judge_comparison",
    "judge_databases",
    "judge_unread",
    "worst",
]

Severity = Literal["error", "warning"]
"""An error makes the exit code 1; a warning is shown."""

MAX_MISSING_CONTENT: Final = 0.1
"""Default of the setting ``max_missing_content``: a share of a database's records."""

PENDING: Final = "pending"
"""Code of the event that a run writes for each database it did not reach."""

_CURE_CHAINS: Final = (
    "`rubix-token-sync errors --node NODE` says which; the next sync with --chains reads them "
    "again."
)
_WATCHED: Final = {
    "transfers": "with another owner",
    "statuses": "with another status",
    "vanished": "gone from their nodes",
}
_UNUSUAL: Final = 100
"""Records below which no night is unusual."""
_UNUSUAL_TIMES: Final = 10

_CURE_REJECTED: Final = "`rubix-token-sync errors` says why."
_CURE_RUN: Final = "Run `rubix-token-sync sync` again; it continues from what is stored."


@dataclass(frozen=True)
class Problem:
    """One thing to look at.  docs/JSON.md lists the codes."""

    code: str
    message: str
    source_ip: str | None = None
    node_name: str | None = None
    db_path: str | None = None
    session_id: str | None = None
    detail: str | None = None
    """The code of the error behind it, where there is one."""
    severity: Severity = "error"
    count: int = 1
    """Records, databases or directories, as the sentence says."""
    cure: str = ""


@dataclass(frozen=True)
class Rules:
    """What the operator wants to hear of."""

    max_missing_content: float = MAX_MISSING_CONTENT
    """Share (0 to 1) of a database's records whose content a cure would bring."""
    strict: bool = False
    """Every warning is an error."""
    max_age: timedelta | None = None
    """A node whose last successful sync is older is overdue."""


@dataclass(frozen=True)
class Facts:
    """What is known, as the target holds it."""

    running: Sequence[RunRow] = ()
    sources: Sequence[SourceRow] = ()
    databases: Sequence[DatabaseRow] = ()
    unread: Sequence[UnreadDirectory] = ()


def judge(facts: Facts, rules: Rules) -> list[Problem]:
    """Everything that somebody must look at, the worst first."""
    problems = [_stuck(run) for run in facts.running if run.stuck]
    if not facts.sources:
        problems.append(
            Problem(
                "never_ran",
                "No sync has ever run into this target.",
                cure="Run `rubix-token-sync sync`.",
            )
        )
    under_way = {run.source_ip for run in facts.running if not run.stuck}
    for source in facts.sources:
        run = source.last_run
        if run is None and source.last_success_at is None and source.source_ip in under_way:
            problems.append(_first_under_way(source))
        if run is not None and run.status in ("FAILED", "INTERRUPTED"):
            problems.append(_ended_badly(run))
        if source.changes is not None:
            problems += _unusual(source.source_ip, source.changes)
    problems += [_unread(directory) for directory in facts.unread]
    problems += _of_databases(facts.databases, rules)
    if rules.max_age is not None:
        problems += [
            _source_overdue(source)
            for source in facts.sources
            # Where there are databases, each of them is judged by itself.
            if not source.databases
            and (source.age_seconds is None or source.age_seconds > rules.max_age.total_seconds())
        ]
    if rules.strict:
        problems = [replace(problem, severity="error") for problem in problems]
    return sorted(problems, key=lambda problem: problem.severity != "error")


def judge_databases(rows: Iterable[DatabaseRow], rules: Rules) -> list[Problem]:
    """What is wrong with these databases."""
    found = _of_databases(list(rows), rules)
    return [replace(one, severity="error") for one in found] if rules.strict else found


def judge_unread(
    failures: Sequence[DatabaseFailure], directories: Iterable[UnreadDirectory]
) -> list[Problem]:
    """What was not read, and so is not known."""
    labels = told_apart([(failure.node_name, failure.db_path) for failure in failures])
    return [
        *(_unread(directory) for directory in directories),
        *(_failed(one, label) for one, label in zip(failures, labels, strict=True)),
    ]


def judge_comparison(
    *,
    differences: int,
    gone: Sequence[str],
    failed: Sequence[tuple[str, str, str]],
    unread: Iterable[Skipped],
    rejected: int = 0,
    chains_unread: int = 0,
    content_left: Sequence[ContentLeft] = (),
    rules: Rules,
) -> list[Problem]:
    """What `verify` found.

    ``failed`` is (path, code, sentence), ``unread`` may hide nodes, ``rejected`` is how many
    records the target refused in a repair, ``chains_unread`` how many directories of token
    chains could not be read whole, ``content_left`` is content that nobody has.
    """
    problems = []
    if chains_unread:
        directories = counted(chains_unread, "directory", "directories")
        problems.append(
            Problem(
                "chains_unread",
                f"{directories} of token chains could not be read whole.",
                count=chains_unread,
                cure=_CURE_CHAINS,
            )
        )
    if rejected:
        problems.append(
            Problem(
                "records_rejected",
                f"{counted(rejected, 'record')} could not be stored.",
                count=rejected,
                cure=_CURE_REJECTED,
            )
        )
    if differences:
        problems.append(
            Problem(
                "records_differ",
                f"{counted(differences, 'record')} {'differs' if differences == 1 else 'differ'} "
                "between the nodes and the target.",
                count=differences,
                cure="Run `rubix-token-sync verify --repair`.",
            )
        )
    problems += [
        Problem(
            "database_gone",
            f"{path} is gone, and the target still holds its records.",
            db_path=path,
            cure="If that is right, run `rubix-token-sync sync --allow-shrink`.",
        )
        for path in gone
    ]
    problems += [
        Problem("database_failed", f"{path} was not compared: {why}", db_path=path, detail=code)
        for path, code, why in failed
    ]
    problems += [
        Problem(
            "directory_unread",
            skipped.said,
            detail=skipped.reason_code,
            cure=skipped.remedy,
        )
        for skipped in unread
    ]
    ordered = sorted(content_left, key=lambda left: left.db_path)  # not as workers ended
    labels = told_apart([(left.node_name, left.db_path) for left in ordered])
    for left, label in zip(ordered, labels, strict=True):
        where = (None, left.node_name, left.db_path)
        problems += _content(
            label, where, left.failures, left.records, rules, repository=left.has_repository
        )
    if rules.strict:
        problems = [replace(problem, severity="error") for problem in problems]
    return sorted(problems, key=lambda problem: problem.severity != "error")


def worst(problems: Iterable[Problem]) -> int:
    """The exit code that follows: 1 where there is an error, else 0."""
    return 1 if any(problem.severity == "error" for problem in problems) else 0


def _of_databases(rows: Sequence[DatabaseRow], rules: Rules) -> list[Problem]:
    machines: dict[str, set[str]] = {}
    for row in rows:
        machines.setdefault(row.node_name, set()).add(row.source_ip)
    found = []
    for source in dict.fromkeys(row.source_ip for row in rows):
        own = [row for row in rows if row.source_ip == source]
        labels = told_apart([(row.node_name, row.db_path) for row in own])
        for row, label in zip(own, labels, strict=True):
            machine = f" of {source}" if len(machines[row.node_name]) > 1 else ""
            found += _of_database(row, rules, f"{label}{machine}")
    return found


def _of_database(row: DatabaseRow, rules: Rules, label: str) -> list[Problem]:
    where = (row.source_ip, row.node_name, row.db_path)
    found = []
    if row.error is not None:
        found.append(_failed(row.error, label))
    elif row.state == "overdue" and row.age_seconds is not None:
        found.append(
            Problem(
                "overdue",
                f"{label} was last synced {row.age_seconds / 3600:,.1f} hours ago.",
                *where,
                cure="Find out why the runs of its machine stopped.",
            )
        )
    if row.rejected_count:
        found.append(
            Problem(
                "records_rejected",
                f"{label}: {counted(row.rejected_count, 'row')} could not be stored.",
                *where,
                count=row.rejected_count,
                cure=_CURE_REJECTED,
            )
        )
    if row.chains_error is not None:
        found.append(_chains(label, where, row.chains_error))
    return found + _content(
        label,
        where,
        row.content_failures,
        row.record_count,
        rules,
        repository=row.ipfs_path is not None,
    )


def _failed(failure: DatabaseFailure, label: str) -> Problem:
    where = (failure.source_ip, failure.node_name, failure.db_path, failure.session_id)
    if failure.code == PENDING:
        return Problem(
            "database_pending", f"{label} was not reached by the last run.", *where, cure=_CURE_RUN
        )
    return Problem("database_failed", f"{label}: {failure.message}", *where, failure.code)


def _chains(label: str, where: tuple[str, str, str], said: str) -> Problem:
    code, _, sentence = said.partition(": ")
    if code == "chains_wrong":
        return Problem(
            code,
            f"Something is wrong with the chains of {label}: {sentence}.",
            *where,
            severity="warning",
            cure="`rubix-token-sync audit` names each (chain_wrong); TokenChains.error says what.",
        )
    return Problem(
        "chains_unread",
        f"{label}: token chains could not be read. {sentence or said}",
        *where,
        detail=code,
        cure=_CURE_CHAINS,
    )


def _content(
    label: str,
    where: tuple[str | None, str, str],
    failures: Mapping[str, int],
    records: int,
    rules: Rules,
    *,
    repository: bool,
) -> list[Problem]:
    """One problem a reason; errors where all curable reasons together pass the threshold."""
    reasons = {code: n for code, n in failures.items() if code in CURES and n}
    missing = sum(n for code, n in reasons.items() if curable(code, repository=repository))
    too_much = missing > rules.max_missing_content * records
    return [
        Problem(
            "content_missing",
            f"{label}: {count:,} of {counted(records, 'record')} without content: {REASONS[code]}.",
            *where,
            detail=code,
            severity="error" if too_much and curable(code, repository=repository) else "warning",
            count=count,
            cure=CURES[code],
        )
        for code, count in reasons.items()
    ]


def _stuck(run: RunRow) -> Problem:
    return Problem(
        "stuck",
        f"The run on {run.host or run.source_ip} (process {run.pid or 'unknown'}) has been silent "
        f"for {run.heartbeat_age_seconds or 0:,.0f} seconds: it died or hangs.",
        run.source_ip,
        session_id=run.session_id,
        cure="Look at that process; the next `rubix-token-sync sync` there takes over once the "
        "lease has expired.",
    )


def _ended_badly(run: RunRow) -> Problem:
    how = "failed" if run.status == "FAILED" else "was interrupted"
    why = f": {run.error_summary.removesuffix('.')}." if run.error_summary else "."
    return Problem(
        f"last_run_{run.status.lower()}",
        f"The last run of {run.source_ip} {how}{why}",
        run.source_ip,
        session_id=run.session_id,
        cure=_CURE_RUN,
    )


def _first_under_way(source: SourceRow) -> Problem:
    """Nothing is wrong, and nothing is well yet."""
    return Problem(
        "never_ran",
        f"No sync of {source.source_ip} has completed yet; the first one is under way.",
        source.source_ip,
        severity="warning",
        cure="Wait for its end: `rubix-token-sync status --watch`.",
    )


def _unusual(source_ip: str, changes: LastChanges) -> list[Problem]:
    """Far more than usual of what makes somebody else the owner, or takes tokens away."""
    found = []
    for name, what in _WATCHED.items():
        number, usual = getattr(changes, name), changes.usual.get(name)
        if usual is not None and number >= _UNUSUAL and number > _UNUSUAL_TIMES * usual:
            found.append(
                Problem(
                    "unusual_change",
                    f"The last sync of {source_ip} found {counted(number, 'record')} {what}; "
                    f"usual are {usual:,.0f}.",
                    source_ip,
                    session_id=changes.session_id,
                    detail=name,
                    severity="warning",
                    count=number,
                    cure=f"`rubix-token-sync changes --since {changes.run - 1}` shows them.",
                )
            )
    return found


def _unread(directory: UnreadDirectory) -> Problem:
    return Problem(
        "directory_unread",
        directory.message,
        directory.source_ip,
        session_id=directory.session_id,
        detail=directory.reason,
        cure=REMEDIES.get(directory.reason, ""),
    )


def _source_overdue(source: SourceRow) -> Problem:
    if source.age_seconds is None:
        said = f"{source.source_ip} has never completed a sync."
    else:
        hours = source.age_seconds / 3600
        said = f"{source.source_ip} last completed a sync {hours:,.1f} hours ago."
    return Problem(
        "overdue", said, source.source_ip, cure="Find out why the runs of that machine stopped."
    )
