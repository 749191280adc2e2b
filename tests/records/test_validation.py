"""What is wrong with a record: every code, the form of the JSON, nothing lost."""

from __future__ import annotations

import json
from datetime import datetime
from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rubix_token_sync.ipfs.content import CONTENT_LIMIT, Failure, FailureCode
from rubix_token_sync.records import validate
from rubix_token_sync.records.schema import COLUMN_SIZES, RECORD_SCHEMA, SqliteValue
from rubix_token_sync.records.validate import Code, Finding
from rubix_token_sync.records.values import blob_literal, to_text, utf16_length

TOKEN = "QmReB6HPUqm34NBqsYdANCnjQUuZvPiyFbSzLz5jAXVcvp"
DID = "bafybmipz2lxxf4gkzx7b6ctzkkoamozww5rayin3d6xm27w2wav5bollfq"
HEX = "0123456789abcdef" * 4


def codes(findings: tuple[Finding, ...]) -> list[str]:
    return [finding.code.value for finding in findings]


def test_codes_are_a_contract() -> None:
    assert sorted(Code) == [
        "content_not_of_kind",
        "content_not_text",
        "content_too_large",
        "contract_hash_differs",
        "creator_differs",
        "did_malformed",
        "did_missing",
        "ft_name_differs",
        "level_invalid",
        "parent_differs",
        "parent_malformed",
        "timestamp_unreadable",
        "token_id_missing",
        "token_id_not_cid",
        "token_id_too_long",
        "token_status_missing",
        "token_status_unknown",
        "token_value_differs",
        "token_value_missing",
        "token_value_not_number",
        "value_not_text",
        "value_too_long",
    ]


@pytest.mark.parametrize(
    ("value", "is_cid", "expected"),
    [
        (TOKEN, True, []),
        (None, False, ["token_id_missing"]),
        ("", False, ["token_id_missing"]),
        ("not-a-cid", False, ["token_id_not_cid"]),
        (12, False, ["token_id_not_cid"]),
        (b"\x01", False, ["value_not_text", "token_id_not_cid"]),
        ("a\0b", False, ["value_not_text", "token_id_not_cid"]),
        ("x" * 700, False, ["token_id_too_long", "token_id_not_cid"]),
        ("b" * 501, True, ["token_id_too_long"]),
    ],
)
def test_token_id(value: SqliteValue, is_cid: bool, expected: list[str]) -> None:
    cell = validate.token_id(value, is_cid=is_cid)
    assert codes(cell.findings) == expected
    assert cell.text == (None if value is None else (to_text(value) or "")[:500])


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (DID, []),
        (TOKEN, []),
        ("did:rubix:" + "z" * 44, []),
        ("did:rubix:main:a%2Fb", []),
        (None, ["did_missing"]),
        ("", ["did_missing"]),
        ("short", ["did_malformed"]),
        (DID[:-1], ["did_malformed"]),
        (DID + "a", ["did_malformed"]),
        (DID + "\n", ["did_malformed"]),
        (DID.upper(), ["did_malformed"]),
        ("did:rubix:", ["did_malformed"]),
        ("did:rubix:a:", ["did_malformed"]),
        ("did:web:example.org", ["did_malformed"]),
        (TOKEN[:-1] + "0", ["did_malformed"]),
        (5, ["did_malformed"]),
        (b"x", ["value_not_text", "did_malformed"]),
        ("d" * 1001, ["value_too_long", "did_malformed"]),
    ],
)
def test_did(value: SqliteValue, expected: list[str]) -> None:
    assert codes(validate.did(value).findings) == expected


@pytest.mark.parametrize(
    ("value", "text", "expected"),
    [
        (0, "0", []),
        (16, "16", []),
        (2302, "2302", []),
        (-1, "-1", []),
        ("3", "3", []),
        (None, None, ["token_status_missing"]),
        ("", "", ["token_status_missing"]),
        ("ACTIVE", "ACTIVE", ["token_status_unknown"]),
        ("3\n", "3\n", ["token_status_unknown"]),
        (3.0, "3.0", ["token_status_unknown"]),
        (b"\x01\x02", "X'0102'", ["value_not_text", "token_status_unknown"]),
    ],
)
def test_token_status(value: SqliteValue, text: str | None, expected: list[str]) -> None:
    cell = validate.token_status(value)
    assert (cell.text, codes(cell.findings)) == (text, expected)


@pytest.mark.parametrize(
    ("value", "text", "expected"),
    [
        (1.0, "1.0", []),
        (2**63 - 1, "9223372036854775807", []),
        ("0.12345678901234567890", "0.12345678901234567890", []),
        ("1e-5", "1e-5", []),
        (".5", ".5", []),
        (None, None, ["token_value_missing"]),
        ("", "", ["token_value_missing"]),
        ("n/a", "n/a", ["token_value_not_number"]),
        ("1,5", "1,5", ["token_value_not_number"]),
        ("nan", "nan", ["token_value_not_number"]),
        (float("inf"), "inf", ["token_value_not_number"]),
        (float("-inf"), "-inf", ["token_value_not_number"]),
        (float("nan"), "nan", ["token_value_not_number"]),
        (b"1", "X'31'", ["value_not_text", "token_value_not_number"]),
    ],
)
def test_token_value(value: SqliteValue, text: str | None, expected: list[str]) -> None:
    cell = validate.token_value(value)
    assert (cell.text, codes(cell.findings)) == (text, expected)


def test_a_huge_token_value_is_cut_and_told_by_its_hash() -> None:
    text = "9" * (CONTENT_LIMIT + 5)
    cell = validate.token_value(text)
    assert cell.text == "9" * CONTENT_LIMIT
    assert codes(cell.findings) == ["value_too_long", "token_value_not_number"]
    entry = json.loads(validate.errors_text(cell.findings) or "")[1]
    assert entry["code"] == "value_too_long"
    assert entry["value_bytes"] == len(text)
    assert entry["value_sha256"] == sha256(text.encode()).hexdigest()
    assert "value" not in entry


def test_a_null_is_missing_only_where_the_column_exists() -> None:
    for check in (validate.did, validate.token_status, validate.token_value):
        assert check(None, exists=False) == (None, ())
        assert check(None, exists=True).findings


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, []),
        ("", []),
        (TOKEN, []),
        ("bafkqaa3gn5xq", []),
        ("nobody", ["parent_malformed"]),
        (" " + TOKEN, ["parent_malformed"]),
        (7, ["parent_malformed"]),
        ("x" * 501, ["value_too_long", "parent_malformed"]),
    ],
)
def test_parent(value: SqliteValue, expected: list[str]) -> None:
    assert codes(validate.parent_token_id(value).findings) == expected


def test_times() -> None:
    assert validate.time("created_at", None) == (None, ())
    assert validate.time("created_at", "") == (None, ())
    assert validate.time("created_at", "2025-01-15T10:30:00Z") == (
        datetime(2025, 1, 15, 10, 30),
        (),
    )
    for value, raw in [("yesterday", "yesterday"), (b"\x01", "X'01'"), (1e300, to_text(1e300))]:
        cell = validate.time("updated_at", value)
        assert cell.time is None
        assert [(f.code, f.field, f.value) for f in cell.findings] == [
            (Code.TIMESTAMP_UNREADABLE, "updated_at", raw)
        ]


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (f"001{HEX}", []),
        (f"078{HEX}", []),
        (f"078{HEX}\n", []),
        (f"01{HEX}", []),
        (f"01{HEX}\n", []),
        (f"000{HEX}", ["level_invalid"]),
        (f"079{HEX}", ["level_invalid"]),
        (f"999{HEX}\n", ["level_invalid"]),
        (f"00{HEX}", ["level_invalid"]),
        (f"79{HEX}\n", ["level_invalid"]),
        (f"999{HEX[:-1]}", ["level_invalid"]),  # level 99 and 64 digits
        (f"999{HEX}\n\n", []),
        (f"999{HEX.upper()}", []),
        (f"99{HEX[:-1]}", []),
        ("TRI 0 bafybmi", []),
        ("", []),
    ],
)
def test_levels_of_whole_tokens(content: str, expected: list[str]) -> None:
    assert codes(validate.token_content(content.encode(), None, text=True)) == expected


def test_content_that_is_no_text_or_too_large() -> None:
    assert codes(validate.token_content(b"\xff", None, text=False)) == ["content_not_text"]
    for reason in (FailureCode.TOO_LARGE, FailureCode.TOO_LARGE_TO_STORE):
        too_large = Failure(reason, "it has 700000 bytes")
        assert codes(validate.token_content(None, too_large, text=True)) == ["content_too_large"]
    absent = Failure(FailureCode.NOT_IN_REPOSITORY, "not here")
    assert validate.token_content(None, absent, text=True) == ()
    assert validate.token_content(None, None, text=True) == ()


# --- the JSON ------------------------------------------------------------------


def test_errors_are_compact_json_in_the_order_of_columns_then_codes() -> None:
    findings = [
        *validate.time("created_at", "gestern – früh").findings,
        *validate.token_id("y" * 501, is_cid=False).findings,
        *validate.did(None).findings,
    ]
    text = validate.errors_text(findings)
    assert text is not None
    assert text == validate.errors_text(reversed(findings))
    long = "y" * 501
    assert text == (
        '[{"code":"did_missing","field":"did","message":"did is missing"},'
        '{"code":"token_id_not_cid","field":"token_id",'
        '"message":"token_id is not an IPFS content identifier"},'
        '{"code":"token_id_too_long","field":"token_id",'
        f'"message":"token_id has 501 characters and is cut to 500","value":"{long}"}},'
        '{"code":"timestamp_unreadable","field":"created_at",'
        '"message":"created_at is not a readable time in the years 1 to 9999; NULL is stored",'
        '"value":"gestern – früh"}]'
    )


def test_nothing_wrong_is_null() -> None:
    assert validate.errors_text([]) is None


anything = (
    st.none()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats()
    | st.binary(max_size=700)
    | st.text(max_size=700)
    | st.binary(max_size=700).map(lambda data: data.decode("utf-8", "surrogateescape"))
)


@given(anything, st.sampled_from(sorted(COLUMN_SIZES)))
def test_what_is_stored_fits_and_nothing_is_lost(value: SqliteValue, field: str) -> None:
    cell = validate.fit(field, value)
    if value is None:
        assert cell == (None, ())
        return
    assert cell.text is not None
    cell.text.encode()  # is Unicode
    assert "\0" not in cell.text
    assert utf16_length(cell.text) <= COLUMN_SIZES[field]
    whole = to_text(value)
    if cell.text != whole:
        kept = [finding.value for finding in cell.findings if finding.value is not None]
        assert kept == [whole]
    if isinstance(value, bytes):
        assert whole == blob_literal(value)
        assert Code.VALUE_NOT_TEXT in codes(cell.findings)
    # Whatever is found can be written as JSON and read again.
    text = validate.errors_text(cell.findings)
    assert (text is None) == (not cell.findings)
    if text is not None:
        entries = json.loads(text.encode())
        assert all(entry["field"] == field in RECORD_SCHEMA.names for entry in entries)
