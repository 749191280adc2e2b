"""Nodes that wish the reader ill: databases, ids and blocks made by chance from a seed."""

from __future__ import annotations

import contextlib
import os
import random
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from rubix_token_sync.testing import FleetPlan, create_database, make_fleet, write_block

__all__ = ["make_hostile_fleet"]

_TOKENS: Final = 40
_NASTY: Final = (
    "", " ", "..", "../../../../etc/passwd", "/etc/passwd", "--help", "-", "Qm", "\x00", "a\x00b",
    "\ud800", "Q'; DROP TABLE TokenRecords;--", "%s%n", "\u202e", "🚀" * 100, "z" * 5_000,
    "Qm" + "1" * 44, "b" + "a" * 58, "bafy" + "2" * 55, "m" + "A" * 100, "\n\r\t\x1b[31m", "NULL",
    "https://127.0.0.1:9/x", "ipfs://Qm", "../" * 200 + "x", "b" * 10, "QmÄ", "f0155" + "00" * 32,
)  # fmt: skip


def _value(chance: random.Random) -> Any:
    kind = chance.randrange(9)
    if kind == 0:
        return None
    if kind == 1:
        return chance.choice((0, -1, 2**63 - 1, -(2**63), 2302, 16, 17))
    if kind == 2:
        return chance.choice((0.0, -0.0, 1e308, 5e-324, float("inf"), 0.1, 1.0, 1e16))
    if kind == 3:
        return chance.randbytes(chance.choice((0, 1, 16, 300)))
    if kind == 4:
        return "".join(chr(chance.randrange(1, 0x250)) for _ in range(chance.randrange(60)))
    return chance.choice(_NASTY).encode("utf-8", "surrogatepass").decode("utf-8", "replace")


def _rows(chance: random.Random, count: int) -> list[tuple[Any, ...]]:
    return [tuple(_value(chance) for _ in range(8)) for _ in range(count)]


def _hostile_rows(path: Path, chance: random.Random) -> None:
    """Odd values of every type in every column, in a table without a key."""
    columns = "token_id, parent_token_id, token_value, did, token_status, created_at, updated_at, x"
    with contextlib.closing(sqlite3.connect(path)) as db, db:
        db.execute(f"CREATE TABLE TokensTable ({columns})")
        db.executemany(
            "INSERT INTO TokensTable VALUES (?, ?, ?, ?, ?, ?, ?, ?)", _rows(chance, _TOKENS)
        )
        # Text that is no UTF-8 gets in by a cast only.
        db.execute(
            "INSERT INTO TokensTable (token_id, did) VALUES (CAST(? AS TEXT), CAST(? AS TEXT))",
            (chance.randbytes(20), chance.randbytes(5)),
        )


_SCHEMAS: Final = (
    "CREATE VIEW TokensTable AS WITH RECURSIVE n(i) AS (VALUES(1) UNION ALL SELECT i + 1 FROM n)"
    " SELECT i AS token_id FROM n",
    "CREATE TABLE t (token_id); CREATE VIEW TokensTable AS SELECT * FROM t, t AS b, t AS c",
    "CREATE TABLE TokensTable (token_id TEXT PRIMARY KEY, did TEXT) WITHOUT ROWID;"
    " INSERT INTO TokensTable VALUES ('a', 'b'), ('c', NULL)",
    "CREATE TABLE TokensTable (token_id, token_value AS (hex(randomblob(9000000))) VIRTUAL);"
    " INSERT INTO TokensTable (token_id) VALUES ('a'), ('b')",
    "CREATE TABLE TokensTable (token_id, did DEFAULT (load_extension('x')));"
    " CREATE TRIGGER t AFTER INSERT ON TokensTable BEGIN DELETE FROM TokensTable; END",
    "CREATE VIRTUAL TABLE TokensTable USING fts5(token_id, did);"
    " INSERT INTO TokensTable VALUES ('a', 'b')",
    "CREATE TABLE `tokenstable` (`Token_ID` TEXT, `TOKEN_STATUS` INTEGER);"
    " INSERT INTO tokenstable VALUES ('a', 1)",
    "CREATE TABLE TokensTable (token_id TEXT COLLATE NOCASE UNIQUE);"
    " INSERT INTO TokensTable VALUES ('Ab'), ('b'), (NULL), (NULL)",
    "CREATE TABLE TokensTable (rowid TEXT, token_id TEXT); INSERT INTO TokensTable VALUES (1, 2)",
    "CREATE TABLE TokensTable (x)",
)


def _hostile_schema(path: Path, chance: random.Random) -> None:
    """Something named TokensTable that is not what a node makes."""
    with (
        contextlib.closing(sqlite3.connect(path)) as db,
        contextlib.suppress(sqlite3.OperationalError),  # not every build has every module
    ):
        db.executescript(chance.choice(_SCHEMAS))


def _torn(path: Path, chance: random.Random) -> None:
    """A sound database, then bytes changed, pages swapped or the end cut off."""
    rows = [
        (f"token {n} " + "x" * 60, "", 1.0, "did", n % 17, "", "", 0) for n in range(_TOKENS * 5)
    ]
    path.unlink(missing_ok=True)
    create_database(path, rows, journal_mode=chance.choice(("delete", "wal")))
    data = bytearray(path.read_bytes())
    for _ in range(chance.choice((1, 3, 20, 200))):
        kind = chance.randrange(5)
        at = chance.randrange(len(data))
        if kind == 0:
            data[at] ^= 1 << chance.randrange(8)
        elif kind == 1:
            data[at : at + 4] = chance.randbytes(4)[: len(data) - at]
        elif kind == 2:
            data[min(at, chance.randrange(100))] = chance.randrange(256)  # the header, mostly
        elif kind == 3 and len(data) >= 8192:
            a, b = (4096 * chance.randrange(len(data) // 4096) for _ in range(2))
            data[a : a + 4096], data[b : b + 4096] = data[b : b + 4096], data[a : a + 4096]
        elif chance.random() < 0.1:
            del data[at:]
            data = data or bytearray(1)
    path.write_bytes(bytes(data))
    for suffix in ("-wal", "-journal", "-shm"):
        if chance.random() < 0.3:
            junk = chance.choice((b"", chance.randbytes(4096), bytes(data[:5000])))
            Path(f"{path}{suffix}").write_bytes(junk)


def _not_a_file(path: Path, chance: random.Random) -> None:
    """A pipe, a directory, a link to itself, a device."""
    path.unlink(missing_ok=True)
    kind = chance.randrange(4)
    if kind == 0:
        os.mkfifo(path)
    elif kind == 1:
        path.mkdir()
    elif kind == 2:
        path.symlink_to(path)
    else:
        path.symlink_to("/dev/zero")


def _bad_blocks(repository: Path, chance: random.Random) -> None:
    """Blocks that are not what their names say, or that are but make no sense."""
    for path in sorted((repository / "blocks").glob("*/*.data")):
        if chance.random() < 0.5:
            continue
        data = bytearray(path.read_bytes())
        kind = chance.randrange(6)
        if kind == 0:
            data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
        elif kind == 1:
            data = bytearray(chance.randbytes(chance.choice((0, 1, 100, 70_000))))
        elif kind == 2:
            del data[chance.randrange(len(data)) :]
        elif kind == 3:
            path.unlink()
            os.mkfifo(path)
            continue
        elif kind == 4:
            path.unlink()
            path.symlink_to("/etc/passwd")
            continue
        else:
            data += chance.randbytes(9)
        path.chmod(0o600)
        path.write_bytes(bytes(data))


_MAKERS: Final[tuple[Callable[[Path, random.Random], None], ...]] = (
    _hostile_rows,
    _hostile_schema,
    _torn,
    _torn,
    _torn,
    _not_a_file,
)


def make_hostile_fleet(root: Path, seed: int) -> None:
    """Write some nodes below ``root``; the same ones for the same seed."""
    chance = random.Random(f"hostile {seed}")
    fleet = make_fleet(
        root / "sound",
        FleetPlan(nodes=1, tokens_per_node=_TOKENS, seed=seed, sized_tokens=0.2, content_size=900),
    )
    _bad_blocks(Path(fleet.nodes[0].repository), chance)
    for number in range(chance.randrange(2, 6)):
        node = root / chance.choice(("a", "b b", "ü", "'; --", "%00", "$(x)")) / f"n{number}"
        path = node / "Rubix" / "rubix.db"
        path.parent.mkdir(parents=True)
        if chance.random() < 0.7:
            write_block(node / ".ipfs", b"hello")
        if chance.random() < 0.3:
            file = node / ".ipfs" / chance.choice(("config", "datastore_spec", "version"))
            file.parent.mkdir(exist_ok=True)
            if not file.is_dir():
                file.write_bytes(chance.choice((b"", b"{", b"[]", b"{}", chance.randbytes(99))))
        chance.choice(_MAKERS)(path, chance)
