"""The keys of the rows in ``--json`` and the columns of ``--csv``; documented in docs/JSON.md."""

from __future__ import annotations

from typing import Final

import rubix_token_sync as rts
from rubix_token_sync.cli.output import columns_of
from rubix_token_sync.cluster import HostOutcome

__all__ = ["CONTRACT"]

CONTRACT: Final = {
    "checkpoint": columns_of(rts.EvidenceCheckpoint),
    "compared": columns_of(rts.EvidenceComparison),
    "time_stamp": columns_of(rts.EvidenceStamp),
    "problem": columns_of(rts.Problem),
    "run": columns_of(rts.RunRow),
    "source": columns_of(rts.SourceRow),
    "database": columns_of(rts.DatabaseRow),
    "node": columns_of(rts.NodeRow),
    "reason": columns_of(rts.Reason),
    "trend": columns_of(rts.Trend),
    "finding": columns_of(rts.Finding),
    "evidence": columns_of(rts.Evidence),
    "holder": columns_of(rts.Holder),
    "rule": columns_of(rts.RuleRow),
    "rule_outcome": columns_of(rts.RuleOutcome),
    "audit": columns_of(rts.AuditRow),
    "token": columns_of(rts.TokenRow),
    "event": columns_of(rts.EventRow),
    "open_findings": columns_of(rts.OpenFindings),
    "fleet_host": columns_of(HostOutcome),
}
