"""Reports of runs, where this server has them."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Sequence
from typing import Any, Final

__all__ = ["find_report"]

_NAME: Final = re.compile(r"sync_report_[0-9TZ]+_([0-9a-f]{8})\.json")
_LARGEST: Final = 32 * 2**20
_KEYS: Final = frozenset({"report_version", "session_id", "databases", "errors", "rate_samples"})


def find_report(
    places: Sequence[str], session_id: str
) -> tuple[dict[str, Any] | None, str | None, list[str]]:
    """The JSON report of this session and its file's name; None where there is none.

    The last are sentences: what could not be looked at.
    """
    unread = []
    for place in places:
        try:
            names = [entry.name for entry in os.scandir(place) if entry.is_file()]
        except FileNotFoundError:  # no run has written one there
            continue
        except OSError as error:
            unread.append(f"{place} cannot be read ({(error.strerror or str(error)).lower()})")
            continue
        for name in sorted(names, reverse=True):
            found = _NAME.fullmatch(name)
            if found is None or not session_id.startswith(found[1]):
                continue
            report = _read(os.path.join(place, name))
            if report is None:
                unread.append(f"{os.path.join(place, name)} cannot be read, or is not a report")
            elif report["session_id"] == session_id:
                return report, name, []
    return None, None, unread


def _read(path: str) -> dict[str, Any] | None:
    """The report; None where the file is none, or was cut."""
    try:
        with open(path, "rb") as file:
            data = file.read(_LARGEST + 1)
        report = json.loads(data) if len(data) <= _LARGEST else None
    except (OSError, ValueError, RecursionError):
        return None
    whole = isinstance(report, dict) and report.keys() >= _KEYS and report["report_version"] == 1
    return report if whole else None
