"""The parts of a token are worth more than the token was."""

from __future__ import annotations

from typing import Any, Final

import sqlalchemy as sa

from rubix_token_sync.audit.families import TOLERANCE, difference_weight, family, split_tokens
from rubix_token_sync.audit.rule import StatementRule
from rubix_token_sync.targets.sql.tables import Tables

__all__ = ["RULE"]


def _statement(tables: Tables) -> sa.CompoundSelect[Any]:
    split = split_tokens(tables)
    excess = split.c.parts_value - split.c.own_value
    tokens = sa.select(
        split.c.token_key,
        split.c.token_kind,
        split.c.token_id,
        difference_weight(excess).label("weight"),
    ).where(excess > TOLERANCE)
    return family(tables, tokens)


RULE: Final = StatementRule(
    code="parts_exceed_parent",
    severity="error",
    says="the parts of a token are worth more than the token was",
    means="A split is exact: the values of all parts add up to the parent's value (1.0 for a whole "
    "token). Each part counts once, however many nodes have a row for it; parts whose value "
    "cannot be read count as nothing. More than the parent's value is therefore in "
    "circulation. The parent's own row must be in the target.",
    cause="a part was fabricated, a value was changed, or a token was split twice, for example on "
    "a node and on its restored backup",
    cure="Compare each part's value with its content (keys 13.3 and 2 of the CBOR) and the "
    "parent's chain; the evidence lists all parts with their holders.",
    compares_nodes=True,
    statement=_statement,
)
