"""Bare limits: what the machine can do when nothing but the unavoidable is done."""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Iterator
from concurrent.futures import Executor
from contextlib import closing
from functools import partial
from hashlib import sha256
from pathlib import Path

__all__ = ["bare_insert", "bare_read", "hash_blocks", "read_rows", "record_columns"]

_READ = "SELECT token_id, did, token_status, parent_token_id, token_value FROM TokensTable"
_FETCH = 10_000
_TRANSACTION = 50_000


def _read_database(path: str) -> int:
    count = 0
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as db:
        cursor = db.execute(_READ)
        while rows := cursor.fetchmany(_FETCH):
            count += len(rows)
    return count


def bare_read(pool: Executor, databases: list[str]) -> tuple[int, float]:
    """Read every row of every database, on all workers; gives rows and seconds."""
    began = time.perf_counter()
    count = sum(pool.map(_read_database, databases))
    return count, time.perf_counter() - began


def _hash_repository(path: str) -> tuple[int, float]:
    shards = [
        (entry.path, [name for name in os.listdir(entry.path) if name.endswith(".data")])
        for entry in os.scandir(f"{path}/blocks")
        if entry.is_dir()
    ]
    count, began = 0, time.perf_counter()
    for shard, names in shards:
        directory = os.open(shard, os.O_RDONLY)
        for name in names:
            fd = os.open(name, os.O_RDONLY, dir_fd=directory)
            sha256(os.read(fd, 65536)).digest()
            os.close(fd)
        os.close(directory)
        count += len(names)
    return count, time.perf_counter() - began


def hash_blocks(pool: Executor, workers: int, repositories: list[str]) -> tuple[int, float]:
    """Read and hash every block file, on all workers; gives files and seconds.

    Listing the directories is not counted, so the seconds are those of the
    workers together divided by their number.
    """
    done = list(pool.map(_hash_repository, repositories))
    return sum(count for count, _ in done), sum(seconds for _, seconds in done) / workers


def record_columns(db: sqlite3.Connection) -> list[str]:
    """The columns of TokenRecords that a sync writes (``id`` is the table's own)."""
    return [name for _, name, *_ in db.execute("PRAGMA table_info(TokenRecords)") if name != "id"]


def read_rows(synced: Path, count: int) -> Iterator[list[tuple[object, ...]]]:
    """The finished records of a synced target in the order they were written, ``count`` each."""
    with closing(sqlite3.connect(f"file:{synced}?mode=ro", uri=True)) as db:
        columns = ", ".join(record_columns(db))
        cursor = db.execute(f"SELECT {columns} FROM TokenRecords ORDER BY id")
        while rows := cursor.fetchmany(count):
            yield rows


def bare_insert(synced: Path, path: Path, *, late_indexes: bool = False) -> tuple[int, float]:
    """Insert the finished records of ``synced`` into a fresh file with the same table.

    Indexes are there from the beginning, or built at the end with ``late_indexes``.
    Settings are those a careful user takes (WAL, NORMAL).  Only ``executemany``,
    commits and indexes are timed, not the fetching of the records.
    """
    with closing(sqlite3.connect(f"file:{synced}?mode=ro", uri=True)) as db:
        columns = record_columns(db)
        page = db.execute("PRAGMA page_size").fetchone()[0]
        schema = "SELECT type, sql FROM sqlite_master WHERE tbl_name = 'TokenRecords' AND sql > ''"
        statements = db.execute(schema).fetchall()
    tables = [sql for kind, sql in statements if kind == "table"]
    indexes = [sql for kind, sql in statements if kind == "index"]
    insert = (
        f"INSERT INTO TokenRecords ({', '.join(columns)}) VALUES ({', '.join('?' * len(columns))})"
    )
    clock, count, seconds = time.perf_counter, 0, 0.0
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        for setting in (
            f"page_size={page}",
            "journal_mode=WAL",
            "synchronous=NORMAL",
            "wal_autocheckpoint=8192",
            "cache_size=-65536",
        ):
            db.execute(f"PRAGMA {setting}")
        for sql in tables if late_indexes else tables + indexes:
            db.execute(sql)
        for rows in read_rows(synced, _TRANSACTION):
            began = clock()
            db.execute("BEGIN IMMEDIATE")
            db.executemany(insert, rows)
            db.execute("COMMIT")
            seconds += clock() - began
            count += len(rows)
        began = clock()
        for sql in indexes if late_indexes else []:
            db.execute(sql)
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        seconds += clock() - began
    return count, seconds


def warm(pool: Executor, workers: int) -> None:
    """Start every worker, so that none is started while the clock runs."""
    list(pool.map(partial(time.sleep), [0.05] * workers * 2))
