"""A first load that is killed half-way: how fast the next run does the rest.

    python -m benchmarks.killed --target postgresql --tokens 200000 --rounds 3

Each round loads one empty target undisturbed and kills the load of another one (SIGKILL, all of
its processes) as soon as half of the records are there.  Prints both rates, by the clock and by
processor time, of what each run itself published.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import resource
import signal
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from benchmarks.fleets import BenchFleet, cached_fleet
from benchmarks.program import run_program
from benchmarks.targets import PostgresTarget, opened

_CACHE = Path(os.environ.get("RUBIX_BENCH_CACHE") or Path(__file__).resolve().parent / ".cache")
_DATABASES = 51
_PAUSE = 0.02

Count = Callable[[], int]


@contextlib.contextmanager
def _targets(kind: str, scratch: Path) -> Iterator[Callable[[], tuple[str, Count]]]:
    """Gives an empty target's address, and what counts its records, each time it is called."""
    with opened(kind, scratch) as server:
        if server is None:
            raise SystemExit(f"There is no {kind} here: pip install --group bench .")
        if isinstance(server, PostgresTarget):

            def count_there() -> int:
                import psycopg

                with server.connect("killed") as conn, conn.cursor() as cursor:
                    try:
                        cursor.execute("SELECT count(*) FROM TokenRecords")
                    except psycopg.errors.UndefinedTable:
                        return 0
                    return int((cursor.fetchone() or (0,))[0])

            yield lambda: (server.fresh_url("killed"), count_there)
            return
        number = 0

        def fresh() -> tuple[str, Count]:
            nonlocal number
            number += 1
            path = scratch / f"target{number}.db"
            return f"sqlite:///{path}", lambda: _in_file(path)

        yield fresh


def _in_file(path: Path) -> int:
    if not path.exists():
        return 0
    with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as db:
        try:
            return int(db.execute("SELECT max(id) FROM TokenRecords").fetchone()[0] or 0)
        except sqlite3.OperationalError:  # no table yet
            return 0


def _arguments(fleet: BenchFleet, address: str) -> tuple[str, ...]:
    source = ("--source-ip", "bench", "--quiet")
    return ("sync", str(fleet.directory), *source, "--target", address)


def _kill_half_way(fleet: BenchFleet, address: str, count: Count) -> int:
    """Begin a load and kill it; how many records are there."""
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parent.parent / "src")}
    with tempfile.TemporaryDirectory() as empty:
        process = subprocess.Popen(
            [sys.executable, "-m", "rubix_token_sync", *_arguments(fleet, address)],
            cwd=empty,
            env=environment,
            stdout=subprocess.DEVNULL,
            start_new_session=True,
        )
        while count() < fleet.tokens // 2:
            if process.poll() is not None:
                raise RuntimeError("the load ended before it was killed")
            time.sleep(_PAUSE)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    return count()


def _rate(fleet: BenchFleet, address: str, records: int) -> tuple[float, float]:
    """Records a second, and a second of processor, of a run that publishes so many."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    run = run_program(*_arguments(fleet, address))
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    published = run.document["records_inserted"]
    if published != records:
        raise RuntimeError(f"{published} records were published, not {records}")
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return records / run.seconds, records / used


def main() -> None:
    """Print the rates and the medians of their ratios."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--target", choices=("sqlite", "postgresql"), default="sqlite")
    parser.add_argument("--tokens", type=int, default=200_000)
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    fleet = cached_fleet(_CACHE, _DATABASES, given.tokens // _DATABASES, pools=True)
    ratios: list[tuple[float, float]] = []
    with (
        tempfile.TemporaryDirectory() as scratch,
        _targets(given.target, Path(scratch)) as fresh,
    ):
        for _ in range(given.rounds):
            whole = _rate(fleet, fresh()[0], fleet.tokens)
            address, count = fresh()
            there = _kill_half_way(fleet, address, count)
            rest = _rate(fleet, address, fleet.tokens - there)
            run_program("verify", *_arguments(fleet, address)[1:])
            ratios.append((rest[0] / whole[0], rest[1] / whole[1]))
            print(
                f"undisturbed {whole[0]:,.0f}/s ({whole[1]:,.0f} by processor);"
                f" the last {fleet.tokens - there:,} {rest[0]:,.0f}/s ({rest[1]:,.0f})",
                flush=True,
            )
    for name, found in zip(("time", "processor time"), zip(*ratios, strict=True), strict=True):
        print(
            f"{given.target}, {name}: {statistics.median(found):.2f}"
            f" ({min(found):.2f} to {max(found):.2f})"
        )


if __name__ == "__main__":
    main()
