"""Real Kubo for tests: repositories without a network, daemons that end with the test."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any


class Kubo:
    """Runs one ``ipfs`` program on repositories below one directory."""

    def __init__(self, program: str, directory: Path) -> None:
        self.program = program
        self._directory = directory
        self._daemons: list[subprocess.Popen[bytes]] = []

    def run(self, repository: Path, *arguments: str) -> str:
        done = subprocess.run(
            [self.program, *arguments],
            env=self._environment(repository),
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
        return done.stdout

    def repository(self, name: str, profile: str = "test") -> Path:
        """A new, empty repository with a new identity, ports chosen by the system."""
        path = self._directory / name / ".ipfs"
        path.mkdir(parents=True)
        self.run(path, "init", "--empty-repo", "--profile", profile)
        self.configure(path, lambda config: config.update(Bootstrap=[]))
        addresses = {"API": "/ip4/127.0.0.1/tcp/0", "Gateway": "/ip4/127.0.0.1/tcp/0", "Swarm": []}
        self.configure(path, lambda config: config["Addresses"].update(addresses))
        return path

    def with_blocks_of(self, name: str, node: Path) -> Path:
        """A new repository that holds the blocks of a fixture's one."""
        path = self.repository(name)
        shutil.copytree(node / "blocks", path / "blocks", dirs_exist_ok=True)
        return path

    def configure(self, repository: Path, change: Callable[[dict[str, Any]], Any]) -> None:
        file = repository / "config"
        config = json.loads(file.read_text())
        change(config)
        file.write_text(json.dumps(config))

    def daemon(self, repository: Path, *arguments: str) -> subprocess.Popen[bytes]:
        """A daemon that answers already; offline unless told otherwise."""
        process = subprocess.Popen(
            [self.program, "daemon", *(arguments or ("--offline",))],
            env=self._environment(repository),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        self._daemons.append(process)
        assert process.stdout is not None
        said = []
        for line in process.stdout:
            said.append(line.decode())
            if b"Daemon is ready" in line:
                return process
        raise AssertionError(f"the daemon ended: {''.join(said)}")

    def stop(self) -> None:
        for process in self._daemons:
            process.kill()
            process.wait()
            assert process.stdout is not None
            process.stdout.close()

    def _environment(self, repository: Path) -> dict[str, str]:
        return {
            "IPFS_PATH": str(repository),
            "HOME": str(self._directory),
            "PATH": os.defpath,
            "IPFS_TELEMETRY": "off",
        }
