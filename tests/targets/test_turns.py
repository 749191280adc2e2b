"""Writers of several processes on one SQLite file take turns by a lock between them."""

from __future__ import annotations

import fcntl
import os
import sqlite3
import threading
import time
from pathlib import Path

import pytest

from rubix_token_sync.errors import TargetUnavailable
from rubix_token_sync.targets.base import Lease, TargetOptions
from rubix_token_sync.targets.registry import open_target, parse_target
from rubix_token_sync.targets.sqlite.connection import Turn

from .records_made import SESSION, SOURCE


def is_free(file: Path) -> bool:
    lock = os.open(file, os.O_RDWR)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    finally:
        os.close(lock)
    return True


def test_it_is_held_during_a_transaction_and_given_back_after_errors(tmp_path: Path) -> None:
    turn = tmp_path / "turn"
    options = TargetOptions(turn_file=str(turn), attempts=1)
    target = open_target(parse_target(f"sqlite:///{tmp_path}/t.db"), options)
    target.ensure_schema()
    assert not target.transact(lambda conn: is_free(turn))
    assert is_free(turn)
    assert target.read(lambda conn: is_free(turn))  # who reads waits for nobody
    with pytest.raises(ZeroDivisionError):
        target.transact(lambda conn: 1 // 0)
    assert is_free(turn)
    with sqlite3.connect(tmp_path / "t.db") as other, target.engine.connect() as kept:
        kept.exec_driver_sql("PRAGMA busy_timeout = 0")  # of the connection that is used next
        kept.close()
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(TargetUnavailable):
            target.transact(lambda conn: None)
    other.close()
    assert is_free(turn)
    target.close()


def test_a_turn_that_never_comes_is_waited_for_so_long_and_no_longer(tmp_path: Path) -> None:
    file = tmp_path / "turn"
    with Turn(str(file)).taken():
        begun = time.monotonic()
        second = Turn(str(file)).taken(0.3)
        with pytest.raises(sqlite3.OperationalError, match="turns took too long"), second:
            pass
        assert 0.2 < time.monotonic() - begun < 5
    with Turn(str(file)).taken(5):  # the one who gave up does not keep it
        pass


def test_everybody_who_waits_gets_a_turn(tmp_path: Path) -> None:
    turns: list[int] = []
    deadline = time.monotonic() + 1.5

    def write(number: int) -> None:
        while time.monotonic() < deadline:
            with Turn(str(tmp_path / "turn")).taken():
                time.sleep(0.005)
                turns.append(number)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert min(turns.count(number) for number in range(4)) > 3


def test_without_a_directory_it_is_an_error_of_the_target(tmp_path: Path) -> None:
    options = TargetOptions(turn_file=str(tmp_path / "missing" / "turn"), attempts=1)
    target = open_target(parse_target(f"sqlite:///{tmp_path}/t.db"), options)
    with pytest.raises(Exception, match="does not exist"):
        target.acquire_lease(Lease(SOURCE, SESSION), "elsewhere|-|1|1")
    target.close()
