"""Blocks of the guides that are not for a shell: settings, Python and SQL do what they say."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import urlsplit

import pytest

import rubix_token_sync as rts
from rubix_token_sync.testing import FleetPlan, make_fleet
from tests.postgres_server import PostgresServer

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
TESTED = {
    "bash": "tests/docs/test_guides.py, test_printed_commands.py, tests/migrate/test_guide.py",
    "python": "here and tests/library/test_python_guide.py",
    "sql": "here, tests/migrate/test_guide.py; AZURE_SQL.md's need a SQL Server",
    "toml": "here",
    "text": "nothing to execute",
}


def blocks(page: Path, language: str) -> list[str]:
    """The fenced blocks of a language."""
    text = page.read_text(encoding="utf-8")
    return re.findall(rf"^```{language}[^\n]*\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def test_every_language_of_a_block_is_known_here() -> None:
    fences = re.compile(r"^```([a-z]*)[^\n]*\n.*?^```$", re.MULTILINE | re.DOTALL)
    found = {name for page in PAGES for name in fences.findall(page.read_text(encoding="utf-8"))}
    assert found <= TESTED.keys()


SETTINGS = [(page.name, text) for page in PAGES for text in blocks(page, "toml")]


@pytest.mark.parametrize(("page", "text"), SETTINGS)
def test_settings_are_settings(page: str, text: str, tmp_path: Path) -> None:
    """Every key and value is allowed; files of other machines are not looked for."""
    assert page
    file = tmp_path / "rubix-token-sync.toml"
    kept = [line for line in text.splitlines() if not re.match(r"\w*(file|report)\b", line)]
    file.write_text("\n".join([*kept, 'target = "sqlite:///t.db"']))
    file.chmod(0o600)
    _, problems = rts.check_settings(str(file))
    assert [p.code for p in problems if p.code in ("setting_unknown", "setting_invalid")] == []


def test_the_readmes_python(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nodes = tmp_path / "nodes"
    make_fleet(nodes, FleetPlan(nodes=2, tokens_per_node=5))
    monkeypatch.chdir(tmp_path)
    (code,) = blocks(ROOT / "README.md", "python")
    names: dict[str, object] = {}
    exec(compile(code.replace("/mnt/drived", str(nodes)), "README.md", "exec"), names)
    assert names["table"].num_rows == 10  # type: ignore[attr-defined]


def test_the_grants_of_the_postgresql_guide_are_enough(
    tmp_path: Path, postgres_server: PostgresServer, postgres_url: str
) -> None:
    """What a user of these rights alone needs for a sync and a verify."""
    nodes = tmp_path / "nodes"
    make_fleet(nodes, FleetPlan(nodes=1, tokens_per_node=5))
    database = urlsplit(postgres_url).path.lstrip("/")
    rts.upgrade_schema(rts.configure(target=postgres_url))
    role = f"sync_{database}"
    grants = blocks(ROOT / "docs" / "POSTGRESQL.md", "sql")[0]
    for statement in (f"CREATE ROLE {role} LOGIN", *grants.strip().split(";\n")):
        statement = statement.rstrip(";").replace("TO sync", f"TO {role}")
        statement = statement.replace("DATABASE tokens", f"DATABASE {database}")
        postgres_server.admin(statement, database=database)
    url = postgres_server.url(database, user=role)
    assert rts.sync(nodes, target=url, source_ip="vm1").exit_code == 0
    assert rts.verify(nodes, target=url, source_ip="vm1").exit_code == 0
