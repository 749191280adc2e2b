"""Times at which a timer starts a run, checked before they are written into a unit.

Where systemd is installed, `systemd-analyze calendar` decides.  Elsewhere (units written on one
machine for another) this module accepts the subset of `systemd.time(7)` described here:

    [WEEKDAYS] [[YEAR-]MONTH-DAY] [HOUR:MINUTE[:SECOND]] [UTC]

with WEEKDAYS as ``Mon``, ``Mon,Thu`` or ``Mon..Fri`` and each number as ``*``, ``5``, ``1,15``,
``1..5`` or one of these with ``/STEP``; or one word: minutely, hourly, daily, weekly, monthly,
quarterly, semiannually, yearly, annually.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from typing import Final

__all__ = ["in_subset", "refusal"]

_WORDS: Final = frozenset(
    [
        "minutely",
        "hourly",
        "daily",
        "weekly",
        "monthly",
        "quarterly",
        "semiannually",
        "yearly",
        "annually",
    ]
)
_DAY: Final = r"(?:mon|tue|wed|thu|fri|sat|sun)[a-z]*"
_WEEKDAYS: Final = re.compile(rf"{_DAY}(?:\.\.{_DAY})?(?:,{_DAY}(?:\.\.{_DAY})?)*")
_DAYS: Final = frozenset(
    [
        "mon",
        "tue",
        "wed",
        "thu",
        "fri",
        "sat",
        "sun",
        "monday",
        "tuesday",
        "wednesday",
        "thursday",
        "friday",
        "saturday",
        "sunday",
    ]
)
_YEARS, _MONTHS, _MONTH_DAYS = (1970, 2199), (1, 12), (1, 31)
_TIME: Final = ((0, 23), (0, 59), (0, 59))
_SECONDS: Final = 20


def refusal(text: str, *, ask_systemd: bool = True) -> str | None:
    """Why ``text`` cannot be a timer's time; None: it can."""
    program = shutil.which("systemd-analyze") if ask_systemd else None
    if program is None:
        return None if in_subset(text) else "it is not in the subset of systemd.time known here"
    try:
        done = subprocess.run(
            [program, "calendar", "--", text],
            capture_output=True, text=True, check=False, timeout=_SECONDS,
            env={"LC_ALL": "C.UTF-8", "PATH": "/usr/bin:/bin"},
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired):  # no answer is not a refusal
        return refusal(text, ask_systemd=False)
    if done.returncode != 0:
        return "systemd-analyze does not accept it"
    if re.search(r"^\s*Next elapse: never$", done.stdout, re.MULTILINE):
        return "that time never comes again"
    return None


def in_subset(text: str) -> bool:
    """Whether ``text`` is a time of the subset that this module documents."""
    words = text.lower().split()
    if len(words) == 1 and words[0] in _WORDS:
        return True
    if len(words) > 1 and words[-1] == "utc":
        words.pop()
    steps = (_are_weekdays, _is_date, _is_time)
    at = 0
    for is_one in steps:
        if at < len(words) and is_one(words[at]):
            at += 1
    return 0 < at == len(words)


def _are_weekdays(word: str) -> bool:
    return bool(_WEEKDAYS.fullmatch(word)) and set(re.findall("[a-z]+", word)) <= _DAYS


def _is_date(word: str) -> bool:
    fields = word.split("-")
    limits = ((_YEARS, _MONTHS, _MONTH_DAYS), (_MONTHS, _MONTH_DAYS))[len(fields) == 2]
    return len(fields) in (2, 3) and all(map(_is_field, fields, limits))


def _is_time(word: str) -> bool:
    fields = word.split(":")
    return len(fields) in (2, 3) and all(map(_is_field, fields, _TIME))


def _is_field(text: str, limits: tuple[int, int]) -> bool:
    low, high = limits
    for part in text.split(","):
        found = re.fullmatch(r"(?:\*|(\d{1,4})(?:\.\.(\d{1,4}))?)(?:/(\d{1,4}))?", part)
        if found is None:
            return False
        first, last, step = (None if g is None else int(g) for g in found.groups())
        if first is not None and not low <= first <= high:
            return False
        if last is not None and first is not None and not first <= last <= high:
            return False
        if step == 0:
            return False
    return True
