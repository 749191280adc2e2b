"""Keys, digests and values of companion tables."""

from __future__ import annotations

import json
from datetime import datetime

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rubix_token_sync.records.build_companions import CompanionContext, companion_batch
from rubix_token_sync.records.companions import (
    COMPANION_SOURCES,
    COMPANIONS,
    HISTORIES,
    CompanionSource,
    companion_key,
)
from rubix_token_sync.records.schema import SqliteValue, database_key
from rubix_token_sync.records.values import to_text, utf16_length

DATABASE = database_key("10.0.0.7", "/mnt/node001/Rubix/rubix.db")
CONTEXT = CompanionContext("10.0.0.7", "node001", "/mnt/node001/Rubix/rubix.db", "main")
SOURCES = {source.table: source for source in COMPANION_SOURCES}
VALUES = st.one_of(
    st.none(), st.text(max_size=80), st.binary(max_size=40), st.integers(-(2**63), 2**63 - 1),
    st.floats(allow_nan=False),
    st.sampled_from(["", "\0", "'; DROP TABLE TokenPledges; --", "9" * 9_000]),
)  # fmt: skip


def built(source: CompanionSource, rows: list[tuple[SqliteValue, ...]]) -> list[dict[str, object]]:
    keys = b"".join(companion_key(DATABASE, source.table, row[source.key_at]) for row in rows)
    return companion_batch(source, rows, keys, bytes(16 * len(rows)), CONTEXT).to_pylist()


def test_keys_are_stable_for_ever() -> None:
    key = companion_key(DATABASE, "TransactionHistory", "a" * 64)
    assert key == DATABASE + bytes.fromhex("5237f504fbd80907debde47c518feca7")
    assert len({
        key,
        companion_key(DATABASE, "UnpledgeSequence", "a" * 64),
        companion_key(DATABASE, "TransactionHistory", None),
        companion_key(DATABASE, "TransactionHistory", None, 1),
        companion_key(DATABASE, "TransactionHistory", "1"),
        companion_key(DATABASE, "TransactionHistory", 1),
    }) == 6  # fmt: skip


def test_a_transaction_as_a_node_writes_it() -> None:
    (row,) = built(
        SOURCES["TransactionHistory"],
        [
            (
                "t" * 64, "02", "1-ab", 0, "did1", "did2", "", 0.25, 5555.0, "",
                "2026-11-29 16:00:41.279627843+00:00", 1, 1795968035,
            )
        ],
    )  # fmt: skip
    assert row | {"record_key": None, "row_digest": None} == {
        "source_ip": "10.0.0.7",
        "node_name": "node001",
        "db_path": "/mnt/node001/Rubix/rubix.db",
        "network": "main",
        "transaction_id": "t" * 64,
        "transaction_type": "02",
        "block_id": "1-ab",
        "mode": "0",
        "sender_did": "did1",
        "receiver_did": "did2",
        "deployer_did": None,
        "amount": "0.25",
        "total_time": "5555.0",
        "comment": None,
        "date_time": datetime(2026, 11, 29, 16, 0, 41, 279627),
        "status": "1",
        "epoch": "1795968035",
        "validation_errors": None,
        "record_key": None,
        "row_digest": None,
    }


@pytest.mark.parametrize("source", COMPANION_SOURCES, ids=lambda source: source.table)
@given(data=st.data())
def test_hostile_values_fit_or_are_cut_and_flagged(
    source: CompanionSource, data: st.DataObject
) -> None:
    columns = source.target.source
    rows = data.draw(st.lists(st.tuples(*([VALUES] * len(columns))), min_size=1, max_size=4))
    for row, made in zip(rows, built(source, rows), strict=True):
        flagged = {
            (e["field"], e["code"]): e for e in json.loads(str(made["validation_errors"] or "[]"))
        }
        for name, value in zip(columns, row, strict=True):
            column, stored = source.target[name], made[name]
            if column.kind == "time":
                assert (
                    stored is not None
                    or value in (None, "")
                    or (name, "timestamp_unreadable") in flagged
                )
                continue
            text = None if value == "" else to_text(value)
            assert stored is None or column.size is None or utf16_length(str(stored)) <= column.size
            if stored != text:
                assert flagged[name, "value_too_long"]["value"] == text
                assert str(text).startswith(str(stored))
            if isinstance(value, bytes):
                assert (name, "value_not_text") in flagged


def test_every_source_has_a_table_and_every_table_a_source() -> None:
    assert {source.target.name for source in COMPANION_SOURCES} == {t.name for t in HISTORIES}
    for source in COMPANION_SOURCES:
        assert set(source.columns) <= set(source.target.source)
        assert source.key in source.columns
        made = built(source, [(None,) * len(source.target.source)])
        assert pa.RecordBatch.from_pylist(made, schema=source.target.schema).num_rows == 1


def test_columns_that_a_sync_compares_and_counts() -> None:
    for table in COMPANIONS:
        assert [column.name for column in table.compared] == ["row_digest", "validation_errors"]
        assert table.names[:2] == ("record_key", "row_digest")
    assert len({table.counted_as for table in COMPANIONS}) == len(COMPANIONS)
