"""Finished batches: the fast path gives what judging value by value gives; content survives."""

from __future__ import annotations

import json
import sqlite3
from base64 import b64encode
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from rubix_token_sync.ipfs import cid
from rubix_token_sync.ipfs.content import Failure, FailureCode
from rubix_token_sync.records import validate
from rubix_token_sync.records.build import (
    DatabaseContext,
    finish_batch,
)
from rubix_token_sync.records.content_text import CONTENT_MARKER, decode_content, encode_content
from rubix_token_sync.records.kinds import KINDS, RBT, TokenKind, kind_of
from rubix_token_sync.records.schema import RECORD_SCHEMA, SOURCE_COLUMNS, SourceRow, SqliteValue
from rubix_token_sync.records.token_content import NamedTrees
from rubix_token_sync.records.values import to_text

TOKEN = "QmReB6HPUqm34NBqsYdANCnjQUuZvPiyFbSzLz5jAXVcvp"
DID = "bafybmipz2lxxf4gkzx7b6ctzkkoamozww5rayin3d6xm27w2wav5bollfq"
WHOLE = b"001" + b"0123456789abcdef" * 4
MODIFIED = datetime(2025, 1, 15, 10, 30, 0, 123456)
CONTEXT = DatabaseContext(
    source_ip="10.0.0.4",
    node_name="node032",
    db_path="/datadrive/Rubix/node032/Rubix/rubix.db",
    ipfs_path="/datadrive/Rubix/node032/.ipfs",
    db_last_modified=MODIFIED,
    network="main",
    columns={kind.name: frozenset(kind.columns) for kind in KINDS},
)
NO_CID = Failure(FailureCode.NO_CID, "the token id is no CID")
ABSENT = Failure(FailureCode.NOT_IN_REPOSITORY, "not in this node's repository")
TOO_LARGE = Failure(FailureCode.TOO_LARGE, "larger than 51200 bytes")


@dataclass
class Content:
    data: Sequence[bytes | None]
    failure: Sequence[Failure | None] = field(default_factory=list)
    trees: dict[int, NamedTrees] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.failure = self.failure or [None] * len(self.data)


def row(**values: SqliteValue) -> SourceRow:
    clean: dict[str, SqliteValue] = {
        "token_id": TOKEN,
        "did": DID,
        "created_at": None,
        "updated_at": None,
        "token_status": 0,
        "parent_token_id": "",
        "token_value": 1.0,
        "token_state_hash": None,
        "transaction_id": "",
    }
    assert values.keys() <= clean.keys()
    return tuple((clean | values)[name] for name in SOURCE_COLUMNS)


def finish(
    rows: Sequence[SourceRow],
    content: Content | None = None,
    context: DatabaseContext = CONTEXT,
    kind: TokenKind = RBT,
) -> list[dict[str, Any]]:
    count = len(rows)
    keys = b"".join(index.to_bytes(24, "big") for index in range(count))
    digests = b"".join(index.to_bytes(16, "big") for index in range(count))
    content = content or Content([WHOLE] * count)
    batch = finish_batch(kind, rows, keys, digests, content, context)
    assert batch.schema == RECORD_SCHEMA
    batch.validate(full=True)
    records: list[dict[str, Any]] = batch.to_pylist()
    assert [record["record_key"] for record in records] == [
        index.to_bytes(24, "big") for index in range(count)
    ]
    assert [record["row_digest"] for record in records] == [
        index.to_bytes(16, "big") for index in range(count)
    ]
    return records


def codes(record: dict[str, Any]) -> list[str]:
    return [entry["code"] for entry in json.loads(record["validation_errors"] or "[]")]


def test_a_clean_row() -> None:
    assert finish([row()]) == [
        {
            "record_key": bytes(24),
            "row_digest": bytes(16),
            "source_ip": "10.0.0.4",
            "node_name": "node032",
            "did": DID,
            "token_id": TOKEN,
            "created_at": None,
            "updated_at": None,
            "token_status": "0",
            "parent_token_id": "",
            "token_value": "1.0",
            "ipfs_data": WHOLE.decode(),
            "ipfs_fetched": True,
            "ipfs_error": None,
            "db_path": "/datadrive/Rubix/node032/Rubix/rubix.db",
            "ipfs_path": "/datadrive/Rubix/node032/.ipfs",
            "db_last_modified": MODIFIED,
            "validation_errors": None,
            "token_kind": "rbt",
            "network": "main",
            "token_state_hash": None,
            "transaction_id": None,
            "attributes": None,
            "verdict": None,
            "verdict_source": None,
            "token_level": None,
            "token_number": None,
        }
    ]


def test_a_row_of_every_other_kind() -> None:
    """The values where this kind's table has them, and what only it has as JSON."""
    rows: dict[str, SourceRow] = {
        "ft": (TOKEN, DID, None, None, 4, None, 0.02, "state", "ab12", 'TRI "3"', DID),
        "nft": (TOKEN, DID, None, None, 4, None, 0.7, None, None),
        "data": (TOKEN, DID, None, None, 5, None, None, None, None, "batch", ""),
        "contract": (TOKEN, DID, None, None, 10, None, None, None, None, "b", 1, b"\xff"),
    }
    attributes = {
        "ft": {"ft_name": 'TRI "3"', "creator_did": DID},
        "nft": None,
        "data": {"batch_id": "batch"},
        "contract": {"binary_code_hash": "b", "raw_code_hash": "1", "schema_code_hash": "X'FF'"},
    }
    for name, source in rows.items():
        (record,) = finish([source], Content([None]), kind=kind_of(name))
        assert record["token_kind"] == name
        assert json.loads(record["attributes"] or "null") == attributes[name]
        assert record["validation_errors"] is None
        assert record["token_status"] == str(source[4])
        assert record["did"] == DID
    (record,) = finish([rows["ft"]], kind=kind_of("ft"))
    assert (record["token_value"], record["token_state_hash"]) == ("0.02", "state")


def test_what_the_content_says_stands_beside_what_the_row_says() -> None:
    ft: SourceRow = (TOKEN, DID, None, None, 0, None, 1.0, None, None, "TRI 3", DID)
    said = [f"TRI 3 7 {DID}".encode(), f"GOLD 7 {DID}".encode(), b"079" + WHOLE[3:]]
    records = finish([ft] * 3, Content(said), kind=kind_of("ft"))
    assert [codes(record) for record in records] == [
        [], ["ft_name_differs"], ["content_not_of_kind"],
    ]  # fmt: skip
    assert [json.loads(record["attributes"]) for record in records] == [
        {"ft_name": "TRI 3", "ft_number": 7, "creator_did": DID},
        {"ft_name": "TRI 3", "ft_number": 7, "creator_did": DID},
        {"ft_name": "TRI 3", "creator_did": DID},
    ]


def test_attributes_that_are_equal_numbers_of_different_types_stay_apart() -> None:
    rows: list[SourceRow] = [(TOKEN, DID, *[None] * 7, name, None) for name in (1, 1.0, "1")]
    records = finish(rows, Content([None] * 3), kind=kind_of("ft"))
    names = [json.loads(record["attributes"])["ft_name"] for record in records]
    assert names == ["1", "1.0", "1"]


def test_no_rows() -> None:
    assert finish([]) == []


@pytest.mark.parametrize("wrong", ["keys", "digests", "data", "failure"])
def test_lengths_must_agree(wrong: str) -> None:
    content = Content(
        [WHOLE] * (2 if wrong == "data" else 1), [None] * (2 if wrong == "failure" else 1)
    )
    keys = bytes(25 if wrong == "keys" else 24)
    digests = bytes(15 if wrong == "digests" else 16)
    with pytest.raises(ValueError, match="1 rows, but"):
        finish_batch(RBT, [row()], keys, digests, content, CONTEXT)


def test_columns_that_the_node_has_not_are_null_and_not_missing() -> None:
    bare = row(did=None, token_status=None, token_value=None, parent_token_id=None)
    old = DatabaseContext(
        "a", "b", "c", None, MODIFIED, "main", columns={"rbt": frozenset({"token_id"})}
    )
    (record,) = finish([bare], context=old)
    for name in ("did", "token_status", "token_value", "parent_token_id", "ipfs_path"):
        assert record[name] is None
    assert record["validation_errors"] is None
    (record,) = finish([bare])
    assert codes(record) == ["did_missing", "token_status_missing", "token_value_missing"]


def test_equal_numbers_of_different_types_stay_apart() -> None:
    states: list[SqliteValue] = [1, 1.0, "1", 0, 0.0, -0.0]
    records = finish([row(token_status=state, token_value=state) for state in states])
    texts = ["1", "1.0", "1", "0", "0.0", "-0.0"]
    assert [record["token_status"] for record in records] == texts
    assert [record["token_value"] for record in records] == texts


def test_what_is_wrong_stands_in_its_own_row_only() -> None:
    rows = [
        row(),
        row(token_id="not-a-cid"),
        row(did="short"),
        row(token_value=1e-5),
        row(created_at="yesterday", updated_at="2025-01-15T16:00:00.5+05:30"),
        row(),
    ]
    content = Content(
        [WHOLE, None, WHOLE, b"\xff\x00", None, b"079" + WHOLE[3:]],
        [None, NO_CID, None, None, TOO_LARGE, None],
    )
    records = finish(rows, content)
    assert [codes(record) for record in records] == [
        [],
        ["token_id_not_cid"],
        ["did_malformed"],
        ["content_not_text"],
        ["timestamp_unreadable", "content_too_large"],
        ["level_invalid"],
    ]
    assert records[3]["token_value"] == "0.00001"
    assert records[4]["created_at"] is None
    assert records[4]["updated_at"] == datetime(2025, 1, 15, 10, 30, 0, 500_000)
    assert [record["ipfs_fetched"] for record in records] == [True, False, True, True, False, True]
    assert [record["ipfs_error"] for record in records] == [
        None,
        "no_cid: the token id is no CID",
        None,
        None,
        "too_large: larger than 51200 bytes",
        None,
    ]


def test_content_that_nobody_looked_for_is_neither_fetched_nor_an_error() -> None:
    records = finish([row(), row(token_id="--help"), row(token_id=5)], Content([None] * 3))
    assert [record["ipfs_fetched"] for record in records] == [False] * 3
    assert [record["ipfs_error"] for record in records] == [None] * 3
    assert [codes(record) for record in records] == [
        [],
        ["token_id_not_cid"],
        ["token_id_not_cid"],
    ]


def test_what_all_records_share_is_fitted_and_flagged_in_each() -> None:
    context = DatabaseContext(
        source_ip="x" * 46,
        node_name="caf\udce9",
        db_path="/" + "d" * 600,
        ipfs_path="/i\0",
        db_last_modified=MODIFIED,
        network="main",
    )
    records = finish([row(), row(did="short")], context=context)
    assert [codes(record) for record in records] == [
        ["value_too_long", "value_not_text", "value_too_long", "value_not_text"],
        ["value_too_long", "value_not_text", "did_malformed", "value_too_long", "value_not_text"],
    ]
    assert records[0]["source_ip"] == "x" * 45
    assert records[0]["node_name"] == "X'636166E9'"
    assert records[0]["db_path"] == "/" + "d" * 499
    assert records[0]["ipfs_path"] == "X'2F6900'"
    entries = json.loads(records[1]["validation_errors"])
    assert entries[0]["value"] == "x" * 46
    assert entries[3]["value"] == context.db_path


def test_a_long_or_dirty_failure_stays_readable() -> None:
    dirty = Failure(FailureCode.READ_ERROR, "in /caf\udce9\0/" + "p" * 2000)
    records = finish([row(), row()], Content([None, None], [dirty, ABSENT]))
    assert records[0]["ipfs_error"].startswith("read_error: in /caf\\udce9\\x00/ppp")
    assert len(records[0]["ipfs_error"]) == 1000
    (entry,) = json.loads(records[0]["validation_errors"])
    assert (entry["code"], entry["field"]) == ("value_too_long", "ipfs_error")
    assert entry["value"].endswith("p" * 2000)
    assert records[1]["ipfs_error"] == "not_in_repository: not in this node's repository"
    assert records[1]["validation_errors"] is None


@pytest.mark.parametrize(
    "content", [b"00" + WHOLE[3:], b"00" + WHOLE[3:] + b"\n", b"079" + WHOLE[3:] + b"\n"]
)
def test_levels_are_checked_in_every_length_of_whole_tokens(content: bytes) -> None:
    assert [codes(record) for record in finish([row(), row()], Content([WHOLE, content]))] == [
        [],
        ["level_invalid"],
    ]


def test_infinite_values_among_finite_ones() -> None:
    values = [1.0, float("inf"), 0.5, float("-inf")]
    records = finish([row(token_value=value) for value in values])
    assert [record["token_value"] for record in records] == ["1.0", "inf", "0.5", "-inf"]
    assert [codes(record) for record in records] == [
        [],
        ["token_value_not_number"],
        [],
        ["token_value_not_number"],
    ]


@pytest.mark.parametrize("token_id", ["a\0b", "é", "é\0", "x" * 501, "", "\udcff"])
def test_an_odd_id_is_judged_even_where_content_was_found(token_id: str) -> None:
    content = Content([WHOLE, WHOLE])
    records = finish([row(), row(token_id=token_id)], content)
    alone = validate.token_id(token_id, is_cid=True)
    assert [records[0]["token_id"], records[1]["token_id"]] == [TOKEN, alone.text]
    assert records[1]["validation_errors"] == validate.errors_text(alone.findings)


# --- content -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"", ""),
        (b"TRI 0 bafybmi", "TRI 0 bafybmi"),
        ("Ü😀\r\n\x01".encode(), "Ü😀\r\n\x01"),
        (b"\xff\xfe\x00binary\x80", CONTENT_MARKER + "//4AYmluYXJ5gA=="),
        (b"a\0b", CONTENT_MARKER + "YQBi"),
        (b"\xed\xa0\x80", CONTENT_MARKER + "7aCA"),
        (b"data:,a", "data:,a"),
        (CONTENT_MARKER.encode(), CONTENT_MARKER + b64encode(CONTENT_MARKER.encode()).decode()),
    ],
)
def test_content_as_text(data: bytes, text: str) -> None:
    assert encode_content(data) == text
    assert decode_content(text) == data
    (record,) = finish([row()], Content([data]))
    assert record["ipfs_data"] == text
    assert record["ipfs_fetched"] is True


contents = st.binary(max_size=200) | st.text(max_size=100).map(str.encode) | st.just(WHOLE)


@given(contents)
@example(CONTENT_MARKER.encode() + b"\xff")
def test_content_survives(data: bytes) -> None:
    text = encode_content(data)
    text.encode()
    assert "\0" not in text
    assert decode_content(text) == data


@pytest.mark.parametrize("damaged", ["YQBi=", "YQ", "Y Q==", "ä"])
def test_damaged_base64_is_an_error(damaged: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - its words are Python's own
        decode_content(CONTENT_MARKER + damaged)


def test_text_that_looks_like_the_marker_is_no_validation_error() -> None:
    (record,) = finish([row()], Content([CONTENT_MARKER.encode() + b"YQ=="]))
    assert record["validation_errors"] is None
    assert decode_content(record["ipfs_data"]) == CONTENT_MARKER.encode() + b"YQ=="


# --- the fast path -------------------------------------------------------------

odd = (
    st.none()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False)
    | st.binary(max_size=20)
    | st.text(max_size=20)
    | st.sampled_from([TOKEN, DID, "", "x" * 501, "d" * 1001, "2025-01-15", "a\0", "\udcff"])
)
rows_of_anything = st.lists(
    st.tuples(
        st.just(TOKEN) | odd,
        st.just(DID) | odd,
        st.none() | odd,
        st.none() | odd,
        st.integers(0, 16) | odd,
        st.just("") | odd,
        st.just(1.0) | odd,
        st.just("") | odd,
        st.none() | odd,
    ),
    min_size=1,
    max_size=6,
)
outcomes = st.tuples(contents, st.none()) | st.tuples(
    st.none(), st.sampled_from([None, NO_CID, ABSENT, TOO_LARGE])
)


def judged_alone(source: SourceRow, data: bytes | None, failure: Failure | None) -> dict[str, Any]:
    """A record by the rules of validate, without any column-wise shortcut."""
    token, did, created, updated, status, parent, value, state, transaction = source
    if failure is not None:
        is_cid = failure is not NO_CID
    else:
        is_cid = data is not None or (isinstance(token, str) and cid.parse(token) is not None)
    cells = {
        "token_id": validate.token_id(token, is_cid=is_cid),
        "did": validate.did(did),
        "token_status": validate.token_status(status),
        "parent_token_id": validate.parent_token_id(parent),
        "token_value": validate.token_value(value),
        "token_state_hash": validate.fit_or_empty("token_state_hash", state),
        "transaction_id": validate.fit_or_empty("transaction_id", transaction),
    }
    times = {
        "created_at": validate.time("created_at", created),
        "updated_at": validate.time("updated_at", updated),
    }
    text = True
    if data is not None:
        try:
            text = "\0" not in data.decode()
        except UnicodeDecodeError:
            text = False
    findings = [
        *validate.token_content(data, failure, text=text),
        *(finding for cell in cells.values() for finding in cell.findings),
        *(finding for time in times.values() for finding in time.findings),
    ]
    return {
        **{name: cell.text for name, cell in cells.items()},
        **{name: time.time for name, time in times.items()},
        "ipfs_data": None if data is None else encode_content(data),
        "ipfs_fetched": data is not None,
        "ipfs_error": None if failure is None else str(failure),
        "validation_errors": validate.errors_text(findings),
    }


@given(rows_of_anything, st.data())
def test_a_batch_is_what_its_rows_are_alone(rows: list[SourceRow], draw: st.DataObject) -> None:
    count = len(rows)
    drawn = draw.draw(st.lists(outcomes, min_size=count, max_size=count))
    content = Content([data for data, _ in drawn], [failure for _, failure in drawn])
    for record, source, (data, failure) in zip(finish(rows, content), rows, drawn, strict=True):
        alone = judged_alone(source, data, failure)
        assert {name: record[name] for name in alone} == alone


def test_a_batch_may_be_large() -> None:
    rows = [row(token_value=index / 100_000) for index in range(20_000)]
    count = len(rows)
    content = Content([WHOLE] * count)
    records = finish_batch(RBT, rows, bytes(24 * count), bytes(16 * count), content, CONTEXT)
    assert isinstance(records, pa.RecordBatch)
    assert records.column("token_value").to_pylist() == [
        to_text(index / 100_000) for index in range(20_000)
    ]


# --- the fixture fleet -----------------------------------------------------------


def test_the_fork_with_timestamps_and_odd_values(
    unpacked_fleet: Path, expected: dict[str, list[dict[str, Any]]]
) -> None:
    name = "pool/a/node035/Rubix/rubix.db"
    uri = (unpacked_fleet / name).as_uri() + "?immutable=1"
    connection = sqlite3.connect(uri, uri=True)
    try:
        fields = ", ".join(SOURCE_COLUMNS[:-2]) + ", NULL, NULL"
        rows = connection.execute(f"SELECT {fields} FROM TokensTable ORDER BY rowid").fetchall()
    finally:
        connection.close()
    truth = expected[name]
    by_id = {entry["token_id"]: entry for entry in truth if entry["token_id"] is not None}
    data: list[bytes | None] = []
    failure: list[Failure | None] = []
    for source in rows:
        entry = by_id.get(source[0], {"content": None, "invalid": "token id missing"})
        data.append(bytes.fromhex(entry["content"]) if entry["content"] else None)
        failure.append(None if data[-1] is not None else NO_CID if entry["invalid"] else ABSENT)
    records = finish(rows, Content(data, failure))
    assert len(records) == len(truth)

    moments = {
        "2025-01-15 10:30:00.123456789": datetime(2025, 1, 15, 10, 30, 0, 123456),
        "yesterday": None,
        "": None,
        None: None,
    }
    said = {
        "token id is no CID": "token_id_not_cid",
        "token id missing": "token_id_missing",
        "token id too long": "token_id_too_long",
    }
    seen_times = 0
    for record, source in zip(records, rows, strict=True):
        entry = by_id.get(source[0], {"invalid": "token id missing"})
        found = codes(record)
        if entry["invalid"]:
            assert said[entry["invalid"]] in found
        else:
            assert not [code for code in found if code.startswith("token_id")]
        if "created_raw" in entry:
            seen_times += 1
            raw = entry["created_raw"]
            assert record["created_at"] == moments.get(raw, datetime(2025, 1, 15, 10, 30))
            assert ("timestamp_unreadable" in found) == ("yesterday" in source[2:4])
        if source[0] and len(source[0]) <= 500:
            assert record["token_id"] == source[0]
    assert seen_times == 30
    odd_ones = {record["token_id"]: record for record in records}
    marked = odd_ones["QmdTJjohiKqEXQ1iupk5aVSQLaBFXYhFmsFjDkzpbW8vtm"]
    assert (marked["token_status"], codes(marked)) == ("2302", ["did_malformed"])
    words = odd_ones["QmdybGW2ykG2rSz2MnatXZxgHjExikSnq2MC65yQtM3yJB"]
    assert (words["token_status"], words["token_value"]) == ("ACTIVE", "n/a")
    assert codes(words) == ["token_status_unknown", "token_value_not_number"]
    blob = odd_ones["QmewQFrv4V6WqpnkiTvJmp1mbwAY37DH3CJJps54fZ5i3i"]
    assert (blob["token_status"], blob["token_value"]) == ("X'0102'", "0.00001")
    long = odd_ones["QmbQNEuXthtDKMLrUiD1Lb5fnPBsjzNqJ38NYKw9DimCzu"]
    assert long["did"] == "d" * 1000
    assert codes(long) == ["did_malformed", "value_too_long"]
