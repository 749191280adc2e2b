"""What a node holds beside its tokens: transactions, pledges, its DIDs, and the tokens' chains.

Each goes into a table of its own in the target, under the contracts of the records: a key of
fixed width, a digest of everything the source says, only changed rows travel, vanished ones
are marked.  A `RecordTable` says what the target's table has and a `CompanionSource` where its
rows come from; both are stated here and nowhere else.

Read from the node software's source (v0.0.20) and seen on real nodes.  Any of the node's
tables, and any of their columns, may be missing.
"""

from __future__ import annotations

import marshal
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from hashlib import blake2b
from typing import Final

from rubix_token_sync.records.schema import (
    RECORD_KEY_BYTES,
    ROW_DIGEST_BYTES,
    Column,
    RecordTable,
    SqliteValue,
)

__all__ = [
    "CHAINS",
    "COMPANIONS",
    "COMPANION_SOURCES",
    "DIDS",
    "HISTORIES",
    "PLEDGES",
    "TRANSACTIONS",
    "CompanionSource",
    "chains_of",
    "companion_key",
]


def _table(name: str, counted_as: str, label: str, *own: Column) -> RecordTable:
    """A table with the columns that every companion has, around its own."""
    return RecordTable(
        (
            Column("source_ip", "text", 45, required=True, by_key=True),
            Column("node_name", "text", 255, required=True),
            Column("db_path", "text", 500, required=True, by_key=True),
            Column("network", "text", 10),
            *own,
            Column("synced_at", "time", default="now", by_target=True),
            Column("validation_errors", "text", compared=True),
            Column("record_key", "bytes", RECORD_KEY_BYTES, required=True, by_key=True),
            Column("row_digest", "bytes", ROW_DIGEST_BYTES, required=True, compared=True),
        ),
        name=name,
        counted_as=counted_as,
        label=label,
    )


TRANSACTIONS: Final = _table(
    "TokenTransactions",
    "transaction_count",
    "transaction_id",
    Column("transaction_id", "text", 500, source=0, by_key=True, indexed=True),
    Column("transaction_type", "text", 50, source=1),
    Column("block_id", "text", 500, source=2),
    Column("mode", "text", 50, source=3),
    Column("sender_did", "text", 1000, source=4),
    Column("receiver_did", "text", 1000, source=5),
    Column("deployer_did", "text", 1000, source=6),
    Column("amount", "text", 50, source=7),
    Column("total_time", "text", 50, source=8),
    Column("comment", "text", 4000, source=9),
    Column("date_time", "time", source=10),
    Column("status", "text", 50, source=11),
    Column("epoch", "text", 50, source=12),
)
"""What a node took part in, as sender, receiver or deployer."""

PLEDGES: Final = _table(
    "TokenPledges",
    "pledge_count",
    "transaction_id",
    # One table for both: each says which tokens a quorum member pledged for a transaction,
    # and has what the other lacks.
    Column("pledge_source", "text", 50, required=True, by_key=True),
    Column("transaction_id", "text", 500, source=0, indexed=True),
    Column("did", "text", 1000, source=1),
    Column("token_state_hash", "text", 500, source=2),
    Column("pledged_tokens", "text", source=3),
    Column("epoch", "text", 50, source=4),
)
"""What a quorum member pledged, and what it may release again."""

DIDS: Final = _table(
    "NodeDids",
    "did_count",
    "did",
    Column("did", "text", 1000, source=0, by_key=True, indexed=True),
    Column("did_type", "text", 50, source=1),
    Column("root_did", "text", 50, source=2),
    # From the DID's directory beside the database; only a key that proves itself.
    Column("public_key", "text", 1024, source=3),
)
"""The DIDs that are a node's own: it holds their keys and can spend what is theirs."""

CHAINS: Final = _table(
    "TokenChains",
    "chain_count",
    "token_id",
    Column("token_id", "text", 500, source=0, by_key=True, indexed=True),
    Column("token_kind", "text", 20, required=True, source=1, by_key=True),
    Column("chain_kind", "text", 50, source=2),
    Column("block_count", "integer", source=3),
    Column("latest_block_number", "integer", source=4),
    Column("latest_block_type", "text", 50, source=5),
    Column("latest_block_type_name", "text", 50, source=6),
    Column("latest_block_owner", "text", 1000, source=7),
    Column("latest_block_hash", "text", 100, source=8),
    Column("latest_block_time", "time", source=9),
    Column("hashes_valid", "flag", required=True, source=10),
    Column("links_valid", "flag", required=True, source=11),
    Column("signatures_checked", "integer", source=12),
    Column("signatures_wrong", "integer", source=13),
    Column("signatures_unchecked", "integer", source=14),
    Column("error", "text", 1000, source=15),
)
"""Where the chain of each token has got to, and whether it is right; only with ``chains``."""

HISTORIES: Final = (TRANSACTIONS, PLEDGES, DIDS)
"""What is read of a node's database, in the moment in which its tokens are."""

COMPANIONS: Final = (*HISTORIES, CHAINS)
"""The companion tables of a target."""


@dataclass(frozen=True)
class CompanionSource:
    """One of a node's tables, and which of its columns stands for which of ours."""

    table: str
    target: RecordTable
    columns: Mapping[str, str]
    """Columns of ``target.source`` → the node's."""
    key: str
    """Of ``columns``: what tells rows apart, the node's primary key."""
    constants: Mapping[str, str] = field(default_factory=dict)
    """Columns of ``target`` that all rows of this table have the same value in."""

    @property
    def name(self) -> str:
        """Its name among the tables that are read of a database."""
        return self.table

    @cached_property
    def wanted(self) -> tuple[str | None, ...]:
        """The node's columns in the order of ``target.source``; None where it has none."""
        return tuple(self.columns.get(name) for name in self.target.source)

    @cached_property
    def key_at(self) -> int:
        """The place of the key in a row."""
        return self.target.source.index(self.key)


COMPANION_SOURCES: Final = (
    CompanionSource(
        "TransactionHistory",
        TRANSACTIONS,
        {name: name for name in TRANSACTIONS.source},
        key="transaction_id",
    ),
    CompanionSource(
        "TokenStateHashTable",
        PLEDGES,
        {
            "transaction_id": "transaction_id",
            "did": "did",
            "token_state_hash": "token_state_hash",
            "pledged_tokens": "pledged_token",
        },
        key="token_state_hash",
        constants={"pledge_source": "TokenStateHashTable"},
    ),
    CompanionSource(
        "UnpledgeSequence",
        PLEDGES,
        {
            "transaction_id": "tx_id",
            "did": "quorum_did",
            "pledged_tokens": "pledge_tokens",
            "epoch": "epoch",
        },
        key="transaction_id",
        constants={"pledge_source": "UnpledgeSequence"},
    ),
    # Not its column config: nobody knows what forks keep there.
    CompanionSource(
        "DIDTable",
        DIDS,
        {"did": "did", "did_type": "type", "root_did": "root_did"},
        key="did",
    ),
)
"""In the order in which they are read."""


def chains_of(kind: str) -> CompanionSource:
    """The chains of one kind of token, which a node keeps in a directory of its own."""
    return CompanionSource(
        f"chains of {kind}", CHAINS, {name: name for name in CHAINS.source}, key="token_id"
    )


def companion_key(database: bytes, table: str, key: SqliteValue, occurrence: int = 0) -> bytes:
    """24 bytes that stand for one row of one of a database's tables.

    ``occurrence`` counts rows whose key is NULL, in row order: they have nothing else to be
    told apart by.
    """
    name = marshal.dumps((table, key, occurrence), 2)
    return database + blake2b(name, digest_size=16, person=b"rubix-companion").digest()
