"""A token that a node could spend, under a DID that is not one of the node's own."""

from __future__ import annotations

from typing import Any, Final

import sqlalchemy as sa

from rubix_token_sync.audit.holders import all_holders, tokens_where
from rubix_token_sync.audit.rule import (
    OWNING,
    StatementRule,
    dids_of_node,
    held_by_nodes,
    own_did,
)
from rubix_token_sync.records.companions import DIDS
from rubix_token_sync.targets.sql.tables import Tables

__all__ = ["RULE"]


def _statement(tables: Tables) -> sa.Select[Any]:
    rows, dids = tables.records.alias("rows"), tables.stored[DIDS.name].table
    own, some = dids.alias("own"), dids.alias("node_dids")
    tokens = tokens_where(
        rows,
        *held_by_nodes(rows),
        rows.c.token_status.in_(OWNING),
        rows.c.did != "",
        sa.not_(sa.exists().where(*own_did(rows, own))),
        sa.exists().where(*dids_of_node(rows, some)),
    )
    return all_holders(tables, tokens)


def _without_dids(conn: sa.Connection, tables: Tables) -> int:
    databases, dids = tables.databases, tables.stored[DIDS.name].table
    known = sa.exists().where(*dids_of_node(databases, dids))
    query = sa.select(sa.func.count()).where(databases.c.record_count > 0, sa.not_(known))
    return int(conn.execute(query).scalar_one())


RULE: Final = StatementRule(
    code="owner_unknown",
    severity="warning",
    says="a node's row lets a DID spend the token that is not one of the node's own",
    means="The row has a status that only an owner's row has (0 to 3, 5), and its DID is missing "
    "from the DIDTable of the same database, which lists the DIDs whose keys the node has. So "
    "this node cannot spend the token, whatever its row says. The evidence says of each row "
    "whether its DID is one of this node's, of another node's, or of no node's that was read. "
    "Rows of a sender (4), of a quorum node (9) or of a pinning service (15) name other DIDs "
    "honestly and do not count. A database without a DIDTable, or with an empty one, is not "
    "looked at, and the audit says how many there are.",
    cause="the row was edited or copied from another node, the DID was removed from the node, or "
    "the database was put together from several ones",
    cure="Find the node that has the DID; compare its row and the token's latest block. If no "
    "node has it, find out who put the row in.",
    compares_nodes=False,
    blind_to="databases that do not say which DIDs are their node's own",
    statement=_statement,
    blind=_without_dids,
)
