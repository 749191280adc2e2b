"""A content of a whole token's form that no number gives."""

from __future__ import annotations

from typing import Any, Final

import sqlalchemy as sa

from rubix_token_sync.audit.holders import tokens_with_verdict
from rubix_token_sync.audit.rule import StatementRule
from rubix_token_sync.targets.sql.tables import Tables

__all__ = ["RULE"]


def _statement(tables: Tables) -> sa.Select[Any]:
    return tokens_with_verdict(tables, "forged_form")


RULE: Final = StatementRule(
    code="forged_form",
    severity="error",
    says="the content has the right form, and no number gives it",
    means="The id is the hash of a content of the right shape, but its 64 hexadecimal characters "
    "are the hash of no number that any level allows. The network itself checks less than "
    "that.",
    cause="a token that was made up",
    cure="Do not accept the token; take it up with whoever paid with it.",
    compares_nodes=False,
    statement=_statement,
)
