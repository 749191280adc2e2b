"""Numbers, times and durations as people read them: the same in commands, page and report."""

from __future__ import annotations

from datetime import datetime

__all__ = ["ago", "count", "length", "per_cent", "rate", "when"]


def count(value: int | None) -> str:
    """A number with its thousands apart."""
    return "" if value is None else f"{value:,}"


def per_cent(value: float | None) -> str:
    """A share with one decimal; 100.0 and 0.0 only where it is all or nothing."""
    if value is None:
        return ""
    if 0 < value < 100:
        value = min(99.9, max(0.1, round(value, 1)))
    return f"{value:.1f} %"


def rate(value: float | None) -> str:
    """Records per second."""
    return "" if value is None else f"{value:,.0f}/s"


def when(value: datetime | None) -> str:
    """A time of the target, to the second."""
    return "" if value is None else value.strftime("%Y-%m-%d %H:%M:%S")


def length(seconds: float | None) -> str:
    """A duration in its two largest units."""
    if seconds is None:
        return ""
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    for unit, name, lower, lower_name in (
        (86_400, "d", 3_600, "h"),
        (3_600, "h", 60, "min"),
        (60, "min", 1, "s"),
    ):
        if whole >= unit:
            return f"{whole // unit} {name} {whole % unit // lower} {lower_name}"
    return f"{whole} s"


def ago(seconds: float | None) -> str:
    """An age."""
    return "never" if seconds is None else f"{length(seconds)} ago"
