"""Codes: what stands before the first colon of an error's text."""

from __future__ import annotations

import sqlalchemy as sa

from rubix_token_sync.targets.sql.functions import before_colon

__all__ = ["code_of"]


def code_of(column: sa.ColumnElement[str]) -> sa.ColumnElement[str]:
    """What stands before the first colon; a text without one as it is."""
    return before_colon(column)
