"""Nothing is imported from the current directory, by whichever door the program is started."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from rubix_token_sync.surroundings import without_current_directory

ROOT = Path(__file__).parents[2]
DOORS = {
    "script": [sys.executable, "rubix-token-sync"],
    "module": [sys.executable, "-m", "rubix_token_sync"],
    "guide": [sys.executable, str(ROOT / "sync_distributed_tokens.py")],
}
SCRIPTS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
PLANTED = ("signal", "selectors", "socket", "logging", "pathlib", "click", "pydantic", "json")


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("paths", [None, "", ":/nowhere", "."])
def test_planted_modules_are_not_run(door: str, paths: str | None, tmp_path: Path) -> None:
    for name in PLANTED:
        (tmp_path / f"{name}.py").write_text(
            f"import os\nopen({str(tmp_path / 'RAN')!r}, 'a').write({name!r})\n"
        )
    module, _, function = SCRIPTS["rubix-token-sync"].partition(":")
    script = tmp_path / "bin" / "rubix-token-sync"  # as an installer writes it
    script.parent.mkdir()
    script.write_text(f"import sys\nfrom {module} import {function}\nsys.exit({function}())\n")
    command = [str(script) if word == "rubix-token-sync" else word for word in DOORS[door]]
    environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path)}
    if paths is not None:
        environment["PYTHONPATH"] = paths
    done = subprocess.run(
        [*command, "config", "show"],
        cwd=tmp_path, env=environment, capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    ran = (tmp_path / "RAN").read_text() if (tmp_path / "RAN").exists() else ""
    assert ran == "", done.stderr
    assert done.returncode == 0, done.stderr


def test_the_current_directory_by_any_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here, link = tmp_path / "here", tmp_path / "link"
    here.mkdir()
    link.symlink_to(here)
    monkeypatch.chdir(here)
    entries = ["", ".", str(here), str(link), f"{here}/", "/usr/lib", "nowhere", "a\0b"]
    assert without_current_directory(entries) == ["/usr/lib", "nowhere", "a\0b"]
    monkeypatch.chdir(ROOT / "src")
    kept = without_current_directory(["", "/usr/lib"])
    assert kept == [str(ROOT / "src"), "/usr/lib"], "the program's own directory stays"
