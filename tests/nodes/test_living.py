"""A node goes on writing while it is read: each snapshot is one moment of it."""

from __future__ import annotations

import os
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

import rubix_token_sync.nodes.snapshot as snapshot_module
from rubix_token_sync.errors import SourceUnsettled
from rubix_token_sync.nodes.snapshot import fingerprint, open_snapshot
from rubix_token_sync.scratch import Scratch

from . import writer as node
from .databases import Writer, everything, fill, read

Start = Callable[..., Writer]


@pytest.mark.parametrize("head", [30, 50_000])
@pytest.mark.parametrize("mode", ["delete", "truncate", "persist", "wal"])
def test_twenty_snapshots_are_twenty_moments(
    mode: str, head: int, database: Path, writer: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(snapshot_module, "HEAD_ROWS", head)
    seed = head + len(mode)
    writing = writer(database, "living", mode, str(seed))
    assert writing.line() == "ready"
    truth: node.Rows = {}
    node.apply(truth, seed, 0)
    at = 0
    ways: set[str] = set()
    taken = 0
    tries = 0
    fingerprints: dict[str, int] = {}
    while taken < 20:
        tries += 1
        assert tries < 400, "the node was never quiet enough"
        try:
            with open_snapshot(str(database)) as snapshot:
                rows = everything(snapshot, 100)
                ways.add(snapshot.way)
                print_of = snapshot.fingerprint
        except SourceUnsettled:
            continue  # rightly refused; the next try must do
        taken += 1
        read_now = {str(row[0]): (row[1], row[4]) for row in rows}
        number = read_now["marker"][1]
        assert isinstance(number, int)
        assert at <= number
        while at < number:
            at += 1
            node.apply(truth, seed, at)
        assert read_now == truth
        assert len(rows) == len(truth)
        # One fingerprint never stands for two moments.
        assert fingerprints.setdefault(print_of, number) == number
    last = int(writing.finish())
    while at < last:
        at += 1
        node.apply(truth, seed, at)
    assert {str(row[0]): (row[1], row[4]) for row in read(database)} == truth
    assert ways <= {"wal", "immutable", "copy"} if mode == "wal" else ways <= {"read-only", "copy"}


def test_fingerprint_follows_every_commit(database: Path) -> None:
    """Each of many quick commits gives another fingerprint, in both modes."""
    for mode in ("delete", "wal"):
        database.unlink(missing_ok=True)
        fill(database, 20, mode=mode)
        database_open = sqlite3.connect(database, isolation_level=None)
        database_open.execute("PRAGMA synchronous=OFF")
        seen = {fingerprint(str(database))}
        for number in range(25):
            database_open.execute("UPDATE TokensTable SET token_status = ?", (number,))
            seen.add(fingerprint(str(database)))
            assert len(seen) == number + 2
        before = fingerprint(str(database))
        assert fingerprint(str(database)) == before
        database_open.close()


def test_a_change_in_the_same_tick_of_the_clock_shows(
    database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Files changed just now have a fingerprint that never compares equal."""
    fill(database, 5, mode="wal")
    monkeypatch.setattr(
        "rubix_token_sync.nodes.database_files.time.sleep", lambda _: os.utime(database)
    )
    first, second = fingerprint(str(database)), fingerprint(str(database))
    assert first != second
    assert first.count(":") == 2
    monkeypatch.undo()
    assert fingerprint(str(database)) == fingerprint(str(database))


def test_what_changes_a_fingerprint(database: Path, tmp_path: Path) -> None:
    fill(database, 50)
    seen = [fingerprint(str(database))]

    def differs() -> None:
        now = fingerprint(str(database))
        assert now not in seen
        seen.append(now)

    backup = shutil.copy2(database, tmp_path / "backup")
    times = database.stat()
    fill(database.with_name("other"), 50)
    os.replace(database.with_name("other"), database)  # replaced by a file of the same size
    os.utime(database, ns=(times.st_atime_ns, times.st_mtime_ns))
    differs()
    shutil.copy2(backup, database)  # an older backup, in place, with its times
    differs()
    node_open = sqlite3.connect(database)
    node_open.execute("DELETE FROM TokensTable WHERE token_id < 'token000030'")
    node_open.commit()
    differs()
    node_open.execute("VACUUM")
    differs()
    node_open.execute("PRAGMA journal_mode=WAL").fetchall()
    differs()
    node_open.execute("DELETE FROM TokensTable")
    node_open.commit()
    differs()
    node_open.close()
    differs()  # checkpointed: the same rows, told as a change, which is allowed
    assert read(database) == []


def test_disappears_or_is_replaced_under_the_reader(
    database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(snapshot_module, "HEAD_ROWS", 10)
    fill(database, 200)
    with open_snapshot(str(database), Scratch(margin_bytes=2**60)) as snapshot:
        rows = snapshot.rows(20)
        first = len(next(rows).rows)
        fill(database.with_name("new"), 3)
        os.replace(database.with_name("new"), database)
        assert first + sum(len(batch.rows) for batch in rows) == 200
        database.unlink()
        assert len(everything(snapshot)) == 200


def test_moved_to_another_place(database: Path, tmp_path: Path) -> None:
    fill(database, 20)
    rows = read(database)
    elsewhere = tmp_path / "elsewhere"
    database.parent.parent.rename(elsewhere)
    assert read(elsewhere / "Rubix" / "rubix.db") == rows
