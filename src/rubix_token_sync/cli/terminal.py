"""A person at a terminal: signals, the bar, problems with what to do about them."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from types import FrameType
from typing import TYPE_CHECKING, Final

import rubix_token_sync as rts
from rubix_token_sync.cli.output import length, per_cent, rate, say

if TYPE_CHECKING:
    from rich.console import RenderableType

    from rubix_token_sync import CancelToken, Observer, Problem, Progress, TargetReader

__all__ = [
    "counting",
    "interruptible",
    "note_unread",
    "pausing",
    "print_problems",
    "showing",
]

_STOPPING: Final = (
    "Stopping after the chunk under way … What is stored stays; run the command again to go on."
)
_COUNT_SECONDS: Final = 0.2
_ALIKE: Final = 3
"""More problems than this of one kind are shown as one, with their count."""


@contextlib.contextmanager
def interruptible(stopping: str = _STOPPING) -> Iterator[CancelToken]:
    """Ctrl-C and SIGTERM end the run at the next safe point; a second one at once.

    ``stopping`` is said at the first one.
    """
    stop = rts.CancelToken()

    def handler(number: int, _frame: FrameType | None) -> None:
        if stop.signal_number is not None:
            _say("Stopped at once; the next run takes over.")
            os._exit(128 + number)  # nothing that could wait any longer
        stop.signal_number = number  # before anything is said: a second one may come at once
        _say(stopping)
        stop.give(number)

    before = {n: signal.signal(n, handler) for n in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, old in before.items():
            signal.signal(number, old)


def _say(line: str) -> None:
    # Past sys.stderr, which the main thread may be in the middle of using.
    with contextlib.suppress(OSError):
        show_cursor = "\x1b[?25h" if os.isatty(2) else ""
        os.write(2, f"{show_cursor}{line}\n".encode())


@contextlib.contextmanager
def pausing() -> Iterator[Callable[[float], bool]]:
    """A function that waits so many seconds, and tells whether Ctrl-C has asked for the end.

    For what only looks, again and again.  A second Ctrl-C ends it at once.  No exception: one
    that a handler raises is lost where an object is being finalized, and there is none where
    the program was started with SIGINT ignored.
    """
    pressed, press = os.pipe()

    def asked(seconds: float) -> bool:
        return bool(select.select([pressed], [], [], seconds)[0])

    def handler(number: int, _frame: FrameType | None) -> None:
        if asked(0):
            os._exit(128 + number)
        os.write(press, b"\0")

    before = signal.signal(signal.SIGINT, handler)
    try:
        yield asked
    finally:
        signal.signal(signal.SIGINT, before)
        os.close(pressed)
        os.close(press)


@contextlib.contextmanager
def showing(verb: str, *, quiet: bool, no_progress: bool) -> Iterator[list[Observer]]:
    """An observer that draws a bar where a person looks at a terminal; else none.

    ``verb`` says what is done to databases: ``Syncing``.  While there is a bar, the log's
    lines below a warning go to its file only.
    """
    if quiet or no_progress or not sys.stderr.isatty():
        yield []
        return
    from rich.console import Console
    from rich.live import Live

    class Bar(rts.Observer):
        def __init__(self) -> None:
            self.progress: Progress | None = None

        def on_progress(self, progress: Progress) -> None:
            self.progress = progress

    bar, began = Bar(), time.monotonic()
    console = Console(stderr=True, highlight=False)

    def draw() -> RenderableType:
        return _two_lines(verb, bar.progress, time.monotonic() - began, console.width)

    # While it is drawn, sys.stderr is the console's: lines go above the bar.
    with (
        Live(get_renderable=draw, console=console, refresh_per_second=5, transient=True),
        rts.log_through(sys.stderr),
    ):
        yield [bar]


@contextlib.contextmanager
def counting(verb: str, *, quiet: bool) -> Iterator[Callable[[int, int], None]]:
    """A function that says on a terminal, in one line, how many records of all are done.

    Ctrl-C and SIGTERM end the work when it is called next; what was begun is removed.
    """
    shown, last = not quiet and sys.stderr.isatty(), 0.0

    def on_progress(done: int, total: int) -> None:
        nonlocal last
        stop.check()
        if shown and (now := time.monotonic()) - last > _COUNT_SECONDS:
            last = now
            _put(f"\r\x1b[K{verb} {done:,} of {rts.counted(total, 'record')}")

    with interruptible("Stopping … What was begun is removed.") as stop:
        try:
            yield on_progress
        finally:
            if shown:
                _put("\r\x1b[K")


def _put(text: str) -> None:
    with contextlib.suppress(OSError):
        sys.stderr.write(text)
        sys.stderr.flush()


def _two_lines(verb: str, progress: Progress | None, seconds: float, width: int) -> RenderableType:
    from rich.text import Text

    first, second = bar_lines(verb, progress, seconds, width)
    return Text(f"{first}\n{second}", no_wrap=True, overflow="ellipsis")


def bar_lines(verb: str, progress: Progress | None, seconds: float, width: int) -> tuple[str, str]:
    """The bar: phase, share, time left and gone; databases, records, content."""
    if progress is None or not progress.weights:
        return f"Looking for nodes  elapsed {length(seconds)}"[:width], ""
    counters = progress.counters
    done = counters.databases_processed + counters.databases_failed
    ended = done >= len(progress.weights)
    # What was read of a database may still have to be stored.
    share = progress.share if ended else min(progress.share, 0.99)
    phase = verb if not ended else "Building indexes" if verb == "Syncing" else "Finishing"
    tail = f" {share * 100:3.0f} %"
    if 0.01 < share < 1:
        tail += f"  ETA {length(seconds * (1 - share) / share)}"
    tail += f"  elapsed {length(seconds)}"
    room = max(8, min(40, width - len(phase) - len(tail) - 2))
    full = round(room * share)
    records, content = progress.so_far()
    parts = [
        f"{done:,} of {rts.counted(len(progress.weights), 'database')}",
        rts.counted(records, "record"),
        rate(records / seconds if seconds else 0.0),
    ]
    if records and content:
        parts.append(f"content {per_cent(content * 100 / records)}")
    if counters.databases_failed:
        parts.insert(1, f"{counters.databases_failed:,} failed")
    line = f"{phase} {'━' * full}{'╌' * (room - full)}{tail}"
    return line[:width], " · ".join(parts)[:width]


def note_unread(
    target: TargetReader,
    *,
    sources: Sequence[str] = (),
    nodes: Sequence[str] = (),
    quiet: bool = False,
) -> None:
    """Say on stderr what an answer cannot speak for; refuse names that the target does not know.

    Raises:
        SettingsError: no machine or node has this name.
    """
    target.require_known(sources=sources, nodes=nodes)
    unread = [] if quiet else target.unread(sources=sources, nodes=nodes)
    note = rts.unread_note(unread)
    if note is not None:
        print(rts.shown(f"! {note}"), file=sys.stderr)


def print_problems(problems: Sequence[Problem]) -> None:
    """Code, sentence and cure of each, errors first; many of one kind as one with its count."""
    kinds: dict[tuple[str, str, str | None, str], list[Problem]] = {}
    for problem in problems:
        kind = (problem.severity, problem.code, problem.detail, problem.cure)
        kinds.setdefault(kind, []).append(problem)
    cures = [cure for _, _, _, cure in kinds]
    for number, ((severity, code, detail, cure), alike) in enumerate(kinds.items(), 1):
        mark, style = ("✗", "31") if severity == "error" else ("!", "33")
        for problem in alike[:_ALIKE]:
            say(f"{mark} {problem.message} [{detail or code}]", style)
        if len(alike) > _ALIKE:
            rest = sum(problem.count for problem in alike[_ALIKE:])
            more = f"… and {len(alike) - _ALIKE:,} more of this kind"
            if rest > len(alike) - _ALIKE:
                more += f", {rest:,} in all"
            say(f"{more}: `--json` lists them.", indent="  ")
        if cure and cures[number : number + 1] != [cure]:  # else the next kind's is the same
            say(cure, indent="  ")
