"""Rows of the older system: hashes agree whatever is in them; values become what they should."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rubix_token_sync.ipfs.cid import cid_v0
from rubix_token_sync.ipfs.unixfs import encode_leaf
from rubix_token_sync.migrate.older_rows import OLDER_COLUMNS, OlderForm, OlderRow
from rubix_token_sync.migrate.rows import COLUMNS, Digest, Moved, hash_of
from rubix_token_sync.records.content_text import decode_content
from rubix_token_sync.records.schema import COLUMN_SIZES, database_key, record_key

BASE = {
    "id": "1",
    "source_ip": "10.0.0.1",
    "node_name": "n",
    "token_id": "t",
    "db_path": "/p",
    "db_last_modified": "2026-01-01 00:00:00",
    "ipfs_fetched": "false",
}


def row(**values: str | bytes | None) -> OlderRow:
    made = {**BASE, **values}
    return OlderRow(*(made.get(name) for name in OLDER_COLUMNS))


def moved(*rows: OlderRow, zone: str = "UTC") -> list[Moved]:
    form = OlderForm(UTC if zone == "UTC" else ZoneInfo(zone))
    return list(form.move(iter(rows)))


def column(one: Moved, name: str) -> object:
    assert one.record is not None
    return one.record[COLUMNS[name]]


def id_of(content: bytes) -> str:
    return cid_v0(hashlib.sha256(encode_leaf(content)).digest())


texts = st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\0"), max_size=1_200)
values = st.one_of(
    st.none(),
    texts,
    st.binary(max_size=30),
    st.sampled_from(
        ["", "true", "f", "c not found", "did not found", "[]", '[{"code":1}]', "infinity",
         "2026-03-29 02:30:00", "0044-03-15 12:00:00 BC", "2026-01-01 00:00:00.5+05:30",
         '[{"code": "older_system", "message": "x"}]', "1767225600"]
    ),
)  # fmt: skip


@given(st.lists(st.fixed_dictionaries(dict.fromkeys(OLDER_COLUMNS, values)), max_size=5))
def test_both_ends_always_come_to_the_same_digest(
    rows: list[dict[str, str | bytes | None]],
) -> None:
    """Records, corrected by what was set aside, give the digest of the rows."""
    form = OlderForm(ZoneInfo("Europe/Berlin"))
    source, target = Digest(), Digest()
    same_ids = sorted((OlderRow(**one) for one in rows), key=lambda one: repr(one.token_id))
    for one in form.move(iter(same_ids)):
        source.add(one.row_hash)
        if one.record is not None:
            target.add(form.stored_hash(one.record, vanished=False))
            for name, size in COLUMN_SIZES.items():
                text = column(one, name)
                assert text is None or len(str(text).encode("utf-16-le")) <= 2 * size
        if one.aside is not None:
            own, replaced = form.aside_hashes(one.aside)
            target.add(own)
            if replaced is not None:
                target.remove(replaced)
        if one.record is None:
            assert one.aside is not None
    assert source == target


@given(st.binary(max_size=200), st.booleans())
def test_only_proven_content_is_taken_over(content: bytes, true: bool) -> None:
    token = id_of(content if true else content + b"?")
    [one] = moved(row(token_id=token, ipfs_data=content, ipfs_fetched="true"))
    assert column(one, "ipfs_fetched") is (true and bool(content))
    if true and content:
        stored = column(one, "ipfs_data")
        assert isinstance(stored, str)
        assert decode_content(stored) == content
        assert one.aside is None
    elif content:
        assert str(column(one, "ipfs_error")).startswith("not_adopted: ")
        assert one.aside is not None


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"004abc\n", "004abc"),
        ("grüße".encode("latin-1"), "grüße"),
        ("„quoted“ – €".encode("cp1252"), "„quoted“ – €"),
        ("grüße".encode(), "grüße"),
        (b"\x00\xff", "data:application/octet-stream;base64,AP8="),
    ],
)
def test_the_hash_tells_which_bytes_were_meant(content: bytes, told: str) -> None:
    [one] = moved(row(token_id=id_of(content), ipfs_data=told))
    stored = column(one, "ipfs_data")
    assert isinstance(stored, str)
    assert decode_content(stored) == content
    assert one.adopted
    assert one.aside is None


def test_content_beyond_the_limit_is_kept_aside() -> None:
    content = b"z" * 51_201
    [one] = moved(row(token_id=id_of(content), ipfs_data=content.decode(), ipfs_fetched="t"))
    assert str(column(one, "ipfs_error")).startswith("too_large: ")
    assert one.aside is not None
    assert json.loads(one.aside.row)["ipfs_data"] == content.decode()


def test_the_newest_row_wins_and_may_take_a_duplicates_content() -> None:
    content = b"true content"
    token = id_of(content)
    middle, oldest, newest = moved(
        row(id="9", token_id=token, token_status="new", ipfs_error="lock conflict"),
        row(id="5", token_id=token, token_status="old", ipfs_data="false content"),
        row(id="3", token_id=token, token_status="oldest", ipfs_data=content.decode()),
    )
    assert column(newest, "token_status") == "new"
    assert column(newest, "ipfs_data") == "true content"
    assert column(newest, "ipfs_error") is None
    assert newest.aside is not None
    assert newest.aside.reason == "healed"
    for one, number in ((middle, 5), (oldest, 3)):
        assert one.record is None
        assert one.aside is not None
        assert (one.aside.reason, one.aside.original_id) == ("duplicate", number)
        assert one.aside.record_key == column(newest, "record_key")


def test_rows_without_an_id_are_all_kept_apart() -> None:
    ones = moved(row(token_id=None), row(token_id=None), row(token_id="t"))
    database = database_key("10.0.0.1", "/p")
    assert [column(one, "record_key") for one in ones] == [
        record_key(database, None),
        record_key(database, None, 1),
        record_key(database, "t"),
    ]


@pytest.mark.parametrize("name", ["source_ip", "db_path"])
@pytest.mark.parametrize("value", [None, b"\xff"])
def test_a_row_that_belongs_nowhere_is_refused_in_full(name: str, value: bytes | None) -> None:
    [one] = moved(row(**{name: value}))
    assert one.record is None
    assert one.aside is not None
    assert one.aside.reason == "refused"


@pytest.mark.parametrize(
    ("text", "zone", "utc"),
    [
        ("2026-07-01 12:00:00", "UTC", datetime(2026, 7, 1, 12)),
        ("2026-07-01 12:00:00", "Europe/Berlin", datetime(2026, 7, 1, 10)),
        ("2026-07-01 12:00:00+00", "Europe/Berlin", datetime(2026, 7, 1, 12)),
        ("2026-07-01 12:00:00.123456-03:30", "UTC", datetime(2026, 7, 1, 15, 30, 0, 123456)),
        ("2026-10-25 02:30:00", "Europe/Berlin", datetime(2026, 10, 25, 0, 30)),
        ("1782907200", "Europe/Berlin", datetime(2026, 7, 1, 12)),
        ("2026-07-01T12:00:00Z", "Asia/Kolkata", datetime(2026, 7, 1, 12)),
        ("0001-01-01 00:00:00", "Europe/Berlin", None),
        ("infinity", "UTC", None),
        ("20260-01-01 00:00:00", "UTC", None),
        ("c not found", "UTC", None),
        ("yesterday", "UTC", None),
    ],
)
def test_times(text: str, zone: str, utc: datetime | None) -> None:
    [one] = moved(row(created_at=text, db_last_modified=text), zone=zone)
    assert column(one, "created_at") == utc
    assert column(one, "db_last_modified") == (utc or datetime(1970, 1, 1))


def test_placeholders_and_validation_errors() -> None:
    [one] = moved(
        row(did="did not found", parent_token_id="c not found", validation_errors='bad "id"')
    )
    assert column(one, "did") is None
    assert column(one, "parent_token_id") is None
    errors = column(one, "validation_errors")
    assert isinstance(errors, str)
    assert json.loads(errors) == [{"code": "older_system", "message": 'bad "id"'}]
    assert one.aside is None
    [listed] = moved(row(validation_errors='[{"code":"x"}]'))
    assert column(listed, "validation_errors") == '[{"code":"x"}]'


def test_a_text_is_cut_between_characters_and_kept_in_full() -> None:
    [one] = moved(row(token_status="🪙" * 30, node_name=b"\xfc"))
    assert column(one, "token_status") == "🪙" * 25
    assert column(one, "node_name") == "X'FC'"
    assert one.aside is not None
    assert one.aside.columns == ("node_name", "token_status")
    kept = json.loads(one.aside.row)
    assert (kept["token_status"], kept["node_name"]) == ("🪙" * 30, {"bytes": "fc"})


def test_a_row_hash_is_pinned() -> None:
    """Digests of a migration outlive a program's version."""
    assert f"{hash_of(('a', None, True, 1)):032x}" == PINNED


PINNED = "795b1f48264e5ad64d45d2b16f0ddcbb"


def test_however_many_duplicates_there_are_only_one_row_waits() -> None:
    """The newest comes as soon as its content is known, before the last duplicate is read."""
    content = b"true content"
    read: list[int] = []

    def endless() -> Iterator[OlderRow]:
        for number in range(1_000):
            read.append(number)
            data = content.decode() if number >= 10 else "false"
            yield row(id=str(number), token_id=id_of(content), ipfs_data=data)

    moves = OlderForm(UTC).move(endless())
    first = [next(moves) for _ in range(11)]
    assert len(read) <= 11
    assert [one.record is None for one in first] == [True] * 10 + [False]
    assert all(one.record is None for one in moves)
    assert len(read) == 1_000
