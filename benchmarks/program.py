"""The program under test, run as users run it: one command, one process tree, one exit code."""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

__all__ = ["ProgramFailedError", "Run", "first_line_seconds", "run_program"]

_SOURCE = Path(__file__).resolve().parent.parent / "src"
_SETTINGS = ("RUBIX_SYNC_", "NUM_IPFS_WORKERS", "BATCH_SIZE", "BULK_INSERT_SIZE", "IPFS_")
_SAMPLE_SECONDS = 0.1


class ProgramFailedError(RuntimeError):
    """The program ended with an exit code that a benchmark cannot use."""


@dataclass(frozen=True)
class Run:
    """One finished run: wall clock, peak memory of the whole tree, its JSON."""

    seconds: float
    peak_mb: float | None
    exit_code: int
    document: dict[str, Any]


def _environment(settings: Mapping[str, str]) -> dict[str, str]:
    """This process's, without settings that someone left in it, and with the source first.

    Bytecode is kept (by the warm-up), as it is where the package is installed.
    """
    kept = {name: value for name, value in os.environ.items() if not name.startswith(_SETTINGS)}
    kept.pop("PYTHONDONTWRITEBYTECODE", None)
    path = os.pathsep.join(filter(None, [str(_SOURCE), os.environ.get("PYTHONPATH", "")]))
    return {**kept, "PYTHONPATH": path, **settings}


def _command(arguments: tuple[str, ...]) -> list[str]:
    return [sys.executable, "-m", "rubix_token_sync", *arguments]


def run_program(
    *arguments: str,
    settings: Mapping[str, str] | None = None,
    memory: bool = False,
    allowed: tuple[int, ...] = (0,),
    json_output: bool = True,
) -> Run:
    """Run the program to its end in an empty directory.

    Args:
        settings: environment variables on top.
        memory: sample the memory of all processes together (costs a few per cent).
        allowed: exit codes that are fine.

    Raises:
        ProgramFailedError: any other exit code; carries the end of its messages.
    """
    arguments = (*arguments, "--json") if json_output else arguments
    with tempfile.TemporaryDirectory() as empty, tempfile.TemporaryFile("w+") as messages:
        began = time.perf_counter()
        process = subprocess.Popen(
            _command(arguments),
            stdout=subprocess.PIPE,
            stderr=messages,
            cwd=empty,
            env=_environment(settings or {}),
            text=True,
        )
        with _sampling(process.pid) if memory else nullcontext() as peak:
            output, _ = process.communicate()
        seconds = time.perf_counter() - began
        if process.returncode not in allowed:
            messages.seek(0)
            told = messages.read()[-2000:]
            raise ProgramFailedError(
                f"{' '.join(arguments)} ended with {process.returncode}:\n{told}"
            )
    return Run(
        seconds=seconds,
        peak_mb=peak.megabytes if peak is not None else None,
        exit_code=process.returncode,
        document=json.loads(output) if json_output else {},
    )


def first_line_seconds(*arguments: str, word: bytes) -> float:
    """Seconds from start until stderr holds ``word``; the run is then ended by SIGTERM."""
    with tempfile.TemporaryDirectory() as empty:
        began = time.perf_counter()
        process = subprocess.Popen(
            _command(arguments),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            cwd=empty,
            env=_environment({}),
        )
        assert process.stderr is not None
        try:
            return _await_line(process.stderr, word, began)
        finally:
            process.terminate()
            process.stderr.close()
            process.wait()


def _await_line(stream: IO[bytes], word: bytes, began: float) -> float:
    said = b""
    while word not in said:
        ready, _, _ = select.select([stream], [], [], 60)
        chunk = os.read(stream.fileno(), 4096) if ready else b""
        if not chunk:
            raise ProgramFailedError(f"no line with {word!r} on stderr: {said[-500:]!r}")
        said += chunk
    return time.perf_counter() - began


@dataclass
class _Peak:
    megabytes: float = 0.0


@contextmanager
def _sampling(pid: int) -> Iterator[_Peak]:
    """Keep the largest sum of the proportional set sizes of a process and all below it.

    Source: proc(5), ``smaps_rollup``.  PSS counts shared pages once in the sum.
    """
    peak, stop = _Peak(), threading.Event()

    def sample() -> None:
        peak.megabytes = max(peak.megabytes, sum(map(_pss_kib, _tree(pid))) / 1024)

    def keep_sampling() -> None:
        while not stop.wait(_SAMPLE_SECONDS):
            sample()

    thread = threading.Thread(target=keep_sampling, daemon=True)
    thread.start()
    try:
        yield peak
    finally:
        stop.set()
        thread.join()
        sample()


def _tree(pid: int) -> list[int]:
    found = [pid]
    for parent in found:  # grows while it is walked
        for task in _listed(f"/proc/{parent}/task"):
            try:
                children = Path(f"/proc/{parent}/task/{task}/children").read_text(encoding="ascii")
            except OSError:  # ended meanwhile
                continue
            found += map(int, children.split())
    return found


def _listed(path: str) -> list[str]:
    try:
        return os.listdir(path)
    except OSError:  # ended meanwhile
        return []


def _pss_kib(pid: int) -> int:
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii")
    except OSError:  # ended meanwhile
        return 0
    for line in text.splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1])
    return 0
