"""Two versions of the program by turns on the same fleet: ratios of processor time and of time.

    python -m benchmarks.turns /path/to/other/checkout/src --tokens 200000 --rounds 5

Machines drift; only what stands in one line was measured within minutes. Processor time is
that of all processes of a command (Linux: orphans come back to this one).
"""

from __future__ import annotations

import argparse
import ctypes
import os
import resource
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from benchmarks.fleets import BenchFleet, cached_fleet

_CACHE = Path(os.environ.get("RUBIX_BENCH_CACHE") or Path(__file__).resolve().parent / ".cache")
_OWN = Path(__file__).resolve().parent.parent / "src"
_PR_SET_CHILD_SUBREAPER = 36
_DATABASES = 51


@dataclass(frozen=True)
class Cost:
    """Of one command: seconds of wall clock and of processors."""

    wall: float
    cpu: float


def _cost(source: Path, directory: Path, *arguments: str) -> Cost:
    """Run the program of ``source``; raises RuntimeError where it does not end with 0."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    started = time.monotonic()
    pid = os.fork()
    if pid == 0:
        os.chdir(directory)
        out = os.open("output", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        os.dup2(out, 1)
        os.dup2(out, 2)
        os.environ["PYTHONPATH"] = str(source)
        os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # or each run compiles the sources anew
        os.execv(sys.executable, [sys.executable, "-P", "-m", "rubix_token_sync", *arguments])
    wall, status = 0.0, 0
    while True:
        try:
            ended, how = os.wait()
        except ChildProcessError:  # all of them
            break
        if ended == pid:
            wall, status = time.monotonic() - started, how
    if status:
        raise RuntimeError(f"{arguments[0]}: {(directory / 'output').read_text()[-2000:]}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return Cost(wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)


def _round(source: Path, fleet: BenchFleet, seed: int) -> dict[str, Cost]:
    common = ("--source-ip", "bench", "--quiet", "--target", "sqlite:///target.db")
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)

        def run(command: str) -> Cost:
            report = ("--report", "reports") if command == "sync" else ()
            return _cost(source, directory, command, str(fleet.directory), *common, *report)

        costs = {"first sync": run("sync"), "nothing changed": run("sync")}
        fleet.change(0.01, seed)
        return {**costs, "1 % changed": run("sync"), "verify": run("verify")}


def main() -> None:
    """Print the medians of the ratios, this version divided by the other."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("other", type=Path, help="the other version's src directory")
    parser.add_argument("--tokens", type=int, default=200_000)
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    fleet = cached_fleet(_CACHE, _DATABASES, given.tokens // _DATABASES, pools=True)
    pairs = [
        (_round(given.other.resolve(), fleet, 2 * n), _round(_OWN, fleet, 2 * n + 1))
        for n in range(given.rounds)
    ]
    print(f"{fleet.tokens:,} tokens, {given.rounds} pairs; new / old, median (least to most)")
    for step in pairs[0][0]:
        for what in ("wall", "cpu"):
            ratios = sorted(
                getattr(new[step], what) / getattr(old[step], what) for old, new in pairs
            )
            print(
                f"{step:<16} {what:<4} {statistics.median(ratios):.2f}"
                f" ({ratios[0]:.2f} to {ratios[-1]:.2f})"
            )


if __name__ == "__main__":
    main()
