"""13: `pip install` is enough: every target's driver comes with the package."""

from __future__ import annotations

import importlib.metadata
import re

import psycopg

from tests.incidents.conftest import Site


def _needs(package: str) -> list[str]:
    lines = importlib.metadata.requires(package) or []
    return [re.split(r"[\s<>=!~;]", line)[0] for line in lines if "extra ==" not in line]


def test_drivers_are_plain_dependencies() -> None:
    names = _needs("rubix-token-sync")
    assert "mssql-python" in names
    assert "psycopg[binary]" in names


def test_the_native_parts_lie_in_the_packages() -> None:
    assert psycopg.pq.__impl__ == "binary"  # libpq from the wheel, not from the system
    installed = [
        str(file)
        for name in ("mssql-python", *_needs("mssql-python"))
        for file in importlib.metadata.files(name) or []
    ]
    assert any("msodbcsql" in file for file in installed), "Microsoft's driver is in no wheel"


def test_a_run_needs_nothing_installed_by_hand(site: Site) -> None:
    """Without any ODBC set-up the run gets as far as the network."""
    env = {"ODBCSYSINI": str(site.home), "ODBCINI": str(site.home / "none"), "PATH": ""}
    refused = site.door.run(
        "sync", str(site.fleet), "--target", "mssql://user:word@127.0.0.1:9/db?timeout=2",
        "--retry-attempts", "1", "--report", str(site.reports), env=env,
    ).expect(3)  # fmt: skip
    assert not re.search(r"(?i)driver.*(not found|missing|install)|odbcinst|IM00", refused.stderr)
