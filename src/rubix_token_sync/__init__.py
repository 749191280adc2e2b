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

__version__ = "1.0.0"

if TYPE_CHECKING:
    from rubix_token_sync.audit.finding_pages import FindingCount, FindingPage
    from rubix_token_sync.audit.questions import (
        AuditRow,
        Evidence,
        Finding,
        OpenFindings,
        not_audited,
    )
    from rubix_token_sync.audit.run import AuditOutcome, RuleOutcome, UnreadDatabase
    from rubix_token_sync.audit.token_view import Holder, TokenView
    from rubix_token_sync.errors import (
        CommitAmbiguous,
        EvidenceRefused,
        EvidenceUnstamped,
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
    from rubix_token_sync.evidence.listing import EvidenceGlance
    from rubix_token_sync.evidence.notes import Checkpoint as EvidenceCheckpoint
    from rubix_token_sync.evidence.proofs import Proof as EvidenceProof
    from rubix_token_sync.evidence.proofs import Proven as EvidenceProven
    from rubix_token_sync.evidence.stamps import Stamp as EvidenceStamp
    from rubix_token_sync.evidence.verify import Verified as EvidenceVerified
    from rubix_token_sync.export.run import Exported
    from rubix_token_sync.history.change_counts import ChangeCounts, CountedChanges
    from rubix_token_sync.history.changes import Change
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
    from rubix_token_sync.library.backups import BackupResult, RestoreResult, back_up, restore
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
        list_evidence,
        make_evidence_key,
        prove_token,
        stamp_evidence,
        verify_evidence,
        verify_proof,
    )
    from rubix_token_sync.library.exporting import export_table
    from rubix_token_sync.library.history import ChangeFeed, PastReader, prune_history
    from rubix_token_sync.library.logs import Failure, explain_failure, start_log
    from rubix_token_sync.library.observers import Observer
    from rubix_token_sync.library.questions import databases, failures, sessions, status
    from rubix_token_sync.library.reader import RECORD_COLUMNS, TargetReader, open_target
    from rubix_token_sync.library.results import CheckReport, SyncResult, VerifyResult
    from rubix_token_sync.library.schema import (
        SchemaChange,
        SchemaScript,
        schema_script,
        upgrade_schema,
    )
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
    from rubix_token_sync.monitor.changes import LastChanges
    from rubix_token_sync.monitor.databases import DatabaseFailure, DatabaseRow
    from rubix_token_sync.monitor.events import EventPage, EventRow
    from rubix_token_sync.monitor.failure_counts import FailureCounts, NodeRow
    from rubix_token_sync.monitor.failures import Example, FailureReport, Reason
    from rubix_token_sync.monitor.health import SourceRow, Status
    from rubix_token_sync.monitor.nights import Night
    from rubix_token_sync.monitor.problems import Problem
    from rubix_token_sync.monitor.rounds import Round
    from rubix_token_sync.monitor.runs import RunRow, RunView, Trend
    from rubix_token_sync.monitor.tokens import TokenPage, TokenRow
    from rubix_token_sync.monitor.unread import unread_note
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
    "CommitAmbiguous EvidenceRefused EvidenceUnstamped LeaseHeld LeaseLost RecordRefused "
    "ReportMismatch SchemaError SettingsError "
    "SourceError SourceUnsettled SyncError TargetError TargetOverloaded TargetRefused "
    "TargetUnavailable TransactionTooLarge WorkerCrashed"
)
_PLACES: Final = {
    "audit.finding_pages": "FindingCount FindingPage",
    "audit.questions": "AuditRow Evidence Finding OpenFindings not_audited",
    "audit.token_view": "Holder TokenView",
    "audit.run": "AuditOutcome RuleOutcome UnreadDatabase",
    "errors": _ERRORS,
    "evidence.against": "EvidenceComparison=Comparison",
    "evidence.create": "EvidenceCreated=Created",
    "evidence.listing": "EvidenceGlance",
    "evidence.notes": "EvidenceCheckpoint=Checkpoint",
    "evidence.proofs": "EvidenceProof=Proof EvidenceProven=Proven",
    "evidence.stamps": "EvidenceStamp=Stamp",
    "evidence.verify": "EvidenceVerified=Verified",
    "export.run": "Exported",
    "history.change_counts": "ChangeCounts CountedChanges",
    "history.changes": "Change",
    "history.prune": "Pruned",
    "history.versions": "PastDatabase Version",
    "library.auditing": "RuleRow acknowledge_finding audit_records reopen_finding rules "
    "suppress_finding",
    "library.backups": "BackupResult RestoreResult back_up restore",
    "library.configuration": "Configuration SettingsOverrides configure settings_of",
    "library.evidence": "EvidenceKey compare_evidence create_evidence list_evidence "
    "make_evidence_key prove_token stamp_evidence verify_evidence verify_proof",
    "library.exporting": "export_table",
    "library.history": "ChangeFeed PastReader prune_history",
    "library.logs": "Failure explain_failure start_log",
    "library.observers": "Observer",
    "library.questions": "databases failures sessions status",
    "library.reader": "RECORD_COLUMNS TargetReader open_target",
    "library.schema": "SchemaChange SchemaScript schema_script upgrade_schema",
    "library.results": "CheckReport SyncResult VerifyResult",
    "library.settings_files": "SettingRow SettingsOverview check_settings describe_settings",
    "library.watchers": "AlertObserver MetricsEndpointObserver MetricsFileObserver "
    "ReportObserver report_of send_finding_alerts send_status_alerts watchers_of",
    "library.work": "check discover migrate_records retry_failed sync verify",
    "log": "log_event log_through=through redact",
    "migrate.report": "MigrationReport MovedDatabase=DatabaseOutcome",
    "monitor.changes": "LastChanges",
    "monitor.databases": "DatabaseFailure DatabaseRow",
    "monitor.events": "EventPage EventRow",
    "monitor.failure_counts": "FailureCounts NodeRow",
    "monitor.failures": "Example FailureReport Reason",
    "monitor.health": "SourceRow Status",
    "monitor.nights": "Night",
    "monitor.problems": "Problem",
    "monitor.rounds": "Round",
    "monitor.runs": "RunRow RunView Trend",
    "monitor.tokens": "TokenPage TokenRow",
    "monitor.unread": "unread_note",
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
    "CountedChanges",
    "Counters",
    "DatabaseFailure",
    "DatabaseOutcome",
    "DatabaseRow",
    "Difference",
    "Discovery",
    "EventPage",
    "EventRow",
    "Evidence",
    "EvidenceCheckpoint",
    "EvidenceComparison",
    "EvidenceCreated",
    "EvidenceGlance",
    "EvidenceKey",
    "EvidenceProof",
    "EvidenceProven",
    "EvidenceRefused",
    "EvidenceStamp",
    "EvidenceUnstamped",
    "EvidenceVerified",
    "Example",
    "Exported",
    "Failure",
    "FailureCounts",
    "FailureReport",
    "Finding",
    "FindingCount",
    "FindingPage",
    "Holder",
    "Interrupted",
    "LastChanges",
    "LeaseHeld",
    "LeaseLost",
    "MetricsEndpointObserver",
    "MetricsFileObserver",
    "MigrationReport",
    "MovedDatabase",
    "Night",
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
    "RestoreResult",
    "Round",
    "RuleOutcome",
    "RuleRow",
    "RunOptions",
    "RunResult",
    "RunRow",
    "RunView",
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
    "TokenPage",
    "TokenRow",
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
    "list_evidence",
    "log_event",
    "log_through",
    "make_evidence_key",
    "migrate_records",
    "not_audited",
    "open_target",
    "parse_age",
    "prove_token",
    "prune_history",
    "redact",
    "reopen_finding",
    "report_of",
    "restore",
    "retry_failed",
    "rules",
    "sarif_of",
    "schema_script",
    "send_finding_alerts",
    "send_status_alerts",
    "sessions",
    "settings_of",
    "shown",
    "stamp_evidence",
    "start_log",
    "status",
    "suppress_finding",
    "sync",
    "tokens_by_kind",
    "told_apart",
    "unread_note",
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
