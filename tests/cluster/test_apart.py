"""A fleet of timers needs nothing of this: what the package imports, and what it lacks."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from rubix_token_sync.testing import FleetPlan, make_fleet
from tests.cli.conftest import Run, clean_environment, run

__all__ = ["run"]

_PROGRAM = """
import json, sys
from rubix_token_sync.__main__ import start
try:
    start()
except SystemExit as left:
    names = sorted({".".join(name.split(".")[:2]) for name in sys.modules})
    print(json.dumps([left.code, names]), file=sys.stderr)
"""


def loaded(directory: Path, *arguments: str) -> tuple[int, set[str]]:
    ended = subprocess.run(
        [sys.executable, "-c", _PROGRAM, *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        cwd=directory,
        env=clean_environment(),
        check=False,
    )
    code, names = json.loads(ended.stderr.splitlines()[-1])
    return code, set(names)


def test_a_plain_sync_imports_nothing_of_dask(tmp_path: Path) -> None:
    make_fleet(tmp_path / "fleet", FleetPlan(nodes=1, tokens_per_node=5))
    code, names = loaded(tmp_path, "sync", "fleet", "--target", "sqlite:///t.db", "--quiet")
    assert code == 0
    assert "rubix_token_sync.library" in names
    assert {n for n in names if n.split(".")[0] in ("dask", "distributed", "tornado")} == set()
    assert "rubix_token_sync.cluster" not in names


@pytest.mark.parametrize(
    "arguments",
    [
        ("scheduler", "--listen", "tls://127.0.0.1:0"),
        ("worker", "--scheduler", "tls://127.0.0.1:1", "--target", "sqlite:///t.db"),
        ("sync", "--scheduler", "tls://127.0.0.1:1", "--target", "sqlite:///t.db"),
        (
            "verify",
            "--shared",
            ".",
            "--scheduler",
            "tls://127.0.0.1:1",
            "--target",
            "sqlite:///t.db",
        ),
    ],
    ids=lambda arguments: arguments[0],
)
def test_without_the_extra_it_says_so(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...]
) -> None:
    for name in list(sys.modules):
        if name.split(".")[0] == "distributed" or name == "rubix_token_sync.cluster.worker":
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "distributed", None)
    ended = run("cluster", *arguments, "--certs", str(tmp_path))
    assert ended.code == 2
    assert "[extra_missing]" in ended.err
    assert "[cluster]" in ended.err
