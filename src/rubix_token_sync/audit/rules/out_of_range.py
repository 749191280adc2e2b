"""The token's number is beyond its level's limit."""

from __future__ import annotations

from typing import Any, Final

import sqlalchemy as sa

from rubix_token_sync.audit.holders import tokens_with_verdict, undecided
from rubix_token_sync.audit.rule import StatementRule
from rubix_token_sync.targets.sql.tables import Tables

__all__ = ["RULE"]


def _statement(tables: Tables) -> sa.Select[Any]:
    return tokens_with_verdict(tables, "out_of_range")


RULE: Final = StatementRule(
    code="out_of_range",
    severity="error",
    says="the token's number is beyond the limit of its level",
    means="The content hashes to the id and decodes to a level and a number, but no known limit "
    "allows this number: such a token should never have been minted. The evidence names the "
    "level, the number and the source whose limit decided.",
    cause="a token that was fabricated in the right form, or a limits file that is older than the "
    "network",
    cure="Compare the level's limit in the limits file with its source; then take the token up "
    "with whoever paid with it.",
    compares_nodes=False,
    blind_to="records whose content could not be read",
    statement=_statement,
    blind=undecided,
)
