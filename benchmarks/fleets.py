"""Fleets on disk, made once and kept: a benchmark must not wait for a million files twice."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path

from rubix_token_sync.testing import FleetPlan, change_status, make_fleet

__all__ = ["BenchFleet", "cached_fleet"]


@dataclass(frozen=True)
class BenchFleet:
    """A finished fleet in the cache."""

    directory: Path
    tokens: int
    nodes: int

    @property
    def databases(self) -> list[str]:
        return sorted(map(str, self.directory.glob("*/Rubix/rubix.db")))

    @property
    def repositories(self) -> list[str]:
        return sorted(map(str, self.directory.glob("*/.ipfs")))

    def change(self, share: float, seed: int) -> int:
        """Change the status of that share of every database's rows; gives their number.

        Stays as it is: a fleet with other statuses serves the next benchmark as well.
        """
        return sum(len(change_status(path, share, seed=seed)) for path in self.databases)

    def warm(self) -> None:
        """Read every file, so that no run is timed on how fast this disk finds a file."""
        for directory, _, names in os.walk(self.directory):
            for name in names:
                with Path(directory, name).open("rb") as file:
                    while file.read(1 << 20):
                        pass

    def chill(self) -> bool:
        """Have the operating system forget every file; False: only their contents."""
        os.sync()
        for directory, _, names in os.walk(self.directory):
            for name in names:
                with Path(directory, name).open("rb") as file:
                    os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        try:
            Path("/proc/sys/vm/drop_caches").write_text("3")
        except OSError:  # only root may, and not in every container
            return False
        return True


def cached_fleet(cache: Path, nodes: int, tokens_per_node: int) -> BenchFleet:
    """The fleet of that size from the cache, made now where it is not there."""
    plan = FleetPlan(nodes=nodes, tokens_per_node=tokens_per_node)
    name = sha256(json.dumps(asdict(plan), sort_keys=True).encode()).hexdigest()[:8]
    directory = cache / f"fleet-{nodes}x{tokens_per_node}-{name}"
    if not directory.exists():
        partial = cache / f"{directory.name}.partial-{os.getpid()}"
        shutil.rmtree(partial, ignore_errors=True)
        make_fleet(partial, plan)
        os.sync()  # or the kernel writes it out while the first scenario runs
        partial.rename(directory)
    return BenchFleet(directory, nodes * tokens_per_node, nodes)
