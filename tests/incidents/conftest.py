"""A site: a fleet, an embedded target, a directory for reports, and the public door."""

from __future__ import annotations

import json
import sqlite3
from collections import Counter
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.chaos.door import Door, Finished

SOURCE = "vm1"


class Site:
    """One machine with nodes, and what is run there."""

    def __init__(self, door: Door, fleet: Path, home: Path) -> None:
        self.door = door
        self.fleet = fleet
        self.home = home
        self.target = home / "target.db"
        self.reports = home / "reports"
        self.source = SOURCE

    @property
    def url(self) -> str:
        """The embedded target."""
        return f"sqlite:///{self.target}"

    def arguments(self, command: str, *more: str, target: str | None = None) -> tuple[str, ...]:
        """A command over the whole fleet."""
        return (
            command, str(self.fleet), "--source-ip", self.source,
            "--target", target or self.url, *more,
        )  # fmt: skip

    def run(self, command: str, *more: str, **how: Any) -> Finished:
        """Run a command over the whole fleet."""
        return self.door.run(*self.arguments(command, *more), **how)

    def sync(self, *more: str, **how: Any) -> dict[str, Any]:
        """Sync (any exit code that says it ran to its end); gives the report."""
        report = self.run("sync", "--report", str(self.reports), "--json", *more, **how)
        return report.expect(0, 1).document

    def rows(self, statement: str, *values: object) -> list[tuple[Any, ...]]:
        """Ask the target."""
        with closing(sqlite3.connect(f"file:{self.target}?mode=ro", uri=True)) as db:
            return db.execute(statement, values).fetchall()

    def change(self, statement: str, *values: object) -> None:
        """Change the target behind the program's back."""
        with closing(sqlite3.connect(self.target)) as db, db:
            db.execute(statement, values)

    def one(self, statement: str, *values: object) -> Any:
        """One value from the target."""
        ((value,),) = self.rows(statement, *values)
        return value

    def latest_report(self) -> dict[str, Any]:
        """The newest report file."""
        newest = max(self.reports.glob("*.json"), key=lambda path: path.stat().st_mtime_ns)
        parsed: dict[str, Any] = json.loads(newest.read_text(encoding="utf-8"))
        return parsed


class Points:
    """Counts of the side effects that a run went through."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.env = {"RUBIX_SYNC_FAULT_LOG": str(path)}

    @property
    def passed(self) -> Counter[str]:
        """How often each point was passed."""
        if not self._path.exists():
            return Counter()
        return Counter(line.split()[1] for line in self._path.read_text().splitlines())


@pytest.fixture
def site(door: Door, fleet: Path, tmp_path: Path) -> Site:
    """The fixture fleet with a target that is not there yet."""
    return Site(door, fleet, tmp_path)


@pytest.fixture
def points(tmp_path: Path) -> Points:
    """Records which side effects happened: pass ``env=points.env`` to a run."""
    return Points(tmp_path / "points.log")
