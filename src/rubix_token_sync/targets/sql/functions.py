"""Functions that databases have under different names; a target's folder registers its own form."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import FunctionElement

__all__ = ["before_colon"]


class before_colon(FunctionElement[str]):  # noqa: N801 - named as functions are in SQL
    """What stands before the first colon of a text; a text without one as it is."""

    type = sa.Unicode()
    name = "before_colon"
    inherit_cache = True


@compiles(before_colon)
def _(element: before_colon, compiler: Any, **options: Any) -> str:
    text = compiler.process(element.clauses, **options)
    # No place of a colon is NULL, and so is what stands before it.
    return f"coalesce(substr({text}, 1, nullif(instr({text}, ':'), 0) - 1), {text})"
