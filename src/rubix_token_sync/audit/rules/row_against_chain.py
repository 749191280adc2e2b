"""A node's row says something else than the token's latest block on the same node."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import sqlalchemy as sa

from rubix_token_sync.audit.holders import all_holders, chain_of, tokens_where, without_chains
from rubix_token_sync.audit.rule import StatementRule, held_by_nodes
from rubix_token_sync.records.companions import CHAINS
from rubix_token_sync.records.kinds import RBT, kind_of
from rubix_token_sync.targets.sql.functions import exactly
from rubix_token_sync.targets.sql.tables import Tables

__all__ = ["LATEST", "RULE", "Latest"]

_KINDS: Final = (RBT.name, kind_of("ft").name)
"""Of the others the latest block says less."""


@dataclass(frozen=True)
class Latest:
    """What the latest block of a token with one status is, on every node that was looked at."""

    types: tuple[str, ...]
    own: bool | None
    """Its owner is the row's DID; is another one; either."""


LATEST: Final[Mapping[str, Latest]] = {
    "0": Latest(("02", "03", "05", "06"), own=True),
    "2": Latest(("04",), own=True),
    "4": Latest(("02",), own=False),
    "5": Latest(("11",), own=True),
    "9": Latest(("08",), own=None),
    "16": Latest(("13",), own=True),
}
"""Status → latest block: transferred 02, migrated 03, pledged 04, generated 05, unpledged 06,
burnt 08, committed to a contract 11, burnt for FT 13.  Others say nothing."""


def _statement(tables: Tables) -> sa.Select[Any]:
    rows, chains = tables.records.alias("rows"), tables.stored[CHAINS.name].table
    types, owner = chains.c.latest_block_type, chains.c.latest_block_owner
    contradictions = []
    for status, latest in LATEST.items():
        wrong: list[sa.ColumnElement[bool]] = [types.not_in(latest.types)]
        if latest.own is not None:
            same = exactly(owner, rows.c.did)
            wrong.append(sa.not_(same) if latest.own else same)
        contradictions.append(sa.and_(rows.c.token_status == status, sa.or_(*wrong)))
    tokens = tokens_where(
        rows,
        *held_by_nodes(rows),
        rows.c.token_kind.in_(_KINDS),
        *chain_of(rows, chains),
        chains.c.error.is_(None),
        sa.or_(*contradictions),
    )
    return all_holders(tables, tokens)


RULE: Final = StatementRule(
    code="row_against_chain",
    severity="error",
    says="a node's row contradicts the token's latest block",
    means="The row and the latest block are on the same node. The block of a Free token names the "
    "row's DID and is a transfer, a mint, a migration or an unpledging (02, 05, 03, 06); that "
    "of a transferred one (4) names another DID; that of a pledged one (2) is 04, of a burnt "
    "one 08 (9) or 13 (16), of a committed one (5) 11. The chain is what the network agreed "
    "on; the row is what the node spends from. Chains are read only with --chains; a chain "
    "with an error of its own is not compared.",
    cause="the row was edited, the database or the chains were restored from a backup, the node "
    "was killed between writing the two, or the token moved while it was read",
    cure="Trust the chain where its signatures are right; compare it with another holder's chain, "
    "and correct the row on its node.",
    compares_nodes=True,
    blind_to="databases whose chains were not read (--chains), or not all of them",
    statement=_statement,
    blind=without_chains,
)
