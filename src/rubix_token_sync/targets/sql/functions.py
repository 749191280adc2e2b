"""Functions that databases have under different names; a target's folder registers its own form."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import FunctionElement

__all__ = ["before_colon", "cased", "exactly", "number_of"]


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


class number_of(FunctionElement[float]):  # noqa: N801
    """The number that a text of digits (with or without a fraction) stands for; else NULL.

    Never an error: texts come from nodes.  No sign, no exponent, at most 25 characters.
    """

    type = sa.Float(53)
    name = "number_of"
    inherit_cache = True


@compiles(number_of)
def _(element: number_of, compiler: Any, **options: Any) -> str:
    text = compiler.process(element.clauses, **options)
    return (
        f"CASE WHEN {text} GLOB '[0-9]*' AND {text} NOT GLOB '*[^0-9.]*'"
        f" AND {text} NOT GLOB '*.*.*' AND length({text}) <= 25 THEN CAST({text} AS REAL) END"
    )


class cased(FunctionElement[str]):  # noqa: N801
    """A text whose letter case counts, whatever the collation says."""

    type = sa.Unicode()
    name = "cased"
    inherit_cache = True


@compiles(cased)
def _(element: cased, compiler: Any, **options: Any) -> str:
    return str(compiler.process(element.clauses, **options))


def exactly(first: sa.ColumnElement[Any], second: sa.ColumnElement[Any]) -> sa.ColumnElement[bool]:
    """Two texts are equal, letter case included.

    The plain comparison stands beside it, so that an index is used.
    """
    return sa.and_(first == second, cased(first) == cased(second))
