"""Hostile fleets by chance, through the whole program.

``python tests/chaos/fuzz_sources.py --seconds 600`` prints its seed first and
ends with 1 at the first fleet that crashes it, hangs it, makes it write where it
must not or lets it contradict itself; ``--only SEED`` replays one fleet.
"""

from __future__ import annotations

import argparse
import random
import shutil
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.chaos.door import Door
from tests.chaos.hostile import make_hostile_fleet
from tests.chaos.target_state import leftovers, rows_of
from tests.incidents.nodes import look

__all__ = ["fuzz", "try_fleet"]

_SECONDS = 200.0
"""A database made to hurt may cost a reader a minute before it gives up, and there are several."""
_MEMORY = 1_500_000_000
"""Address space that is added to what the program has at its start."""


def try_fleet(door: Door, home: Path, seed: int) -> int:
    """One fleet: sync twice, verify; gives how many records it had.

    Raises:
        AssertionError: anything that must not happen did.
    """
    where = f"fleet {seed}"
    fleet = home / "fleet"
    shutil.rmtree(home, ignore_errors=True)
    home.mkdir(parents=True)
    make_hostile_fleet(fleet, seed)
    before = look(home)
    url = f"sqlite:///{home / 'out' / 'target.db'}"
    (home / "out").mkdir()
    common = (str(fleet), "--target", url, "--source-ip", "vm1", "--json")
    sync = ("sync", *common, "--report", str(home / "out"))
    how = {
        "limits": {"RLIMIT_AS": door.address_space() + _MEMORY},
        "env": {"BATCH_SIZE": "16", "BULK_INSERT_SIZE": "32", "TMPDIR": str(home / "out")},
        "processes": seed % 5 == 0,
    }
    first = door.run(*sync, seconds=_SECONDS, **how).expect(0, 1).document
    again = door.run(*sync, seconds=_SECONDS, **how).expect(0, 1).document
    written = [again[f"records_{what}"] for what in ("inserted", "updated", "vanished")]
    assert written == [0, 0, 0], f"{where}: a second run wrote {written}"
    proof = door.run("verify", *common, seconds=_SECONDS, **how)
    proof.expect(0, 1)
    assert leftovers(url) == [], where
    held = rows_of(url, "SELECT count(*) FROM TokenRecords")[0][0]
    assert held == first["total_records_processed"], where
    after = {name: seen for name, seen in look(home).items() if "/out" not in name}
    after.pop(str(home))
    before.pop(str(home))
    changed = [name for name in {*before, *after} if before.get(name) != after.get(name)]
    assert changed == [], f"{where}: changed {changed}"
    left = {path.name.partition(".")[0].partition("_")[0] for path in (home / "out").iterdir()}
    assert left <= {"target", "sync"}, f"{where}: left {left}"
    return int(held)


def fuzz(door: Door, home: Path, first: int, seconds: float) -> tuple[int, int]:
    """Fleets one after the other for some time; gives how many, and their records."""
    fleets = records = 0
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            records += try_fleet(door, home, first + fleets)
        except AssertionError as error:
            raise AssertionError(f"fleet {first + fleets}: {error}") from error
        fleets += 1
    return fleets, records


def main() -> int:
    """Fuzz; gives the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(2**32))
    parser.add_argument("--only", type=int, help="replay this fleet")
    asked = parser.parse_args()
    print(f"seed {asked.seed}", flush=True)
    with tempfile.TemporaryDirectory(prefix="fuzz-") as directory, Door() as door:
        home = Path(directory) / "home"
        try:
            if asked.only is not None:
                print(try_fleet(door, home, asked.only), "records")
                return 0
            fleets, records = fuzz(door, home, asked.seed, asked.seconds)
        except AssertionError as error:
            print(f"FAILED {error}", flush=True)
            return 1
    print(f"{fleets} fleets, {records} records, nothing found; seed {asked.seed}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
