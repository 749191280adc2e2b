"""Some parts of a burnt token are on none of the nodes."""

from __future__ import annotations

from typing import Any, Final

import sqlalchemy as sa

from rubix_token_sync.audit.families import TOLERANCE, difference_weight, family, split_tokens
from rubix_token_sync.audit.rule import StatementRule
from rubix_token_sync.targets.sql.tables import Tables

__all__ = ["RULE"]


def _statement(tables: Tables) -> sa.CompoundSelect[Any]:
    split = split_tokens(tables)
    missing = split.c.own_value - split.c.parts_value
    tokens = sa.select(
        split.c.token_key,
        split.c.token_kind,
        split.c.token_id,
        difference_weight(missing).label("weight"),
    ).where(missing > TOLERANCE, split.c.burnt > 0, split.c.parts == split.c.valued_parts)
    return family(tables, tokens)


RULE: Final = StatementRule(
    code="parts_missing",
    severity="info",
    says="not all parts of a split token are on the nodes that were read",
    means="The parts that the target knows add up to less than their parent was worth. The rest is "
    "usually held by nodes outside this fleet; the finding proves no more than that.",
    cause="parts were paid to nodes that are not read, or a node was never synced",
    cure="Nothing, unless every node that ever held a part is part of this fleet.",
    compares_nodes=True,
    statement=_statement,
)
