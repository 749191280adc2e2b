"""The fleet by one command against plain syncs side by side, by turns on the same nodes.

    python -m benchmarks.cluster --hosts 3 --tokens 60000 --rounds 5

Makes that many fleets of their own, and syncs them into a new PostgreSQL database each time: once
by ``cluster sync`` (scheduler and workers run already, as they do on a real fleet, mutual TLS
on loopback), once by as many plain ``sync`` processes started together.  Prints seconds of each,
the medians and the median of the ratios.  A command counts from its start to its end.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import median

from benchmarks.targets import PostgresTarget, opened
from rubix_token_sync.cluster import make_certificates
from rubix_token_sync.testing import FleetPlan, make_fleet

_PORT = 18_786
_NODES = 4
_JOIN_SECONDS = 120.0


def _program(*arguments: str) -> list[str]:
    return [sys.executable, "-P", "-m", "rubix_token_sync", *arguments]


class Place:
    """Nodes, certificates and settings of the hosts."""

    def __init__(self, home: Path, hosts: int, tokens: int) -> None:
        self.home = home
        self.hosts = [f"host{number}" for number in range(1, hosts + 1)]
        make_certificates(home / "certificates", ["all"])
        for number, host in enumerate(self.hosts, start=1):
            (home / host).mkdir()
            plan = FleetPlan(nodes=_NODES, tokens_per_node=tokens // _NODES, seed=number)
            make_fleet(home / host / "nodes", plan)

    def name_target(self, url: str) -> None:
        """Write it into every settings file."""
        for host in [*self.hosts, "."]:
            name = host if host != "." else "coordinator"
            (self.home / host / "settings.toml").write_text(
                f'target = "{url}"\nsource_ip = "{name}"\n'
            )

    @contextlib.contextmanager
    def serving(self) -> Iterator[None]:
        """Scheduler and workers, until the block is left."""
        certs = ["--certs", str(self.home / "certificates" / "all")]
        address = f"tls://127.0.0.1:{_PORT}"
        with (self.home / "cluster.log").open("ab") as log:
            commands = [(self.home, _program("cluster", "scheduler", "--listen", address, *certs))]
            commands += [
                (
                    self.home / host,
                    _program("cluster", "worker", "nodes", "--scheduler", address, *certs,
                             "--config", "settings.toml"),
                )
                for host in self.hosts
            ]  # fmt: skip
            running = [
                subprocess.Popen(command, cwd=where, stdout=log, stderr=log)
                for where, command in commands
            ]
        try:
            yield
        finally:
            for process in running:
                process.terminate()
            for process in running:
                process.wait()

    def by_one_command(self) -> float:
        """Seconds of ``cluster sync``."""
        return self._seconds(
            [
                (
                    self.home,
                    _program("cluster", "sync", "--scheduler", f"tls://127.0.0.1:{_PORT}",
                             "--certs", str(self.home / "certificates" / "all"), "--config",
                             "settings.toml", "--hosts", str(len(self.hosts)), "--wait",
                             str(_JOIN_SECONDS)),
                )
            ]
        )  # fmt: skip

    def side_by_side(self) -> float:
        """Seconds until the last of the plain syncs has ended."""
        return self._seconds(
            [
                (self.home / host, _program("sync", "nodes", "--config", "settings.toml"))
                for host in self.hosts
            ]
        )

    def _seconds(self, commands: Sequence[tuple[Path, list[str]]]) -> float:
        with (self.home / "commands.log").open("ab") as log:
            began = time.monotonic()
            running = [
                subprocess.Popen(command, cwd=where, stdout=log, stderr=log)
                for where, command in commands
            ]
            codes = [process.wait() for process in running]
        seconds = time.monotonic() - began
        if any(codes):
            raise SystemExit(f"{codes}: {(self.home / 'commands.log').read_text()[-2000:]}")
        return seconds


def main() -> None:
    """Print each round, then the medians."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--hosts", type=int, default=3)
    parser.add_argument("--tokens", type=int, default=60_000, help="of each host")
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as stack:
        scratch = Path(name)
        server = stack.enter_context(opened("postgresql", scratch))
        if not isinstance(server, PostgresTarget):
            raise SystemExit("There is no PostgreSQL here: pip install --group bench .")
        place = Place(scratch, given.hosts, given.tokens)
        place.name_target(server.fresh_url("warm"))
        stack.enter_context(place.serving())
        place.by_one_command()  # all have joined, and everything is compiled
        ratios: list[float] = []
        times: dict[str, list[float]] = {"cluster": [], "plain": []}
        for number in range(given.rounds):
            ways = [("cluster", place.by_one_command), ("plain", place.side_by_side)]
            for what, run in ways if number % 2 == 0 else reversed(ways):
                place.name_target(server.fresh_url(f"{what}{number}"))
                times[what].append(run())
            cluster, plain = times["cluster"][-1], times["plain"][-1]
            ratios.append(cluster / plain)
            print(
                f"round {number + 1}: cluster {cluster:.2f} s, plain {plain:.2f} s, "
                f"ratio {ratios[-1]:.2f}",
                flush=True,
            )
    print(
        f"{given.hosts} hosts, {given.tokens:,} tokens each: cluster "
        f"{median(times['cluster']):.2f} s, plain {median(times['plain']):.2f} s, ratio "
        f"{median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
    )


if __name__ == "__main__":
    main()
