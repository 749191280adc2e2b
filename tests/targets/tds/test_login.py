"""A first connection that is made while the program loads."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable

import pytest

from rubix_token_sync.errors import SchemaError, TargetRefused
from rubix_token_sync.targets.base import SCHEMA_VERSION, TargetOptions
from rubix_token_sync.targets.mssql.target import MssqlStore
from rubix_token_sync.targets.registry import open_target, parse_target
from rubix_token_sync.targets.sql.publishing import SqlStore

from .engine import SqliteEngine
from .faults import Fault, refusal
from .server import TdsServer


@pytest.fixture
def hasty(address: str, monkeypatch: pytest.MonkeyPatch) -> Callable[[], SqlStore]:
    """Opens a store that begins to connect at once."""
    monkeypatch.setattr(MssqlStore, "pace_factor", 0.001)
    target = parse_target(address)
    return lambda: open_target(target, TargetOptions(call_seconds=20.0), at_once=True)


def until(happened: Callable[[], bool]) -> None:
    end = time.monotonic() + 10
    while not happened():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_it_begins_at_once_and_the_first_use_has_it(
    hasty: Callable[[], SqlStore], server: TdsServer
) -> None:
    store = hasty()
    until(lambda: len(server.logins) == 1)  # nothing was asked yet
    assert store.schema_version() == SCHEMA_VERSION
    assert store.holds_tables()
    assert len(server.logins) == 1
    store.close()
    until(lambda: server.open == 0)


@pytest.mark.parametrize("made", [True, False])
def test_a_login_that_nobody_needed_is_closed(
    made: bool, hasty: Callable[[], SqlStore], server: TdsServer
) -> None:
    store = hasty()
    if made:
        until(lambda: any("SCHEMA_NAME" in sql for sql in server.log))
        time.sleep(0.2)
    store.close()
    until(lambda: len(server.logins) == 1 and server.open == 0)


def test_what_was_wrong_with_it_is_told_at_the_first_use(
    hasty: Callable[[], SqlStore], server: TdsServer
) -> None:
    server.faults.append(Fault("login", refusal(18456), times=9))
    store = hasty()
    with pytest.raises(TargetRefused) as told:
        store.schema_version()
    assert told.value.code == "login_failed"
    assert server.password not in f"{told.value} {told.value.context}"
    store.close()


def test_what_may_pass_is_tried_again(hasty: Callable[[], SqlStore], server: TdsServer) -> None:
    server.faults.append(Fault("login", refusal(40613), times=2))  # it hears the reason twice
    store = hasty()
    assert store.schema_version() == SCHEMA_VERSION
    assert len(server.logins) == 3
    store.close()


def test_another_default_schema_is_refused_and_nothing_stays_open(
    engine: SqliteEngine, server: TdsServer, store: MssqlStore
) -> None:
    engine.schema = "guest"
    with pytest.raises(SchemaError) as told:
        store.schema_version()
    assert told.value.code == "default_schema"
    assert "WITH DEFAULT_SCHEMA = dbo" in told.value.remedy
    until(lambda: server.open == 0)


def test_there_is_something_left_to_load_meanwhile() -> None:
    program = (
        "import sys, rubix_token_sync.reports.report\n"
        "import rubix_token_sync.runs.sync, rubix_token_sync.runs.verify\n"
        "import rubix_token_sync.targets.mssql.login\n"
        "print('sqlalchemy' in sys.modules, 'mssql_python' in sys.modules)"
    )
    ended = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True
    )
    assert ended.stdout.split() == ["False", "True"]
