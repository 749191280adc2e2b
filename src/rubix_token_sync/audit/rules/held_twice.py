"""One token, spendable under more than one DID."""

from __future__ import annotations

from typing import Any, Final

import sqlalchemy as sa

from rubix_token_sync.audit.holders import all_holders, tokens_where
from rubix_token_sync.audit.rule import OWNING, StatementRule, held_by_nodes
from rubix_token_sync.targets.sql.functions import cased
from rubix_token_sync.targets.sql.tables import Tables

__all__ = ["RULE"]


def _statement(tables: Tables) -> sa.Select[Any]:
    rows = tables.records.alias("owned")
    owners = sa.func.count(sa.distinct(cased(rows.c.did)))
    tokens = tokens_where(
        rows,
        *held_by_nodes(rows),
        rows.c.token_status.in_(OWNING),
        rows.c.did != "",
        weight=owners,
    ).having(owners > 1)
    return all_holders(tables, tokens)


RULE: Final = StatementRule(
    code="held_twice",
    severity="error",
    says="one token is spendable under more than one DID",
    means="The rows of at least two nodes each let another DID spend the token. Only one of them "
    "can be right: compare status, state hash and transaction of the holders with the token's "
    "chain, whose latest block the evidence shows if chains were read. Rows of a sender (4), "
    "of a quorum node (9) or of a pinning service (15) are not holdings and do not count.",
    cause="a node was restored from a backup made before a transfer, a copy of a node is running, "
    "a transfer ended on one side only, or somebody spends a token twice",
    cure="Find out which DID the token's latest block names, mark the token as transferred in the "
    "other row on its node, and sync both nodes again.",
    compares_nodes=True,
    statement=_statement,
)
