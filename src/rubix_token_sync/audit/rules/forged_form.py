"""A content of a whole token's form that no number gives."""

from __future__ import annotations

from typing import Any, Final

import sqlalchemy as sa

from rubix_token_sync.audit.holders import tokens_with_verdict, undecided
from rubix_token_sync.audit.rule import StatementRule
from rubix_token_sync.targets.sql.tables import Tables

__all__ = ["RULE"]


def _statement(tables: Tables) -> sa.Select[Any]:
    return tokens_with_verdict(tables, "forged_form")


RULE: Final = StatementRule(
    code="forged_form",
    severity="error",
    says="the content has the right form, but does not encode any number",
    means="The id is the hash of a content of the right form, but its 64 hexadecimal characters "
    "are not the hash of any number that a level allows. The network itself checks less than that.",
    cause="a fabricated token",
    cure="Do not accept the token; take it up with whoever paid with it.",
    compares_nodes=False,
    blind_to="records whose content could not be read",
    statement=_statement,
    blind=undecided,
)
