"""Everything that a target knows of one token: its holders, its content, what was found."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from rubix_token_sync.audit.holders import chain_of
from rubix_token_sync.audit.questions import Finding, FindingFilters, list_findings
from rubix_token_sync.audit.rule import Rule
from rubix_token_sync.records.companions import CHAINS
from rubix_token_sync.targets.sql.audit_tables import CHAIN_EVIDENCE
from rubix_token_sync.targets.sql.functions import same_database
from rubix_token_sync.targets.sql.tables import Tables

__all__ = ["Holder", "TokenView", "read_token"]


@dataclass(frozen=True)
class Holder:
    """One record of a token, as the target has it now."""

    source_ip: str
    node_name: str
    db_path: str
    token_kind: str
    network: str | None
    """``main`` or ``test``; None: nothing beside the node's database says it."""
    did: str | None
    token_status: str | None
    token_value: str | None
    parent_token_id: str | None
    token_state_hash: str | None
    transaction_id: str | None
    attributes: Any
    """What only this kind of token has."""
    ipfs_fetched: bool
    ipfs_error: str | None
    verdict: str | None
    verdict_source: str | None
    token_level: int | None
    token_number: int | None
    validation_errors: str | None
    created_at: datetime | None
    updated_at: datetime | None
    synced_at: datetime | None
    source_deleted_at: datetime | None
    """When it was found to be gone from its node."""
    latest_block_number: int | None
    """Of the token's chain on the same node, where chains were read."""
    latest_block_type: str | None
    latest_block_owner: str | None
    chain_error: str | None
    """What is wrong with that chain; None: nothing, or there is none."""
    read_at: datetime | None


@dataclass(frozen=True)
class TokenView:
    """Everything that the target knows of one token."""

    token_id: str
    holders: list[Holder]
    content: str | None
    """Proven content, in the form of the column ``ipfs_data``."""
    findings: list[Finding]
    """Of every state."""


def read_token(
    conn: sa.Connection,
    tables: Tables,
    rules: Sequence[Rule],
    token_id: str,
    now: datetime,
    *,
    records: sa.FromClause | None = None,
) -> TokenView:
    """Every record of the token, live or vanished, its content, and what was found about it.

    ``records`` stands for TokenRecords: as it was earlier.
    """
    databases = tables.databases
    records = tables.records if records is None else records
    chains = tables.stored[CHAINS.name].table
    read = sa.func.coalesce(databases.c.last_seen_at, databases.c.last_processed).label("read_at")
    of_chain = [
        *(chains.c[name] for name in CHAIN_EVIDENCE),
        chains.c.error.label("chain_error"),
    ]
    elsewhere = {*CHAIN_EVIDENCE, "chain_error", "read_at"}
    names = [name for name in Holder.__dataclass_fields__ if name not in elsewhere]
    query: sa.Select[Any] = (
        sa.select(
            *(records.c[name] for name in names),
            records.c.token_id,
            records.c.ipfs_data,
            *of_chain,
            read,
        )
        .join_from(
            records,
            databases,
            sa.and_(*same_database(databases, records)),
            isouter=True,
        )
        .outerjoin(chains, sa.and_(*chain_of(records, chains)))
        .where(records.c.token_id == token_id[:500])
        .order_by(records.c.node_name, records.c.source_ip, records.c.db_path)
    )
    rows = [row for row in conn.execute(query) if row.token_id == token_id[:500]]
    content = next((row.ipfs_data for row in rows if row.ipfs_fetched), None)
    findings = list_findings(conn, tables, rules, FindingFilters(token_id=token_id), now)
    return TokenView(token_id, [_holder(row) for row in rows], content, findings)


def _holder(row: sa.Row[Any]) -> Holder:
    values = {name: row._mapping[name] for name in Holder.__dataclass_fields__}
    values["ipfs_fetched"] = bool(values["ipfs_fetched"])
    values["attributes"] = json.loads(row.attributes) if row.attributes else None
    return Holder(**values)
