"""``python -m benchmarks.evidence``: what evidence costs, by turns against hashing alone.

Prints records a second of a clock and of one processor's time for `create`, `verify` and the bare
hashing of the same leaves (leaf hashes and the tree above them, in memory), and seconds for a
proof.  Each step is a process of its own, so that the peak memory is its own.
"""

from __future__ import annotations

import importlib
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import click

import rubix_token_sync as rts
from rubix_token_sync.evidence.form import LEAVES
from rubix_token_sync.evidence.tree import leaf_hash, root_of
from rubix_token_sync.testing import FleetPlan, make_fleet

_NODES = 20


def _create(place: Path) -> int:
    directory = place / "evidence"
    made = rts.create_evidence(directory, key=place / "key", target=f"sqlite:///{place}/t.db")
    return made.checkpoint.size


def _verify(place: Path) -> int:
    return rts.verify_evidence(place / "evidence", key=place / "key.pub").checkpoint.size


def _hash(place: Path) -> int:
    leaves = (place / "evidence" / LEAVES).read_bytes().split(b"\n")[:-1]
    started = time.perf_counter(), time.process_time()
    root_of([leaf_hash(leaf) for leaf in leaves])
    _report(len(leaves), started)
    return 0


def _prove(place: Path) -> int:
    with open(place / "evidence" / LEAVES, "rb") as file:
        file.seek(-4_096, 2)
        key = json.loads(file.read().split(b"\n")[-2])["record_key"]
    started = time.perf_counter(), time.process_time()
    rts.prove_token(key, evidence=place / "evidence")
    _report(1, started)
    return 0


_STEPS: dict[str, Callable[[Path], int]] = {
    "create": _create, "verify": _verify, "bare hashing": _hash, "prove": _prove,
}  # fmt: skip


def _report(records: int, started: tuple[float, float]) -> None:
    wall, cpu = time.perf_counter() - started[0], time.process_time() - started[1]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    print(json.dumps({"records": records, "wall": wall, "cpu": cpu, "peak": peak}))


def _measured(step: str, place: Path) -> dict[str, float]:
    ended = subprocess.run(
        [sys.executable, "-m", "benchmarks.evidence", "--step", step, "--place", str(place)],
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    found: dict[str, float] = json.loads(ended.stdout.splitlines()[-1])
    return found


def _prepare(place: Path, records: int) -> None:
    click.echo(f"{records:,} records …")
    make_fleet(place / "fleet", FleetPlan(nodes=_NODES, tokens_per_node=records // _NODES))
    rts.sync(place / "fleet", target=f"sqlite:///{place}/t.db", source_ip="bench")
    rts.make_evidence_key(place / "key")


@click.command()
@click.option("--records", type=click.IntRange(min=_NODES), default=200_000, show_default=True)
@click.option("--rounds", type=click.IntRange(min=1), default=3, show_default=True)
@click.option("--place", type=click.Path(path_type=Path), help="Keep everything there.")
@click.option("--step", type=click.Choice(list(_STEPS)), hidden=True)
def main(records: int, rounds: int, place: Path | None, step: str | None) -> None:
    """Sign a fleet of RECORDS, check it, prove one record; by turns with bare hashing."""
    if step is not None:
        assert place is not None
        # What has to be loaded is loaded before the clock starts.
        with rts.open_target(f"sqlite:///{place}/t.db") as target:
            target.records(limit=1)
        importlib.import_module("rubix_token_sync.library.evidence")
        started = time.perf_counter(), time.process_time()
        if done := _STEPS[step](place):
            _report(done, started)
        return
    with tempfile.TemporaryDirectory(prefix="evidence-") as scratch:
        kept = place or Path(scratch)
        if not (kept / "key").exists():
            _prepare(kept, records)
        seen: dict[str, list[dict[str, float]]] = {name: [] for name in _STEPS}
        for _ in range(rounds):
            subprocess.run(["rm", "-rf", str(kept / "evidence")], check=True)
            for name in _STEPS:
                seen[name].append(_measured(name, kept))
    for name, rows in seen.items():
        peak = max(row["peak"] for row in rows)
        if name == "prove":
            wall = statistics.median(row["wall"] for row in rows)
            click.echo(f"{name}: {wall:.2f} s, peak {peak:,.0f} MB")
            continue
        best = min(row["wall"] / row["records"] for row in rows)
        cpu = min(row["cpu"] / row["records"] for row in rows)
        ratios = [
            row["cpu"] / row["records"] / (bare["cpu"] / bare["records"])
            for row, bare in zip(rows, seen["bare hashing"], strict=True)
        ]
        click.echo(
            f"{name}: {1 / best:,.0f} records/s, {cpu * 1e6:.2f} µs of a processor each "
            f"({statistics.median(ratios):.1f} times bare hashing), peak {peak:,.0f} MB"
        )


if __name__ == "__main__":
    main(prog_name="python -m benchmarks.evidence")
