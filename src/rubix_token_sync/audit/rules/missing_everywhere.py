"""No node has the content of a token that one of them holds."""

from __future__ import annotations

from typing import Any, Final

import sqlalchemy as sa

from rubix_token_sync.audit.contents import lacking, verified_somewhere
from rubix_token_sync.audit.holders import all_holders, tokens_where
from rubix_token_sync.audit.rule import OWNING, StatementRule, held_by_nodes
from rubix_token_sync.targets.sql.tables import Tables

__all__ = ["RULE"]


def _statement(tables: Tables) -> sa.Select[Any]:
    rows = tables.records.alias("lacking")
    tokens = tokens_where(
        rows,
        *held_by_nodes(rows),
        rows.c.token_status.in_(OWNING),
        lacking(rows),
        sa.not_(verified_somewhere(tables, rows)),
    )
    return all_holders(tables, tokens)


RULE: Final = StatementRule(
    code="missing_everywhere",
    severity="warning",
    says="no node has a verified copy of the token's content",
    means="A node that holds the token was asked and answered that its repository lacks the "
    "content or has a damaged copy, and no other node of the target has a copy that hashes to the "
    "id. A node that could not answer (no repository, no program, a time-out) counts neither way: "
    "its content is unknown, not lost. The evidence shows who was asked and what the answer was.",
    cause="the content was unpinned by a transfer and removed by garbage collection, or blocks "
    "were lost or damaged",
    cure="Ask the network (`rubix-token-sync retry-failed --ipfs-network`) or the nodes that held "
    "the token before; the content of a whole token can be made again from its id.",
    compares_nodes=True,
    statement=_statement,
)
