"""Rows of fungible tokens against rows of RBT: processor time a row, by turns.

    python -m benchmarks.kinds --rows 200000 --rounds 3

Makes a node with that many whole tokens and one with as many fungible tokens, each with its
content, and syncs them by turns: first into a new target (every row is new, every content is
read and proven), then again with one row changed (every row is read and compared).
"""

from __future__ import annotations

import argparse
import resource
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from contextlib import closing
from pathlib import Path
from statistics import median

from rubix_token_sync.testing import FleetPlan, make_fleet

_KINDS = {"rbt": "TokensTable", "ft": "FTTokenTable"}


def make(directory: Path, kind: str, rows: int) -> Path:
    """A node with rows of one kind; gives the path of its database."""
    if kind == "rbt":
        plan = FleetPlan(nodes=1, tokens_per_node=rows, part_tokens=0.0, fungible_tokens=0.0)
    else:
        plan = FleetPlan(nodes=1, tokens_per_node=0, ft_rows=rows)
    return Path(make_fleet(directory / kind, plan).nodes[0].db_path)


def spent(fleet: Path, target: Path) -> float:
    """Processor seconds of one sync, its workers included."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    command = [sys.executable, "-m", "rubix_token_sync", "sync", str(fleet)]
    more = ["--target", f"sqlite:///{target}", "--source-ip", "bench", "--quiet"]
    subprocess.run([*command, *more], check=True, cwd=target.parent)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def touch(database: Path, kind: str) -> None:
    """Change one row."""
    with closing(sqlite3.connect(database)) as db, db:
        table = _KINDS[kind]
        db.execute(f"UPDATE {table} SET token_status = token_status + 1 WHERE rowid = 1")


def main() -> None:
    """Print the medians so far after each round."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    times: dict[tuple[str, str], list[float]] = {}
    with tempfile.TemporaryDirectory() as where:
        home = Path(where)
        databases = {kind: make(home, kind, options.rows) for kind in _KINDS}
        for number in range(options.rounds):
            for kind, database in databases.items():
                place = home / f"{kind}-{number}"
                place.mkdir()
                times.setdefault(("new", kind), []).append(spent(home / kind, place / "t.db"))
                touch(database, kind)
                times.setdefault(("read again", kind), []).append(
                    spent(home / kind, place / "t.db")
                )
                shutil.rmtree(place)
            for what in ("new", "read again"):
                micro = {kind: median(times[what, kind]) / options.rows * 1e6 for kind in _KINDS}
                print(
                    f"{options.rows:,} rows, {what}: RBT {micro['rbt']:.1f} µs of processor a row, "
                    f"FT {micro['ft']:.1f} µs; FT takes {micro['ft'] / micro['rbt']:.2f} of RBT's "
                    f"time (medians of {number + 1} rounds by turns)",
                    flush=True,
                )


if __name__ == "__main__":
    main()
