"""Fleets for audits: rows of nodes as a sync would have left them, put in by hand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa

from rubix_token_sync.records.companions import CHAINS, DIDS, TRANSACTIONS, companion_key
from rubix_token_sync.records.schema import database_key, record_key
from rubix_token_sync.targets.sql.tables import Tables

__all__ = ["BEGAN", "Row", "Sent", "insert", "node_path", "put_database"]

BEGAN = datetime(2026, 1, 1)


@dataclass(frozen=True)
class Sent:
    """A transfer in a node's TransactionHistory."""

    transaction: str
    sender: str
    receiver: str
    day: int
    status: str = "1"


@dataclass(frozen=True)
class Row:
    """One record: what the rules look at."""

    node: str
    token_id: str
    token_status: str | None = "0"
    did: str | None = "bafyowner"
    kind: str = "rbt"
    parent: str | None = ""
    value: str | None = "1.0"
    fetched: bool = True
    error: str | None = None
    verdict: str | None = None
    level: int | None = None
    number: int | None = None
    gone: bool = False
    source: str = "vm1"
    block: str | None = None
    """Type of the latest block of its chain on the node; None: there is no chain."""
    block_owner: str | None = None
    chain_error: str | None = None
    block_number: int | None = 1
    content: str = "content"
    owns: str | None = None
    """A DID that is one of the node's own."""
    key: str | None = None
    """The public key of that DID."""
    transaction: str | None = None
    """By which the row came, or was sent away."""
    history: tuple[Sent, ...] = ()
    """Transfers that the node has noted."""

    def but(self, **changes: Any) -> Row:
        """The same with other values."""
        return replace(self, **changes)


def node_path(node: str) -> str:
    return f"/mnt/{node}/Rubix/rubix.db"


def _values(row: Row) -> dict[str, Any]:
    path = node_path(row.node)
    key = record_key(database_key(row.source, path), row.token_id, kind=row.kind)
    return {
        "source_ip": row.source,
        "node_name": row.node,
        "db_path": path,
        "db_last_modified": BEGAN,
        "synced_at": BEGAN,
        "record_key": key,
        "row_digest": b"\x01" * 16,
        "token_id": row.token_id,
        "token_kind": row.kind,
        "token_status": row.token_status,
        "transaction_id": row.transaction,
        "did": row.did,
        "parent_token_id": row.parent,
        "token_value": row.value,
        "ipfs_fetched": row.fetched,
        "ipfs_data": row.content if row.fetched else None,
        "ipfs_error": row.error,
        "verdict": row.verdict,
        "token_level": row.level,
        "token_number": row.number,
        "source_deleted_at": BEGAN if row.gone else None,
    }


def _chain(row: Row) -> dict[str, Any]:
    path = node_path(row.node)
    database = database_key(row.source, path)
    return {
        "source_ip": row.source,
        "node_name": row.node,
        "db_path": path,
        "token_id": row.token_id,
        "token_kind": row.kind,
        "latest_block_number": row.block_number,
        "latest_block_type": row.block,
        "latest_block_owner": row.block_owner,
        "hashes_valid": True,
        "links_valid": True,
        "error": row.chain_error,
        "record_key": companion_key(database, f"chains of {row.kind}", row.token_id),
        "row_digest": b"\x01" * 16,
    }


def _beside(row: Row, table: str, key: str | None, **own: Any) -> dict[str, Any]:
    """A row of a companion table; a node's rows with one key are one."""
    path = node_path(row.node)
    return {
        "source_ip": row.source,
        "node_name": row.node,
        "db_path": path,
        "record_key": companion_key(database_key(row.source, path), table, key),
        "row_digest": b"\x01" * 16,
        **own,
    }


def insert(conn: sa.Connection, tables: Tables, rows: Sequence[Row]) -> None:
    """Put rows in; one for each node and token."""
    if rows:
        conn.execute(sa.insert(tables.records), [_values(row) for row in rows])
    beside: dict[str, dict[bytes, dict[str, Any]]] = {DIDS.name: {}, TRANSACTIONS.name: {}}
    for row in rows:
        owned = (
            [_beside(row, "DIDTable", row.owns, did=row.owns, public_key=row.key)]
            if row.owns
            else []
        )
        noted = [
            _beside(
                row,
                "TransactionHistory",
                sent.transaction,
                transaction_id=sent.transaction,
                transaction_type="02",
                sender_did=sent.sender,
                receiver_did=sent.receiver,
                status=sent.status,
                date_time=BEGAN + timedelta(days=sent.day),
            )
            for sent in row.history
        ]
        for name, found in ((DIDS.name, owned), (TRANSACTIONS.name, noted)):
            beside[name] |= {one["record_key"]: one for one in found}
    for name, found_rows in beside.items():
        if found_rows:
            conn.execute(sa.insert(tables.stored[name].table), list(found_rows.values()))
    chained = [row for row in rows if row.block is not None]
    if chained:
        table = tables.stored[CHAINS.name].table
        conn.execute(sa.insert(table), [_chain(row) for row in chained])


def put_database(
    conn: sa.Connection, tables: Tables, node: str, read_at: datetime, source: str = "vm1"
) -> None:
    """The node's database was read (or found unchanged) at this time."""
    databases = tables.databases
    key = database_key(source, node_path(node))
    done = conn.execute(
        sa.update(databases).where(databases.c.database_key == key).values(last_seen_at=read_at)
    )
    if done.rowcount == 0:
        conn.execute(
            sa.insert(databases).values(
                database_key=key,
                db_path=node_path(node),
                source_ip=source,
                node_name=node,
                last_modified=BEGAN,
                last_processed=read_at - timedelta(days=1),
                last_seen_at=read_at,
                record_count=1,
            )
        )
