"""The PostgreSQL target."""

from __future__ import annotations

import re
from typing import Final

SCHEMES: Final = ("postgresql", "postgres", "postgresql+psycopg", "jdbc:postgresql")

_KEYWORDS: Final = re.compile(r"(?:^|\s)(?:host|hostaddr|dbname|service)\s*=", re.IGNORECASE)
_NPGSQL: Final = re.compile(
    r"(?:^|;)\s*(?:host\s*=|port\s*=\s*5432\b|ssl\s*mode\s*=)", re.IGNORECASE
)


def recognises(text: str) -> int:
    """How surely a text without one of `SCHEMES` means this target: 0 (not) to 3 (certainly)."""
    return 3 if (_NPGSQL if ";" in text else _KEYWORDS).search(text) else 0
