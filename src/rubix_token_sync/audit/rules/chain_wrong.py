"""Something is wrong with the token's chain itself, as a node has it."""

from __future__ import annotations

from typing import Any, Final

import sqlalchemy as sa

from rubix_token_sync.audit.holders import all_holders, chain_of, tokens_where, without_chains
from rubix_token_sync.audit.rule import StatementRule
from rubix_token_sync.records.companions import CHAINS
from rubix_token_sync.targets.sql.tables import Tables

__all__ = ["RULE"]


def _statement(tables: Tables) -> sa.Select[Any]:
    rows, chains = tables.records.alias("rows"), tables.stored[CHAINS.name].table
    tokens = tokens_where(
        rows,
        rows.c.source_deleted_at.is_(None),
        rows.c.token_id.is_not(None),
        *chain_of(rows, chains),
        chains.c.error.is_not(None),
    )
    return all_holders(tables, tokens)


RULE: Final = StatementRule(
    code="chain_wrong",
    severity="error",
    says="a hash, a link or a signature in the token's chain is wrong, or blocks are missing",
    means="A node's copy of the chain does not prove what it should: TokenChains.error names the "
    "worst problem, and TROUBLESHOOTING explains each code. It does not concern the copies of "
    "other nodes. Chains are read only with --chains.",
    cause="a damaged disk, a node that was killed or restored, a fork, or somebody who wrote into "
    "the chain",
    cure="Compare it with the chain of another holder or a quorum node, and let the node "
    "synchronise the token's chain again.",
    compares_nodes=False,
    blind_to="databases whose chains were not read (--chains), or not all of them",
    statement=_statement,
    blind=without_chains,
)
