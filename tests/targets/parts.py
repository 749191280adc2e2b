"""The classes that a target is put together of."""

from __future__ import annotations

from rubix_token_sync.targets.sql.publishing import Publishing
from rubix_token_sync.targets.sql.questions import Questions
from rubix_token_sync.targets.sql.schema import Schema
from rubix_token_sync.targets.sql.sessions import Sessions
from rubix_token_sync.targets.sql.target import SqlTarget

__all__ = ["part_with"]


def part_with(method: str) -> type:
    """The class in which a test replaces a method of a target."""
    classes = (SqlTarget, Schema, Sessions, Questions, Publishing)
    return next(part for part in classes if hasattr(part, method))
