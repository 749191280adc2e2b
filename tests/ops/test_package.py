"""What is installed: the wheel and the source archive, built as an installer builds them."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import tarfile
import zipfile
from email.parser import Parser
from pathlib import Path

import hatchling.build
import pytest

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
    package = {name for name in names if ".dist-info/" not in name}
    tracked = files_of_git("src/rubix_token_sync")
    assert package == {name.removeprefix("src/") for name in tracked}
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
