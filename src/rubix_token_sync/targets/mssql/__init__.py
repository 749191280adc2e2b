"""The Azure SQL and SQL Server target."""

from __future__ import annotations

import re
from typing import Final

SCHEMES: Final = ("mssql", "mssql+mssqlpython", "mssql+pyodbc", "sqlserver")

_KEYWORDS: Final = re.compile(
    r"(?:^|;)\s*(?:server|data\s*source|addr|address|driver)\s*=", re.IGNORECASE
)


def recognises(text: str) -> int:
    """How surely a text without one of `SCHEMES` means this target: 0 (not) to 3 (certainly).

    Whatever is a connection string and nobody else's is read as one of this kind: the
    guide's files hold such.
    """
    return 2 if _KEYWORDS.search(text) else 1 if "=" in text else 0
