"""Pictures that say more than their numbers: bars in cells, curves, a year of nights.

Each is SVG that is made here, with a text for whoever does not see it; the numbers stand beside
it.  Sizes are attributes, never a style: the page's policy allows no style in an element.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Final

from rubix_token_sync.amounts import length
from rubix_token_sync.pages.markup import Element, tag

__all__ = ["Day", "bar", "calendar", "curve", "legend", "spark"]

_BAR: Final = (160, 10)
_SPARK: Final = (96, 22)
_CURVE: Final = (420, 190)
_LEFT, _TOP, _BOTTOM = 52, 10, 158
_CELL, _GAP, _MONTH = 11, 3, 14
_WEEKS: Final = 53
_FEWEST_SAMPLES: Final = 12
"""Of a run that took shorter, a curve would be chance."""


def bar(parts: Sequence[tuple[str, int, str]], *, most: int | None = None) -> Element:
    """One stacked bar: kind (the colour's class), number and word of each part.

    ``most`` is what the whole width stands for; without it, the sum of the parts.
    """
    width, height = _BAR
    whole = max(most or 0, sum(number for _, number, _ in parts), 1)
    said = ", ".join(f"{number:,} {word}" for _, number, word in parts if number) or "none"
    drawn = [tag("rect", class_="empty", width=width, height=height, rx=2)]
    at = 0.0
    for kind, number, _ in parts:
        if number:
            # A part that is there can be seen, however small it is.
            own = min(max(number * width / whole, 2.0), width - at)
            drawn.append(
                tag("rect", class_=kind, x=round(at, 2), width=round(own, 2), height=height, rx=2)
            )
            at += own
    return tag(
        "svg", *drawn, class_="bar", viewBox=f"0 0 {width} {height}", width=width, height=height,
        role="img", aria_label=said, preserveAspectRatio="none",
    )  # fmt: skip


def legend(parts: Sequence[tuple[str, str]]) -> Element:
    """What the colours mean: kinds with their words."""
    return tag(
        "p",
        *(
            tag("span", tag("i", class_=f"key {kind}", aria_hidden="true"), word, class_="entry")
            for kind, word in parts
        ),
        class_="legend",
    )


def spark(values: Sequence[float | None], said: str) -> Element:
    """A small column for each value, in their order; a gap where there is none."""
    width, height = _SPARK
    top = max((value for value in values if value is not None), default=0.0) or 1.0
    step = width / max(len(values), 12)
    drawn = []
    for place, value in enumerate(values):
        if value is not None:
            tall = max(1.0, value / top * height)
            x, y = round(place * step, 2), round(height - tall, 2)
            own = round(max(step - 1.5, 1.0), 2)
            drawn.append(tag("rect", x=x, y=y, width=own, height=round(tall, 2), rx=1))
    return tag(
        "svg", *drawn, class_="spark", viewBox=f"0 0 {width} {height}", width=width,
        height=height, role="img", aria_label=said,
    )  # fmt: skip


def curve(samples: Sequence[tuple[float, float]], title: str) -> Element | None:
    """A rate over a run's seconds; None where there are too few samples to mean anything.

    The axis of the rate begins at 0.
    """
    if len(samples) < _FEWEST_SAMPLES:
        return None
    width, height = _CURVE
    first, last = samples[0][0], samples[-1][0]
    step = _round_step(max(rate for _, rate in samples) / 4)

    def across(seconds: float) -> float:
        return round(_LEFT + (seconds - first) / max(last - first, 0.001) * (width - _LEFT - 6), 1)

    def down(rate: float) -> float:
        return round(_TOP + (1 - rate / (4 * step)) * (_BOTTOM - _TOP), 1)

    drawn = []
    for n in range(5):
        y = down(n * step)
        drawn.append(tag("line", x1=_LEFT, x2=width - 6, y1=y, y2=y))
        drawn.append(tag("text", _short(n * step), x=_LEFT - 7, y=y + 4, text_anchor="end"))
        seconds = first + (last - first) * n / 4
        anchor = "start" if n == 0 else "end" if n == 4 else "middle"
        kind, x = "half" if n % 2 else None, across(seconds)
        said = length(seconds)
        drawn.append(tag("text", said, x=x, y=_BOTTOM + 18, text_anchor=anchor, class_=kind))
    points = " ".join(f"{across(at)},{down(rate)}" for at, rate in samples)
    ends = f"{across(first)},{_BOTTOM} {points} {across(last)},{_BOTTOM}"
    drawn += [tag("polygon", points=ends), tag("polyline", points=points)]
    return tag(
        "svg", *drawn, class_="curve", viewBox=f"0 0 {width} {height}", role="img",
        aria_label=title,
    )  # fmt: skip


def _short(value: float) -> str:
    """A number of an axis."""
    for least, unit in ((1_000_000, "M"), (1_000, "k")):
        if value >= least:
            return f"{value / least:,.4g} {unit}"
    return f"{value:,.4g}"


def _round_step(least: float) -> float:
    """1, 2 or 5 times a power of ten, not below ``least``."""
    step = 1.0
    while step < least:
        step *= 2.5 if f"{step:g}"[0] == "2" else 2
    return step


@dataclass(frozen=True)
class Day:
    """One square of a calendar: ``kind`` is its colour's class, ``said`` its words."""

    kind: str
    said: str


def calendar(days: Mapping[date, Day], today: date, title: str) -> Element:
    """A year of nights: a square a day, a column a week, the last one is today's.

    On a narrow screen it scrolls within itself, and shows its end first.
    """
    start = today - timedelta(days=today.weekday() + 7 * (_WEEKS - 1))
    size = _CELL + _GAP
    width, height = _WEEKS * size, 7 * size + _MONTH
    drawn = []
    for week in range(_WEEKS):
        monday = start + timedelta(days=7 * week)
        if monday.day <= 7 and week < _WEEKS - 2:
            drawn.append(tag("text", f"{monday:%b}", x=week * size, y=9))
        for weekday in range(7):
            day = monday + timedelta(days=weekday)
            if day > today:
                break
            drawn.append(_square(day, days.get(day), week * size, weekday * size + _MONTH))
    picture = tag(
        "svg", *drawn, class_="calendar", viewBox=f"0 0 {width} {height}", width=width,
        height=height, role="img", aria_label=title,
    )  # fmt: skip
    return tag(
        "div", picture, class_="scroll nights", tabindex="0", role="region", aria_label=title
    )


def _square(day: date, found: Day | None, x: int, y: int) -> Element:
    kind = found.kind if found is not None else "none"
    said = None if found is None else tag("title", f"{day:%Y-%m-%d}: {found.said}")
    return tag("rect", said, class_=kind, x=x, y=y, width=_CELL, height=_CELL, rx=2)
