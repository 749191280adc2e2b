"""How SQLite finds what statements ask for: a test of speed that no clock decides."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import sqlalchemy as sa

__all__ = ["plans_of"]


@contextlib.contextmanager
def plans_of(engine: sa.Engine) -> Iterator[list[str]]:
    """The steps of the plan of every SELECT inside, once that has ended."""
    assert engine.dialect.name == "sqlite"
    asked: list[tuple[str, Any]] = []
    steps: list[str] = []

    def note(
        _conn: Any, _cursor: Any, statement: str, parameters: Any, _context: Any, _many: bool
    ) -> None:
        if statement.lstrip().upper().startswith(("SELECT", "WITH")):
            asked.append((statement, parameters))

    sa.event.listen(engine, "before_cursor_execute", note)
    try:
        yield steps
    finally:
        sa.event.remove(engine, "before_cursor_execute", note)
    with engine.connect().execution_options(reading=True) as conn:
        for statement, parameters in asked:
            plan = conn.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", parameters)
            steps += [str(row[3]) for row in plan]
