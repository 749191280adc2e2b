"""Properties: any values come back as SQLite has them; any damage is survived."""

from __future__ import annotations

import sqlite3
import tempfile
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import rubix_token_sync.nodes.database_files as files_module
from rubix_token_sync.errors import SourceError
from rubix_token_sync.nodes.database_errors import REMEDIES
from rubix_token_sync.nodes.snapshot import open_snapshot
from rubix_token_sync.records.schema import SOURCE_COLUMNS

from .databases import GORM, everything, fill, tree

VALUES = st.one_of(
    st.none(),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(allow_nan=False),
    st.text(max_size=40),
    st.binary(max_size=40),
)


def typed(rows: list[tuple[object, ...]]) -> list[tuple[tuple[type, object], ...]]:
    return [tuple((type(value), value) for value in row) for row in rows]


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rows=st.lists(st.tuples(*[VALUES] * len(SOURCE_COLUMNS)), max_size=30),
    mode=st.sampled_from(["delete", "wal"]),
    size=st.integers(1, 40),
)
def test_rows_are_what_sqlite_says(rows: list[tuple[object, ...]], mode: str, size: int) -> None:
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "rubix.db"
        node = sqlite3.connect(path, isolation_level=None)
        node.execute(f"PRAGMA journal_mode={mode}")
        node.execute("PRAGMA synchronous=OFF")
        node.execute(f"CREATE TABLE TokensTable ({', '.join(SOURCE_COLUMNS)})")
        marks = ", ".join("?" * len(SOURCE_COLUMNS))
        node.executemany(f"INSERT INTO TokensTable VALUES ({marks})", rows)
        truth = node.execute("SELECT * FROM TokensTable ORDER BY rowid").fetchall()
        before = tree(Path(directory))
        with open_snapshot(str(path)) as snapshot:
            assert typed(everything(snapshot, size)) == typed(truth)
            assert snapshot.count == len(rows)
        assert tree(Path(directory)) == before
        node.close()


def _clean() -> bytes:
    with tempfile.TemporaryDirectory() as directory:
        return fill(Path(directory) / "rubix.db", 120, schema=GORM).read_bytes()


CLEAN = _clean()
DAMAGE = st.lists(
    st.tuples(st.integers(0, len(CLEAN) - 1), st.binary(min_size=1, max_size=12)), max_size=8
)


@settings(max_examples=150)
@given(damage=DAMAGE, keep=st.one_of(st.none(), st.integers(0, len(CLEAN))))
def test_damage_is_an_error_of_that_database(
    damage: list[tuple[int, bytes]], keep: int | None
) -> None:
    data = bytearray(CLEAN)
    for at, junk in damage:
        data[at : at + len(junk)] = junk
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "node" / "rubix.db"
        path.parent.mkdir()
        path.write_bytes(bytes(data[:keep]))
        before = tree(path.parent)
        tick, files_module._TICK_NS = files_module._TICK_NS, 0  # nobody writes: no wait
        try:
            code = _read(path)
        finally:
            files_module._TICK_NS = tick
        assert code in REMEDIES or code == ""
        assert tree(path.parent) == before


def _read(path: Path) -> str:
    try:
        with open_snapshot(str(path), busy_s=0) as snapshot:
            assert len(everything(snapshot)) == snapshot.count
    except SourceError as error:
        return error.code
    return ""
