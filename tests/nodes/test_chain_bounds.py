"""Token chains: memory that does not grow with them, and files damaged at random."""

from __future__ import annotations

import json
import random
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from rubix_token_sync.installation import LEVELDB
from rubix_token_sync.testing import write_chains
from rubix_token_sync.testing.chains import FT, encode_block, generated_content

from .chain_nodes import ALICE, TOKENS, make_node, open_chains

plyvel = pytest.importorskip(LEVELDB)

MEASURED = """
import resource, sys
from rubix_token_sync.nodes.chains import read_chains
chains = read_chains(sys.argv[1], "test", sys.argv[2], lambda did: None)
rows = sum(batch.num_rows for batch in chains)
assert not chains.failures, chains.failures
print(rows, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
"""
GROWTH_MB = 48


def _megabytes(root: Path, scratch: Path, tokens: int, together: int) -> int:
    """The largest memory of a process that reads so many chains, whose second block is shared."""
    rubix = root / f"n{tokens}" / "Rubix"
    names = [f"Qm{number:044}" for number in range(tokens)]
    content = generated_content(ALICE.did, names[0], FT)

    def blocks() -> list[bytes]:
        made = []
        for at in range(0, tokens, together):
            some = names[at : at + together]
            places = {name: {"1": FT, "4": "1", "5": f"0-{'a' * 64}"} for name in some}
            made.append(encode_block(content | {"5": {"6": places}}, []))
        return made

    write_chains(rubix, "test", blocks())
    done = subprocess.run(
        [sys.executable, "-c", MEASURED, str(rubix / "rubix.db"), str(scratch)],
        capture_output=True,
        text=True,
        check=True,
    )
    rows, largest = map(int, done.stdout.split())
    assert rows == tokens
    return largest


@pytest.mark.long
def test_memory_does_not_grow_with_the_chains(tmp_path: Path, scratch: Path) -> None:
    few = _megabytes(tmp_path, scratch, 5_000, together=500)
    many = _megabytes(tmp_path, scratch, 100_000, together=500)
    assert many - few < GROWTH_MB


def _damaged(database: Path, scratch: Path, seed: int) -> dict[str, int]:
    """Damage one file of the FT directory; what became of its rows."""
    chance = random.Random(seed)
    directory = database.parent / "TestNet" / "FTchainstorage"
    files = sorted(path for path in directory.iterdir() if path.name[:3] != "LOG")
    victim = chance.choice([path for path in files if path.stat().st_size])
    data = bytearray(victim.read_bytes())
    for _ in range(chance.choice([1, 1, 3, 20])):
        at = chance.randrange(len(data))
        what = chance.randrange(4)
        if what == 0:
            data[at] ^= 1 << chance.randrange(8)
        elif what == 1:
            del data[at : at + chance.randrange(1, 64)]
        elif what == 2:
            data[at:at] = chance.randbytes(chance.randrange(1, 64))
        else:
            data[at : at + 8] = chance.choice([b"\xff" * 8, bytes(8), b"\x7f" + b"\xff" * 7])
        if not data:
            break
    victim.write_bytes(data)
    chains = open_chains(database, scratch)
    rows = {row["token_id"]: row for batch in chains for row in batch.to_pylist()}
    assert list(scratch.iterdir()) == []
    # Nothing comes up that was not there. Fewer without an error are possible in one case: a log
    # that ends in the middle of a record looks as after a power cut, to the node as well.
    assert set(rows) <= set(TOKENS)
    if not chains.failures:
        whole = all(row["error"] is None for row in rows.values())
        return {"read": int(whole and len(rows) == len(TOKENS)), "fewer": int(len(rows) < 6)}
    return {"failed": 1}


def _many(root: Path, seeds: range) -> dict[str, int]:
    """In a process of its own: a crash of LevelDB would end this one."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.nodes.test_chain_bounds", str(root), str(seeds.start),
         str(seeds.stop)],
        capture_output=True, text=True, check=False, cwd=Path(__file__).parents[2],
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2_000:]
    return dict(json.loads(done.stdout))


def test_files_damaged_at_random(tmp_path: Path) -> None:
    found = _many(tmp_path, range(10))
    assert sum(found.values()) >= 10


@pytest.mark.long
def test_many_files_damaged_at_random(tmp_path: Path) -> None:
    found = _many(tmp_path, range(300))
    assert found["failed"] > 50


def _main() -> None:
    root, start, stop = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    scratch = root / "scratch"
    scratch.mkdir()
    made = make_node(root / "made")
    directory = made.parent / "TestNet" / "FTchainstorage"
    logged, packed = root / "logged", root / "packed"  # all in the log; all in a table
    shutil.copytree(directory, logged)
    shutil.copytree(directory, packed)
    with plyvel.DB(str(packed)) as database:
        database.compact_range()
    counts: dict[str, int] = {}
    for seed in range(start, stop):
        shutil.rmtree(directory)
        shutil.copytree(packed if seed % 2 else logged, directory)
        for name, number in _damaged(made, scratch, seed).items():
            counts[name] = counts.get(name, 0) + number
    print(json.dumps(counts))


if __name__ == "__main__":
    _main()
