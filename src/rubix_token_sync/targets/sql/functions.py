"""Functions that databases have under different names; a target's folder registers its own form."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import FunctionElement

__all__ = [
    "before_colon",
    "beginning",
    "cased",
    "exactly",
    "last_of",
    "number_of",
    "rarely",
    "same_database",
    "sorted_late",
    "unindexed",
]


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


class beginning(FunctionElement[str]):  # noqa: N801
    """The first characters of a text; the second argument says how many."""

    type = sa.Unicode()
    name = "beginning"
    inherit_cache = True


@compiles(beginning)
def _(element: beginning, compiler: Any, **options: Any) -> str:
    text, length = (compiler.process(part, **options) for part in element.clauses)
    return f"substr({text}, 1, {length})"


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


# SQLite's statistics know how many values a column has, not how rare each of them is, and nothing
# of a range.  Where that leads through the wrong index, these two say what it cannot know; other
# databases know it.


class rarely(FunctionElement[Any]):  # noqa: N801
    """A condition that few rows fulfil."""

    type = sa.Integer()  # of a Boolean, SQLAlchemy would ask SQLite whether it is 1
    name = "rarely"
    inherit_cache = True


@compiles(rarely)
def _(element: rarely, compiler: Any, **options: Any) -> str:
    return str(compiler.process(element.clauses, **options))


@compiles(rarely, "sqlite")
def _(element: rarely, compiler: Any, **options: Any) -> str:
    return f"likelihood({compiler.process(element.clauses, **options)}, 0.001)"


class unindexed(FunctionElement[Any]):  # noqa: N801
    """A column, for the order or range of which its index is not to be gone through."""

    type: sa.types.TypeEngine[Any] = sa.types.NullType()
    name = "unindexed"
    inherit_cache = True

    def __init__(self, column: sa.ColumnElement[Any]) -> None:
        super().__init__(column)
        self.type = column.type


@compiles(unindexed)
def _(element: unindexed, compiler: Any, **options: Any) -> str:
    return str(compiler.process(element.clauses, **options))


@compiles(unindexed, "sqlite")
def _(element: unindexed, compiler: Any, **options: Any) -> str:
    return f"+{compiler.process(element.clauses, **options)}"


class sorted_late(FunctionElement[int]):  # noqa: N801
    """A number to put rows into order by, after they were found by something else.

    PostgreSQL takes it that what is looked for lies everywhere alike in that order, and goes
    along it until the page is full; what came at once lies together, perhaps at the end.
    """

    type = sa.BigInteger()
    name = "sorted_late"
    inherit_cache = True


@compiles(sorted_late)
def _(element: sorted_late, compiler: Any, **options: Any) -> str:
    return str(compiler.process(element.clauses, **options))


@compiles(sorted_late, "postgresql")
def _(element: sorted_late, compiler: Any, **options: Any) -> str:
    return f"({compiler.process(element.clauses, **options)} + 0)"


def exactly(first: sa.ColumnElement[Any], second: sa.ColumnElement[Any]) -> sa.ColumnElement[bool]:
    """Two texts are equal, letter case included.

    The plain comparison stands beside it, so that an index is used.
    """
    return sa.and_(first == second, cased(first) == cased(second))


def same_database(one: sa.FromClause, other: sa.FromClause) -> list[sa.ColumnElement[bool]]:
    """Where rows of two tables are of one database of a node: paths differ by case alone, too."""
    return [
        exactly(one.c.source_ip, other.c.source_ip),
        exactly(one.c.db_path, other.c.db_path),
    ]


def last_of(conn: sa.Connection, start: str) -> str:
    """A text behind all that begin with ``start``, by the order of the database.

    SQLite compares code points, whatever texts are made of; elsewhere, by a collation, this holds
    of texts of letters and digits.
    """
    return start + ("\U0010ffff" if conn.dialect.name == "sqlite" else "z" * 70)
