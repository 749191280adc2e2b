"""The release checklist, run: ``python scripts/release.py [--to dist]``.

Each step says ``ok`` or what is wrong, and a step that fails does not stop the others: one run
names everything that is left to do.  Nothing is published; what was built and passed is in the
directory afterwards: wheel, source archive, SBOM and SHA256SUMS.  Needs the environments of
requirements-dev.txt, requirements-docs.txt and requirements-release.txt.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import re
import runpy
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path

ROOT = Path(__file__).parents[1]
VERSION = re.compile(r"\d+\.\d+\.\d+")
_HEADING = re.compile(r"^## (\S+) – (\d{4}-\d\d-\d\d)$", re.MULTILINE)


class NotReady(Exception):
    """What is left to do."""


def version() -> str:
    """The one in the package."""
    text = (ROOT / "src" / "rubix_token_sync" / "__init__.py").read_text("utf-8")
    found = re.search(r'^__version__ = "([^"]+)"$', text, re.MULTILINE)
    if found is None:
        raise NotReady("__init__.py has no __version__")
    return found[1]


def check_changelog(version: str, text: str) -> None:
    """The newest section is of this version, with a date, and nothing is left unreleased."""
    if not VERSION.fullmatch(version):
        raise NotReady(f"{version} is not MAJOR.MINOR.PATCH")
    headings = _HEADING.findall(text)
    if not headings or headings[0][0] != version:
        newest = headings[0][0] if headings else "nothing"
        raise NotReady(f"CHANGELOG.md begins with {newest}, not with '## {version} – DATE'")
    date.fromisoformat(headings[0][1])
    unreleased = re.search(r"^## \[?Unreleased\]?\n(.*?)^## ", text, re.MULTILINE | re.DOTALL)
    if unreleased is not None and unreleased[1].strip():
        raise NotReady("CHANGELOG.md has entries under Unreleased")


def run(*command: str | Path, cwd: Path = ROOT, **variables: str) -> str:
    """Output of a command.

    Raises:
        NotReady: it failed.
    """
    done = subprocess.run(
        list(map(str, command)), cwd=cwd, env={**os.environ, **variables},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        said = (done.stderr or done.stdout).strip().splitlines()[-5:]
        raise NotReady(f"{Path(command[0]).name} ended with {done.returncode}: {' / '.join(said)}")
    return done.stdout


def clean_tree() -> None:
    changed = run("git", "status", "--porcelain").splitlines()
    if changed:
        raise NotReady(f"{len(changed)} files are not committed: {changed[0].strip()} …")


def generated() -> None:
    """What `python docs` writes is what is there."""
    names = runpy.run_path(str(ROOT / "docs"))
    pages = {**names["generated"](), "docs/LICENCES.md": names["licences_page"]()}
    stale = [name for name, text in pages.items() if (ROOT / name).read_text("utf-8") != text]
    if stale:
        raise NotReady(f"run `python docs`: {', '.join(stale)}")


def build(to: Path) -> list[Path]:
    """Wheel and source archive, built twice: the same bytes."""
    once, twice = to / ".once", to / ".twice"
    for place in (once, twice):
        shutil.rmtree(place, ignore_errors=True)
        run(sys.executable, "-m", "build", "--no-isolation", "--outdir", place)
    files = sorted(once.iterdir())
    different = [f.name for f in files if f.read_bytes() != (twice / f.name).read_bytes()]
    shutil.rmtree(twice)
    if different or len(files) != 2:
        raise NotReady(f"not reproducible: {', '.join(different) or files}")
    for file in files:
        file.replace(to / file.name)
    once.rmdir()
    return [to / file.name for file in files]


def twine(files: list[Path]) -> None:
    run(sys.executable, "-m", "twine", "check", "--strict", *files)


def install(wheel: Path, place: Path, python: str = sys.executable) -> Path:
    """An environment with the wheel and the lock, and nothing else; its bin directory.

    By uv where it is installed, else by pip.
    """
    lock = ROOT / "requirements.txt"
    uv = shutil.which("uv", path=f"{Path(sys.executable).parent}:{os.environ.get('PATH', '')}")
    if uv is not None:
        run(uv, "venv", "--quiet", "--python", python, place)
        pip: tuple[str | Path, ...] = (uv, "pip", "install", "--quiet", "--python", place)
    else:
        run(python, "-m", "venv", place)
        pip = (place / "bin" / "python", "-m", "pip", "install", "--quiet")
    run(*pip, "-r", lock)
    run(*pip, "--no-deps", wheel)
    return place / "bin"


def demo(programs: Path, place: Path, wanted: str) -> None:
    """The installed program says its version and does its demo."""
    program = programs / "rubix-token-sync"
    said = run(program, "--version", cwd=place).strip()
    if said != f"rubix-token-sync, version {wanted}":
        raise NotReady(f"the wheel's program says: {said}")
    run(program, "demo", "demo", "--nodes", "2", "--tokens", "50", cwd=place, HOME=str(place))
    run(program, "verify", "demo/fleet", "--target", "sqlite:///demo/rubix-tokens.db",
        "--source-ip", "demo", cwd=place, HOME=str(place))  # fmt: skip


def sbom(programs: Path, file: Path) -> None:
    """A CycloneDX document of that environment, reproducible."""
    run(
        sys.executable, "-m", "cyclonedx_py", "environment", programs / "python",
        "--pyproject", ROOT / "pyproject.toml", "--output-reproducible",
        "--output-format", "JSON", "--output-file", file,
    )  # fmt: skip


def site(to: Path) -> None:
    run(sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", to,
        NO_MKDOCS_2_WARNING="1")  # fmt: skip


def sums(to: Path) -> None:
    """SHA256SUMS of what is published."""
    lines = [
        f"{hashlib.sha256(file.read_bytes()).hexdigest()}  {file.name}\n"
        for file in sorted(to.iterdir())
        if file.is_file() and file.name != "SHA256SUMS"
    ]
    (to / "SHA256SUMS").write_text("".join(lines), encoding="utf-8")


class Checklist:
    """Steps with their outcome."""

    def __init__(self) -> None:
        self.left: list[str] = []

    def step(self, title: str, work: Callable[[], object]) -> object:
        """Do it; None where it failed."""
        began = time.monotonic()
        try:
            found = work()
        except NotReady as left:
            self.left.append(title)
            print(f"LEFT  {title}: {left}", flush=True)
            return None
        print(f"ok    {title} ({time.monotonic() - began:.0f} s)", flush=True)
        return found


def main() -> int:
    """0: ready to be published; 1: something is left to do."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--to", type=Path, default=ROOT / "dist", help="where files go")
    to: Path = parser.parse_args().to.absolute()
    to.mkdir(parents=True, exist_ok=True)
    for old in to.iterdir():
        shutil.rmtree(old) if old.is_dir() else old.unlink()
    todo, now = Checklist(), version()
    print(f"Version {now}")
    text = (ROOT / "CHANGELOG.md").read_text("utf-8")
    todo.step("the changelog has this version", lambda: check_changelog(now, text))
    todo.step("everything is committed", clean_tree)
    todo.step("generated pages, man pages and licences are current", generated)
    files = todo.step("wheel and source archive, twice the same", lambda: build(to))
    if isinstance(files, list):
        todo.step("twine check --strict", lambda: twine(files))
        (wheel,) = (file for file in files if file.suffix == ".whl")
        with tempfile.TemporaryDirectory() as work:
            place = Path(work)
            programs = todo.step(
                "the wheel installs into an empty environment",
                lambda: install(wheel, place / "env"),
            )
            if isinstance(programs, Path):
                todo.step("demo and verify from the wheel", lambda: demo(programs, place, now))
                name = f"rubix_token_sync-{now}.cdx.json"
                todo.step("SBOM (CycloneDX)", lambda: sbom(programs, to / name))
    with tempfile.TemporaryDirectory() as work:
        todo.step("the documentation builds without a warning", lambda: site(Path(work) / "site"))
    todo.step("SHA256SUMS", lambda: sums(to))
    print(
        f"{len(todo.left)} left to do."
        if todo.left
        else f"Ready: {to}. By hand: the long tests (.ci/run), the tag v{now}, the upload."
    )
    return 1 if todo.left else 0


if __name__ == "__main__":
    sys.exit(main())
