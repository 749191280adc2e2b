"""Runs the fenced blocks of a guide as its reader would, in order, in one directory.

A block tagged ``bash run`` is executed; each command must succeed, or end with the code
that a comment at its end names (``# exit 1``).  Places that every reader has differently
stand in the guides as examples and are replaced: the nodes and the PostgreSQL address.

The program's own commands run in this process, which is many times faster; what needs a
shell (other programs, pipes) runs in one.  `test_printed_commands` starts the program itself.
"""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

from rubix_token_sync import log
from tests.cli.conftest import call_program, clean_environment

BLOCK = re.compile(r"^```bash([^\n]*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
PROGRAM = "rubix-token-sync"
_EXIT = re.compile(r"\s+# exit (\d+)\b.*$")
_COMMENT = re.compile(r"\s+#\s.*$")
_TO_FILE = re.compile(r"\s+>\s*(\S+)$")
_FOR_A_SHELL = re.compile(r"[|<>&;$`~]")
_SECONDS = 280


@dataclass(frozen=True)
class Block:
    """One fenced block of shell commands."""

    tag: str
    text: str

    @property
    def commands(self) -> list[str]:
        """Its commands; continued lines are one."""
        joined = self.text.replace("\\\n", " ")
        lines = (line.strip() for line in joined.splitlines())
        return [line for line in lines if line and not line.startswith("#")]


def blocks(path: Path) -> list[Block]:
    """Every block of shell commands in a guide."""
    text = path.read_text(encoding="utf-8")
    return [Block(match[1].strip(), match[2]) for match in BLOCK.finditer(text)]


def run_block(block: Block, directory: Path, replaced: dict[str, str]) -> None:
    """Run a block.

    Raises:
        AssertionError: a command ended with another code than the guide says.
    """
    environment = clean_environment() | {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "HOME": str(directory),
        "LC_ALL": "C.UTF-8",
        "PYTHONWARNINGS": "default",
    }
    with contextlib.chdir(directory), mock.patch.dict(os.environ, environment, clear=True):
        for command in block.commands:
            found = _EXIT.search(command)
            plain = _COMMENT.sub("", command)
            for example, real in replaced.items():
                plain = plain.replace(example, real)
            code, said = _run(plain)
            assert code == (int(found[1]) if found else 0), f"exit {code} of: {plain}\n{said}"


def _run(command: str) -> tuple[int, str]:
    """Run one command; its exit code and the end of what it said."""
    file = _TO_FILE.search(command)
    plain = command[: file.start()] if file else command
    if plain.startswith(f"{PROGRAM} ") and not _FOR_A_SHELL.search(plain):
        ended = call_program(*shlex.split(plain)[1:])
        log.tear_down()
        if file:
            Path(file[1]).write_text(ended.out, encoding="utf-8")
        return ended.code, f"{ended.out[-2000:]}\n{ended.err[-3000:]}"
    done = subprocess.run(
        ["/bin/bash", "-c", command],
        capture_output=True,
        text=True,
        timeout=_SECONDS,
        check=False,
    )
    return done.returncode, f"{done.stdout[-2000:]}\n{done.stderr[-3000:]}"
