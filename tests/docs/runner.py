"""Runs the fenced blocks of a guide as its reader would, in order, in one directory.

A block tagged ``bash run`` is executed; each command must succeed, or end with the code
that a comment at its end names (``# exit 1``).  Places that every reader has differently
stand in the guides as examples and are replaced: the nodes and the PostgreSQL address.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

BLOCK = re.compile(r"^```bash([^\n]*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
_EXIT = re.compile(r"\s+# exit (\d+)\b.*$")
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
    script = ["set -u"]
    for command in block.commands:
        found = _EXIT.search(command)
        wanted = int(found[1]) if found else 0
        plain = re.sub(r"\s+#\s.*$", "", command)
        for example, real in replaced.items():
            plain = plain.replace(example, real)
        script.append(f'{plain}\ncode=$?; [ $code = {wanted} ] || {{ echo "exit $code of: "'
                      f"{_quoted(plain)} >&2; exit 99; }}")  # fmt: skip
    programs = Path(sys.executable).parent
    environment = {
        "PATH": f"{programs}:{os.environ['PATH']}",
        "HOME": str(directory),
        "LC_ALL": "C.UTF-8",
        "PYTHONWARNINGS": "default",
    }
    done = subprocess.run(
        ["/bin/bash", "-c", "\n".join(script)],
        cwd=directory,
        env=environment,
        capture_output=True,
        text=True,
        timeout=_SECONDS,
        check=False,
    )
    assert done.returncode == 0, f"{done.stdout[-2000:]}\n{done.stderr[-3000:]}"


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "'\\''") + "'"
