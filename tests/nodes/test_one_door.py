"""A node's files are touched through `node_files` only: no place can go around its clock."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import rubix_token_sync

SOURCE = Path(rubix_token_sync.__file__).parent

GUARDED = [
    *sorted((SOURCE / "nodes").glob("*.py")),
    SOURCE / "ipfs" / "repository.py",
    SOURCE / "ipfs" / "repository_files.py",
    SOURCE / "ipfs" / "readers" / "daemon.py",
    SOURCE / "ipfs" / "readers" / "gateway.py",
    SOURCE / "runs" / "plan.py",
    SOURCE / "runs" / "row_reader.py",
]
FORBIDDEN = {
    "open", "os.open", "os.stat", "os.lstat", "os.scandir", "os.listdir", "os.readlink", "os.walk",
    "os.access", "os.statvfs", "os.path.exists", "os.path.lexists", "os.path.isdir",
    "os.path.isfile", "os.path.islink", "os.path.ismount", "os.path.realpath", "os.path.getsize",
    "os.path.getmtime", "os.path.samefile", "io.open", "Path", "pathlib.Path",
}  # fmt: skip
ALLOWED = {
    # our own scratch directory, never a node's
    ("private_copy.py", "open"), ("private_copy.py", "os.open"), ("private_copy.py", "os.scandir"),
    ("chain_copy.py", "open"),
    # /proc/self/mountinfo
    ("found.py", "Path"),
    # /dev/null, to find out whether handles are left
    ("database_errors.py", "os.open"),
    # a pipe that somebody named for an answer, without waiting for its reader
    ("keep_out.py", "os.open"),
}  # fmt: skip


def _called(node: ast.expr) -> str:
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        return f"{_called(node.value)}.{node.attr}"
    return ""


def _calls(path: Path) -> set[str]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return {_called(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}


@pytest.mark.parametrize("path", GUARDED, ids=lambda path: path.name)
def test_nothing_goes_around_the_door(path: Path) -> None:
    around = {call for call in _calls(path) & FORBIDDEN if (path.name, call) not in ALLOWED}
    assert around == set()


def test_the_list_of_exceptions_is_not_longer_than_needed() -> None:
    used = {(path.name, call) for path in GUARDED for call in _calls(path)}
    assert ALLOWED - used == set()


def test_handles_are_given_within_bounded_time_only(tmp_path: Path) -> None:
    from rubix_token_sync import node_files

    with pytest.raises(RuntimeError, match="without a time limit"):
        node_files.open_handle(str(tmp_path), 0)
    with pytest.raises(RuntimeError, match="without a time limit"), node_files.scan(str(tmp_path)):
        pass
