"""A token that is burnt on one node and spendable on another."""

from __future__ import annotations

from typing import Any, Final

import sqlalchemy as sa

from rubix_token_sync.audit.holders import all_holders, tokens_where
from rubix_token_sync.audit.rule import BURNT, OWNING, StatementRule, held_by_nodes
from rubix_token_sync.targets.sql.tables import Tables

__all__ = ["RULE"]


def _statement(tables: Tables) -> sa.Select[Any]:
    rows = tables.records.alias("ended")
    spendable = sa.func.count(sa.case((rows.c.token_status.in_(OWNING), 1)))
    burnt = sa.func.count(sa.case((rows.c.token_status.in_(BURNT), 1)))
    tokens = tokens_where(
        rows,
        *held_by_nodes(rows),
        rows.c.token_status.in_((*OWNING, *BURNT)),
        weight=spendable,
    ).having(sa.and_(spendable > 0, burnt > 0))
    return all_holders(tables, tokens)


RULE: Final = StatementRule(
    code="status_conflict",
    severity="error",
    says="the statuses of one token contradict each other: burnt and spendable",
    means="A burnt token (9, or 16 for fungible tokens) never becomes spendable again, yet a row "
    "lets somebody spend it. Only the token's chain shows which row is right. Pairs that "
    "honest transfers leave behind (4 with 0, 4 with 16, 9 with 9, 15 with 15) do not count.",
    cause="a node was restored from a backup made before the token was burnt, or somebody spends "
    "a token whose parts are in circulation",
    cure="Compare the rows with the token's latest block, correct the wrong one on its node, and "
    "sync both nodes again.",
    compares_nodes=True,
    statement=_statement,
)
