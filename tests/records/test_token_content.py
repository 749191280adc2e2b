"""What contents say of their tokens, and what of it the node's rows contradict."""

from __future__ import annotations

import json
import sqlite3
from collections import Counter
from collections.abc import Mapping
from contextlib import closing
from hashlib import sha256
from pathlib import Path
from typing import Any

import cbor2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rubix_token_sync.records.schema import SqliteValue
from rubix_token_sync.records.token_content import (
    FILES_LIMIT,
    TEXT_LIMIT,
    Attributes,
    attributes_json,
    decode_contents,
    named_trees,
)
from rubix_token_sync.records.validate import errors_text

DID = "bafybmigz5tzuaa3zayunmtl44koczd2qpuxlkrhrvjz5pmpwpizxkfljuy"
OTHER = "bafybmidbbdhxnv5z3qqghvaknpthyy2mgqhsa7kponjozoxf2kximbqhsm"
PARENT = "Qmb1RajyH6VpW5McyMU7zoemkLphf4huhZ4ZbngUaSMj6A"
HASHES = {
    "binaryCodeHash": "QmTirwyocw3fmnZRt942k4VuNrritQLk69eFCsQRxEAcXX",
    "rawCodeHash": "Qmc3uRE8p8LRWrJb3UofphMnoeC7DgkDGWCf8pbQM1pg9s",
    "schemaCodeHash": "QmVpWVn8qbUprnUPWKNSJuHBLUrEZXygkKqwGD6oCQ9XJ2",
}
TABLES = {
    "rbt": ("TokensTable", "token_id"),
    "ft": ("FTTokenTable", "token_id"),
    "nft": ("NFTTokensTable", "token_id"),
    "data": ("DataTokensTable", "token_id"),
    "contract": ("smartcontract", "smart_contract_hash"),
}


def rac(part: object = None, kind: int = 7, **more: object) -> bytes:
    """Hexadecimal of a block as nodes write it; ``more`` are fields by ``_KEY``."""
    content: dict[str, object] = {"1": kind, "2": 1, "3": DID, "4": 0, "5": 1}
    content |= {key.removeprefix("_"): value for key, value in more.items()}
    if part is not None:
        content["13"] = part
    block = {"1": cbor2.dumps(content), "2": "3006020101020101"}
    return cbor2.dumps(block).hex().encode()


def part(value: object = 0.123, number: int = 1) -> bytes:
    return rac({"1": PARENT, "2": number, "3": value})


def one(
    kind: str, content: bytes | None, **row: SqliteValue
) -> tuple[Attributes | None, list[str], str]:
    """Attributes, codes and messages of one row."""
    columns: Mapping[str, list[SqliteValue]] = {name: [value] for name, value in row.items()}
    (attributes,), found = decode_contents(kind, columns, [content])
    assert found.keys() <= {0}
    findings = found.get(0, [])
    text = errors_text(findings) or "[]"  # every finding can be written down
    assert [entry["code"] for entry in json.loads(text)] == sorted(f.code for f in findings)
    return attributes, [finding.code.value for finding in findings], text


# --- the real nodes ------------------------------------------------------------


def test_every_row_of_the_real_nodes_agrees_with_its_content(real_nodes: Path) -> None:
    truth: dict[str, Any] = json.loads((real_nodes / "truth.json").read_text(encoding="utf-8"))
    contents = {token: known.get("text") for token, known in truth["content"].items()}
    seen: Counter[str] = Counter()
    for node in truth["nodes"].values():
        for kind, (table, key) in TABLES.items():
            rows = node.get("tables", {}).get(table, [])
            columns = {name: [row[name] for row in rows] for name in rows[0]} if rows else {}
            data = [contents[row[key]].encode() for row in rows]
            attributes, found = decode_contents(kind, columns, data)
            assert found == {}
            assert None not in attributes
            seen[kind] += len(rows)
            for row, said in zip(rows, attributes, strict=True):
                assert said is not None
                assert len(said["creator_did"]) == 59
                assert json.loads(attributes_json(said)) == said
                if row.get("parent_token_id"):
                    seen["parts"] += 1
                    assert said["parent"] == row["parent_token_id"]
                    assert float(said["value"]) == row["token_value"]
                if kind == "ft":
                    assert (said["ft_name"], said["creator_did"]) == (
                        row["ft_name"],
                        row["creator_did"],
                    )
    assert dict(seen) == {
        "rbt": 1327, "ft": 2291, "nft": 3, "data": 2, "contract": 3, "parts": seen["parts"],
    }  # fmt: skip
    assert seen["parts"] > 100


def test_rows_as_sqlite_gives_them(real_nodes: Path) -> None:
    """The same with the values of the database itself, whatever JSON made of them."""
    truth: dict[str, Any] = json.loads((real_nodes / "truth.json").read_text(encoding="utf-8"))
    path = real_nodes / "q1" / "Rubix" / "rubix.db"
    with closing(sqlite3.connect(f"file:{path}?mode=ro&immutable=1", uri=True)) as db:
        rows = db.execute(
            "SELECT token_id, parent_token_id, token_value FROM TokensTable"
        ).fetchall()
    ids, parents, values = zip(*rows, strict=True)
    columns = {"parent_token_id": parents, "token_value": values}
    contents = [truth["content"][token]["text"].encode() for token in ids]
    assert decode_contents("rbt", columns, contents)[1] == {}
    # And each row is held against its own content: shifted by one, most disagree.
    parted = [content for content, parent in zip(contents, parents, strict=True) if parent]
    shifted = {name: [*column[1:], column[0]] for name, column in columns.items()}
    assert len(decode_contents("rbt", shifted, contents)[1]) > len(parted) / 2


# --- each form -----------------------------------------------------------------


@pytest.mark.parametrize("prefix", [b"004", b"01", b"078"])
@pytest.mark.parametrize("newline", [b"", b"\n"])
def test_of_whole_tokens_nothing_is_decoded(prefix: bytes, newline: bytes) -> None:
    """Level and hash are the content itself, of millions of records."""
    digest = sha256(b"1423543").hexdigest()
    said, found, _ = one("rbt", prefix + digest.encode() + newline, parent_token_id=PARENT)
    assert said is None
    assert found == []


def test_part_tokens() -> None:
    said, found, _ = one("rbt", part(), parent_token_id=PARENT, token_value=0.123)
    assert said == {
        "type": 7,
        "creator_did": DID,
        "parent": PARENT,
        "part_number": 1,
        "value": "0.123",
        "signature": "3006020101020101",
    }
    assert found == []


def test_test_tokens() -> None:
    said, found, _ = one("rbt", rac(kind=0), parent_token_id="", token_value=1.0)
    assert said == {"type": 0, "creator_did": DID, "signature": "3006020101020101"}
    assert found == []
    assert one("rbt", rac(kind=0), parent_token_id=PARENT)[1] == ["parent_differs"]
    assert one("rbt", rac(kind=0), parent_token_id=None)[1] == []


def test_faucet_tokens() -> None:
    content = b"Faucet Name : Faucet, one \xe2\x98\x83, Token Level : 1, Token Number : 4301"
    said, found, _ = one("rbt", content, parent_token_id="", token_value=1.0)
    assert said == {"faucet_name": "Faucet, one ☃", "level": 1, "number": 4301}
    assert found == []


@pytest.mark.parametrize("content", [b"", b"hello", b"\xff\xfe", b"a2", b"{}", b"004" + b"g" * 64])
def test_other_contents_of_rbt_are_not_wrong(content: bytes) -> None:
    assert one("rbt", content, parent_token_id=PARENT, token_value=5.0) == (None, [], "[]")


@pytest.mark.parametrize(
    ("name", "number"), [("TRI", 0), ("My Coin é", 12), ("", 1), (" two  spaces ", 3), ("7 7", 7)]
)
def test_fungible_tokens(name: str, number: int) -> None:
    content = f"{name} {number} {DID}".encode()
    said, found, _ = one("ft", content, ft_name=name, creator_did=DID)
    assert said == {"ft_name": name, "ft_number": number, "creator_did": DID}
    assert found == []
    assert one("ft", content, ft_name=f"{name}x", creator_did=OTHER)[1] == [
        "ft_name_differs",
        "creator_differs",
    ]
    assert one("ft", content, ft_name=None)[1] == []


def test_nfts() -> None:
    content = json.dumps({"DID": DID, "ArtifactHash": PARENT}, indent=2).encode()
    said, found, _ = one("nft", content, did=OTHER)  # an NFT's owner is rarely its creator
    assert said == {"creator_did": DID, "artifact_hash": PARENT}
    assert found == []
    assert named_trees("nft", content) == {"artifact_hash": PARENT}
    earlier, found, _ = one("nft", rac())
    assert earlier is not None
    assert earlier["creator_did"] == DID
    assert found == []
    assert named_trees("nft", rac()) == {} == named_trees("ft", content)


def test_contracts() -> None:
    content = json.dumps({**HASHES, "did": DID}, indent=2).encode()
    row = {
        "binary_code_hash": HASHES["binaryCodeHash"],
        "raw_code_hash": HASHES["rawCodeHash"],
        "schema_code_hash": HASHES["schemaCodeHash"],
    }
    said, found, _ = one("contract", content, deployer=OTHER, **row)
    assert said == {**row, "creator_did": DID}
    assert found == []
    assert named_trees("contract", content) == row
    for name in row:
        _, found, text = one("contract", content, **{**row, name: PARENT})
        assert found == ["contract_hash_differs"]
        assert name in text
        assert PARENT in text
    assert one("contract", content, **dict.fromkeys(row))[1] == []


def test_data_tokens() -> None:
    files = {"data.txt": "a2972c3f"}
    content = rac(None, 7, _7="testuser", _8="user info", _10=files, _11={"data.txt": PARENT})
    said, found, _ = one("data", content, commiter_did=OTHER)
    assert said is not None
    assert said["user_id"] == "testuser"
    assert said["user_info"] == "user info"
    assert said["content_hashes"] == files
    assert said["content_ids"] == {"data.txt": PARENT}
    assert "files_left_out" not in said
    assert found == []
    many = rac(None, 7, _10={f"{number}.txt": "x" for number in range(100)})
    said, _, _ = one("data", many)
    assert said is not None
    assert len(said["content_hashes"]) == FILES_LIMIT
    assert said["files_left_out"] == 100 - FILES_LIMIT


WHOLE = b"004" + sha256(b"5").hexdigest().encode()


@pytest.mark.parametrize("kind", ["ft", "nft", "data", "contract"])
@pytest.mark.parametrize("content", [b"", WHOLE, b"\xff\x00", b"[1]", b"{}", b"a b c", b'"x"'])
def test_content_of_another_kind_is_said(kind: str, content: bytes) -> None:
    said, found, text = one(kind, content)
    assert said is None
    assert found == ["content_not_of_kind"]
    assert "ipfs_data is not the content of" in text
    assert one(kind, None) == (None, [], "[]")  # nothing is known of what is not there


def test_an_unknown_kind_is_refused() -> None:
    with pytest.raises(KeyError):
        decode_contents("gold", {}, [b"x"])


# --- numbers -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("said", "row"),
    [
        (0.001, 0.001), (0.001, "0.001"), (0.001, "1e-3"), (0.001, "00.00100"), (1.0, 1), (1, 1.0),
        (1, "1"), (0.1, "0.1"), (1e-05, "0.00001"), (0.0, 0), (0.0, "-0"), (5e-324, 5e-324),
        (2.0**53, 2**53), (1e300, "1e300"),
    ],
)  # fmt: skip
def test_values_are_equal_as_numbers(said: float, row: SqliteValue) -> None:
    assert one("rbt", part(said), parent_token_id=PARENT, token_value=row)[1] == []


@pytest.mark.parametrize(
    ("said", "row"),
    [
        (0.001, 0.0010000000000000002), (0.001, "0.0010000000000000001"), (0.3, 0.1 + 0.2),
        (1.0, 2), (0.5, "0.50000000000000000000000000000000001"), (2.0**53, 2**53 + 1), (0.1, "1"),
        (0.1, "1e999999999"), (0.1, "1e-999999999"), (0.1, "1e" + "9" * 900), (0.0, 5e-324),
    ],
)  # fmt: skip
def test_values_that_differ_are_told(said: float, row: SqliteValue) -> None:
    _, found, text = one("rbt", part(said), parent_token_id=PARENT, token_value=row)
    assert found == ["token_value_differs"]
    assert "ipfs_data says the value" in text


@pytest.mark.parametrize(
    "row", [None, "", "abc", b"\x00", "9" * 100_000, "nan", "0x1", float("inf"), "\u0663"]
)
def test_values_that_are_no_numbers_are_not_compared(row: SqliteValue) -> None:
    assert one("rbt", part(), parent_token_id=PARENT, token_value=row)[1] == []


@pytest.mark.parametrize("parent", ["", DID, PARENT.lower(), b"\x00", 7, 0.5, "x" * 100_000])
def test_another_parent_is_told(parent: SqliteValue) -> None:
    _, found, text = one("rbt", part(), parent_token_id=parent, token_value=0.123)
    assert found == ["parent_differs"]
    assert PARENT in text
    assert len(text) < 500


# --- what is meant to harm -----------------------------------------------------

HOSTILE = [
    b"[" * 50_000,
    b'{"a":' * 10_000,
    b'{"DID":' + b"9" * 40_000 + b"}",
    b'{"DID":"\\ud800","ArtifactHash":"\\u0000"}',
    b'{"binaryCodeHash":{},"rawCodeHash":[],"schemaCodeHash":1e999}',
    b"NAME " + b"9" * 40_000 + b" did",
    b"N\0ME 1 d\0d",
    " \u202e 1 \u202e".encode(),
    b"Faucet Name : " * 3_000,
    b"Faucet Name : x, Token Level : 9" + b"9" * 30_000,
    b"a1" * 25_000,
    b"9f" * 25_000,
    rac({"1": "x" * 1000, "2": 0, "3": float("inf")}),
    rac({"1": "\0" * 900, "2": 0, "3": 1.0}),
]


@pytest.mark.parametrize("kind", list(TABLES))
@pytest.mark.parametrize("content", HOSTILE, ids=range(len(HOSTILE)))
def test_hostile_contents(kind: str, content: bytes) -> None:
    columns = ("parent_token_id", "token_value", "ft_name", "creator_did", "binary_code_hash")
    for value in ("\ud800", b"\x00", "x" * 100_000, 3.5, None):
        said, _, text = one(kind, content, **dict.fromkeys(columns, value))
        assert len(text) < 2_000
        assert_storable(said)


def assert_storable(said: Attributes | None) -> None:
    if said is None:
        return
    text = attributes_json(said)
    text.encode()  # no lone surrogates
    assert json.loads(text) == said
    assert "\\u0000" not in text
    for value in said.values():
        assert isinstance(value, (str, int, dict))
        if isinstance(value, str):
            assert len(value) <= TEXT_LIMIT


def test_long_texts_are_cut() -> None:
    name = "☃" * 10_000
    content = f"{name} 1 {DID}".encode()
    said, found, _ = one("ft", content, ft_name=name, creator_did=DID)
    assert said is not None
    assert said["ft_name"] == "☃" * TEXT_LIMIT
    assert found == []  # the whole names were compared
    assert one("ft", content, ft_name=name[:-1])[1] == ["ft_name_differs"]


_json = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text()),
    lambda inner: st.one_of(st.lists(inner), st.dictionaries(st.text(), inner)),
    max_leaves=10,
)
_keys = st.sampled_from(["DID", "ArtifactHash", "did", *HASHES, "other"])
_contents = st.one_of(
    st.binary(max_size=200),
    st.text(max_size=100).map(lambda text: text.encode("utf-8", "surrogatepass")),
    st.dictionaries(_keys, _json).map(lambda found: json.dumps(found).encode()),
    st.tuples(st.text(), st.integers(), st.text()).map(
        lambda words: " ".join(map(str, words)).encode("utf-8", "surrogatepass")
    ),
    st.dictionaries(
        st.sampled_from([str(key) for key in range(1, 14)]),
        st.one_of(
            st.integers(0, 2**70),
            st.text(),
            st.floats(),
            st.dictionaries(st.one_of(st.text(), st.just("1")), st.one_of(st.text(), st.floats())),
        ),
    ).map(
        lambda fields: cbor2.dumps({"1": cbor2.dumps({"1": 1, "3": DID} | fields)}).hex().encode()
    ),
)
_values = st.one_of(st.none(), st.text(), st.binary(), st.integers(), st.floats())


@given(kind=st.sampled_from(list(TABLES)), content=_contents, value=_values)
def test_any_content_is_decoded_or_left(kind: str, content: bytes, value: SqliteValue) -> None:
    said, _, text = one(
        kind,
        content,
        parent_token_id=value,
        token_value=value,
        ft_name=value,
        creator_did=value,
        raw_code_hash=value,
    )
    assert_storable(said)
    text.encode()
    named = named_trees(kind, content) if content is not None else {}
    assert all(isinstance(name, str) for name in named.values())
