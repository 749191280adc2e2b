"""What the jobs give back: what was done, how it stands, and the exit code that follows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING

from rubix_token_sync.audit.questions import Finding
from rubix_token_sync.audit.run import AuditOutcome
from rubix_token_sync.monitor.health import Status
from rubix_token_sync.monitor.problems import Problem, Rules, judge_comparison, worst
from rubix_token_sync.runs.jobs import Difference
from rubix_token_sync.runs.result import DatabaseOutcome, RunResult
from rubix_token_sync.runs.verify import Verification

if TYPE_CHECKING:
    from rubix_token_sync.runs.check import CheckResult

__all__ = ["CheckReport", "SyncResult", "VerifyResult"]


@dataclass
class SyncResult(RunResult):
    """How a `sync` or `retry_failed` ended."""

    problems: list[Problem] = field(default_factory=list)
    """What is wrong with the databases of this run, the worst first."""
    held: Status | None = None
    """What the target holds of the source after the run; None after a dry run."""
    audit: AuditOutcome | None = None
    """The audit that followed, where one was wanted and could be made."""
    findings: list[Finding] = field(default_factory=list)
    """What audits found and is open, the worst first: at most a hundred."""

    @classmethod
    def of(
        cls,
        run: RunResult,
        held: Status | None,
        *,
        strict: bool = False,
        audit: AuditOutcome | None = None,
        unaudited: Problem | None = None,
        findings: Sequence[Finding] = (),
    ) -> SyncResult:
        """A run, with what the target says after it: its numbers are the target's.

        ``strict`` makes its own warnings errors, as it does with those of ``held``;
        ``unaudited`` says why the audit that was wanted could not be made.
        """
        given = {f.name: getattr(run, f.name) for f in fields(run)}
        problems: list[Problem] = []
        if held is None and not run.options.dry_run:
            problems.append(
                Problem(
                    "target_not_asked",
                    "The target's state after the run could not be read.",
                    run.options.source,
                    cure="Run `rubix-token-sync status` once it answers again.",
                )
            )
        if held is not None:
            given["databases"] = _as_held(run.databases, held)
            own = {database.db_path[:500] for database in run.databases}
            unread = {item.said for item in run.discovery.skipped if item.hides_nodes}
            problems = [
                problem
                for problem in held.problems
                if problem.db_path in own
                or (problem.code == "directory_unread" and problem.message in unread)
            ]
        if not run.discovery.nodes and run.error is None and run.signal_number is None:
            problems.append(
                Problem(
                    "no_nodes",
                    f"No node database was found below {', '.join(run.options.roots)}.",
                    run.options.source,
                    severity="error" if strict else "warning",
                    cure="`rubix-token-sync discover` says what was skipped, and why.",
                )
            )
        if unaudited is not None:
            problems.append(replace(unaudited, severity="error") if strict else unaudited)
        if held is not None and audit is not None:
            held = replace(held, audit=audit.left_open)
        return cls(**given, problems=problems, held=held, audit=audit, findings=list(findings))

    @property
    def exit_code(self) -> int:
        """As of the run; else 1 where a problem is an error; else the audit's."""
        found = super().exit_code or worst(self.problems)
        return found or (self.audit.exit_code if self.audit is not None else 0)

    @property
    def ok(self) -> bool:
        """Everything was done and nothing is wrong; there may be warnings in ``problems``."""
        return self.exit_code == 0


def _as_held(databases: Sequence[DatabaseOutcome], held: Status) -> list[DatabaseOutcome]:
    rows = {row.db_path: row for row in held.databases}
    found = []
    for database in databases:
        row = rows.get(database.db_path[:500])
        if row is not None:
            database = replace(
                database,
                records=row.record_count,
                ipfs_success=row.ipfs_success_count,
                ipfs_failures=row.ipfs_fail_count,
                validation_errors=row.validation_error_count,
            )
        found.append(database)
    return found


@dataclass
class VerifyResult(Verification):
    """What `verify` found."""

    examples: list[Difference] = field(default_factory=list)
    """The first differences; an `Observer` gets all of them."""
    rules: Rules = field(default_factory=Rules)

    @classmethod
    def of(
        cls, run: Verification, examples: list[Difference], rules: Rules | None = None
    ) -> VerifyResult:
        """A comparison with some of its differences."""
        given = {f.name: getattr(run, f.name) for f in fields(run)}
        return cls(**given, examples=examples, rules=rules or Rules())

    @property
    def exit_code(self) -> int:
        """0 everything was compared and is equal (now), 5 different, 1 not all was compared."""
        return super().exit_code or worst(self.problems)

    @property
    def problems(self) -> list[Problem]:
        """What is wrong, in sentences."""
        return judge_comparison(
            differences=0 if self.repaired else sum(self.differences.values()),
            gone=[state.db_path for state in self.missing],
            failed=[(path, e.code, str(e)) for path, e in [*self.failed, *self.unreadable]],
            unread=self.hiding,
            rejected=self.rejected,
            chains_unread=self.chains_unread,
            content_left=self.content_left,
            rules=self.rules,
        )

    @property
    def ok(self) -> bool:
        """Everything was compared, and all of it is equal."""
        return self.exit_code == 0


@dataclass(frozen=True)
class CheckReport:
    """What `check` tried, in the order of a run."""

    checks: list[CheckResult]

    @property
    def exit_code(self) -> int:
        """0 everything a run needs is there; else the worst of what failed."""
        return max((check.exit_code for check in self.checks if not check.ok), default=0)

    @property
    def ok(self) -> bool:
        """Everything a run needs is there."""
        return self.exit_code == 0
