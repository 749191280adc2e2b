"""How long it takes to collect the tests: ``python -m tests.collecting``.

Ends with 1 when it takes more than `LIMIT_SECONDS` of processor time, for then somebody
imports or computes too much at the top of a module.  It collects up to `TIMES` times and
judges the least: the first may have to compile, and what else runs here adds to each.
"""

from __future__ import annotations

import resource
import subprocess
import sys
from typing import Final

__all__ = ["LIMIT_SECONDS", "collecting_seconds"]

LIMIT_SECONDS: Final = 5.0
TIMES: Final = 5


def collecting_seconds() -> float:
    """Seconds of processor time (user and system) of ``pytest --collect-only``."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "--collect-only", "-qq"], stdout=subprocess.PIPE, text=True
    )
    if done.returncode:
        sys.exit(done.stdout)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> int:
    """Measure and print; gives the exit code."""
    least = float("inf")
    for _ in range(TIMES):
        least = min(least, collecting_seconds())
        print(f"{least:.1f} s of processor time; at most {LIMIT_SECONDS:.0f} s", flush=True)
        if least <= LIMIT_SECONDS:
            return 0
    return 1


if __name__ == "__main__":
    sys.exit(main())
