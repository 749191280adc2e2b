"""Whole tokens and the parts that they were split into."""

from __future__ import annotations

from typing import Any, Final

import sqlalchemy as sa

from rubix_token_sync.audit.rule import BURNT, finding_in, token_key
from rubix_token_sync.records.kinds import RBT
from rubix_token_sync.targets.sql.functions import exactly, number_of
from rubix_token_sync.targets.sql.tables import Tables

__all__ = ["TOLERANCE", "difference_weight", "family", "parts_of", "split_tokens"]

TOLERANCE: Final = 0.000_001
"""Values have at most five decimals; sums of binary fractions err far less than this."""

_SPLIT: Final = BURNT[0]
_LARGEST: Final = 9e13
"""Of differences between values: 100,000 times as much is the most that a BIGINT holds."""


def parts_of(records: sa.FromClause) -> list[sa.ColumnElement[bool]]:
    """Records of part tokens that a node has now."""
    return [
        records.c.source_deleted_at.is_(None),
        records.c.token_id.is_not(None),
        records.c.token_kind == RBT.name,
        records.c.parent_token_id != "",
    ]


def split_tokens(tables: Tables) -> sa.Subquery:
    """Tokens with parts: what they were worth, and what their parts are together.

    ``token_key``, ``token_kind``, ``token_id``, ``own_value`` (1.0 where no row says it),
    ``burnt`` (rows with status 9), ``parts``, ``valued_parts`` (those with a value that can be
    read), ``parts_value``.  Each part counts once, with the largest of its rows' values.
    """
    part, parent = tables.records.alias("part"), tables.records.alias("parent")
    each = (
        sa.select(
            part.c.parent_token_id,
            sa.func.max(number_of(part.c.token_value)).label("value"),
        )
        .where(*parts_of(part))
        .group_by(part.c.parent_token_id, token_key(part))
        .subquery("each")
    )
    together = (
        sa.select(
            each.c.parent_token_id,
            sa.func.count().label("parts"),
            sa.func.count(each.c.value).label("valued"),
            sa.func.coalesce(sa.func.sum(each.c.value), 0.0).label("worth"),
        )
        .group_by(each.c.parent_token_id)
        .subquery("together")
    )
    return (
        sa.select(
            token_key(parent).label("token_key"),
            sa.func.min(parent.c.token_kind).label("token_kind"),
            sa.func.min(parent.c.token_id).label("token_id"),
            sa.func.coalesce(sa.func.max(number_of(parent.c.token_value)), 1.0).label("own_value"),
            sa.func.count(sa.case((parent.c.token_status == _SPLIT, 1))).label("burnt"),
            sa.func.max(together.c.parts).label("parts"),
            sa.func.max(together.c.valued).label("valued_parts"),
            sa.func.max(together.c.worth).label("parts_value"),
        )
        .join_from(together, parent, exactly(parent.c.token_id, together.c.parent_token_id))
        .where(parent.c.source_deleted_at.is_(None), parent.c.token_kind == RBT.name)
        .group_by(token_key(parent))
        .subquery("split")
    )


def difference_weight(difference: sa.ColumnElement[Any]) -> sa.ColumnElement[int]:
    """A difference between values as a finding's weight, in their smallest parts.

    Bounded: a node's row may say that a token is worth anything.
    """
    largest = sa.literal(_LARGEST, sa.Float(53))
    bounded = sa.case((difference > largest, largest), else_=difference)
    return sa.cast(bounded * 100_000, sa.BigInteger())


def family(tables: Tables, parents: sa.Select[Any]) -> sa.CompoundSelect[Any]:
    """Every live record of these tokens and of their parts, each in its role."""
    found = parents.cte("parents")
    parent, part = tables.records.alias("whole"), tables.records.alias("split_off")
    return sa.union_all(
        sa.select(*finding_in(found, parent, "parent")).where(
            exactly(parent.c.token_id, found.c.token_id),
            token_key(parent) == found.c.token_key,
            parent.c.source_deleted_at.is_(None),
        ),
        sa.select(*finding_in(found, part, "part")).where(
            exactly(part.c.parent_token_id, found.c.token_id), *parts_of(part)
        ),
    )
