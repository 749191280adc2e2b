"""Parts are in circulation, and the token that they were split from is, too."""

from __future__ import annotations

from typing import Any, Final

import sqlalchemy as sa

from rubix_token_sync.audit.families import family, parts_of
from rubix_token_sync.audit.rule import OWNING, StatementRule, token_key
from rubix_token_sync.records.kinds import RBT
from rubix_token_sync.targets.sql.functions import exactly
from rubix_token_sync.targets.sql.tables import Tables

__all__ = ["RULE"]

_UNBURNT: Final = (*OWNING, "15", "16")
"""Not 4: who sent the whole token away does not hear that its receiver split it."""


def _statement(tables: Tables) -> sa.CompoundSelect[Any]:
    part, parent = tables.records.alias("part"), tables.records.alias("parent")
    key: sa.ColumnElement[Any] = token_key(parent).label("token_key")
    tokens = (
        sa.select(
            key,
            sa.func.min(parent.c.token_kind).label("token_kind"),
            sa.func.min(parent.c.token_id).label("token_id"),
            sa.func.count(sa.distinct(part.c.token_id)).label("weight"),
        )
        .join_from(part, parent, exactly(parent.c.token_id, part.c.parent_token_id))
        .where(
            *parts_of(part),
            parent.c.source_deleted_at.is_(None),
            parent.c.token_kind == RBT.name,
            parent.c.token_status.in_(_UNBURNT),
        )
        .group_by(token_key(parent))
    )
    return family(tables, tokens)


RULE: Final = StatementRule(
    code="parent_not_burnt",
    severity="error",
    says="a token has parts and was not burnt",
    means="Splitting a token burns it (9). A node's row says that the whole token can still be "
    "spent, beside its parts: the same value exists twice. A parent that was transferred (4) "
    "does not count, because its receiver may have split it.",
    cause="the whole or a part belongs to a node that was restored from a backup, or the parts "
    "were created without burning the whole",
    cure="Look at the parent's latest block: type 08 means that it is burnt. Correct the row that "
    "is wrong on its node, and sync that node again.",
    compares_nodes=True,
    statement=_statement,
)
