"""Two ids that stand for one level and number."""

from __future__ import annotations

from typing import Any, Final

import sqlalchemy as sa

from rubix_token_sync.audit.rule import StatementRule, finding_in, token_key
from rubix_token_sync.records.kinds import RBT
from rubix_token_sync.targets.sql.functions import cased
from rubix_token_sync.targets.sql.tables import Tables

__all__ = ["RULE"]


def _numbered(records: sa.FromClause) -> list[sa.ColumnElement[bool]]:
    return [
        records.c.source_deleted_at.is_(None),
        records.c.token_id.is_not(None),
        records.c.token_kind == RBT.name,
        records.c.token_level.is_not(None),
        records.c.token_number.is_not(None),
    ]


def _statement(tables: Tables) -> sa.Select[Any]:
    rows, one, other = (tables.records.alias(name) for name in ("numbered", "one", "other"))
    token_id = cased(rows.c.token_id)
    twins = (
        sa.select(rows.c.token_level, rows.c.token_number)
        .where(*_numbered(rows))
        .group_by(rows.c.token_level, rows.c.token_number)
        .having(sa.func.min(token_id) != sa.func.max(token_id))
        .subquery("twins")
    )
    # Each of the ids has its finding, and each finding shows all of them.
    tokens = (
        sa.select(
            token_key(one).label("token_key"),
            sa.func.min(one.c.token_kind).label("token_kind"),
            sa.func.min(one.c.token_id).label("token_id"),
            twins.c.token_level,
            twins.c.token_number,
            sa.literal(1, sa.BigInteger()).label("weight"),
        )
        .join_from(
            twins,
            one,
            sa.and_(
                one.c.token_level == twins.c.token_level,
                one.c.token_number == twins.c.token_number,
            ),
        )
        .where(*_numbered(one))
        .group_by(token_key(one), twins.c.token_level, twins.c.token_number)
        .subquery("tokens")
    )
    return sa.select(*finding_in(tokens, other, "twin")).where(
        other.c.token_level == tokens.c.token_level,
        other.c.token_number == tokens.c.token_number,
        *_numbered(other),
    )


RULE: Final = StatementRule(
    code="same_number_twice",
    severity="error",
    says="two token ids stand for one level and number",
    means="Each number of a level is one token. Old software wrote the level with two digits, and "
    "a newline may follow the content: each form has an id of its own, and both decode to the "
    "same level and number. Only one of them should have been minted; this rule does not show "
    "which.",
    cause="a number was minted again by other software, or somebody created the second form",
    cure="Compare the first blocks of both tokens' chains; the earlier one is the token.",
    compares_nodes=False,
    statement=_statement,
)
