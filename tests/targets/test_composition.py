"""The house rules of targets: one class, a folder each with the same files, and nobody who asks."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import rubix_token_sync
from rubix_token_sync.records.schema import RECORDS
from rubix_token_sync.targets.base import Target, TargetOptions
from rubix_token_sync.targets.registry import _folders, open_target, parse_target
from rubix_token_sync.targets.sql.backend import Backend
from rubix_token_sync.targets.sql.target import SqlTarget

SOURCE = Path(rubix_token_sync.__file__).parent
FOLDERS = sorted(_folders())
SHARED = {"__init__", "address", "connection", "errors", "indexes", "reader", "target", "writer"}


def public(kind: type) -> set[str]:
    return {name for name in vars(kind) if not name.startswith("_")}


def test_what_targets_there_are() -> None:
    assert FOLDERS == ["mssql", "postgresql", "sqlite"]


@pytest.mark.parametrize("folder", FOLDERS)
def test_every_folder_has_the_same_files(folder: str) -> None:
    files = {path.stem for path in (SOURCE / "targets" / folder).glob("*.py")}
    assert files >= SHARED, SHARED - files


@pytest.mark.parametrize(
    "address",
    ["sqlite:///x.db", "postgresql://h/d", "Server=h;Database=d;User ID=u;Password=p"],
)
def test_a_backend_has_what_the_shared_parts_ask_of_it(address: str) -> None:
    target = open_target(parse_target(address), TargetOptions())
    wanted = {*public(Backend), *Backend.__annotations__}
    assert {name for name in wanted if not hasattr(target.backend, name)} == set()
    assert type(target) is SqlTarget
    assert {name for name in public(Target) if not hasattr(target, name)} == set()
    assert target.tables.columns is RECORDS
    target.close()


def test_there_is_one_kind_of_target() -> None:
    assert SqlTarget.__subclasses__() == []


def test_nobody_outside_asks_which_database_it_is() -> None:
    """Only what is said of the folders' names: comparisons with them are questions."""
    asked = []
    for path in SOURCE.rglob("*.py"):
        if (SOURCE / "targets") in path.parents:
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Compare):
                words = {n.value for n in ast.walk(node) if isinstance(n, ast.Constant)}
                text = ast.unparse(node)
                if words & set(FOLDERS) and ("kind" in text or "dialect" in text):
                    asked.append(f"{path.name}: {text}")
    assert asked == []


def test_naming_a_target_loads_no_migrations() -> None:
    program = (
        "import sys\n"
        "from rubix_token_sync.targets.registry import parse_target\n"
        "parse_target('sqlite:///x.db')\n"
        "print('alembic' in sys.modules, 'sqlalchemy' in sys.modules)\n"
    )
    ended = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True
    )
    assert ended.stdout.split() == ["False", "False"]
