"""Text and times from SQLite's values: exact, lossless, as a person writes them."""

from __future__ import annotations

import math
import re
import sqlite3
from contextlib import closing
from datetime import UTC, datetime, timedelta, timezone
from fractions import Fraction

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from rubix_token_sync.records.schema import SqliteValue
from rubix_token_sync.records.values import (
    blob_literal,
    cut,
    is_clean,
    original_bytes,
    real_text,
    to_text,
    utc_time,
    utf16_length,
)

HALF_PAST_TEN = datetime(2025, 1, 15, 10, 30)


# --- text --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, None),
        ("", ""),
        ("Grüße 😀", "Grüße 😀"),
        ("tab\tand\nline", "tab\tand\nline"),
        (0, "0"),
        (-(2**63), "-9223372036854775808"),
        (2**63 - 1, "9223372036854775807"),
        (2**53 + 1, "9007199254740993"),
        (1.0, "1.0"),
        (0.001, "0.001"),
        (0.00001, "0.00001"),
        (-0.0, "-0.0"),
        (0.1 + 0.2, "0.30000000000000004"),
        (1e22, "10000000000000000000000.0"),
        (1e16, "10000000000000000.0"),
        (1.5e-7, "0.00000015"),
        (math.inf, "inf"),
        (-math.inf, "-inf"),
        (math.nan, "nan"),
        (b"", "X''"),
        (b"\x01\x02\xff", "X'0102FF'"),
        ("a\0b", "X'610062'"),
        (b"ok\xff".decode("utf-8", "surrogateescape"), "X'6F6BFF'"),
        ("\ud800", "X'EDA080'"),
    ],
)
def test_values_become_text(value: SqliteValue, text: str | None) -> None:
    assert to_text(value) == text


@given(st.floats(allow_nan=False, allow_infinity=False))
@example(5e-324)
@example(1.7976931348623157e308)
def test_a_real_reads_back_exactly_and_has_no_exponent(value: float) -> None:
    text = real_text(value)
    assert re.fullmatch(r"-?[0-9]+\.[0-9]+", text)
    assert float(text) == value
    assert math.copysign(1, float(text)) == math.copysign(1, value)
    # Shortest: no digits beyond those that repr needs.
    significant = text.replace(".", "").lstrip("-0").rstrip("0")
    assert len(significant) <= 17


@given(st.binary(max_size=60))
def test_bytes_survive_whatever_they_are(data: bytes) -> None:
    text = data.decode("utf-8", "surrogateescape")
    assert original_bytes(text) == data
    stored = to_text(text)
    assert stored is not None
    if stored is not text:
        assert stored == blob_literal(data)
        # SQLite itself reads the literal back.
        with closing(sqlite3.connect(":memory:")) as db:
            assert db.execute(f"SELECT {stored}").fetchone() == (data,)


@given(st.text(max_size=60) | st.text(alphabet="\0\ud800a", max_size=5))
def test_clean_text_is_what_utf8_and_c_strings_can_hold(text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError:
        assert not is_clean(text)
    else:
        assert is_clean(text) == ("\0" not in text)


# --- sizes -------------------------------------------------------------------


@given(st.text(max_size=40), st.integers(0, 40))
@example("😀" * 20, 39)
@example("a😀b", 2)
def test_cutting_keeps_the_longest_beginning_that_fits(text: str, units: int) -> None:
    assert utf16_length(text) == len(text.encode("utf-16-le", "surrogatepass")) // 2
    kept = cut(text, units)
    assert text.startswith(kept)
    assert utf16_length(kept) <= units
    if kept != text:
        assert utf16_length(text[: len(kept) + 1]) > units


# --- times -------------------------------------------------------------------


@pytest.mark.parametrize(
    "value",
    [
        "2025-01-15 10:30:00",
        "2025-01-15T10:30:00",
        "2025-01-15T10:30:00Z",
        "2025-01-15t10:30:00z",
        "2025-01-15 10:30",
        "2025-01-15T10:30Z",
        "  2025-01-15 10:30:00\n",
        "2025-01-15T16:00:00+05:30",
        "2025-01-15T16:00:00+0530",
        "2025-01-15 12:30:00+02",
        "2025-01-15T05:30:00-05:00",
        "2025-01-14T19:00:00-15:30",
        "2025-01-15 10:30:00 +0000 UTC",
        "2025-01-15 10:30:00 UTC",
        "2025-01-15 16:00:00 +0530 IST",
        "2025-01-15 16:00:00 +0530 +0530",
        "2025-01-15 10:30:00 +0000 UTC m=+0.000012345",
        "2025-01-15 11:30:00 +0100 CET m=+86400.5",
        "2025-01-15 10:30:00.000000000-00:00",
        1736937000,
        1736937000.0,
        "1736937000",
        "+1736937000",
        "1736937000.000",
        1736937000000,
        1.736937e12,
        "1736937000000",
        1736937000000000,
        "1736937000000000",
        1736937000000000000,
        "1736937000000000000",
    ],
)
def test_every_form_of_one_moment(value: SqliteValue) -> None:
    assert utc_time(value) == HALF_PAST_TEN


@pytest.mark.parametrize(
    ("value", "moment"),
    [
        ("2025-01-15", datetime(2025, 1, 15)),
        ("2025-01-15 10:30:00.1", HALF_PAST_TEN.replace(microsecond=100_000)),
        ("2025-01-15 10:30:00,12", HALF_PAST_TEN.replace(microsecond=120_000)),
        ("2025-01-15T10:30:00.123Z", HALF_PAST_TEN.replace(microsecond=123_000)),
        ("2025-01-15T10:30:00.999999999", HALF_PAST_TEN.replace(microsecond=999_999)),
        ("2025-01-15 10:30:00.123456789", HALF_PAST_TEN.replace(microsecond=123_456)),
        ("2025-01-15 16:00:00.123456789+05:30", HALF_PAST_TEN.replace(microsecond=123_456)),
        (1736937000.123, HALF_PAST_TEN.replace(microsecond=123_000)),
        ("1736937000.123456999", HALF_PAST_TEN.replace(microsecond=123_456)),
        (1736937000123456789, HALF_PAST_TEN.replace(microsecond=123_456)),
        (0, datetime(1970, 1, 1)),
        (-1, datetime(1969, 12, 31, 23, 59, 59)),
        (-0.0000001, datetime(1969, 12, 31, 23, 59, 59, 999_999)),
        ("2024-02-29", datetime(2024, 2, 29)),
        ("2016-12-31T23:59:60Z", datetime(2017, 1, 1)),
        ("0001-01-01 00:00:00+00:00", datetime(1, 1, 1)),
        ("9999-12-31 23:59:59.9999999", datetime(9999, 12, 31, 23, 59, 59, 999_999)),
    ],
)
def test_fractions_and_edges(value: SqliteValue, moment: datetime) -> None:
    assert utc_time(value) == moment


@pytest.mark.parametrize(
    "value",
    [
        None,
        "",
        "yesterday",
        "now",
        "2025-02-29",
        "2025-13-01",
        "2025-1-5",
        "2025-01-15T24:00:00",
        "2025-01-15T10:60:00",
        "2025-01-15T10:30:61",
        "2025-01-15T10:30:00+24:00",
        "2025-01-15T10:30:00+05:60",
        "2025-01-15 10:30:00 and more",
        "2025-W03-3",
        "15.01.2025",
        "١٧٣٦٩٣٧٠٠٠",
        "0000-01-01",
        "10000-01-01",
        "0001-01-01T00:00:00+00:01",
        "9999-12-31T23:59:59-01:00",
        "9999-12-31T23:59:60Z",
        "9" * 30,
        math.inf,
        -math.inf,
        math.nan,
        1e300,
        -1e21,
        "1e9",
        "0x10",
        b"2025-01-15",
        b"\x00",
        "2025-01-15\x0010:30:00",
        "2025-01-15 10:30:00\udcff",
    ],
)
def test_what_names_no_moment(value: SqliteValue) -> None:
    assert utc_time(value) is None


moments = st.datetimes(datetime(1, 1, 3), datetime(9999, 12, 29))
offsets = st.integers(-23 * 60 - 59, 23 * 60 + 59)


@given(moments, offsets, st.sampled_from(["T", " "]), st.integers(0, 999))
def test_iso_text_round_trips_through_any_offset(
    moment: datetime, minutes: int, separator: str, nanoseconds: int
) -> None:
    local = moment.replace(tzinfo=UTC).astimezone(timezone(timedelta(minutes=minutes)))
    text = local.isoformat(separator, "microseconds")
    assert utc_time(text) == moment
    # Nine digits, as Go writes them; the last three are cut, never rounded.
    assert utc_time(f"{text[:26]}{nanoseconds:03}{text[26:]}") == moment
    assert utc_time(moment.isoformat(separator)) == moment


@given(st.integers(-(2**63), 2**63 - 1))
@example(10**11 - 1)
@example(10**11)
@example(10**14)
@example(10**17)
@example(-(10**11))
def test_unix_times_of_all_units_are_floored(number: int) -> None:
    size = abs(number)
    unit = 1 if size < 10**11 else 10**3 if size < 10**14 else 10**6 if size < 10**17 else 10**9
    microseconds = math.floor(Fraction(number, unit) * 10**6)
    try:
        expected = datetime(1970, 1, 1) + timedelta(microseconds=microseconds)
    except OverflowError:
        expected = None
    assert utc_time(number) == expected
    assert utc_time(str(number)) == expected


@given(st.text() | st.floats() | st.binary(max_size=30) | st.from_regex(r"[0-9TZ:+ .-]{0,40}"))
def test_nothing_makes_it_raise(value: SqliteValue) -> None:
    moment = utc_time(value)
    assert moment is None or (moment.tzinfo is None and 1 <= moment.year <= 9999)
