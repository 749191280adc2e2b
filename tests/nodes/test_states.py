"""Every state a node's directory can be in: read right, and left as it was."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import rubix_token_sync.nodes.snapshot as snapshot_module
from rubix_token_sync.errors import SourceError, SourceUnsettled
from rubix_token_sync.nodes.snapshot import fingerprint, open_snapshot
from rubix_token_sync.scratch import Scratch

from .databases import Writer, everything, fill, read, tree

FULL = Scratch(margin_bytes=2**60)
"""No disk has room for a copy."""

Start = Callable[..., Writer]


def test_rollback_journal(database: Path, scratch: Path) -> None:
    fill(database)
    before = tree(database.parent)
    with open_snapshot(str(database), str(scratch)) as snapshot:
        assert snapshot.way == "read-only"
        assert len(everything(snapshot)) == 200
    assert tree(database.parent) == before


@pytest.mark.parametrize("mode", ["delete", "wal"])
def test_more_rows_than_are_read_ahead(
    mode: str, database: Path, scratch: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(snapshot_module, "HEAD_ROWS", 64)
    fill(database, mode=mode)
    before = tree(database.parent)
    with open_snapshot(str(database), str(scratch)) as snapshot:
        assert snapshot.way == {"delete": "copy", "wal": "immutable"}[mode]
        assert list(scratch.iterdir()) == []  # unlinked, while it is still read
        first = everything(snapshot, 50)
        assert snapshot.count == 200
        assert [row[0] for row in first] == [f"token{n:06}" for n in range(200)]
        assert everything(snapshot, 33) == first
    assert tree(database.parent) == before


def test_no_lock_is_held_while_rows_are_used(
    database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A node whose commit had to wait for our slow target would fail."""
    for head in (10, 50_000):
        database.unlink(missing_ok=True)
        fill(database)
        monkeypatch.setattr(snapshot_module, "HEAD_ROWS", head)
        with open_snapshot(str(database)) as snapshot:
            rows = snapshot.rows(20)
            first = len(next(rows).rows)
            node = sqlite3.connect(database, timeout=0)
            node.execute("DELETE FROM TokensTable")
            node.commit()
            node.close()
            assert first + sum(len(batch.rows) for batch in rows) == 200
        assert read(database) == []


def test_without_room_for_a_copy_the_lock_is_kept(
    database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(database)
    monkeypatch.setattr(snapshot_module, "HEAD_ROWS", 10)
    with open_snapshot(str(database), FULL) as snapshot:
        assert snapshot.way == "read-only"
        rows = snapshot.rows(20)
        first = len(next(rows).rows)
        node = sqlite3.connect(database, timeout=0, isolation_level=None)
        with pytest.raises(sqlite3.OperationalError, match="locked"):
            node.execute("DELETE FROM TokensTable")
        assert first + sum(len(batch.rows) for batch in rows) == 200
        node.close()


def test_closed_write_ahead_log(database: Path, scratch: Path) -> None:
    fill(database, mode="wal")
    before = tree(database.parent)
    assert list(before) == ["rubix.db"]
    with open_snapshot(str(database), str(scratch)) as snapshot:
        assert snapshot.way == "immutable"
        assert len(everything(snapshot)) == 200
    assert tree(database.parent) == before


def test_write_ahead_log_in_use(database: Path, scratch: Path, writer: Start) -> None:
    fill(database, mode="wal")
    node = writer(database, "idle", "wal")
    assert node.line() == "ready"
    before = tree(database.parent)
    assert sorted(before) == ["rubix.db", "rubix.db-shm", "rubix.db-wal"]
    with open_snapshot(str(database), str(scratch)) as snapshot:
        assert snapshot.way == "wal"
        assert {row[4] for row in everything(snapshot)} == {7}
    assert tree(database.parent) == before
    assert fingerprint(str(database)) == snapshot.fingerprint
    node.finish()


def without_read_marks(database: Path, writer: Start) -> Any:
    """A node that has written, and whose shared memory has no read mark in use."""
    fill(database, mode="wal")
    node = writer(database, "idle", "wal")
    assert node.line() == "ready"
    with open(f"{database}-shm", "r+b") as shared:  # WalCkptInfo.aReadMark[1:] in SQLite's wal.c
        shared.seek(104)
        shared.write(b"\xff" * 16)
    time.sleep(0.1)  # a copy is made of files that rest
    return node


def test_write_ahead_log_without_a_usable_read_mark(database: Path, writer: Start) -> None:
    """SQLite would have to set one in the node's shared memory: a copy needs none."""
    node = without_read_marks(database, writer)
    before = tree(database.parent)
    with open_snapshot(str(database)) as snapshot:
        assert snapshot.way == "copy"
        assert {row[4] for row in everything(snapshot)} == {7}
    assert tree(database.parent) == before
    node.finish()


def test_without_a_read_mark_and_room_for_a_copy_nothing_is_read(
    database: Path, writer: Start
) -> None:
    node = without_read_marks(database, writer)
    before = tree(database.parent)
    with pytest.raises(SourceError) as caught:
        open_snapshot(str(database), FULL)
    assert caught.value.code == "no_scratch_space"
    assert tree(database.parent) == before
    node.finish()


def test_log_of_a_killed_node(database: Path, scratch: Path, writer: Start) -> None:
    fill(database, mode="wal")
    node = writer(database, "idle", "wal")
    node.line()
    node.kill()
    before = tree(database.parent)
    assert sorted(before) == ["rubix.db", "rubix.db-shm", "rubix.db-wal"]
    assert {row[4] for row in read(database, scratch)} == {7}
    assert tree(database.parent) == before


@pytest.mark.parametrize("head", [10, 50_000])
def test_log_without_shared_memory(
    head: int, database: Path, scratch: Path, writer: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(snapshot_module, "HEAD_ROWS", head)
    fill(database, mode="wal")
    node = writer(database, "idle", "wal")
    node.line()
    node.kill()
    database.with_name("rubix.db-shm").unlink()
    before = tree(database.parent)
    with open_snapshot(str(database), str(scratch)) as snapshot:
        assert snapshot.way == "copy"
        assert list(scratch.iterdir()) == []
        assert {row[4] for row in everything(snapshot)} == {7}
    assert tree(database.parent) == before


def test_empty_log_without_shared_memory(database: Path) -> None:
    fill(database, mode="wal")
    database.with_name("rubix.db-wal").touch()
    before = tree(database.parent)
    assert len(read(database)) == 200
    assert tree(database.parent) == before


def test_log_beside_a_file_that_says_rollback_journal(database: Path, writer: Start) -> None:
    """A backup put over a database in use: SQLite decides what the log is worth."""
    fill(database, mode="wal")
    clean = database.read_bytes()
    node = writer(database, "idle", "wal")
    node.line()
    node.kill()
    database.write_bytes(clean[:18] + b"\x01\x01" + clean[20:])
    database.with_name("rubix.db-shm").unlink()
    copy = shutil.copytree(database.parent, database.parent.parent / "copy")
    other = sqlite3.connect(copy / "rubix.db")
    truth = other.execute("SELECT token_id, token_status FROM TokensTable NOT INDEXED").fetchall()
    other.close()
    assert {status for _, status in truth} == {7}
    before = tree(database.parent)
    assert [(row[0], row[4]) for row in read(database)] == truth
    assert tree(database.parent) == before


@pytest.mark.parametrize("head", [10, 50_000])
def test_hot_journal(
    head: int, database: Path, scratch: Path, writer: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(snapshot_module, "HEAD_ROWS", head)
    fill(database, 2000)
    good = read(database)
    clean = database.read_bytes()
    node = writer(database, "torn")
    assert node.line() == "ready"
    node.kill()
    assert b"half a transaction" in database.read_bytes()
    assert database.read_bytes() != clean
    before = tree(database.parent)
    assert sorted(before) == ["rubix.db", "rubix.db-journal"]
    with open_snapshot(str(database), str(scratch)) as snapshot:
        assert snapshot.way == "copy"
        assert list(scratch.iterdir()) == []
        assert everything(snapshot) == good
    assert tree(database.parent) == before


def test_transaction_under_way(database: Path, writer: Start) -> None:
    """A journal that is not hot: its writer lives and has spilled into the file."""
    fill(database, 2000)
    node = writer(database, "torn")
    node.line()
    with pytest.raises(SourceUnsettled) as caught:
        read(database, busy_s=0.05)
    assert caught.value.code == "busy"
    node.kill()
    assert {row[4] for row in read(database)} == {None}


def test_a_journal_may_not_name_other_files(
    database: Path, scratch: Path, tmp_path: Path, writer: Start
) -> None:
    """Recovery deletes the super-journal that a journal names: any file at all."""
    fill(database, 2000)
    node = writer(database, "torn")
    node.line()
    node.kill()
    victim = tmp_path / "precious"
    victim.write_text("do not delete")
    name = os.fsencode(victim)
    magic = bytes.fromhex("d9d505f920a163d7")
    trailer = name + len(name).to_bytes(4, "big") + (sum(name) % 2**32).to_bytes(4, "big") + magic
    journal = database.with_name("rubix.db-journal")
    # Page number of the lock-byte page marks the record; SQLite looks at the end only.
    journal.write_bytes(journal.read_bytes() + trailer)
    with pytest.raises(SourceError) as caught:
        read(database, scratch)
    assert caught.value.code == "unfinished_transaction"
    assert victim.read_text() == "do not delete"
    assert list(scratch.iterdir()) == []


def test_held_exclusively(database: Path, writer: Start) -> None:
    fill(database)
    node = writer(database, "exclusive")
    node.line()
    with pytest.raises(SourceUnsettled) as caught:
        read(database, busy_s=0.05)
    assert (caught.value.code, caught.value.kind) == ("busy", "transient")
    node.finish()
    assert len(read(database)) == 200


@pytest.mark.parametrize("mode", ["delete", "wal"])
def test_two_snapshots_of_one_file_in_one_process(
    mode: str, database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Closing one, or a look at the fingerprint, must not drop the lock of the other."""
    monkeypatch.setattr(snapshot_module, "HEAD_ROWS", 10)
    fill(database, mode=mode)
    with open_snapshot(str(database), FULL) as first:
        with open_snapshot(str(database), FULL) as second:
            assert len(everything(second)) == 200
        fingerprint(str(database))
        probe = Path(__file__).with_name("probe_lock.py")
        assert _locked(database, probe)
        assert len(everything(first)) == 200
    assert not _locked(database, probe)


def _locked(database: Path, probe: Path) -> bool:
    answer = subprocess.run([sys.executable, str(probe), str(database)], stdout=subprocess.PIPE)
    return {b"locked": True, b"free": False}[answer.stdout.strip()]


def test_written_to_while_read_from_a_closed_log(
    database: Path, scratch: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(snapshot_module, "HEAD_ROWS", 10)
    fill(database, mode="wal")
    with open_snapshot(str(database), str(scratch)) as snapshot:
        assert snapshot.way == "immutable"
        rows = snapshot.rows(20)
        first = len(next(rows).rows)
        node = sqlite3.connect(database)
        node.execute("DELETE FROM TokensTable")
        node.commit()
        assert first + sum(len(batch.rows) for batch in rows) == 200
        assert snapshot.way == "copy"
        node.close()
    assert read(database) == []


def test_checkpointed_while_read_from_a_closed_log(
    database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(snapshot_module, "HEAD_ROWS", 10)
    fill(database, mode="wal")
    with open_snapshot(str(database)) as snapshot:
        rows = snapshot.rows(20)
        next(rows)
        node = sqlite3.connect(database)
        node.execute("DELETE FROM TokensTable")
        node.commit()
        node.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        node.close()
        with pytest.raises(SourceUnsettled) as caught:
            list(rows)
        assert caught.value.code == "changed_while_reading"


def test_a_symbolic_link_is_read_with_its_own_log(database: Path, writer: Start) -> None:
    fill(database, mode="wal")
    node = writer(database, "idle", "wal")
    node.line()
    link = database.parent.parent / "link.db"
    link.symlink_to(database)
    assert {row[4] for row in read(link)} == {7}
    node.finish()


def test_names_that_mean_something_in_a_uri(tmp_path: Path) -> None:
    for name in ("a?mode=rwc&x", "b#c", "100%41", "sp ace", "ü", os.fsdecode(b"\xff")):
        path = tmp_path / name / "Rubix" / "rubix.db"
        fill(path, 3)
        assert len(read(path)) == 3


def test_access_denied(database: Path) -> None:
    fill(database)
    database.chmod(0)
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)
    try:
        for look in (open_snapshot, fingerprint):
            with pytest.raises(SourceError) as caught:
                look(str(database))
            assert caught.value.code == "access_denied"
    finally:
        os.seteuid(user)
