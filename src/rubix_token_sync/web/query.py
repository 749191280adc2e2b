"""Parameters of an address: each is checked, none is ignored."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import timedelta
from typing import Final

import rubix_token_sync as rts

__all__ = ["Query", "refused"]

_LONGEST: Final = 1_000
_MOST_VALUES: Final = 50
_MOST_ROWS: Final = 500


def refused(sentence: str) -> rts.SettingsError:
    """The error of an address that nobody can answer."""
    return rts.SettingsError(
        sentence, code="bad_parameter", remedy="Correct the address; docs/WEB.md lists them."
    )


class Query:
    """The parameters of one request; empty ones are left out, as forms send them."""

    def __init__(self, pairs: Iterable[tuple[str, str]]) -> None:
        found: dict[str, list[str]] = {}
        for name, value in pairs:
            if value:  # never stripped: an id may begin with a blank
                found.setdefault(name, []).append(value)
        self._given = found

    @property
    def pairs(self) -> tuple[tuple[str, str], ...]:
        """All of them, in one order: they name an answer."""
        return tuple((name, value) for name in sorted(self._given) for value in self._given[name])

    def only(self, allowed: Iterable[str]) -> None:
        """
        Raises:
            SettingsError: another parameter is there, or a value is not text for a database.
        """
        unknown = sorted(set(self._given) - set(allowed))
        if unknown:
            raise refused(f"{unknown[0][:60]!r} is not a parameter of this view.")
        for name, values in self._given.items():
            if len(values) > _MOST_VALUES:
                raise refused(f"{name} has more than {_MOST_VALUES} values.")
            for value in values:
                if len(value) > _LONGEST:
                    raise refused(f"{name} is longer than {_LONGEST:,} characters.")
                if "\x00" in value or any("\ud800" <= c <= "\udfff" for c in value):
                    raise refused(f"{name} is not text.")

    def text(self, name: str) -> str | None:
        """One value."""
        values = self._given.get(name, [])
        if len(values) > 1:
            raise refused(f"{name} may be given once.")
        return values[0] if values else None

    def texts(self, name: str) -> list[str]:
        """Every value of a parameter that may be repeated."""
        return list(self._given.get(name, []))

    def needed(self, name: str) -> str:
        """One value that must be there."""
        value = self.text(name)
        if value is None:
            raise refused(f"The address needs {name}.")
        return value

    def choice(self, name: str, allowed: Sequence[str]) -> str | None:
        """One of a few words."""
        value = self.text(name)
        if value is not None and value not in allowed:
            raise refused(f"{name} is one of {', '.join(allowed)}.")
        return value

    def choices(self, name: str, allowed: Sequence[str]) -> list[str]:
        """Some of a few words."""
        values = self.texts(name)
        if any(value not in allowed for value in values):
            raise refused(f"{name} is one of {', '.join(allowed)}.")
        return values

    def number(self, name: str, highest: int = 2**62, lowest: int = 0) -> int | None:
        """A whole number."""
        value = self.text(name)
        if value is None:
            return None
        plain = value.strip().replace(",", "")
        if not plain.isascii() or not plain.isdigit() or len(plain) > 19:
            raise refused(f"{name} is a whole number.")
        number = int(plain)
        if not lowest <= number <= highest:
            raise refused(f"{name} is between {lowest:,} and {highest:,}.")
        return number

    def limit(self, usual: int = 50) -> int:
        """How many rows."""
        return self.number("limit", _MOST_ROWS, 1) or usual

    def age(self, name: str) -> timedelta | None:
        """An age: 24h, 7d."""
        value = self.text(name)
        try:
            return None if value is None else rts.parse_age(value)
        except ValueError as error:
            raise refused(f"{error}.") from error
