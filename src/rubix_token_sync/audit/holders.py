"""The form that most rules have: tokens that are found in groups of records, with all holders."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from rubix_token_sync.audit.rule import finding_in, token_key
from rubix_token_sync.records.kinds import RBT
from rubix_token_sync.targets.sql.functions import exactly, same_database
from rubix_token_sync.targets.sql.tables import Tables

__all__ = [
    "all_holders",
    "chain_of",
    "tokens_where",
    "tokens_with_verdict",
    "undecided",
    "without_chains",
]


def tokens_where(
    records: sa.FromClause,
    *conditions: sa.ColumnElement[bool],
    weight: sa.ColumnElement[Any] | None = None,
) -> sa.Select[Any]:
    """Tokens of the records that fulfil ``conditions``; ``weight`` defaults to how many do.

    More is said with ``having`` of what it gives.
    """
    key = token_key(records).label("token_key")
    return (
        sa.select(
            key,
            sa.func.min(records.c.token_kind).label("token_kind"),
            sa.func.min(records.c.token_id).label("token_id"),
            (sa.func.count() if weight is None else weight).label("weight"),
        )
        .select_from(records)
        .where(*conditions)
        .group_by(token_key(records))
    )


def chain_of(records: sa.FromClause, chains: sa.FromClause) -> list[sa.ColumnElement[bool]]:
    """Where a row of TokenChains is the chain of a record, on the record's own node."""
    return [
        *same_database(chains, records),
        exactly(chains.c.token_id, records.c.token_id),
        chains.c.token_kind == records.c.token_kind,
        chains.c.source_deleted_at.is_(None),
    ]


def without_chains(conn: sa.Connection, tables: Tables) -> int:
    """How many databases with tokens have chains that were not read, or not all of them."""
    databases = tables.databases
    query = sa.select(sa.func.count()).where(
        databases.c.record_count > 0,
        sa.or_(databases.c.chains_read_at.is_(None), databases.c.chains_error.is_not(None)),
    )
    return int(conn.execute(query).scalar_one())


def undecided(conn: sa.Connection, tables: Tables) -> int:
    """How many RBT records could not be judged because their content could not be read."""
    records = tables.records
    query = sa.select(sa.func.count()).where(
        records.c.source_deleted_at.is_(None),
        records.c.token_id.is_not(None),
        records.c.token_kind == RBT.name,
        records.c.ipfs_fetched == sa.false(),
        records.c.verdict == "not_decidable",
    )
    return int(conn.execute(query).scalar_one())


def all_holders(tables: Tables, tokens: sa.Select[Any]) -> sa.Select[Any]:
    """Every live record of each of these tokens, side by side.

    They are looked up by the index on the token's id.
    """
    found, held = tokens.subquery("tokens"), tables.records.alias("held")
    return sa.select(*finding_in(found, held)).where(
        exactly(held.c.token_id, found.c.token_id),
        token_key(held) == found.c.token_key,
        held.c.source_deleted_at.is_(None),
    )


def tokens_with_verdict(tables: Tables, verdict: str) -> sa.Select[Any]:
    """Tokens of which this was judged, with all holders."""
    rows = tables.records.alias("judged")
    live = (rows.c.source_deleted_at.is_(None), rows.c.token_id.is_not(None))
    return all_holders(tables, tokens_where(rows, *live, rows.c.verdict == verdict))
