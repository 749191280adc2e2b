"""From what SQLite holds to what the target stores: text and UTC times.

SQLite is typed by value, not by column: any column can hold integers, reals,
text and blobs.  Text columns of the target hold text, so:

* integers are written exactly, whatever their size;
* reals are written as a person writes them: the shortest digits that read back
  as the same number, never an exponent, ``.0`` kept (``1.0``, ``0.00001``);
* a value that is not clean text (a blob, text that is not UTF-8, text with a NUL
  character) is written as SQLite's blob literal of its bytes, ``X'00FF'``.
  Validation flags such a value, which distinguishes it from text that looks like one.

Times become UTC without a zone, in microseconds.  Finer digits are cut, towards
the past (Python and Arrow's ``timestamp[us]`` hold microseconds; DATETIME2(7)
would hold 100 ns).  A time without a zone is taken as UTC.

Everything here is a pure function.
"""

from __future__ import annotations

import re
from datetime import datetime, timedelta
from decimal import Context, Decimal
from typing import Final

from rubix_token_sync.records.schema import SqliteValue

__all__ = [
    "blob_literal",
    "cut",
    "is_clean",
    "original_bytes",
    "real_text",
    "to_text",
    "utc_time",
    "utf16_length",
]


def original_bytes(text: str) -> bytes:
    """The bytes that ``text`` was read from.

    Bytes that are not UTF-8 arrive as lone surrogates (``surrogateescape``); other
    lone surrogates cannot come from SQLite and are kept as three bytes each.
    """
    try:
        return text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return text.encode("utf-8", "surrogatepass")


def blob_literal(data: bytes) -> str:
    """SQLite's own notation of a blob: ``X'00FF'``."""
    return f"X'{data.hex().upper()}'"


def is_clean(text: str) -> bool:
    """Every target can store ``text`` as it is: it is Unicode and has no NUL."""
    if "\0" in text:
        return False
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def real_text(value: float) -> str:
    """A real as a person writes it: shortest exact digits, no exponent, ``.0`` kept.

    Infinities are ``inf`` and ``-inf``; SQLite has no NaN, but ``nan`` is total.
    """
    text = repr(value)
    if "e" not in text:
        return text
    plain = format(Decimal(text), "f")
    return plain if "." in plain else plain + ".0"


def to_text(value: SqliteValue) -> str | None:
    """What a text column of the target holds for ``value``; never cut."""
    if value is None:
        return None
    if isinstance(value, str):
        return value if is_clean(value) else blob_literal(original_bytes(value))
    if isinstance(value, bytes):
        return blob_literal(value)
    if isinstance(value, float):
        return real_text(value)
    return str(value)


def utf16_length(text: str) -> int:
    """Length as SQL Server's NVARCHAR counts: UTF-16 code units."""
    if text.isascii():
        return len(text)
    return len(text) + sum(character > "\uffff" for character in text)


def cut(text: str, units: int) -> str:
    """The longest beginning of ``text`` within ``units`` UTF-16 code units.

    A character outside the basic plane is two units and is kept or left whole.
    """
    if len(text) * 2 <= units or utf16_length(text) <= units:
        return text
    kept = text[:units]
    excess = utf16_length(kept) - units
    while excess > 0:
        excess -= 2 if kept[-1] > "\uffff" else 1
        kept = kept[:-1]
    return kept


# --- times -----------------------------------------------------------------

_EPOCH: Final = datetime(1970, 1, 1)
_MICROSECOND: Final = timedelta(microseconds=1)
_EXACT: Final = Context(prec=100)  # more digits than any number read here has

# ISO 8601 as databases write it, RFC 3339, and what Go's time.Time prints:
# `2006-01-02 15:04:05.999999999 -0700 MST m=+0.000000001`.
_TEXT_TIME: Final = re.compile(
    r"""
    (?P<year>\d{4})-(?P<month>\d\d)-(?P<day>\d\d)
    (?:
        [Tt\x20]
        (?P<hour>\d\d):(?P<minute>\d\d)
        (?: :(?P<second>\d\d) (?: [.,](?P<fraction>\d{1,30}) )? )?
        (?:
            \x20?
            (?:
                (?P<utc> [Zz] | UTC | GMT )
              | (?P<sign> [+-] )(?P<zone_hour>\d\d)
                (?: :?(?P<zone_minute>\d\d) (?: :?(?P<zone_second>\d\d) )? )?
            )
            # Go repeats the zone as a name; the number before it decides.
            (?: \x20 (?: [A-Za-z]{1,6} | [+-]\d{2,4} ) )?
        )?
        (?: \x20 m=[+-]\d+(?:\.\d+)? )?
    )?
    """,
    re.VERBOSE | re.ASCII,
)
# The commonest form, read four times as fast (naive, or followed by Z).
_PLAIN_TIME: Final = re.compile(
    r"(\d{4}-\d\d-\d\d[T ](?:[01]\d|2[0-3]):\d\d:\d\d)(?:\.(\d{1,30}))?Z?", re.ASCII
)
_NUMBER_TIME: Final = re.compile(r"[+-]?\d{1,30}(?:\.\d{0,30})?", re.ASCII)

# A number is seconds, milliseconds, microseconds or nanoseconds since 1970 by its
# size: each unit covers the years 1973 to 5138 (nanoseconds: all that 64 bits hold).
_MICROSECONDS_PER_UNIT: Final = (
    (Decimal(10) ** 11, Decimal(10) ** 6),
    (Decimal(10) ** 14, Decimal(10) ** 3),
    (Decimal(10) ** 17, Decimal(1)),
)


def utc_time(value: SqliteValue) -> datetime | None:
    """The moment that ``value`` names, as naive UTC; None when it names none.

    Read are: ISO 8601 and RFC 3339 text (``T`` or a blank, ``Z``, offsets ±HH,
    ±HHMM and ±HH:MM, fractions of any length, a date alone, no seconds), what
    Go's ``time.Time`` prints, and Unix time in s, ms, µs or ns as integer, real
    or text of digits.  Years 1 to 9999 after conversion to UTC, as in DATETIME2.
    """
    if isinstance(value, str):
        text = value.strip(" \t\r\n")
        plain = _PLAIN_TIME.fullmatch(text)
        if plain:
            try:
                return datetime.fromisoformat(f"{plain[1]}.{(plain[2] or '')[:6]:0<6}")
            except ValueError:
                pass  # a leap second, or no such day; the general form decides
        match = _TEXT_TIME.fullmatch(text)
        if match:
            return _calendar_time(match)
        if _NUMBER_TIME.fullmatch(text):
            return _unix_time(Decimal(text))
        return None
    if isinstance(value, float):
        # repr: 1736937000.123 means what it shows, not its binary neighbour.
        return _unix_time(Decimal(repr(value)))
    if isinstance(value, int):
        return _unix_time(Decimal(value))
    return None


def _calendar_time(match: re.Match[str]) -> datetime | None:
    part = match.groupdict()
    second = int(part["second"] or 0)
    leap = second == 60  # a leap second is the first moment of the next minute
    try:
        moment = datetime(
            int(part["year"]),
            int(part["month"]),
            int(part["day"]),
            int(part["hour"] or 0),
            int(part["minute"] or 0),
            59 if leap else second,
            0 if leap else int((part["fraction"] or "0")[:6].ljust(6, "0")),
        )
        if leap:
            moment += timedelta(seconds=1)
        if part["sign"]:
            hours, minutes = int(part["zone_hour"]), int(part["zone_minute"] or 0)
            seconds = int(part["zone_second"] or 0)
            if hours > 23 or minutes > 59 or seconds > 59:
                return None
            offset = timedelta(hours=hours, minutes=minutes, seconds=seconds)
            moment += offset if part["sign"] == "-" else -offset
    except (ValueError, OverflowError):
        return None
    return moment


def _unix_time(number: Decimal) -> datetime | None:
    if not number.is_finite():
        return None
    factor = Decimal("0.001")
    for bound, unit in _MICROSECONDS_PER_UNIT:
        if abs(number) < bound:
            factor = unit
            break
    # Floor, so that times before 1970 are cut towards the past as well.
    microseconds = _EXACT.multiply(number, factor).to_integral_value("ROUND_FLOOR")
    try:
        return _EPOCH + int(microseconds) * _MICROSECOND
    except OverflowError:
        return None
