"""Fuzzes source reading with damaged databases.

    python tests/nodes/fuzz.py --seconds 600 [--seed N]

Databases, logs and journals made by SQLite are damaged (bits, bytes, runs, swapped
and repeated pages, lengths, header fields) and read.  Each must give rows or a
`SourceError` with a known code, in bounded time and memory, and leave the
directory as it was.  Runs in a child process so that a crash is found, too; the
seed that is printed replays a failure.
"""

from __future__ import annotations

import argparse
import multiprocessing
import random
import resource
import shutil
import sqlite3
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # runs as a program, too

import rubix_token_sync.nodes.database_files as files_module
import rubix_token_sync.nodes.snapshot as snapshot_module
from rubix_token_sync.errors import SourceError
from rubix_token_sync.nodes.database_errors import REMEDIES
from rubix_token_sync.nodes.snapshot import open_snapshot
from tests.nodes.databases import GORM, tree

PAGE = 1024
MEMORY = 2 * 2**30
LONGEST = 20.0

Seeds = list[dict[str, bytes]]


def seeds(directory: Path) -> Seeds:
    """Clean databases in every state, each as the files of its directory."""
    found: Seeds = []
    schemas = [
        GORM,
        "CREATE TABLE TokensTable (token_id text, did text, token_value real)",
        "CREATE TABLE TokensTable (token_id text primary key, did, token_value) WITHOUT ROWID",
    ]
    for number, schema in enumerate(schemas):
        for mode in ("delete", "wal"):
            path = directory / f"{number}{mode}" / "rubix.db"
            path.parent.mkdir(exist_ok=True)
            node = sqlite3.connect(path, isolation_level=None)
            node.execute(f"PRAGMA page_size={PAGE}")
            node.execute(f"PRAGMA journal_mode={mode}")
            node.execute(schema)
            node.executemany(
                "INSERT INTO TokensTable (token_id, did, token_value) VALUES (?, ?, 1.0)",
                ((f"Qm{n:044}", "bafybmi" + "x" * (n % 300)) for n in range(150)),
            )
            if mode == "delete":
                node.execute("PRAGMA cache_size=1")
                node.execute("BEGIN")
                node.execute("UPDATE TokensTable SET did = token_id || did")
            found.append(_files(path.parent))
            node.close()
            found.append(_files(path.parent))
    return found


def _files(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.iterdir()}


def damage(data: bytes, chance: random.Random) -> bytes:
    """Something wrong with a file."""
    changed = bytearray(data)
    for _ in range(chance.choice((1, 1, 2, 5, 20))):
        if not changed:
            break
        at = chance.randrange(len(changed))
        page = chance.randrange(len(changed) // PAGE + 1) * PAGE
        kind = chance.randrange(9)
        if kind == 0:
            changed[at] ^= 1 << chance.randrange(8)
        elif kind == 1:
            changed[at] = chance.choice((0, 1, 2, 5, 10, 13, 127, 128, 255))
        elif kind == 2:
            changed[at : at + 4] = chance.randbytes(4)
        elif kind == 3:
            other = chance.randrange(len(changed) // PAGE + 1) * PAGE
            changed[page : page + PAGE] = changed[other : other + PAGE]
        elif kind == 4:
            del changed[chance.choice((at, page)) :]
        elif kind == 5:  # a page's b-tree header and cell pointers
            changed[page + chance.randrange(40) : page + 40] = b""
        elif kind == 6:  # the file header
            changed[min(chance.randrange(16, 100), len(changed) - 1)] = chance.randrange(256)
        elif kind == 7:
            changed[at : at + 2] = chance.choice((b"\xff\xff", b"\0\0", b"\x7f\xff"))
        else:
            changed += changed[page : page + PAGE] * chance.choice((1, 3))
    return bytes(changed)


def attempt(directory: Path, known: Seeds, number: int) -> str:
    """One damaged database; says what came of it."""
    chance = random.Random(number)
    files = dict(chance.choice(known))
    for name in chance.sample(sorted(files), chance.randrange(1, len(files) + 1)):
        files[name] = damage(files[name], chance)
    if chance.random() < 0.2 and len(files) > 1:
        del files[chance.choice(sorted(set(files) - {"rubix.db"}))]
    node = directory / "node"
    node.mkdir()
    scratch = directory / "scratch"
    scratch.mkdir(exist_ok=True)
    for name, data in files.items():
        (node / name).write_bytes(data)
    before = tree(node)
    snapshot_module.HEAD_ROWS = chance.choice((5, 50_000))  # type: ignore[misc]
    started = time.monotonic()
    try:
        with open_snapshot(str(node / "rubix.db"), str(scratch), busy_s=0) as snapshot:
            count = snapshot.count if chance.random() < 0.5 else 0
            rows = sum(len(batch.rows) for batch in snapshot.rows(chance.choice((3, 1000))))
            assert not count or rows == count
            outcome = "rows"
    except SourceError as error:
        outcome = error.code
        if outcome not in REMEDIES or not error.message.isprintable():
            raise AssertionError(f"an error nobody can use: {error!r}") from error
    assert time.monotonic() - started < LONGEST, "took too long"
    assert tree(node) == before, "the directory was changed"
    assert not list(scratch.iterdir()), "the scratch directory is not empty"
    shutil.rmtree(node)
    return outcome


def work(seed: int, seconds: float, report: multiprocessing.SimpleQueue[object]) -> None:
    """The child: attempts until the time is over."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    files_module._TICK_NS = 0  # type: ignore[misc] # nobody writes: no wait for the clock
    outcomes: Counter[str] = Counter()
    end = time.monotonic() + seconds
    with tempfile.TemporaryDirectory() as name:
        (Path(name) / "seeds").mkdir()
        known = seeds(Path(name) / "seeds")
        (Path(name) / "fuzz").mkdir()
        while time.monotonic() < end:
            report.put(seed)
            outcomes[attempt(Path(name) / "fuzz", known, seed)] += 1
            seed += 1
    report.put(dict(outcomes))


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--seconds", type=float, default=30)
    options.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**9))
    chosen = options.parse_args()
    context = multiprocessing.get_context("spawn")
    report = context.SimpleQueue()
    child = context.Process(target=work, args=(chosen.seed, chosen.seconds, report))
    child.start()
    last: object = None
    while child.is_alive() or not report.empty():
        if report.empty():
            child.join(0.05)
            continue
        last = report.get()
    if isinstance(last, dict):
        print(f"seed {chosen.seed}: {sum(last.values())} databases, no crash: {last}")
        return 0
    print(f"FAILED with exit code {child.exitcode}; replay: --seed {last}")
    return 1


if __name__ == "__main__":
    sys.exit(main())
