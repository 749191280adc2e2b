"""A node itself says that something is wrong with a token."""

from __future__ import annotations

from typing import Any, Final

import sqlalchemy as sa

from rubix_token_sync.audit.holders import all_holders, tokens_where
from rubix_token_sync.audit.rule import FLAGGED, StatementRule, held_by_nodes
from rubix_token_sync.targets.sql.tables import Tables

__all__ = ["RULE"]


def _statement(tables: Tables) -> sa.Select[Any]:
    rows = tables.records.alias("flagged")
    tokens = tokens_where(rows, *held_by_nodes(rows), rows.c.token_status.in_(FLAGGED))
    return all_holders(tables, tokens)


RULE: Final = StatementRule(
    code="flagged_by_node",
    severity="warning",
    says="a node has marked the token as orphaned, out of sync, or spent twice",
    means="The status is the node's own: 11 orphaned, 12 its chain could not be synced, 13 a "
    "pledge is wrong, 14 being spent twice. It is that node's opinion; the evidence shows the "
    "other holders' rows.",
    cause="the node found a contradiction while it checked the token, or could not reach other "
    "nodes",
    cure="Look for the token in the node's log; 12 usually disappears once the chain was synced.",
    compares_nodes=False,
    statement=_statement,
)
