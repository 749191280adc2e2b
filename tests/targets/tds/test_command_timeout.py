"""``Command Timeout`` of the connection string ends a statement (incident 30)."""

from __future__ import annotations

import time

import pytest

from rubix_token_sync.errors import TargetError
from rubix_token_sync.targets.base import TargetOptions
from rubix_token_sync.targets.mssql.address import parse_connection_string
from rubix_token_sync.targets.mssql.login import open_connection
from rubix_token_sync.targets.registry import open_target, parse_target

from .faults import Fault, Stall
from .server import TdsServer


def test_a_statement_that_takes_longer_is_given_up(address: str, server: TdsServer) -> None:
    server.faults.append(Fault("sql", Stall(), match="alembic|SchemaVersion|version", times=99))
    options = TargetOptions(attempts=1, call_seconds=60.0, wait_factor=0.001)
    store = open_target(parse_target(f"{address};Command Timeout=1"), options)
    before = time.monotonic()
    with pytest.raises(TargetError):
        store.schema_version()
    assert time.monotonic() - before < 15
    store.close()


@pytest.mark.parametrize(("given", "seconds"), [(None, 20.0), (7, 7.0)])
def test_it_is_stronger_than_the_programs_own(
    address: str, given: int | None, seconds: float
) -> None:
    text = address if given is None else f"{address};Command Timeout={given}"
    conn = open_connection(parse_connection_string(text), 20.0)
    try:
        assert conn.call_seconds == seconds
        assert conn._raw.timeout == seconds
    finally:
        conn.close()
