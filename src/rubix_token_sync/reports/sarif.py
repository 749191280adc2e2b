"""Findings as SARIF 2.1.0 (OASIS), which code hosts and security tools read.

A finding is a result, its token a logical location, its holders related ones.  No file is
named: a finding is about rows, and a node's path is nobody else's file.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Final

from rubix_token_sync.text import shown

if TYPE_CHECKING:
    from rubix_token_sync.audit.questions import Evidence, Finding
    from rubix_token_sync.library.auditing import RuleRow

__all__ = ["SARIF_SCHEMA", "sarif_of"]

SARIF_SCHEMA: Final = "https://json.schemastore.org/sarif-2.1.0.json"
_VERSION: Final = "2.1.0"
_LEVELS: Final = {"info": "note", "warning": "warning", "error": "error"}
_BASELINE: Final = {"new": "new", "reopened": "new", "worse": "updated", "resolved": "absent"}
_MOST_RELATED: Final = 100


def sarif_of(findings: Iterable[Finding], rules: Sequence[RuleRow]) -> dict[str, Any]:
    """A SARIF log with one run: every rule, and a result for each finding."""
    from rubix_token_sync import __version__

    places = {rule.rule: number for number, rule in enumerate(rules)}
    return {
        "$schema": SARIF_SCHEMA,
        "version": _VERSION,
        "runs": [
            {
                "tool": {
                    "driver": {
                        "name": "rubix-token-sync",
                        "semanticVersion": __version__,
                        "rules": [_rule(rule) for rule in rules],
                    }
                },
                "columnKind": "unicodeCodePoints",
                "results": [_result(finding, places) for finding in findings],
            }
        ],
    }


def _rule(rule: RuleRow) -> dict[str, Any]:
    return {
        "id": rule.rule,
        "shortDescription": {"text": _sentence(rule.says)},
        "fullDescription": {"text": rule.means},
        "help": {"text": rule.cure},
        "defaultConfiguration": {"level": _LEVELS[rule.severity], "enabled": rule.enabled},
    }


def _result(finding: Finding, places: dict[str, int]) -> dict[str, Any]:
    token = shown(finding.token_id or "")
    nodes = sorted({shown(one.node_name) for one in finding.evidence})
    where = f" Nodes: {', '.join(nodes)}." if nodes else ""
    result: dict[str, Any] = {
        "ruleId": finding.rule,
        "level": _LEVELS[finding.severity],
        "kind": "fail",
        "message": {"text": f"{token}: {_sentence(finding.says or finding.rule)}{where}"},
        "locations": [{"logicalLocations": [{"fullyQualifiedName": token, "kind": "resource"}]}],
        "relatedLocations": [
            _related(number, one)
            for number, one in enumerate(finding.evidence[:_MOST_RELATED], start=1)
        ],
        "partialFingerprints": {"ruleAndToken/v1": finding.fingerprint},
        "baselineState": _BASELINE.get(finding.change, "unchanged"),
        "properties": {
            "state": finding.state,
            "firstSeen": finding.first_seen_at.isoformat() + "Z",
            "lastSeen": finding.last_seen_at.isoformat() + "Z",
        },
    }
    if finding.rule in places:
        result["ruleIndex"] = places[finding.rule]
    if finding.suppressed_reason is not None and finding.state == "suppressed":
        result["suppressions"] = [
            {
                "kind": "external",
                "status": "accepted",
                "justification": shown(finding.suppressed_reason),
            }
        ]
    return result


def _related(number: int, one: Evidence) -> dict[str, Any]:
    said = (
        f"{one.role} {shown(one.node_name)}: status {shown(str(one.token_status))}, "
        f"DID {shown(str(one.did))}, state hash {shown(str(one.token_state_hash))}, "
        f"transaction {shown(str(one.transaction_id))}, read {one.read_at} UTC"
    )
    if one.role == "chain":  # there is no row of the token
        said = (
            f"chain {shown(one.node_name)}: latest block {one.latest_block_number}, type "
            f"{shown(str(one.latest_block_type))}, owner {shown(str(one.latest_block_owner))}, "
            f"read {one.read_at} UTC"
        )
    name = f"{one.source_ip}/{one.node_name}/{one.token_id or ''}"
    return {
        "id": number,
        "message": {"text": said},
        "logicalLocations": [{"fullyQualifiedName": shown(name), "kind": "resource"}],
    }


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:] + "."
