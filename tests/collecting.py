"""How long it takes to collect the tests: ``python -m tests.collecting``.

Ends with 1 when it takes more than `LIMIT_SECONDS` of processor time, for then somebody
imports or computes too much at the top of a module.  Machines differ by a factor of three,
and one machine from hour to hour: by turns with it, the standard library's own modules are
compiled, and `LIMIT_SECONDS` is meant where that takes `PACE_SECONDS`.  It collects up to
`TIMES` times, and the least of both is judged: the first may have to compile what it imports.
"""

from __future__ import annotations

import resource
import subprocess
import sys
from typing import Final

__all__ = ["LIMIT_SECONDS", "processor_seconds"]

LIMIT_SECONDS: Final = 5.0
PACE_SECONDS: Final = 0.65
TIMES: Final = 5
COLLECT: Final = ("-m", "pytest", "--collect-only", "-qq")
COMPILE: Final = (
    "-c",
    "import ast, pathlib\n"
    "home = pathlib.Path(ast.__file__).parent\n"
    "for file in [*home.glob('*.py'), *home.glob('[a-e]*/*.py')]:\n"
    "    compile(file.read_bytes(), file.name, 'exec')\n",
)


def processor_seconds(*arguments: str) -> float:
    """Seconds of processor time (user and system) of Python with these arguments."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run([sys.executable, *arguments], stdout=subprocess.PIPE, text=True)
    if done.returncode:
        sys.exit(done.stdout)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> int:
    """Measure and print; gives the exit code."""
    took = pace = float("inf")
    for _ in range(TIMES):
        pace = min(pace, processor_seconds(*COMPILE))
        took = min(took, processor_seconds(*COLLECT))
        limit = LIMIT_SECONDS * pace / PACE_SECONDS
        print(f"{took:.1f} s of processor time; at most {limit:.1f} s at this pace", flush=True)
        if took <= limit:
            return 0
    return 1


if __name__ == "__main__":
    sys.exit(main())
