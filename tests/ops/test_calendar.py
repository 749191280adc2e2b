"""A timer's time is checked before a unit is written (incident 31)."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from rubix_token_sync.deploy.calendar import in_subset, refusal

from .conftest import Answer

Run = Callable[..., Answer]

GOOD = [
    "daily", "Weekly", "*-*-* 02:17:00", "*-*-* 02:17", "02:17", "Mon 03:00", "Mon..Fri 02:00",
    "Mon,Thu *-*-* 2:5", "Sat,Mon..Wed 00:00:00 UTC", "*-*-1 04:00", "*-1,7-1", "*:0/15",
    "*-*-1..7 18:00:00", "2199-12-31 23:59:59", "Sunday 01:00", "*-*-1/2 00:00", "*-*",
]  # fmt: skip
BAD = [
    "whenever", "25:00", "02:60", "*-13-01", "*-*-32 00:00", "Mun 02:00", "02:17:00 *-*-*",
    "2:00 2:00", "*-*-* 02:17:00 Mon", "daily daily", "-h", "--version", "1..0:00", "*:0/0", "",
    "Mon..",
]  # fmt: skip


@pytest.mark.parametrize("text", GOOD)
def test_times_of_the_subset(text: str) -> None:
    assert in_subset(text)
    assert refusal(text, ask_systemd=False) is None


@pytest.mark.parametrize("text", BAD)
def test_what_is_no_time(text: str) -> None:
    assert not in_subset(text)
    assert refusal(text, ask_systemd=False)


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="no systemd-analyze here")
def test_the_subset_is_systemds() -> None:
    assert {text: refusal(text) for text in GOOD} == dict.fromkeys(GOOD)
    accepted = [text for text in BAD if refusal(text) is None]
    assert accepted == []
    assert refusal("2001-01-01 00:00") == "that time never comes again"


@pytest.mark.parametrize("calendar", ["whenever", "25:00", "daily\nUnit=x"])
def test_nothing_is_written_for_a_time_that_is_none(
    run: Run, tmp_path: Path, calendar: str
) -> None:
    done = run("install-service", "--to", str(tmp_path), "--user", "rubix", "--calendar", calendar)
    assert done.exit_code == 2
    assert "'*-*-* 02:17:00' or 'daily'" in done.err
    assert list(tmp_path.iterdir()) == []


def test_a_good_time_stands_in_the_timer(run: Run, tmp_path: Path) -> None:
    done = run("install-service", "--to", str(tmp_path), "--user", "u", "--calendar", "Mon 03:00")
    assert done.exit_code == 0, done.err
    assert "OnCalendar=Mon 03:00\n" in (tmp_path / "rubix-token-sync.timer").read_text()
