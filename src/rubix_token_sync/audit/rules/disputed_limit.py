"""A token that is genuine for some sources and out of range for others."""

from __future__ import annotations

from typing import Any, Final

import sqlalchemy as sa

from rubix_token_sync.audit.holders import tokens_with_verdict, undecided
from rubix_token_sync.audit.rule import StatementRule
from rubix_token_sync.targets.sql.tables import Tables

__all__ = ["RULE"]


def _statement(tables: Tables) -> sa.Select[Any]:
    return tokens_with_verdict(tables, "disputed")


RULE: Final = StatementRule(
    code="disputed_limit",
    severity="info",
    says="the sources disagree on whether the number is allowed",
    means="Software, services and documents give different limits; by some of them the token is "
    "genuine. The finding proves no more than that. The setting limits_source chooses whose "
    "limit decides.",
    cause="the number lies between two sources' limits, is 0 or the limit itself, or the content "
    "has an old form (two digits, a newline)",
    cure="Nothing, or choose the source that decides (setting limits_source).",
    compares_nodes=False,
    blind_to="records whose content could not be read",
    statement=_statement,
    blind=undecided,
)
