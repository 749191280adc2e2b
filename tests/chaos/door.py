"""The public door, many times a second: the command line in forked children."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from tests.state import STATE_DIRECTORY

__all__ = ["Door", "Finished", "Running"]

_TESTS = Path(__file__).parents[2]
_LONGEST_SECONDS = 60.0
_IN_TRANSACTION = frozenset(
    {
        "store.publish", "store.publish.rows", "store.stage", "store.insert", "store.vanish",
        "store.errors", "store.mark", "store.commit.before",
    }
)  # fmt: skip
"""Points after which a transaction is open that has written, or is about to."""


@dataclass(frozen=True)
class Finished:
    """How a command ended; ``code`` is negative when a signal ended it."""

    arguments: tuple[str, ...]
    code: int
    stdout: str
    stderr: str
    seconds: float

    @property
    def document(self) -> dict[str, Any]:
        """What ``--json`` printed."""
        parsed: dict[str, Any] = json.loads(self.stdout)
        return parsed

    def expect(self, *codes: int) -> Finished:
        """Fail, with everything it said, unless it ended with one of ``codes``."""
        assert self.code in codes, (
            f"{' '.join(self.arguments)}\nended with {self.code}, not {codes}\n"
            f"--- stdout\n{self.stdout}\n--- stderr\n{self.stderr}"
        )
        # Whatever went wrong, nobody sees a traceback or reads of a bug.
        assert "Traceback" not in self.stderr, self.stderr
        assert "Unexpected:" not in self.stderr, self.stderr
        return self


class Running:
    """A command under way."""

    def __init__(
        self, door: Door, pid: int, arguments: Sequence[str], out: Path, *, watched: bool
    ) -> None:
        self.pid = pid
        self._door = door
        self._watched = watched
        self._arguments = tuple(arguments)
        self._out = out
        self._started = time.monotonic()
        self._pidfd = os.pidfd_open(pid)

    @property
    def stderr(self) -> str:
        """What it said so far."""
        return self._out.with_suffix(".err").read_text(errors="replace")

    @property
    def stdout(self) -> str:
        """What it printed so far."""
        return self._out.with_suffix(".out").read_text(errors="replace")

    def ended_within(self, seconds: float) -> bool:
        """Wait for its end, but not longer."""
        poller = select.poll()
        poller.register(self._pidfd, select.POLLIN)
        return bool(poller.poll(max(0, int(seconds * 1000))))

    def signal(self, number: int) -> None:
        """Send a signal to the command itself (not to its workers)."""
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._pidfd, number)

    def children(self) -> list[int]:
        """Every other process of its session that has not ended."""
        return [pid for pid, _ in self._session() if pid != self.pid]

    def first_children(self) -> list[int]:
        """Those that the command itself started: they load, and fork the others."""
        return [pid for pid, parent in self._session() if parent == self.pid]

    def _session(self) -> list[tuple[int, int]]:
        """Pid and parent of each process of its session that has not ended."""
        found = []
        for entry in os.listdir("/proc"):
            if entry.isdigit():
                with contextlib.suppress(OSError):
                    line = Path(f"/proc/{entry}/stat").read_text().rpartition(")")[2].split()
                    if int(line[3]) == self.pid and line[0] not in "ZX":
                        found.append((int(entry), int(line[1])))
        return sorted(found)

    def points(self) -> list[tuple[int, str]]:
        """What its processes have passed so far: pid and fault point (needs ``watched``)."""
        assert self._watched
        lines = self._out.with_suffix(".points").read_text().splitlines()
        split = (line.split() for line in lines)
        return [(int(parts[0]), parts[1]) for parts in split if len(parts) == 2]

    def workers(self) -> list[int]:
        """Processes other than its first one that have begun with its work (needs ``watched``)."""
        at_work = {pid for pid, _ in self.points()} - {self.pid}
        return [pid for pid in self.children() if pid in at_work] if at_work else []

    def writing(self) -> list[int]:
        """Workers that are in a transaction that writes (needs ``watched``)."""
        last = dict(self.points())
        return [pid for pid, name in last.items() if pid != self.pid and name in _IN_TRANSACTION]

    @staticmethod
    def signal_other(pid: int, number: int) -> bool:
        """Send a signal to one of its workers; False when that has ended."""
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            return False
        return True

    def wait(self, seconds: float = _LONGEST_SECONDS) -> Finished:
        """Wait for its end; a command that does not end is a failure, shown with its stacks."""
        hung = not self.ended_within(seconds)
        if hung:
            self.signal(signal.SIGUSR2)
            self.ended_within(1)
            self.signal(signal.SIGKILL)
        os.close(self._pidfd)
        code = self._door._reap(self.pid)
        elapsed = time.monotonic() - self._started
        finished = Finished(self._arguments, code, self.stdout, self.stderr, elapsed)
        for suffix in (".out", ".err", *((".points",) if self._watched else ())):
            self._out.with_suffix(suffix).unlink()
        if hung:
            raise AssertionError(
                f"{' '.join(self._arguments)} did not end in {seconds} s:\n{finished.stderr}"
            )
        return finished


class Door:
    """Starts commands; one nursery for all of them.  A context manager; thread-safe."""

    def __init__(self) -> None:
        self._directory = tempfile.TemporaryDirectory(prefix="rubix-door-")
        self._numbers = itertools.count()
        self._lock = threading.Lock()
        path = os.pathsep.join([str(_TESTS), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep)
        env = {
            **os.environ,  # of whichever test asks first
            "STATE_DIRECTORY": STATE_DIRECTORY,
            "PYTHONPATH": path,
            "OPENBLAS_NUM_THREADS": "1",
        }
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.chaos.nursery"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=env,
            cwd=self._directory.name,
        )
        assert json.loads(self._read()) == {"ready": True}

    def _read(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, "the nursery ended"
        return line

    def _ask(self, request: dict[str, Any]) -> dict[str, Any]:
        assert self._process.stdin is not None
        with self._lock:
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
            answer: dict[str, Any] = json.loads(self._read())
        return answer

    def _reap(self, pid: int) -> int:
        return int(self._ask({"do": "wait", "pid": pid})["code"])

    def start(
        self,
        *arguments: str,
        env: Mapping[str, str] | None = None,
        cwd: Path | str | None = None,
        processes: bool = False,
        limits: Mapping[str, int] | None = None,
        plain: bool = False,
        watched: bool = False,
    ) -> Running:
        """Start a command.

        Args:
            processes: use worker processes however small the fleet is.
            limits: names of `resource` (``RLIMIT_…``) with their values.
            plain: without root's privilege to read and write everything.
            watched: have its processes note each fault point that they pass.
        """
        out = Path(self._directory.name) / str(next(self._numbers))
        for suffix in (".out", ".err", *((".points",) if watched else ())):
            out.with_suffix(suffix).touch()  # a child may be killed before it opens them
        given = dict(env or {})
        if watched:
            given["RUBIX_SYNC_FAULT_LOG"] = str(out.with_suffix(".points"))
        answer = self._ask(
            {
                "do": "start",
                "arguments": arguments,
                "env": given,
                "cwd": str(cwd or self._directory.name),
                "stdout": str(out.with_suffix(".out")),
                "stderr": str(out.with_suffix(".err")),
                "processes": processes,
                "limits": dict(limits or {}),
                "plain": plain,
            }
        )
        return Running(self, answer["pid"], arguments, out, watched=watched)

    def run(self, *arguments: str, seconds: float = _LONGEST_SECONDS, **how: Any) -> Finished:
        """Start a command and wait for its end; see `start` for ``how``."""
        return self.start(*arguments, **how).wait(seconds)

    def address_space(self) -> int:
        """Bytes of address space that a command has before it does anything."""
        status = Path(f"/proc/{self._process.pid}/status").read_text()
        (line,) = [line for line in status.splitlines() if line.startswith("VmSize:")]
        return int(line.split()[1]) * 1024

    def close(self) -> None:
        """End the nursery."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(timeout=30)
        self._process.stdout.close()
        self._directory.cleanup()

    def __enter__(self) -> Door:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
