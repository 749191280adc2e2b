"""A user with the documented rights and no others runs everything; with fewer it is told so."""

from __future__ import annotations

import os
import re
from collections.abc import Callable

import pytest
import sqlalchemy as sa

from rubix_token_sync.errors import SchemaError, TargetRefused
from rubix_token_sync.targets.mssql.address import parse_connection_string
from rubix_token_sync.targets.sql.target import SqlTarget
from tests.targets.tds import runs

SESSION = "00000000-0000-4000-8000-000000000001"


@pytest.fixture
def application(address: str) -> str:
    """The connection string of a user of the same database that has no rights yet."""
    text = os.environ.get("RUBIX_TEST_MSSQL_APPLICATION")
    if not text:
        pytest.skip("RUBIX_TEST_MSSQL_APPLICATION names no user without rights of its own")
    return text


def grants(script: str, user: str) -> list[str]:
    found = re.findall(r"^--\s+(GRANT .*)$", script, re.MULTILINE)
    return [grant.replace("application_user", user) for grant in found]


def test_the_printed_rights_are_enough(opened: Callable[..., SqlTarget], application: str) -> None:
    owner, low = opened(), opened(application)
    with pytest.raises((SchemaError, TargetRefused)) as refused:
        low.ensure_schema()
    assert refused.value.exit_code == 3
    script = owner.schema_script()
    user = parse_connection_string(application).user

    def create(conn: sa.Connection) -> None:
        for statement in script.split(";\n"):
            if statement.strip():
                conn.exec_driver_sql(statement)
        for grant in grants(script, user):
            conn.exec_driver_sql(grant)

    owner.transact(create)
    total = runs.run(low, SESSION)
    assert total.inserted == runs.BULK + runs.MORE
    assert total.bulk_loads == 2 or low.backend.bulk.refusal
    assert len(owner.known_rows(runs.DATABASE)[0]) == 24 * (runs.BULK + runs.MORE - runs.GONE)
    assert len(grants(script, user)) == len(owner.tables.all())


def test_a_missing_right_is_named_as_one(
    opened: Callable[..., SqlTarget], application: str
) -> None:
    opened().ensure_schema()
    with pytest.raises((TargetRefused, SchemaError)) as refused:
        runs.run(opened(application), SESSION)
    assert refused.value.code in ("no_rights", "no_such_table")
    assert refused.value.remedy
