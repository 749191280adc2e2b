"""Three machines on one: network namespaces, joined by a bridge; traffic never leaves here."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

__all__ = ["Network", "Program", "until", "why_not"]

_PATIENCE = 150.0


def why_not() -> str:
    """Why there can be no namespaces here; empty: there can."""
    if not sys.platform.startswith("linux"):
        return "network namespaces are Linux's"
    if os.geteuid() != 0:
        return "network namespaces need root"
    if shutil.which("ip") is None:
        return "the program ip (iproute2) is not installed"
    name = f"rubix-try-{os.getpid()}"
    done = subprocess.run(["ip", "netns", "add", name], capture_output=True, text=True, check=False)
    if done.returncode:
        return f"no namespace can be made: {done.stderr.strip()}"
    subprocess.run(["ip", "netns", "del", name], check=False)
    return ""


def until(what: Callable[[], object], *, seconds: float = _PATIENCE, pause: float = 0.02) -> None:
    """Wait until ``what`` is true; polling, because other processes tell nothing."""
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline, f"not within {seconds:g} s: {what}"
        time.sleep(pause)


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True, timeout=30)


class Network:
    """A bridge with an address of this machine, and namespaces with one cable each."""

    def __init__(self, hosts: list[str]) -> None:
        self._mark = f"{os.getpid() % 100_000}"
        self._bridge = f"rbx{self._mark}"
        self._subnet = f"10.213.{os.getpid() % 250}"
        self.address = f"{self._subnet}.1"
        self._made: list[str] = []
        _ip("link", "add", self._bridge, "type", "bridge")
        _ip("addr", "add", f"{self.address}/24", "dev", self._bridge)
        _ip("link", "set", self._bridge, "up")
        for number, host in enumerate(hosts, start=2):
            space, cable = self.space(host), self._cable(host)
            _ip("netns", "add", space)
            self._made.append(space)
            _ip("link", "add", cable, "type", "veth", "peer", "name", "eth0", "netns", space)
            _ip("link", "set", cable, "master", self._bridge)
            _ip("link", "set", cable, "up")
            _ip("-n", space, "addr", "add", f"{self._subnet}.{number}/24", "dev", "eth0")
            _ip("-n", space, "link", "set", "eth0", "up")
            _ip("-n", space, "link", "set", "lo", "up")

    def space(self, host: str) -> str:
        """The name of the host's namespace."""
        return f"rubix-{self._mark}-{host}"

    def _cable(self, host: str) -> str:
        return f"v{self._mark}{host}"[:15]

    def cut(self, host: str) -> None:
        """Pull the host's cable: nothing passes, and nobody is told."""
        _ip("link", "set", self._cable(host), "down")

    def join(self, host: str) -> None:
        """Plug it in again."""
        _ip("link", "set", self._cable(host), "up")

    def close(self) -> None:
        """Remove all of it."""
        for space in self._made:
            subprocess.run(["ip", "netns", "del", space], check=False, capture_output=True)
        subprocess.run(["ip", "link", "del", self._bridge], check=False, capture_output=True)


class Program:
    """The command line as a process of its own, in a namespace or beside them."""

    def __init__(
        self,
        arguments: list[str],
        *,
        directory: Path,
        log: Path,
        space: str | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self._log = log
        self._out = log.with_suffix(".out")
        within = [] if space is None else ["ip", "netns", "exec", space]
        with log.open("ab") as errors, self._out.open("wb") as out:
            self._process = subprocess.Popen(
                [*within, sys.executable, "-m", "rubix_token_sync", *arguments],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=errors,
                cwd=directory,
                env={**os.environ, "PYTHONDONTWRITEBYTECODE": "", **(environment or {})},
                start_new_session=True,
            )

    @property
    def said(self) -> str:
        """Everything on standard error so far."""
        return self._log.read_text(errors="replace")

    @property
    def running(self) -> bool:
        """It has not ended."""
        return self._process.poll() is None

    def answer(self) -> tuple[int, str]:
        """Wait for its end: exit code and standard output."""
        code = self._process.wait(timeout=_PATIENCE)
        return code, self._out.read_text(errors="replace")

    def send(self, number: signal.Signals) -> None:
        """Send a signal to this process alone."""
        if self.running:
            self._process.send_signal(number)

    def end(self) -> int:
        """SIGTERM, then patience."""
        self.send(signal.SIGTERM)
        try:
            return self._process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            self.kill()
            raise

    def kill(self) -> None:
        """SIGKILL: it learns nothing of it."""
        self.send(signal.SIGKILL)
        self._process.wait(timeout=20)
