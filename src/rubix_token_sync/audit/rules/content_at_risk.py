"""One node is left that has the content, and another one ought to have it."""

from __future__ import annotations

from typing import Any, Final

import sqlalchemy as sa

from rubix_token_sync.audit.contents import copies, damaged, lacking
from rubix_token_sync.audit.holders import all_holders, tokens_where
from rubix_token_sync.audit.rule import OWNING, StatementRule, held_by_nodes
from rubix_token_sync.targets.sql.tables import Tables

__all__ = ["RULE"]


def _statement(tables: Tables) -> sa.Select[Any]:
    rows = tables.records.alias("lacking")
    ought_to_have = sa.or_(damaged(rows), rows.c.token_status.in_(OWNING))
    tokens = tokens_where(
        rows, *held_by_nodes(rows), lacking(rows), ought_to_have, copies(tables, rows) == 1
    )
    return all_holders(tables, tokens)


RULE: Final = StatementRule(
    code="content_at_risk",
    severity="warning",
    says="only one node has a verified copy of the token's content, and another node lost its copy",
    means="The node with the copy may remove it at any time: after a transfer it is no longer "
    "pinned there. A sender (4) without the content does not count, because transfers end "
    "that way. Tokens that only one node ever had are not listed. Pins are not read. Once the "
    "target holds the content, a node whose block is damaged gets it from there, and the "
    "finding is resolved although the node's own block is not repaired.",
    cause="a damaged block, or garbage collection at the holder",
    cure="Pin the content on the holder's node (`ipfs pin add`), repair its repository "
    "(`ipfs repo verify`), then run `rubix-token-sync retry-failed`.",
    compares_nodes=True,
    statement=_statement,
)
