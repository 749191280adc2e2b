"""The tables of the audit: its runs, its findings, and what each finding was seen in."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import sqlalchemy as sa

from rubix_token_sync.targets.sql.column_types import ID, TEXT, TIME, UUID, fixed_bytes

__all__ = [
    "CHAIN_EVIDENCE",
    "RECORD_EVIDENCE",
    "TOKEN_KEY_BYTES",
    "AuditTables",
    "add_audit_tables",
]

TOKEN_KEY_BYTES: Final = 16
"""The end of a record's key: the same for one token (its id and kind) in every database."""

RECORD_EVIDENCE: Final = (
    "source_ip",
    "node_name",
    "db_path",
    "did",
    "token_status",
    "token_state_hash",
    "transaction_id",
    "token_value",
    "parent_token_id",
    "ipfs_fetched",
    "ipfs_error",
    "verdict",
    "verdict_source",
    "token_level",
    "token_number",
    "synced_at",
)
"""What a finding keeps of each record that it was seen in, as it was at that moment."""

CHAIN_EVIDENCE: Final = ("latest_block_number", "latest_block_type", "latest_block_owner")
"""What it keeps of the token's chain on the same node, where chains were read."""


@dataclass(frozen=True)
class AuditTables:
    """What an audit writes."""

    runs: sa.Table
    findings: sa.Table
    evidence: sa.Table

    def all(self) -> tuple[sa.Table, ...]:
        """In order of creation."""
        return (self.runs, self.findings, self.evidence)


def add_audit_tables(
    metadata: sa.MetaData, records: sa.Table, chains: sa.Table, name: Callable[[str], str]
) -> AuditTables:
    """Add them to ``metadata``; ``name`` spells a table's name, ``records`` and ``chains`` are
    TokenRecords and TokenChains."""

    def count(column: str) -> sa.Column[int]:
        return sa.Column(column, sa.BigInteger(), nullable=False, server_default=sa.text("0"))

    runs = sa.Table(
        name("AuditRuns"),
        metadata,
        sa.Column("number", ID, primary_key=True, autoincrement=True),
        # Whoever repeats a transaction whose end was not heard of finds its own row.
        sa.Column("run_id", UUID, nullable=False),
        sa.Column("started_at", TIME, nullable=False),
        sa.Column("ended_at", TIME),
        sa.Column("status", sa.Unicode(20), nullable=False),
        sa.Column("host", sa.Unicode(255)),
        sa.Column("program_version", sa.Unicode(50)),
        # What every verdict rests on.
        sa.Column("limits_version", sa.Unicode(100)),
        # The scope: what was looked at, and what nobody had read since the audit before.
        count("databases"),
        count("databases_unread"),
        sa.Column("unread", TEXT),
        sa.Column("rules_run", TEXT),
        sa.Column("rules_off", TEXT),
        sa.Column("rules_failed", TEXT),
        # What rules told the audit after this one, as JSON: rule → text.
        sa.Column("rule_notes", TEXT),
        # What a rule that ran could not look at, as JSON: rule → how many.
        sa.Column("not_looked_at", TEXT),
        count("findings_new"),
        count("findings_confirmed"),
        count("findings_worse"),
        count("findings_reopened"),
        count("findings_resolved"),
        count("open_errors"),
        count("open_warnings"),
        count("open_infos"),
    )
    sa.Index("ux_auditruns_run_id", runs.c.run_id, unique=True)

    key = fixed_bytes(TOKEN_KEY_BYTES)
    findings = sa.Table(
        name("AuditFindings"),
        metadata,
        # The fingerprint: what is wrong, and with which token.
        sa.Column("rule", sa.Unicode(50), primary_key=True, nullable=False),
        sa.Column("token_key", key, primary_key=True, nullable=False),
        sa.Column("token_kind", sa.Unicode(20), nullable=False),
        sa.Column("token_id", sa.Unicode(500)),
        sa.Column("severity", sa.Unicode(10), nullable=False),
        sa.Column("state", sa.Unicode(20), nullable=False),
        # How bad it is, by the rule's own measure: it only matters whether it grows.
        count("weight"),
        sa.Column("first_seen_run", sa.BigInteger(), nullable=False),
        sa.Column("first_seen_at", TIME, nullable=False),
        sa.Column("last_seen_run", sa.BigInteger(), nullable=False),
        sa.Column("last_seen_at", TIME, nullable=False),
        sa.Column("suspected_at", TIME, nullable=False),
        sa.Column("confirmed_at", TIME),
        sa.Column("resolved_at", TIME),
        sa.Column("resolution", sa.Unicode(20)),
        count("reopened"),
        sa.Column("change", sa.Unicode(20), nullable=False),
        sa.Column("changed_run", sa.BigInteger()),
        sa.Column("changed_at", TIME, nullable=False),
        sa.Column("acknowledged_by", sa.Unicode(255)),
        sa.Column("acknowledged_at", TIME),
        sa.Column("note", TEXT),
        sa.Column("suppressed_by", sa.Unicode(255)),
        sa.Column("suppressed_at", TIME),
        sa.Column("suppressed_until", TIME),
        sa.Column("suppressed_reason", TEXT),
    )
    sa.Index("ix_auditfindings_token_id", findings.c.token_id)

    evidence = sa.Table(
        name("AuditEvidence"),
        metadata,
        sa.Column("id", ID, primary_key=True, autoincrement=True),
        sa.Column("run_number", sa.BigInteger(), nullable=False),
        sa.Column("rule", sa.Unicode(50), nullable=False),
        sa.Column("token_key", key, nullable=False),
        sa.Column("token_kind", sa.Unicode(20), nullable=False),
        sa.Column("token_id", sa.Unicode(500)),
        count("weight"),
        sa.Column("role", sa.Unicode(20), nullable=False),
        # The record: of the token itself, or of its parent, a part, a twin.
        sa.Column("record_token_id", sa.Unicode(500)),
        *(sa.Column(column, records.c[column].type) for column in RECORD_EVIDENCE),
        *(sa.Column(column, chains.c[column].type) for column in CHAIN_EVIDENCE),
        # Whose its DID is: this_node, another_node, no_node; NULL where that is not known.
        sa.Column("did_of", sa.Unicode(20)),
        # When its database had been read last.
        sa.Column("read_at", TIME),
    )
    sa.Index(
        "ix_auditevidence_finding",
        evidence.c.rule,
        evidence.c.token_key,
        evidence.c.run_number,
    )
    return AuditTables(runs, findings, evidence)
