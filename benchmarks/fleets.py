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

_SHARING = 3
"""Databases of one repository, in a fleet whose blocks are to fit into memory."""


@dataclass(frozen=True)
class BenchFleet:
    """A finished fleet in the cache."""

    directory: Path
    tokens: int
    nodes: int

    @property
    def databases(self) -> list[str]:
        found = (self.directory.glob(f"{level}/Rubix/rubix.db") for level in ("*", "*/*"))
        return sorted(str(path) for paths in found for path in paths)

    @property
    def repositories(self) -> list[str]:
        return sorted(map(str, self.directory.glob("*/.ipfs")))

    def change(self, share: float, seed: int) -> int:
        """Change the status of that share of every database's rows; gives their number.

        Stays as it is: a fleet with other statuses serves the next benchmark as well.
        """
        return sum(len(change_status(path, share, seed=seed)) for path in self.databases)

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


def cached_fleet(
    cache: Path, nodes: int, tokens_per_node: int, *, pools: bool = False
) -> BenchFleet:
    """The fleet of that size from the cache, made now where it is not there.

    In ``pools`` three databases of the same tokens share one repository, so that 3,400,000
    tokens need no more than a million files.
    """
    repositories = -(-nodes // _SHARING) if pools else nodes
    plan = FleetPlan(nodes=repositories, tokens_per_node=tokens_per_node)
    name = sha256(json.dumps(asdict(plan), sort_keys=True).encode()).hexdigest()[:8]
    kind = "pools" if pools else "fleet"
    directory = cache / f"{kind}-{repositories}x{tokens_per_node}-{name}"
    if not directory.exists():
        partial = cache / f"{directory.name}.partial-{os.getpid()}"
        shutil.rmtree(partial, ignore_errors=True)
        make_fleet(partial, plan)
        if pools:
            for node in partial.iterdir():
                for copy in range(1, _SHARING):
                    shutil.copytree(node / "Rubix", node / str(copy) / "Rubix")
        os.sync()  # or the kernel writes it out while the first scenario runs
        partial.rename(directory)
    databases = repositories * _SHARING if pools else nodes
    return BenchFleet(directory, databases * tokens_per_node, databases)
