"""How often a command waits for a SQL Server, which may be 60 ms away."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import sqlalchemy as sa

from rubix_token_sync.targets.sql.target import SqlTarget
from rubix_token_sync.testing import FleetPlan, make_fleet
from tests.chaos.door import Door

from .engine import SqliteEngine
from .server import TdsServer

LOGIN = 4
"""TLS takes two of them."""


def test_a_night_without_changes_check_and_status_ask_seldom(
    door: Door, server: TdsServer, address: str, tmp_path: Path
) -> None:
    make_fleet(tmp_path / "fleet", FleetPlan(nodes=4, tokens_per_node=10))
    file = tmp_path / "connection.txt"
    file.write_text(address, encoding="utf-8")
    file.chmod(0o600)

    def turns(*arguments: str) -> int:
        server.turns.clear()
        door.run(*arguments, "--target-file", str(file)).expect(0)
        print(*arguments, len(server.turns), "\n".join(server.turns), sep="\n")
        return len(server.turns)

    turns("sync", str(tmp_path / "fleet"))
    assert turns("sync", str(tmp_path / "fleet")) <= LOGIN + 27
    assert turns("check") <= 2 * LOGIN + 46  # the bulk copy has a login of its own
    assert turns("status") <= LOGIN + 10


def test_a_statement_is_one_message_and_reading_needs_no_transaction(
    server: TdsServer, opened: Callable[..., SqlTarget]
) -> None:
    store = opened()
    runs = store.tables.runs

    def read(conn: sa.Connection) -> None:
        for number in range(3):
            conn.execute(sa.select(runs.c.number).where(runs.c.number == number)).all()

    store.read(read)
    server.turns.clear()
    store.read(read)
    assert [turn.partition(":")[0] for turn in server.turns] == ["call"] * 3
    server.turns.clear()
    store.transact(read)
    kinds = [turn.partition(":")[0] for turn in server.turns]
    assert kinds == ["BEGIN", "call", "call", "call", "COMMIT"]


@pytest.mark.parametrize("alone", [False, True])
def test_statements_that_travel_together_are_counted_each_and_done_all_or_none(
    alone: bool, server: TdsServer, engine: SqliteEngine, opened: Callable[..., SqlTarget]
) -> None:
    store = opened()
    sources = store.tables.sources

    def add(name: str) -> sa.Insert:
        values = {"source_ip": name, "machine": "m", "host": "h", "first_seen_at": store.now}
        return sa.insert(sources).values(**values)

    def together(*statements: sa.Executable) -> list[int]:
        return store.transact(lambda conn: store.backend.together(conn, statements), alone=alone)

    together(add("a"))
    server.turns.clear()
    rename = sa.update(sources).values(host="ü")
    assert together(add("b"), rename, sa.delete(sources).where(sources.c.source_ip == "c")) == [
        1, 2, 0,
    ]  # fmt: skip
    assert len(server.turns) == (1 if alone else 3)
    with pytest.raises(Exception, match="exists already"):
        together(add("d"), add("a"), add("e"))
    names = engine.query("SELECT source_ip, host FROM SyncSources ORDER BY 1")
    assert names == [("a", "ü"), ("b", "ü")]
    assert together(rename) == [2]  # what failed has left nothing behind


def test_more_parameters_than_a_batch_may_have_take_several(
    opened: Callable[..., SqlTarget],
) -> None:
    store = opened()
    runs = store.tables.runs
    some = sa.delete(runs).where(runs.c.number.in_(range(900)))
    assert store.transact(lambda conn: store.backend.together(conn, [some] * 5)) == [0] * 5
