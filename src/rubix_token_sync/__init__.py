"""Rubix Token Sync: every token of every node, proven, in one queryable place.

    import rubix_token_sync as rts

    result = rts.sync("/mnt/drived", target="sqlite:///tokens.db")
    with rts.open_target("sqlite:///tokens.db") as target:
        table = target.records(nodes=["node001"])    # a pyarrow.Table

Everything here is documented in docs/PYTHON.md.  Names load what they need when they are
used; importing the package loads nothing.  `rubix_token_sync.errors` holds every exception,
`rubix_token_sync.testing` makes fleets for tests.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

__version__ = "0.1.0"

if TYPE_CHECKING:
    from rubix_token_sync.audit.questions import (
        AuditRow,
        Evidence,
        Finding,
        Holder,
        OpenFindings,
        TokenView,
    )
    from rubix_token_sync.audit.run import AuditOutcome, RuleOutcome, UnreadDatabase
    from rubix_token_sync.errors import (
        CommitAmbiguous,
        EvidenceRefused,
        LeaseHeld,
        LeaseLost,
        RecordRefused,
        ReportMismatch,
        SchemaError,
        SettingsError,
        SourceError,
        SourceUnsettled,
        SyncError,
        TargetError,
        TargetOverloaded,
        TargetRefused,
        TargetUnavailable,
        TransactionTooLarge,
        WorkerCrashed,
    )
    from rubix_token_sync.evidence.against import Comparison as EvidenceComparison
    from rubix_token_sync.evidence.create import Created as EvidenceCreated
    from rubix_token_sync.evidence.notes import Checkpoint as EvidenceCheckpoint
    from rubix_token_sync.evidence.proofs import Proof as EvidenceProof
    from rubix_token_sync.evidence.proofs import Proven as EvidenceProven
    from rubix_token_sync.evidence.verify import Verified as EvidenceVerified
    from rubix_token_sync.export.run import Exported
    from rubix_token_sync.history.changes import Change, ChangeCounts
    from rubix_token_sync.history.prune import Pruned
    from rubix_token_sync.history.versions import PastDatabase, Version
    from rubix_token_sync.library.auditing import (
        RuleRow,
        acknowledge_finding,
        audit_records,
        reopen_finding,
        rules,
        suppress_finding,
    )
    from rubix_token_sync.library.backups import BackupResult, back_up
    from rubix_token_sync.library.configuration import (
        Configuration,
        SettingsOverrides,
        configure,
        settings_of,
    )
    from rubix_token_sync.library.evidence import (
        EvidenceKey,
        compare_evidence,
        create_evidence,
        make_evidence_key,
        prove_token,
        verify_evidence,
        verify_proof,
    )
    from rubix_token_sync.library.exporting import export_table
    from rubix_token_sync.library.history import ChangeFeed, PastReader, prune_history
    from rubix_token_sync.library.logs import Failure, explain_failure, start_log
    from rubix_token_sync.library.observers import Observer
    from rubix_token_sync.library.reader import (
        RECORD_COLUMNS,
        SchemaChange,
        SchemaScript,
        TargetReader,
        databases,
        failures,
        open_target,
        schema_script,
        sessions,
        status,
        upgrade_schema,
    )
    from rubix_token_sync.library.results import CheckReport, SyncResult, VerifyResult
    from rubix_token_sync.library.settings_files import (
        SettingRow,
        SettingsOverview,
        check_settings,
        describe_settings,
    )
    from rubix_token_sync.library.watchers import (
        AlertObserver,
        MetricsEndpointObserver,
        MetricsFileObserver,
        ReportObserver,
        report_of,
        send_finding_alerts,
        send_status_alerts,
        watchers_of,
    )
    from rubix_token_sync.library.work import (
        check,
        discover,
        migrate_records,
        retry_failed,
        sync,
        verify,
    )
    from rubix_token_sync.log import log_event, redact
    from rubix_token_sync.log import through as log_through
    from rubix_token_sync.migrate.report import DatabaseOutcome as MovedDatabase
    from rubix_token_sync.migrate.report import MigrationReport
    from rubix_token_sync.monitor.databases import DatabaseFailure, DatabaseRow
    from rubix_token_sync.monitor.failures import Example, FailureReport, NodeRow, Reason
    from rubix_token_sync.monitor.health import SourceRow, Status
    from rubix_token_sync.monitor.problems import Problem
    from rubix_token_sync.monitor.runs import RunRow, Trend
    from rubix_token_sync.nodes.discovery import Discovery, Node
    from rubix_token_sync.nodes.keep_out import keep_out
    from rubix_token_sync.nodes.skipped import Skipped
    from rubix_token_sync.records.kinds import tokens_by_kind
    from rubix_token_sync.reports.sarif import sarif_of
    from rubix_token_sync.runs.cancel import CancelToken, Interrupted
    from rubix_token_sync.runs.check import CheckResult
    from rubix_token_sync.runs.jobs import Difference
    from rubix_token_sync.runs.progress import Counters, Progress
    from rubix_token_sync.runs.result import DatabaseOutcome, RunOptions, RunResult
    from rubix_token_sync.settings import Settings
    from rubix_token_sync.text import cell, counted, json_text, parse_age, shown, told_apart

_ERRORS: Final = (
    "CommitAmbiguous EvidenceRefused LeaseHeld LeaseLost RecordRefused ReportMismatch SchemaError "
    "SettingsError "
    "SourceError SourceUnsettled SyncError TargetError TargetOverloaded TargetRefused "
    "TargetUnavailable TransactionTooLarge WorkerCrashed"
)
_PLACES: Final = {
    "audit.questions": "AuditRow Evidence Finding Holder OpenFindings TokenView",
    "audit.run": "AuditOutcome RuleOutcome UnreadDatabase",
    "errors": _ERRORS,
    "evidence.against": "EvidenceComparison=Comparison",
    "evidence.create": "EvidenceCreated=Created",
    "evidence.notes": "EvidenceCheckpoint=Checkpoint",
    "evidence.proofs": "EvidenceProof=Proof EvidenceProven=Proven",
    "evidence.verify": "EvidenceVerified=Verified",
    "export.run": "Exported",
    "history.changes": "Change ChangeCounts",
    "history.prune": "Pruned",
    "history.versions": "PastDatabase Version",
    "library.auditing": "RuleRow acknowledge_finding audit_records reopen_finding rules "
    "suppress_finding",
    "library.backups": "BackupResult back_up",
    "library.configuration": "Configuration SettingsOverrides configure settings_of",
    "library.evidence": "EvidenceKey compare_evidence create_evidence make_evidence_key "
    "prove_token verify_evidence verify_proof",
    "library.exporting": "export_table",
    "library.history": "ChangeFeed PastReader prune_history",
    "library.logs": "Failure explain_failure start_log",
    "library.observers": "Observer",
    "library.reader": "RECORD_COLUMNS SchemaChange SchemaScript TargetReader databases failures "
    "open_target schema_script sessions status upgrade_schema",
    "library.results": "CheckReport SyncResult VerifyResult",
    "library.settings_files": "SettingRow SettingsOverview check_settings describe_settings",
    "library.watchers": "AlertObserver MetricsEndpointObserver MetricsFileObserver "
    "ReportObserver report_of send_finding_alerts send_status_alerts watchers_of",
    "library.work": "check discover migrate_records retry_failed sync verify",
    "log": "log_event log_through=through redact",
    "migrate.report": "MigrationReport MovedDatabase=DatabaseOutcome",
    "monitor.databases": "DatabaseFailure DatabaseRow",
    "monitor.failures": "Example FailureReport NodeRow Reason",
    "monitor.health": "SourceRow Status",
    "monitor.problems": "Problem",
    "monitor.runs": "RunRow Trend",
    "nodes.discovery": "Discovery Node",
    "nodes.skipped": "Skipped",
    "nodes.keep_out": "keep_out",
    "reports.sarif": "sarif_of",
    "runs.cancel": "CancelToken Interrupted",
    "runs.check": "CheckResult",
    "runs.jobs": "Difference",
    "runs.progress": "Counters Progress",
    "runs.result": "DatabaseOutcome RunOptions RunResult",
    "settings": "Settings",
    "records.kinds": "tokens_by_kind",
    "text": "cell counted json_text parse_age shown told_apart",
}
"""Module → the names it gives (``name=its own name there``)."""

_NAMES: Final = {
    name: (module, own or name)
    for module, names in _PLACES.items()
    for name, _, own in (entry.partition("=") for entry in names.split())
}

__all__ = [
    "RECORD_COLUMNS",
    "AlertObserver",
    "AuditOutcome",
    "AuditRow",
    "BackupResult",
    "CancelToken",
    "Change",
    "ChangeCounts",
    "ChangeFeed",
    "CheckReport",
    "CheckResult",
    "CommitAmbiguous",
    "Configuration",
    "Counters",
    "DatabaseFailure",
    "DatabaseOutcome",
    "DatabaseRow",
    "Difference",
    "Discovery",
    "Evidence",
    "EvidenceCheckpoint",
    "EvidenceComparison",
    "EvidenceCreated",
    "EvidenceKey",
    "EvidenceProof",
    "EvidenceProven",
    "EvidenceRefused",
    "EvidenceVerified",
    "Example",
    "Exported",
    "Failure",
    "FailureReport",
    "Finding",
    "Holder",
    "Interrupted",
    "LeaseHeld",
    "LeaseLost",
    "MetricsEndpointObserver",
    "MetricsFileObserver",
    "MigrationReport",
    "MovedDatabase",
    "Node",
    "NodeRow",
    "Observer",
    "OpenFindings",
    "PastDatabase",
    "PastReader",
    "Problem",
    "Progress",
    "Pruned",
    "Reason",
    "RecordRefused",
    "ReportMismatch",
    "ReportObserver",
    "RuleOutcome",
    "RuleRow",
    "RunOptions",
    "RunResult",
    "RunRow",
    "SchemaChange",
    "SchemaError",
    "SchemaScript",
    "SettingRow",
    "Settings",
    "SettingsError",
    "SettingsOverrides",
    "SettingsOverview",
    "Skipped",
    "SourceError",
    "SourceRow",
    "SourceUnsettled",
    "Status",
    "SyncError",
    "SyncResult",
    "TargetError",
    "TargetOverloaded",
    "TargetReader",
    "TargetRefused",
    "TargetUnavailable",
    "TokenView",
    "TransactionTooLarge",
    "Trend",
    "UnreadDatabase",
    "VerifyResult",
    "Version",
    "WorkerCrashed",
    "__version__",
    "acknowledge_finding",
    "audit_records",
    "back_up",
    "cell",
    "check",
    "check_settings",
    "compare_evidence",
    "configure",
    "counted",
    "create_evidence",
    "databases",
    "describe_settings",
    "discover",
    "explain_failure",
    "export_table",
    "failures",
    "json_text",
    "keep_out",
    "log_event",
    "log_through",
    "make_evidence_key",
    "migrate_records",
    "open_target",
    "parse_age",
    "prove_token",
    "prune_history",
    "redact",
    "reopen_finding",
    "report_of",
    "retry_failed",
    "rules",
    "sarif_of",
    "schema_script",
    "send_finding_alerts",
    "send_status_alerts",
    "sessions",
    "settings_of",
    "shown",
    "start_log",
    "status",
    "suppress_finding",
    "sync",
    "tokens_by_kind",
    "told_apart",
    "upgrade_schema",
    "verify",
    "verify_evidence",
    "verify_proof",
    "watchers_of",
]


def __getattr__(name: str) -> object:
    if name not in _NAMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    module, own = _NAMES[name]
    value: object = getattr(import_module(f"{__name__}.{module}"), own)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
