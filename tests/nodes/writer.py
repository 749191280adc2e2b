"""A node that writes its database, as a process of its own.

    writer.py PATH living MODE SEED   transactions until stdin is closed; says its last one
    writer.py PATH idle MODE          one transaction, then waits with the database open
    writer.py PATH torn               half a transaction, spilled to the file; then waits
    writer.py PATH exclusive          holds the database exclusively; then waits

Every transaction of ``living`` is a function of seed and number (`change`), so that
a test can tell what the database held after any of them.
"""

from __future__ import annotations

import random
import select
import sqlite3
import sys

ROWS = 300
Rows = dict[str, tuple[str, int]]


def change(rows: Rows, seed: int, number: int) -> tuple[Rows, set[str]]:
    """What transaction ``number`` puts and which ids it removes; ``marker`` tells the number."""
    chance = random.Random(seed * 1_000_003 + number)
    if number == 0:
        put = {f"token{i}": (f"did{i % 5}", i) for i in range(ROWS)}
        return {**put, "marker": ("-", 0)}, set()
    ids = sorted(rows)
    put = {}
    for _ in range(chance.randrange(1, 40)):
        token = chance.choice(ids)
        put[token] = (f"did{chance.randrange(99)}", chance.randrange(10**6))
    for place in range(chance.randrange(20)):
        put[f"new{number}.{place}"] = ("x" * chance.randrange(1, 700), place)
    gone = {token for token in chance.sample(ids, min(len(ids), 15)) if token not in put}
    put["marker"] = ("-", number)
    return put, gone - {"marker"}


def apply(rows: Rows, seed: int, number: int) -> None:
    """Do transaction ``number`` on plain rows."""
    put, gone = change(rows, seed, number)
    rows.update(put)
    for token in gone:
        del rows[token]


def _open(path: str, mode: str) -> sqlite3.Connection:
    database = sqlite3.connect(path, isolation_level=None, timeout=30)
    database.execute(f"PRAGMA journal_mode={mode}")
    database.execute("PRAGMA synchronous=OFF")
    database.execute("PRAGMA wal_autocheckpoint=30")
    return database


def _commit(database: sqlite3.Connection, rows: Rows, seed: int, number: int) -> None:
    put, gone = change(rows, seed, number)
    database.execute("BEGIN IMMEDIATE")
    database.executemany(
        "INSERT OR REPLACE INTO TokensTable (token_id, did, token_status) VALUES (?, ?, ?)",
        ((token, did, status) for token, (did, status) in put.items()),
    )
    database.executemany("DELETE FROM TokensTable WHERE token_id = ?", ((one,) for one in gone))
    database.execute("COMMIT")
    apply(rows, seed, number)


def living(path: str, mode: str, seed: int) -> None:
    database = _open(path, mode)
    database.execute(
        "CREATE TABLE TokensTable (token_id text, did text, token_status integer,"
        " PRIMARY KEY (token_id))"
    )
    rows: Rows = {}
    _commit(database, rows, seed, 0)
    print("ready", flush=True)
    number = 0
    while not select.select([sys.stdin], [], [], 0)[0]:
        number += 1
        _commit(database, rows, seed, number)
        if number % 37 == 0:
            database.execute("VACUUM")
        if number % 11 == 0:
            # A node that is restarted: in WAL mode its -wal goes and comes again.
            database.close()
            database = _open(path, mode)
    database.close()
    print(number, flush=True)


def _wait(word: str) -> None:
    print(word, flush=True)
    sys.stdin.read()
    print("bye", flush=True)


def idle(path: str, mode: str) -> None:
    database = _open(path, mode)
    database.execute("PRAGMA wal_autocheckpoint=0")
    database.execute("UPDATE TokensTable SET token_status = 7")
    _wait("ready")
    database.close()


def torn(path: str) -> None:
    database = _open(path, "delete")
    database.execute("PRAGMA synchronous=FULL")
    database.execute("PRAGMA cache_size=1")
    database.execute("BEGIN")
    database.execute("UPDATE TokensTable SET did = 'half a transaction', token_status = 666")
    database.execute("SELECT count(*) FROM TokensTable").fetchall()
    _wait("ready")


def exclusive(path: str) -> None:
    database = _open(path, "delete")
    database.execute("BEGIN EXCLUSIVE")
    _wait("ready")
    database.execute("ROLLBACK")


def main(arguments: list[str]) -> None:
    path, task, *rest = arguments
    if task == "living":
        living(path, rest[0], int(rest[1]))
    elif task == "idle":
        idle(path, rest[0])
    elif task == "torn":
        torn(path)
    else:
        exclusive(path)


if __name__ == "__main__":
    main(sys.argv[1:])
