"""The kinds of token that a node keeps: one description each, the only place to add the next.

Read from the node software's source (v0.0.20) and seen on real nodes.  All tables stand in
one database and any of them, and any of their columns, may be missing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Final

from rubix_token_sync.records.schema import SOURCE_COLUMNS, SqliteValue
from rubix_token_sync.text import counted

__all__ = ["KINDS", "RBT", "TREE_KINDS", "TokenKind", "kind_of", "tokens_by_kind"]


@dataclass(frozen=True)
class TokenKind:
    """One kind of token: its table, and which of the table's columns stands for which of ours."""

    name: str
    """What ``token_kind`` holds."""
    table: str
    columns: Mapping[str, str]
    """Columns of `SOURCE_COLUMNS` → the node's; those that are not named are NULL."""
    attributes: Mapping[str, str] = field(default_factory=dict)
    """Keys of the JSON in ``attributes`` → the node's columns."""
    label: str = ""
    """For people, after the number 1."""
    labels: str = ""
    """After any other; where empty, the same: amounts of RBT and FT have no plural."""
    key: str = "token_id"
    """Of ``columns``: what tells its rows apart."""
    names_trees: bool = False
    """Contents name files or directories of their own, which are proven as well."""

    @cached_property
    def wanted(self) -> tuple[str | None, ...]:
        """The node's columns in the order of a `SourceRow`; None where this kind has none."""
        common = tuple(self.columns.get(name) for name in SOURCE_COLUMNS)
        return common + tuple(self.attributes.values())

    def attributes_of(self, row: tuple[SqliteValue, ...]) -> dict[str, SqliteValue]:
        """What only this kind has, of one row; without what is NULL or empty."""
        own = zip(self.attributes, row[len(SOURCE_COLUMNS) :], strict=True)
        return {name: value for name, value in own if value is not None and value != ""}


def _same(*names: str) -> dict[str, str]:
    return {name: name for name in names}


RBT: Final = TokenKind(
    "rbt",
    "TokensTable",
    _same(*SOURCE_COLUMNS),
    label="RBT",
)
KINDS: Final = (
    RBT,
    TokenKind(
        "ft",
        "FTTokenTable",
        {
            **_same(
                "token_id", "token_status", "token_value", "token_state_hash", "transaction_id"
            ),
            "did": "owner_did",
        },
        _same("ft_name", "creator_did"),
        label="FT",
    ),
    TokenKind(
        "nft",
        "NFTTokensTable",
        _same("token_id", "did", "token_status", "token_value"),
        label="NFT",
        labels="NFTs",
        names_trees=True,
    ),
    TokenKind(
        "data",
        "DataTokensTable",
        _same("token_id", "did", "token_status"),
        {"batch_id": "batch_id", "committer_did": "commiter_did"},
        label="data token",
        labels="data tokens",
    ),
    TokenKind(
        "contract",
        "smartcontract",
        {"token_id": "smart_contract_hash", "did": "deployer", "token_status": "contract_status"},
        _same("binary_code_hash", "raw_code_hash", "schema_code_hash"),
        label="contract",
        labels="contracts",
        names_trees=True,
    ),
)
"""In the order in which they are read."""

TREE_KINDS: Final = tuple(kind.name for kind in KINDS if kind.names_trees)


def tokens_by_kind(counts: Mapping[str, int]) -> str:
    """For people: '371 RBT, 2 contracts'; '0 tokens' where there are none."""
    present = [(kind, counts[kind.name]) for kind in KINDS if counts.get(kind.name)]
    said = [counted(n, kind.label, kind.labels or kind.label) for kind, n in present]
    return ", ".join(said) or "0 tokens"


_BY_NAME: Final = {kind.name: kind for kind in KINDS}


def kind_of(name: str) -> TokenKind:
    """The kind of this name.

    Raises:
        KeyError: there is none.
    """
    return _BY_NAME[name]
