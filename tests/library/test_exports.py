"""What the package gives, how it loads, and that the command line uses nothing else."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

import rubix_token_sync as rts
from rubix_token_sync.library.configuration import SettingsOverrides
from rubix_token_sync.settings import Settings

PACKAGE = Path(rts.__file__).parent

EXPORTED = set(
    """
AlertObserver AuditOutcome AuditRow BackupResult CancelToken Change ChangeCounts ChangeFeed
CheckReport CheckResult CommitAmbiguous Configuration CountedChanges Counters DatabaseFailure
DatabaseOutcome DatabaseRow Difference Discovery EventPage EventRow Evidence EvidenceCheckpoint
EvidenceComparison EvidenceCreated EvidenceGlance EvidenceKey EvidenceProof EvidenceProven
EvidenceRefused EvidenceStamp EvidenceUnstamped EvidenceVerified Example Exported Failure
FailureCounts FailureReport Finding FindingCount FindingPage Holder Interrupted LastChanges
LeaseHeld LeaseLost MetricsEndpointObserver MetricsFileObserver MigrationReport MovedDatabase Night
Node NodeRow Observer OpenFindings PastDatabase PastReader Problem Progress Pruned RECORD_COLUMNS
Reason RecordRefused ReportMismatch ReportObserver RestoreResult Round RuleOutcome RuleRow
RunOptions RunResult RunRow RunView SchemaChange SchemaError SchemaScript SettingRow Settings
SettingsError SettingsOverrides SettingsOverview Skipped SourceError SourceRow SourceUnsettled
Status SyncError SyncResult TargetError TargetOverloaded TargetReader TargetRefused
TargetUnavailable TokenPage TokenRow TokenView TransactionTooLarge Trend UnreadDatabase VerifyResult
Version WorkerCrashed __version__ acknowledge_finding audit_records back_up cell check
check_settings compare_evidence configure counted create_evidence databases describe_settings
discover explain_failure export_table failures json_text keep_out list_evidence log_event
log_through make_evidence_key migrate_records not_audited open_target parse_age prove_token
prune_history redact reopen_finding report_of restore retry_failed rules sarif_of schema_script
send_finding_alerts send_status_alerts sessions settings_of shown stamp_evidence start_log status
suppress_finding sync tokens_by_kind told_apart unread_note upgrade_schema verify verify_evidence
verify_proof watchers_of
""".split()  # noqa: SIM905 - read more easily
)


def test_what_is_exported() -> None:
    """A name that disappears breaks somebody's program."""
    assert set(rts.__all__) == EXPORTED
    for name in rts.__all__:
        assert getattr(rts, name) is not None, name
    assert set(dir(rts)) >= EXPORTED


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="nothing_like_it"):
        rts.nothing_like_it  # type: ignore[attr-defined]  # noqa: B018


def test_type_checkers_see_every_name() -> None:
    """The imports under TYPE_CHECKING and the lazy table are the same."""
    tree = ast.parse((PACKAGE / "__init__.py").read_text("utf-8"))
    (block,) = [node for node in tree.body if isinstance(node, ast.If)]
    typed = {
        (alias.asname or alias.name): (node.module, alias.name)
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    lazy = {name: (f"rubix_token_sync.{module}", own) for name, (module, own) in rts._NAMES.items()}
    assert typed == lazy
    assert set(lazy) | {"__version__"} == set(rts.__all__)


HEAVY = {"alembic", "httpx", "numpy", "psycopg", "pyarrow", "pydantic", "rich", "sqlalchemy"}


@pytest.mark.parametrize(
    "use", ["", "rts.Observer", "rts.SyncError", "rts.CancelToken", "rts.shown('x')"]
)
def test_importing_loads_nothing_heavy(use: str) -> None:
    program = (
        f"import sys, json\nimport rubix_token_sync as rts\n{use}\n"
        "print(json.dumps(sorted({name.split('.')[0] for name in sys.modules})))"
    )
    ended = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True
    )
    assert set(json.loads(ended.stdout)) & HEAVY == set()


def test_every_setting_can_be_given_to_a_call() -> None:
    given = set(SettingsOverrides.__annotations__)
    assert given == set(Settings.model_fields) - {"roots", "profile"}


NOT_YET = {"init.py", "start.py"}
"""`init` writes files that are made of settings and a target's template."""
OF_THE_PROCESS = (
    "amounts",
    "cluster",
    "deploy.calendar",
    "documents",
    "explanations",
    "installation",
    "surroundings",
    "web.",
)
"""What the command line has of its own: what it runs in, how it is run, what it explains; and
what it shares with the page, or serves; a fleet."""


def test_the_command_line_imports_only_public_names() -> None:
    for path in sorted((PACKAGE / "cli").glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            names = []
            if isinstance(node, ast.ImportFrom):
                names = [f"{node.module}.{alias.name}" for alias in node.names]
                if node.module == "rubix_token_sync":
                    assert {alias.name for alias in node.names} <= {*rts.__all__}, path.name
                    continue
            elif isinstance(node, ast.Import):
                names = [alias.name for alias in node.names if alias.name != "rubix_token_sync"]
            for name in names:
                ours = name.startswith("rubix_token_sync.")
                own = name.removeprefix("rubix_token_sync.").startswith(("cli.", *OF_THE_PROCESS))
                assert not ours or own or path.name in NOT_YET, f"{path.name}: {name}"
