"""Two versions of the program by turns on the same fleet: ratios of processor time and of time.

    python -m benchmarks.turns /path/to/other/checkout/src --tokens 200000 --rounds 5
    python -m benchmarks.turns OTHER/src --target postgresql --delay 10 --first-only

Machines drift; only what stands in one line was measured within minutes. Processor time is
that of all processes of a command (Linux: orphans come back to this one); a server's is not
in it.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import os
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from benchmarks.delay import delayed
from benchmarks.fleets import BenchFleet, cached_fleet
from benchmarks.scenarios import MISSING
from benchmarks.targets import MssqlTarget, PostgresTarget, opened

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


def _round(
    source: Path, fleet: BenchFleet, seed: int, target: tuple[str, ...], *, first_only: bool
) -> dict[str, Cost]:
    common = ("--source-ip", "bench", "--quiet", *target)
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)

        def run(command: str) -> Cost:
            report = ("--report", "reports") if command == "sync" else ()
            return _cost(source, directory, command, str(fleet.directory), *common, *report)

        costs = {"first sync": run("sync")}
        if first_only:
            return costs
        costs["nothing changed"] = run("sync")
        fleet.change(0.01, seed)
        return {**costs, "1 % changed": run("sync"), "verify": run("verify")}


@contextlib.contextmanager
def _targets(kind: str, delay: float) -> Iterator[Callable[[], tuple[str, ...]]]:
    """Gives the flags that name an empty target each time it is called."""
    with contextlib.ExitStack() as stack:
        if kind == "sqlite":
            yield lambda: ("--target", "sqlite:///target.db")
            return
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        server = stack.enter_context(opened(kind, scratch))
        if isinstance(server, MssqlTarget):
            if delay:
                server.go_through(stack.enter_context(delayed(server.server, delay)))
            yield server.fresh
            return
        if not isinstance(server, PostgresTarget):
            raise SystemExit(f"{MISSING[kind]}.")
        if not delay:
            yield lambda: ("--target", server.fresh_url("turns"))
            return
        port = stack.enter_context(delayed(scratch / "postgres" / ".s.PGSQL.5432", delay))

        def address() -> tuple[str, ...]:
            server.fresh_url("turns")
            return "--target", f"postgresql://postgres@127.0.0.1:{port}/turns?sslmode=disable"

        yield address


def main() -> None:
    """Print the medians of the ratios, this version divided by the other."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("other", type=Path, help="the other version's src directory")
    parser.add_argument("--tokens", type=int, default=200_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--target", choices=("sqlite", "postgresql", "mssql"), default="sqlite")
    parser.add_argument("--delay", type=float, default=0.0, help="ms each way to the server")
    parser.add_argument("--new", type=Path, default=_OWN, help="the new version's src directory")
    parser.add_argument("--first-only", action="store_true", help="only the first sync")
    given = parser.parse_args()
    fleet = cached_fleet(_CACHE, _DATABASES, given.tokens // _DATABASES, pools=True)
    with _targets(given.target, given.delay / 1_000) as address:
        # What waits for all of its children may have none but the commands.
        if (measuring := os.fork()) == 0:
            ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
            try:
                _compare(given, fleet, address)
                sys.stdout.flush()
                os._exit(0)
            finally:
                sys.excepthook(*sys.exc_info())  # type: ignore[arg-type]
                os._exit(1)
        _, status = os.waitpid(measuring, 0)
    sys.exit(os.waitstatus_to_exitcode(status))


def _compare(
    given: argparse.Namespace, fleet: BenchFleet, address: Callable[[], tuple[str, ...]]
) -> None:
    pairs = []
    for n in range(given.rounds):
        pair = {}
        versions = [("old", given.other.resolve()), ("new", given.new.resolve())]
        for which, source in versions if n % 2 == 0 else reversed(versions):
            pair[which] = _round(
                source, fleet, 2 * n + (which == "new"), address(), first_only=given.first_only
            )
        pairs.append((pair["old"], pair["new"]))
        for step in pairs[-1][0]:
            old, new = pairs[-1][0][step], pairs[-1][1][step]
            print(
                f"{step:<16} old {old.wall:6.2f} s, {old.cpu:6.2f} CPU s;"
                f" new {new.wall:6.2f} s, {new.cpu:6.2f} CPU s",
                flush=True,
            )
    print(
        f"{given.target}, {given.delay:g} ms each way, {fleet.tokens:,} tokens, {given.rounds} "
        "pairs; new / old, median (least to most)"
    )
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
