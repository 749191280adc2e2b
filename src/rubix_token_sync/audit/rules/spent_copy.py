"""A row that lets somebody spend a token which its DID has spent already."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import sqlalchemy as sa

from rubix_token_sync.audit.holders import all_holders, chain_of, without_chains
from rubix_token_sync.audit.rule import OWNING, StatementRule, token_key
from rubix_token_sync.records.companions import CHAINS, TRANSACTIONS
from rubix_token_sync.records.kinds import RBT, kind_of
from rubix_token_sync.targets.sql.audit_tables import CHAIN_EVIDENCE
from rubix_token_sync.targets.sql.functions import exactly, same_database
from rubix_token_sync.targets.sql.tables import Tables

__all__ = ["RULE"]

_KINDS: Final = (RBT.name, kind_of("ft").name)
"""Rows of other kinds do not say by which transaction they came."""
_TRANSFER: Final = "02"
_ENDED: Final = ("08", "13")
"""Latest blocks that end ownership of the token: burnt, burnt for FT."""
_FAILED: Final = ("0", "false")


def _statement(tables: Tables) -> sa.Select[Any]:
    spent = sa.union(_set_back(tables), _by_transactions(tables), _by_chains(tables)).subquery(
        "spent"
    )
    tokens = sa.select(
        spent.c.token_key,
        sa.func.min(spent.c.token_kind).label("token_kind"),
        sa.func.min(spent.c.token_id).label("token_id"),
        sa.func.count(sa.distinct(spent.c.record_id)).label("weight"),
    ).group_by(spent.c.token_key)
    return all_holders(tables, tokens)


def _held(rows: sa.FromClause) -> list[sa.ColumnElement[bool]]:
    return [
        rows.c.source_deleted_at.is_(None),
        rows.c.token_status.in_(OWNING),
        rows.c.token_kind.in_(_KINDS),
        rows.c.did != "",
    ]


def _copy(rows: sa.FromClause) -> list[sa.ColumnElement[Any]]:
    key: sa.ColumnElement[Any] = token_key(rows).label("token_key")
    return [key, rows.c.token_kind, rows.c.token_id, rows.c.id.label("record_id")]


def _sent(tables: Tables) -> sa.Subquery:
    """Transfers that nodes have noted, with who sent them."""
    history = tables.stored[TRANSACTIONS.name].table
    return (
        sa.select(history.c.transaction_id, history.c.sender_did)
        .where(
            history.c.source_deleted_at.is_(None),
            history.c.transaction_type == _TRANSFER,
            sa.func.coalesce(history.c.status, "1").not_in(_FAILED),
            sa.not_(exactly(history.c.sender_did, history.c.receiver_did)),
        )
        .distinct()
        .subquery("sent")
    )


def _set_back(tables: Tables) -> sa.Select[Any]:
    """Rows whose own last transaction is one by which their DID sent the token away."""
    rows, sent = tables.records.alias("rows"), _sent(tables)
    return (
        sa.select(*_copy(rows))
        .join_from(rows, sent, exactly(sent.c.transaction_id, rows.c.transaction_id))
        .where(*_held(rows), rows.c.transaction_id != "", exactly(sent.c.sender_did, rows.c.did))
    )


def _by_transactions(tables: Tables) -> sa.Select[Any]:
    """Rows whose DID has sent the token away, by another row, and has not got it back since."""
    history = tables.stored[TRANSACTIONS.name].table
    every, rows, other = (tables.records.alias(name) for name in ("every", "rows", "other"))
    sent, came_by = _sent(tables), sa.func.coalesce(every.c.transaction_id, "")
    # Few tokens have rows that name different transactions: the rest need not be looked up.
    unequal = (
        sa.select(
            token_key(every).label("token_key"), sa.func.min(every.c.token_id).label("token_id")
        )
        .where(
            every.c.source_deleted_at.is_(None),
            every.c.token_id.is_not(None),
            every.c.token_kind.in_(_KINDS),
        )
        .group_by(token_key(every))
        .having(sa.func.max(came_by) != sa.func.min(came_by))
        .subquery("unequal")
    )
    moved = (
        sa.select(
            unequal.c.token_id, unequal.c.token_key, other.c.transaction_id, sent.c.sender_did
        )
        .join_from(unequal, other, exactly(other.c.token_id, unequal.c.token_id))
        .join(sent, exactly(sent.c.transaction_id, other.c.transaction_id))
        .where(
            token_key(other) == unequal.c.token_key,
            other.c.source_deleted_at.is_(None),
            other.c.transaction_id != "",
        )
        .distinct()
        .subquery("moved")
    )
    heard, before, after = (history.alias(name) for name in ("heard", "before", "after"))
    knows_of_it = sa.exists().where(
        *same_database(heard, rows),
        heard.c.source_deleted_at.is_(None),
        exactly(heard.c.transaction_id, moved.c.transaction_id),
    )
    # Both by the clock of one node, which took part in both.
    came_before = sa.exists().where(
        exactly(before.c.transaction_id, rows.c.transaction_id),
        exactly(after.c.transaction_id, moved.c.transaction_id),
        *same_database(before, after),
        before.c.source_deleted_at.is_(None),
        after.c.source_deleted_at.is_(None),
        before.c.date_time < after.c.date_time,
    )
    never_came = sa.func.coalesce(rows.c.transaction_id, "") == ""
    return (
        sa.select(*_copy(rows))
        .join_from(moved, rows, exactly(rows.c.token_id, moved.c.token_id))
        .where(
            token_key(rows) == moved.c.token_key,
            *_held(rows),
            exactly(rows.c.did, moved.c.sender_did),
            sa.or_(
                sa.and_(never_came, sa.not_(knows_of_it)),
                came_before,
            ),
        )
    )


def _by_chains(tables: Tables) -> sa.Select[Any]:
    """Rows whose node's chain of the token is shorter than another node's, on which it moved on."""
    chains = tables.stored[CHAINS.name].table
    every, own, longer = (chains.alias(name) for name in ("every", "own", "longer"))
    rows = tables.records.alias("rows")
    height = every.c.latest_block_number
    unequal = (
        sa.select(every.c.token_id, every.c.token_kind)
        .where(every.c.source_deleted_at.is_(None), every.c.token_kind.in_(_KINDS))
        .group_by(every.c.token_id, every.c.token_kind)
        .having(sa.func.max(height) > sa.func.min(height))
        .subquery("unequal")
    )
    moved_on = sa.or_(
        sa.and_(
            longer.c.latest_block_type == _TRANSFER,
            sa.not_(exactly(longer.c.latest_block_owner, rows.c.did)),
        ),
        longer.c.latest_block_type.in_(_ENDED),
    )
    return (
        sa.select(*_copy(rows))
        .join_from(unequal, longer, exactly(longer.c.token_id, unequal.c.token_id))
        .join(rows, exactly(rows.c.token_id, unequal.c.token_id))
        .join(own, sa.and_(*chain_of(rows, own)))
        .where(
            *_held(rows),
            rows.c.token_kind == longer.c.token_kind,
            longer.c.token_kind == unequal.c.token_kind,
            longer.c.source_deleted_at.is_(None),
            longer.c.error.is_(None),
            own.c.error.is_(None),
            longer.c.latest_block_number > own.c.latest_block_number,
            moved_on,
        )
        .distinct()
    )


@dataclass(frozen=True, kw_only=True)
class _SpentCopy(StatementRule):
    """Shows the chains of nodes without a row, too: quorum nodes keep what they agreed to."""

    def gather(self, conn: sa.Connection, tables: Tables, run_number: int) -> None:
        super().gather(conn, tables, run_number)
        conn.execute(self._chains_elsewhere(tables, run_number))

    def _chains_elsewhere(self, tables: Tables, run_number: int) -> sa.Insert:
        evidence, records, databases = tables.audit.evidence, tables.records, tables.databases
        chains = tables.stored[CHAINS.name].table
        names = ("token_key", "token_kind", "token_id")
        found = (
            sa.select(
                *(evidence.c[name] for name in names),
                sa.func.max(evidence.c.weight).label("weight"),
            )
            .where(evidence.c.run_number == run_number, evidence.c.rule == self.code)
            .group_by(*(evidence.c[name] for name in names))
            .subquery("found")
        )
        columns: dict[str, sa.ColumnElement[Any]] = {
            "run_number": sa.literal(run_number, sa.BigInteger()),
            "rule": sa.literal(self.code, sa.Unicode(50)),
            **{name: found.c[name] for name in (*names, "weight")},
            "role": sa.literal("chain", sa.Unicode(20)),
            "record_token_id": chains.c.token_id,
            **{name: chains.c[name] for name in ("source_ip", "node_name", "db_path")},
            **{name: chains.c[name] for name in CHAIN_EVIDENCE},
            "read_at": sa.func.coalesce(databases.c.last_seen_at, databases.c.last_processed),
        }
        has_row = sa.exists().where(
            *same_database(records, chains),
            exactly(records.c.token_id, chains.c.token_id),
            records.c.token_kind == chains.c.token_kind,
            records.c.source_deleted_at.is_(None),
        )
        query = (
            sa.select(*(value.label(name) for name, value in columns.items()))
            .join_from(found, chains, exactly(chains.c.token_id, found.c.token_id))
            .outerjoin(
                databases,
                sa.and_(*same_database(databases, chains)),
            )
            .where(
                chains.c.token_kind == found.c.token_kind,
                chains.c.source_deleted_at.is_(None),
                sa.not_(has_row),
            )
        )
        return sa.insert(evidence).from_select(list(columns), query)


RULE: Final = _SpentCopy(
    code="spent_copy",
    severity="error",
    says="a node's row lets a DID spend a token that this DID has spent already",
    means="One of three things shows it. The row's own last transaction is a transfer that its "
    "DID sent. Or another row of the token came by such a transfer: the row's database has never "
    "heard of it, or a node that took part in both that transfer and the one by which the row "
    "came has noted the transfer as the later one. Or another node's chain of the token is "
    "longer than the chain beside the row, and its latest block transfers the token to another "
    "owner or burns it. It proves that the row is older than the transfer, as far as histories "
    "and chains are true. It does not prove who kept the copy, nor that anybody has used it. "
    "Only whole, part and fungible tokens are compared; chains are read only with --chains.",
    cause="a node was restored from a backup made before a transfer, a copy of a node runs, a "
    "row was set back to Free, or a transfer ended on one side only",
    cure="Do not spend from the node with the older row. Look at the latest block of the token's "
    "chain at its quorum; mark the row as transferred on its node, and sync it again.",
    compares_nodes=True,
    blind_to="databases whose chains were not read (--chains), or not all of them",
    statement=_statement,
    blind=without_chains,
)
