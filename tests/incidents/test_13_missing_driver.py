"""13: `pip install` is enough: every target's driver comes with the package."""

from __future__ import annotations

import importlib.metadata
import re
from pathlib import Path

import mssql_python
import psycopg
from incidents.conftest import Site


def test_drivers_are_plain_dependencies() -> None:
    wanted = importlib.metadata.requires("rubix-token-sync") or []
    names = {re.split(r"[\s<>=!~;]", line)[0] for line in wanted if "extra ==" not in line}
    assert "mssql-python" in names
    assert "psycopg[binary]" in names


def test_the_native_parts_lie_in_the_packages() -> None:
    assert psycopg.pq.__impl__ == "binary"  # libpq from the wheel, not from the system
    package = Path(mssql_python.__file__).parent
    assert list(package.rglob("*msodbcsql*")), "Microsoft's driver is not in the wheel"


def test_a_run_needs_nothing_installed_by_hand(site: Site) -> None:
    """Without any ODBC set-up the run gets as far as the network."""
    env = {"ODBCSYSINI": str(site.home), "ODBCINI": str(site.home / "none"), "PATH": ""}
    refused = site.door.run(
        "sync", str(site.fleet), "--target", "mssql://user:word@127.0.0.1:9/db",
        "--retry-attempts", "1", "--report", str(site.reports), env=env,
    ).expect(3)  # fmt: skip
    assert not re.search(r"(?i)driver.*(not found|missing|install)|odbcinst|IM00", refused.stderr)
