"""What the records say of contents: who has a copy, who was asked and does not have it."""

from __future__ import annotations

from typing import Final

import sqlalchemy as sa

from rubix_token_sync.audit.rule import token_key
from rubix_token_sync.ipfs.content import FailureCode
from rubix_token_sync.targets.sql.functions import before_colon, exactly
from rubix_token_sync.targets.sql.tables import Tables

__all__ = ["LACKS", "copies", "damaged", "lacking", "verified_somewhere"]

LACKS: Final = (FailureCode.DAMAGED.value, FailureCode.NOT_IN_REPOSITORY.value)
"""Answers that say that a node does not have the content; all others say that it is unknown."""


def lacking(records: sa.FromClause) -> sa.ColumnElement[bool]:
    """The record's node was asked, and does not have the content."""
    return sa.and_(
        records.c.ipfs_fetched == sa.false(), before_colon(records.c.ipfs_error).in_(LACKS)
    )


def damaged(records: sa.FromClause) -> sa.ColumnElement[bool]:
    """The node has something under that id, and it is not the content."""
    return before_colon(records.c.ipfs_error) == FailureCode.DAMAGED.value


def verified_somewhere(tables: Tables, records: sa.FromClause) -> sa.ColumnElement[bool]:
    """Some live record of the same token has verified content."""
    other = tables.records.alias("verified")
    return sa.exists().where(*_has_copy(other, records))


def copies(tables: Tables, records: sa.FromClause) -> sa.ColumnElement[int]:
    """How many live records of the same token have verified content."""
    other = tables.records.alias("verified")
    return sa.select(sa.func.count()).where(*_has_copy(other, records)).scalar_subquery()


def _has_copy(other: sa.FromClause, records: sa.FromClause) -> list[sa.ColumnElement[bool]]:
    return [
        exactly(other.c.token_id, records.c.token_id),
        token_key(other) == token_key(records),
        other.c.ipfs_fetched == sa.true(),
        other.c.source_deleted_at.is_(None),
    ]
