"""What is installed: the wheel and the source archive, built as an installer builds them."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import tarfile
import zipfile
from email.parser import Parser
from glob import glob
from pathlib import Path

import hatchling.build
import pytest

from rubix_token_sync import __version__
from tests.ops.release_script import release

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src" / "rubix_token_sync"


def files_of_git(*below: str) -> set[str]:
    """Tracked files; the test is of a checkout."""
    if shutil.which("git") is None or not (ROOT / ".git").exists():
        pytest.skip("not a checkout")
    listed = subprocess.run(
        ["git", "ls-files", "--", *below], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return set(listed.stdout.split())


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A wheel and a source archive."""
    place = tmp_path_factory.mktemp("dist")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        wheel = hatchling.build.build_wheel(str(place))
        archive = hatchling.build.build_sdist(str(place))
    return place / wheel, place / archive


def test_the_wheel_holds_the_package_and_nothing_else(built: tuple[Path, Path]) -> None:
    with zipfile.ZipFile(built[0]) as wheel:
        names = set(wheel.namelist())
        (info,) = (name for name in names if name.endswith(".dist-info/METADATA"))
        metadata = Parser().parsestr(wheel.read(info).decode())
    package = {name for name in names if ".dist-info/" not in name and ".data/" not in name}
    tracked = files_of_git("src/rubix_token_sync")
    assert package == {name.removeprefix("src/") for name in tracked}
    beside = {name.partition(".data/data/")[2] for name in names if ".data/" in name}
    assert beside == files_of_git("share"), "man pages and completion"
    assert metadata["Name"] == "rubix-token-sync"
    assert metadata["Requires-Python"] == ">=3.11"
    assert metadata["License-Expression"] == "MIT"
    assert set(metadata.get_all("Provides-Extra") or []) >= {"alerts", "metrics", "chains", "all"}
    assert metadata.get_payload(), "the README is the description"


def test_the_source_archive_builds_the_same_wheel(
    built: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever has the archive gets byte for byte what we have; so builds are reproducible."""
    with tarfile.open(built[1]) as archive:
        archive.extractall(tmp_path / "source", filter="data")
    (source,) = (tmp_path / "source").iterdir()
    assert not list(source.rglob("*.db")), "no target, no node"
    monkeypatch.chdir(source)
    again = tmp_path / "again"
    again.mkdir()
    wheel = again / hatchling.build.build_wheel(str(again))
    assert wheel.name == built[0].name
    assert hashlib.sha256(wheel.read_bytes()).digest() == (
        hashlib.sha256(built[0].read_bytes()).digest()
    )


def test_an_index_would_take_it(built: tuple[Path, Path]) -> None:
    check = pytest.importorskip("twine.commands.check", reason="requirements-release.txt")
    assert check.check([str(file) for file in built], strict=True) is False, "nothing is wrong"


def pythons() -> list[str]:
    """Programs of the supported Pythons that are here, the oldest first."""
    found = {}
    for minor in range(11, 15):
        places = [
            shutil.which(f"python3.{minor}"),
            *glob(f"{Path.home()}/.pyenv/versions/3.{minor}.*/bin/python3"),
        ]
        for program in filter(None, places):
            asked = [program, "-c", "import sys, venv; print(sys.version_info[1])"]
            done = subprocess.run(asked, capture_output=True, text=True, check=False)
            if done.stdout.strip() == str(minor):
                found[minor] = program
                break
    return [found[minor] for minor in sorted(found)]


@pytest.mark.long
@pytest.mark.timeout(600)
@pytest.mark.parametrize("which", ["oldest", "newest"])
def test_the_wheel_works_in_an_empty_environment(
    built: tuple[Path, Path], which: str, tmp_path: Path
) -> None:
    """On the oldest and the newest Python; man pages and completion come along."""
    python = pythons()[0 if which == "oldest" else -1]
    programs = release.install(built[0], tmp_path / "env", python)
    release.demo(programs, tmp_path, __version__)
    share = programs.parent / "share"
    assert (share / "man" / "man1" / "rubix-token-sync.1").exists()
    assert (share / "bash-completion" / "completions" / "rubix-token-sync").exists()
