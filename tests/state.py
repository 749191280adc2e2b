"""Where the suite's processes keep what the program remembers on a machine.

Tables of token numbers are built there once, before the first test, so that no verdict
depends on the tests before.  Not named as the program's own scratch space, which is cleaned.
"""

from __future__ import annotations

import os
import tempfile
from typing import Final

__all__ = ["STATE_DIRECTORY", "TABLES"]

STATE_DIRECTORY: Final = os.environ.setdefault(
    "STATE_DIRECTORY", os.path.join(tempfile.gettempdir(), f"tests-of-rubix-{os.getuid()}")
)
TABLES: Final = os.path.join(STATE_DIRECTORY, "tables")
