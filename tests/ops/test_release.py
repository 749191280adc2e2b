"""The release checklist: what it lets pass, and what it does not."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from rubix_token_sync import __version__

from .release_script import release

ROOT = Path(__file__).parents[2]
GOOD = "# Changelog\n\n## [Unreleased]\n\n## 1.2.3 – 2026-11-30\n\n* x\n"


def test_a_changelog_that_is_ready() -> None:
    release.check_changelog("1.2.3", GOOD)
    release.check_changelog("1.2.3", GOOD.replace("## [Unreleased]\n\n", ""))


@pytest.mark.parametrize(
    ("version", "text", "said"),
    [
        ("1.2", GOOD, "MAJOR.MINOR.PATCH"),
        ("1.2.4", GOOD, "begins with 1.2.3"),
        ("1.2.3", "# Changelog\n", "begins with nothing"),
        ("1.2.3", GOOD.replace(" – 2026-11-30", ""), "begins with nothing"),
        ("1.2.3", GOOD.replace("eased]\n", "eased]\n\n* new\n"), "under Unreleased"),
    ],
)
def test_one_that_is_not(version: str, text: str, said: str) -> None:
    with pytest.raises(release.NotReady, match=said):
        release.check_changelog(version, text)


def test_a_step_that_fails_does_not_stop_the_others(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    todo = release.Checklist()
    assert todo.step("first", lambda: release.run("sh", "-c", "echo no >&2; exit 3")) is None
    assert todo.step("second", lambda: 5) == 5
    assert todo.left == ["first"]
    assert "LEFT  first: sh ended with 3: no" in capsys.readouterr().out
    (tmp_path / "a.whl").write_bytes(b"x")
    release.sums(tmp_path)
    digest = hashlib.sha256(b"x").hexdigest()
    assert (tmp_path / "SHA256SUMS").read_text() == f"{digest}  a.whl\n"


def test_this_tree_has_one_version() -> None:
    assert release.version() == __version__
