"""Three hosts in network namespaces with mutual TLS and PostgreSQL, and what runs on them."""

from __future__ import annotations

import contextlib
import json
import socket
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from rubix_token_sync.cluster import make_certificates
from rubix_token_sync.testing import FleetPlan, make_fleet
from tests.postgres_server import PostgresServer

from .namespaces import Network, Program, until, why_not

__all__ = ["HOSTS", "PASSWORD", "VICTIM", "Answer", "Fleet", "machines"]

HOSTS = ["h1", "h2", "h3"]
VICTIM = "h2"
PASSWORD = "sesame-opens-nothing"
PORT = 8786


def machines(directory: Path, stack: contextlib.ExitStack, *, shared: bool = False) -> Fleet:
    """The fleet, running; ``stack`` ends it.  Skips where there can be no namespaces."""
    reason = why_not()
    if reason:
        pytest.skip(reason)
    network = Network(HOSTS)
    stack.callback(network.close)
    server = PostgresServer({"listen_addresses": f"127.0.0.1,{network.address}"})
    stack.callback(server.close)
    with (server.data / "pg_hba.conf").open("a") as file:
        file.write("host all all 10.213.0.0/16 scram-sha-256\n")
    server.admin("SELECT pg_reload_conf()", f"ALTER ROLE rubix PASSWORD '{PASSWORD}'")
    made = Fleet(directory, server, network, shared=shared)
    stack.callback(made.close)
    made.open()
    return made


@dataclass
class Answer:
    """How a coordinator's command ended."""

    code: int
    document: dict[str, Any]
    said: str
    seconds: float

    def codes(self) -> set[str]:
        return {problem["code"] for problem in self.document["problems"]}

    def states(self) -> dict[str, str]:
        return {host["source"]: host["state"] for host in self.document["hosts"]}


class Fleet:
    """The machines, what runs on them, and a database a test."""

    def __init__(
        self, directory: Path, server: PostgresServer, network: Network, *, shared: bool = False
    ) -> None:
        """``shared``: all of them see one root, and are one source."""
        self.directory = directory
        self.server = server
        self.network = network
        self.certificates = directory / "certificates"
        make_certificates(self.certificates, ["scheduler", "coordinator", *HOSTS])
        for number, host in enumerate([*HOSTS, "coordinator"]):
            (directory / host).mkdir()
            if host in HOSTS and not shared:
                plan = FleetPlan(nodes=2, tokens_per_node=1000, seed=number + 1)
                make_fleet(directory / host / "nodes", plan)
        self.shared = directory / "shared" if shared else None
        if self.shared is not None:
            make_fleet(self.shared, FleetPlan(nodes=12, tokens_per_node=1000, seed=5))
        self._commands = 0
        self.url = ""
        self.workers: dict[str, Program] = {}

    def open(self) -> None:
        """Start everything."""
        self.fresh_target()
        self.start_scheduler()
        for host in HOSTS:
            self.start(host)

    def close(self) -> None:
        for program in [*self.workers.values(), self.scheduler]:
            program.kill()

    def fresh_target(self) -> str:
        """A new database, which all settings files name from now on."""
        name = self.server.database()
        self.url = self.server.url(name)
        there = f"postgresql://rubix:{PASSWORD}@{self.network.address}:{self.server.port}/{name}?sslmode=disable"
        for host in [*HOSTS, "coordinator"]:
            connection = self.directory / host / "connection.txt"
            connection.write_text(there)
            connection.chmod(0o600)
            (self.directory / host / "settings.toml").write_text(
                'target_file = "connection.txt"\nheartbeat_seconds = 2\nlease_seconds = 6\n'
                f'source_ip = "{host if self.shared is None else "shared"}"\nbatch_size = 200\n'
            )
        return self.url

    def start(self, host: str) -> None:
        self.workers[host] = self._start_worker(host)

    def start_scheduler(self) -> None:
        """Start one, or another one; it is there when this comes back."""
        self.scheduler = self._start_scheduler()
        until(self._scheduler_listens)

    def _scheduler_listens(self) -> bool:
        try:
            socket.create_connection((self.network.address, PORT), 5).close()
        except OSError:
            return False
        return True

    def command(self, *arguments: str) -> Program:
        """Start a command of the coordinator."""
        self._commands += 1
        at = ["--scheduler", f"tls://{self.network.address}:{PORT}"]
        own = ["--certs", str(self.certificates / "coordinator"), "--config", "settings.toml"]
        return Program(
            ["cluster", *arguments, *self._roots(), *at, *own, "--json"],
            directory=self.directory / "coordinator",
            log=self.directory / f"command{self._commands}.log",
        )

    def _roots(self) -> list[str]:
        return [] if self.shared is None else ["--shared", str(self.shared)]

    def run(self, *arguments: str) -> Answer:
        return self.end(self.command(*arguments), time.monotonic())

    def end(self, command: Program, began: float) -> Answer:
        code, out = command.answer()
        assert out, command.said
        return Answer(code, json.loads(out), command.said, time.monotonic() - began)

    def passed(self, name: str) -> int:
        """How often the victim has passed the point."""
        try:
            return (self.directory / "points").read_text().count(f" {name}\n")
        except FileNotFoundError:
            return 0

    def sync_until(self, moment: tuple[str, int]) -> Program:
        """Start a sync of the fleet, and come back when the victim is at this point."""
        (self.directory / "points").unlink(missing_ok=True)
        name, times = moment
        command = self.command("sync", "--hosts", "3")
        until(lambda: self.passed(name) >= times or not command.running, pause=0.002)
        return command

    def _start_scheduler(self) -> Program:
        return Program(
            ["cluster", "scheduler", "--listen", f"tls://{self.network.address}:{PORT}", "-v",
             "--certs", str(self.certificates / "scheduler")],
            directory=self.directory,
            log=self.directory / "scheduler.log",
        )  # fmt: skip

    def _start_worker(self, host: str) -> Program:
        points = {"RUBIX_SYNC_FAULT_LOG": str(self.directory / "points")}
        return Program(
            ["cluster", "worker", str(self.shared or "nodes"), "--scheduler",
             f"tls://{self.network.address}:{PORT}", "--certs", str(self.certificates / host),
             "--config", "settings.toml"],
            directory=self.directory / host,
            log=self.directory / f"{host}.log",
            space=self.network.space(host),
            environment=points if host == VICTIM else None,
        )  # fmt: skip
