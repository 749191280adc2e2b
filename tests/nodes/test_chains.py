"""Token chains through the public door: real nodes, hostile ones, and what stays untouched."""

from __future__ import annotations

import json
import os
import shutil
import sys
from datetime import datetime
from hashlib import sha3_256
from pathlib import Path
from typing import Any

import cbor2
import pytest

from rubix_token_sync.errors import SettingsError, SourceError
from rubix_token_sync.installation import LEVELDB, extra_command
from rubix_token_sync.nodes.chains import (
    CHAIN_SCHEMA,
    STORAGES,
    ChainLimits,
    chains_fingerprint,
    read_chains,
)
from rubix_token_sync.nodes.did_keys import NodeKeys
from rubix_token_sync.scratch import Scratch
from rubix_token_sync.testing import (
    block_id,
    generated_block,
    transferred_block,
    write_chains,
)
from rubix_token_sync.testing.chains import FT, TEST_WHOLE, encode_block, generated_content

from .chain_nodes import ALICE, BOB, QUORUM, TOKENS, make_node, open_chains, rows_of
from .databases import tree

plyvel = pytest.importorskip(LEVELDB)

FT_STORAGE = "FTchainstorage"


def _storage(database: Path, name: str = FT_STORAGE) -> Path:
    return database.parent / "TestNet" / name


def _failure(database: Path, scratch: Path, **options: Any) -> SourceError:
    """The error of the FT directory; the other directories must have been read."""
    chains = open_chains(database, scratch, **options)
    list(chains)
    assert list(scratch.iterdir()) == []
    ((storage, error),) = chains.failures.items()
    assert storage == error.context["directory"] == FT_STORAGE
    assert error.remedy
    return error


# --- real nodes ------------------------------------------------------------------


def test_every_chain_of_the_real_nodes_is_as_the_truth_says(
    real_chains: Path, scratch: Path
) -> None:
    truth = json.loads((real_chains / "truth.json").read_text(encoding="utf-8"))
    kind_of = dict(STORAGES)
    checked = tokens = 0
    for name, node in truth["nodes"].items():
        if "chains" not in node and name != "erin-hot":
            continue
        database = real_chains / name / "Rubix" / node.get("db", "rubix.db")
        before = tree(real_chains / name)
        rows = _all_rows(database, scratch)
        assert tree(real_chains / name) == before
        found = {
            (row["token_kind"], row["token_id"]): (
                row["block_count"],
                f"{row['latest_block_number']}-{row['latest_block_hash']}",
                row["latest_block_type"],
                row["latest_block_owner"],
            )
            for row in rows
        }
        chains = truth["nodes"]["erin" if name == "erin-hot" else name]["chains"]
        assert found == {
            (kind_of[storage], token): (len(blocks), *blocks[-1][:3])
            for storage, of_kind in chains.items()
            for token, blocks in of_kind.items()
        }
        assert len(found) == len(rows)
        for row in rows:
            assert (row["error"], row["hashes_valid"], row["links_valid"]) == (None, True, True)
            assert (row["signatures_wrong"], row["signatures_unchecked"]) == (0, 0)
            assert truth["block_trans"][row["latest_block_type"]].startswith(
                row["latest_block_type_name"]
            )
            checked += row["signatures_checked"]
        tokens += len(rows)
    assert tokens == 2_699
    assert checked == 4_615


def _all_rows(database: Path, scratch: Path) -> list[dict[str, Any]]:
    chains = open_chains(database, scratch)
    rows = [row for batch in chains for row in batch.to_pylist()]
    assert (chains.failures, chains.stray_keys, list(scratch.iterdir())) == ({}, {}, [])
    return rows


def test_the_main_net_of_a_node_of_the_test_net_is_empty(real_chains: Path, scratch: Path) -> None:
    assert rows_of(real_chains / "carol" / "Rubix" / "rubix.db", scratch, network="main") == {}
    assert rows_of(real_chains / "bob-backup" / "Rubix" / "rubix.db", scratch) == {}


# --- what a row says -------------------------------------------------------------


def test_one_row_a_token(tmp_path: Path, scratch: Path) -> None:
    database = make_node(tmp_path)
    rows = rows_of(database, scratch)
    assert list(rows) == TOKENS
    assert list(rows[TOKENS[0]]) == CHAIN_SCHEMA.names
    latest = rows[TOKENS[0]].pop("latest_block_hash")
    assert len(latest) == 64
    assert rows[TOKENS[0]] == {
        "token_id": TOKENS[0],
        "token_kind": "ft",
        "chain_kind": "ft",
        "network": "test",
        "block_count": 2,
        "latest_block_number": 1,
        "latest_block_type": "02",
        "latest_block_type_name": "transferred",
        "latest_block_owner": BOB.did,
        "latest_block_time": datetime(2026, 11, 29, 16, 2, 4),
        "hashes_valid": True,
        "links_valid": True,
        "signatures_checked": 13,  # the minter's; then contract, initiator, quorum, block
        "signatures_wrong": 0,
        "signatures_unchecked": 0,
        "error": None,
    }
    assert rows[TOKENS[5]]["latest_block_owner"] == ALICE.did
    assert rows[TOKENS[5]]["latest_block_time"] is None


def test_batches_are_bounded_and_may_be_left(tmp_path: Path, scratch: Path) -> None:
    database = make_node(tmp_path)
    chains = open_chains(database, scratch, limits=ChainLimits(batch_rows=4))
    first = next(chains)
    assert first.schema == CHAIN_SCHEMA
    assert first.num_rows == 4
    assert len(list(scratch.iterdir())) == 1
    chains.close()
    assert list(scratch.iterdir()) == []
    assert list(chains) == []
    sizes = [
        batch.num_rows for batch in open_chains(database, scratch, limits=ChainLimits(batch_rows=4))
    ]
    assert sizes == [4, 2]


def test_without_a_key_a_signature_is_not_checked(tmp_path: Path, scratch: Path) -> None:
    database = make_node(tmp_path)
    asked: list[str] = []

    def nobody(did: str) -> None:
        asked.append(did)

    rows = rows_of(database, scratch, public_key=nobody)
    assert {row["signatures_checked"] for row in rows.values()} == {0}
    assert rows[TOKENS[0]]["signatures_unchecked"] == 13
    assert {row["error"] for row in rows.values()} == {None}
    assert sorted(asked) == sorted({ALICE.did, *(member.did for member in QUORUM)})


def test_a_signature_of_somebody_else_is_wrong(tmp_path: Path, scratch: Path) -> None:
    database = tmp_path / "n" / "Rubix" / "rubix.db"
    content = generated_content(ALICE.did, TOKENS[0], FT)
    forged = encode_block(content, [BOB])
    block = cbor2.loads(forged)
    signatures = cbor2.loads(block["2"])
    block["2"] = cbor2.dumps({ALICE.did: signatures[BOB.did]}, canonical=True)
    write_chains(database.parent, "test", [cbor2.dumps(block, canonical=True)])
    row = rows_of(database, scratch, public_key={ALICE.did: ALICE.public_key}.get)[TOKENS[0]]
    assert (row["signatures_checked"], row["signatures_wrong"]) == (1, 1)
    assert row["error"].startswith("signature_wrong: ")
    assert row["hashes_valid"]
    assert row["links_valid"]


def test_numbers_in_the_older_form_are_in_order(tmp_path: Path, scratch: Path) -> None:
    """As text, 10 comes before 2."""
    database = tmp_path / "n" / "Rubix" / "rubix.db"
    token = TOKENS[0]
    blocks = [generated_block(ALICE, token, TEST_WHOLE)]
    for number in range(12):
        owner, other = (ALICE, BOB) if number % 2 == 0 else (BOB, ALICE)
        previous = {token: block_id(blocks[-1], token)}
        blocks.append(transferred_block(owner, other.did, previous, TEST_WHOLE, [ALICE]))
    write_chains(database.parent, "test", blocks, old_keys=True)
    row = rows_of(database, scratch)[token]
    assert (row["block_count"], row["latest_block_number"]) == (13, 12)
    assert f"12-{row['latest_block_hash']}" == block_id(blocks[-1], token)
    assert row["links_valid"]


def test_chains_of_two_kinds_of_one_token(tmp_path: Path, scratch: Path) -> None:
    """A data token's first block stands under a kind of its own, as on real nodes."""
    database = tmp_path / "n" / "Rubix" / "rubix.db"
    data, first_of_it = 4, 7
    for token in TOKENS[:3]:
        blocks = [generated_block(ALICE, token, kind) for kind in (first_of_it, data)]
        write_chains(database.parent, "test", blocks)
    rows = rows_of(database, scratch)
    assert list(rows) == TOKENS[:3]
    assert {(row["chain_kind"], row["block_count"]) for row in rows.values()} == {("dt+wt", 2)}
    assert {row["links_valid"] for row in rows.values()} == {True}


# --- chains that are not right ---------------------------------------------------


def _chain(database: Path) -> tuple[list[bytes], list[bytes]]:
    """A chain of four blocks of one token, in a directory: its keys and its values."""
    token = TOKENS[0]
    blocks = [generated_block(ALICE, token, FT)]
    for _ in range(3):
        previous = {token: block_id(blocks[-1], token)}
        blocks.append(transferred_block(ALICE, ALICE.did, previous, FT, [ALICE]))
    write_chains(database.parent, "test", blocks)
    with plyvel.DB(str(_storage(database))) as found:
        return list(found.iterator(include_value=False)), blocks


@pytest.mark.parametrize(
    ("code", "hashes", "links"),
    [
        ("block_undecodable", False, False),
        ("block_missing", False, False),
        ("block_hash_wrong", False, True),
        ("block_foreign", True, False),
        ("chain_incomplete", True, False),
        ("chain_forked", True, False),
        ("chain_link_wrong", True, False),
        ("block_too_large", False, False),
        ("chain_too_long", False, False),
    ],
)
def test_each_thing_that_can_be_wrong_with_a_chain(
    code: str, hashes: bool, links: bool, tmp_path: Path, scratch: Path
) -> None:
    database = tmp_path / "n" / "Rubix" / "rubix.db"
    keys, blocks = _chain(database)
    limits = ChainLimits()
    token = TOKENS[0]
    with plyvel.DB(str(_storage(database))) as found:
        if code == "block_undecodable":
            found.put(keys[1], b"\xa1\x61\x31" * 20)
        elif code == "block_missing":
            found.put(keys[1], f"rf-{'a' * 64}-{'b' * 64}".encode())
        elif code == "block_hash_wrong":
            found.delete(keys[3])
            found.put(keys[3][:-64] + b"c" * 64, blocks[3])
        elif code == "block_foreign":
            other = generated_block(ALICE, TOKENS[1], FT)
            hash_ = sha3_256(cbor2.loads(other)["1"]).hexdigest()
            found.put(f"ft-{token}-{4:016x}-{hash_}".encode(), other)
        elif code == "chain_incomplete":
            found.delete(keys[1])
        elif code == "chain_forked":
            again = transferred_block(ALICE, BOB.did, {token: block_id(blocks[0], token)}, FT, [])
            hash_ = sha3_256(cbor2.loads(again)["1"]).hexdigest()
            found.put(f"ft-{token}-{1:016x}-{hash_}".encode(), again)
        elif code == "chain_link_wrong":
            again = transferred_block(ALICE, BOB.did, {token: f"3-{'d' * 64}"}, FT, [])
            hash_ = sha3_256(cbor2.loads(again)["1"]).hexdigest()
            found.put(f"ft-{token}-{4:016x}-{hash_}".encode(), again)
        elif code == "block_too_large":
            limits = ChainLimits(value_bytes=len(blocks[1]) - 1)
        else:
            limits = ChainLimits(chain_blocks=2)
    row = rows_of(database, scratch, limits=limits)[token]
    assert row["error"].partition(": ")[0] == code
    assert (row["hashes_valid"], row["links_valid"]) == (hashes, links)
    if code == "chain_too_long":
        assert (row["block_count"], row["latest_block_number"]) == (4, 3)


def test_a_chain_that_begins_late_is_incomplete(tmp_path: Path, scratch: Path) -> None:
    database = tmp_path / "n" / "Rubix" / "rubix.db"
    keys, _ = _chain(database)
    with plyvel.DB(str(_storage(database))) as found:
        found.delete(keys[0])
    row = rows_of(database, scratch)[TOKENS[0]]
    assert (row["error"].partition(": ")[0], row["links_valid"]) == ("chain_incomplete", False)


def test_a_shared_block_that_is_not_right(tmp_path: Path, scratch: Path) -> None:
    database = make_node(tmp_path)
    with plyvel.DB(str(_storage(database))) as found:
        ((key, block),) = found.iterator(prefix=b"rf-")
        changed = cbor2.loads(block)
        changed["2"] = cbor2.dumps({})
        found.put(key, cbor2.dumps(changed, canonical=True))
    row = rows_of(database, scratch)[TOKENS[0]]
    assert row["error"].startswith("block_hash_wrong")
    for value, code in ((b"\xff", "block_undecodable"), (bytes(10_000), "block_too_large")):
        with plyvel.DB(str(_storage(database))) as found:
            found.put(key, value)
        limits = ChainLimits(value_bytes=9_999)
        row = rows_of(database, scratch, limits=limits)[TOKENS[0]]
        assert row["error"].partition(": ")[0] == code
    assert rows_of(database, scratch)[TOKENS[5]]["error"] is None


def test_keys_out_of_form_are_counted(tmp_path: Path, scratch: Path) -> None:
    database = make_node(tmp_path)
    strays = [
        b"", b"\x00", b"a", b"ft", b"ft-", b"ft-x", b"ft--0-" + b"a" * 64, b"rf-x", b"\xff" * 300,
        b"ft-Qm/../x-0000000000000000-" + b"a" * 64, b"zz-Qmx-0000000000000000-" + b"a" * 64,
        b"ft-Qmx-ffffffffffffffff-" + b"a" * 64, b"ft-Qmx-0000000000000000-" + b"A" * 64,
    ]  # fmt: skip
    with plyvel.DB(str(_storage(database))) as found:
        for key in strays:
            found.put(key, b"x")
    chains = open_chains(database, scratch)
    assert sum(batch.num_rows for batch in chains) == 6
    assert chains.stray_keys == {FT_STORAGE: len(strays)}
    assert chains.failures == {}


# --- directories that cannot be read ---------------------------------------------


def _damage(directory: Path, how: str) -> None:
    tables = sorted(directory.glob("*.ldb"))
    manifest = next(directory.glob("MANIFEST-*"))
    if how == "no CURRENT":
        (directory / "CURRENT").unlink()
    elif how == "CURRENT of nonsense":
        (directory / "CURRENT").write_text("../../etc/passwd\n")
    elif how == "no manifest":
        manifest.unlink()
    elif how == "manifest of nonsense":
        manifest.write_bytes(os.urandom(100))
    elif how == "a table is missing":
        tables[0].unlink()
    elif how == "a table is half there":
        tables[0].write_bytes(tables[0].read_bytes()[: tables[0].stat().st_size // 2])
    elif how == "a flipped bit in a table":
        data = bytearray(tables[0].read_bytes())
        data[len(data) // 3] ^= 4
        tables[0].write_bytes(data)
    elif how == "a flipped bit in the log":
        log = max(directory.glob("*.log"), key=lambda path: path.stat().st_size)
        data = bytearray(log.read_bytes())
        data[len(data) // 3] ^= 4
        log.write_bytes(data)
    elif how == "a directory for a table":
        tables[0].unlink()
        tables[0].mkdir()
    elif how == "a link for a table":
        shutil.copy(tables[0], directory / "elsewhere")
        tables[0].unlink()
        tables[0].symlink_to("elsewhere")


@pytest.mark.parametrize(
    "how",
    [
        "no CURRENT", "CURRENT of nonsense", "no manifest", "manifest of nonsense",
        "a table is missing", "a table is half there", "a flipped bit in a table",
        "a flipped bit in the log", "a directory for a table", "a link for a table",
    ],
)  # fmt: skip
def test_a_damaged_directory_costs_that_directory(how: str, tmp_path: Path, scratch: Path) -> None:
    database = make_node(tmp_path)
    directory = _storage(database)
    if "log" not in how:
        with plyvel.DB(str(directory)) as found:
            found.compact_range()
    with plyvel.DB(str(_storage(database, "tokenchainstorage"))) as found:
        block = generated_block(ALICE, TOKENS[0], TEST_WHOLE)
        found.put(f"tt-{TOKENS[0]}-{0:016x}-{block_id(block, TOKENS[0])[2:]}".encode(), block)
    _damage(directory, how)
    before = tree(tmp_path / "node1")
    chains = open_chains(database, scratch)
    rows = [row for batch in chains for row in batch.to_pylist()]
    assert [row["token_kind"] for row in rows] == ["rbt"]
    assert chains.failures[FT_STORAGE].code == "chains_damaged"
    assert list(scratch.iterdir()) == []
    assert tree(tmp_path / "node1") == before


def test_a_node_that_runs_is_read_all_the_same(tmp_path: Path, scratch: Path) -> None:
    database = make_node(tmp_path)
    with plyvel.DB(str(_storage(database))) as running:
        with pytest.raises(plyvel.IOError):
            plyvel.DB(str(_storage(database)))
        assert len(rows_of(database, scratch)) == 6
        assert running.get(b"nothing") is None
        with pytest.raises(plyvel.IOError):
            plyvel.DB(str(_storage(database)))  # its lock was not lost


def test_no_directory_and_an_empty_one_hold_no_chains(tmp_path: Path, scratch: Path) -> None:
    database = tmp_path / "node1" / "Rubix" / "rubix.db"
    assert rows_of(database, scratch) == {}
    _storage(database).mkdir(parents=True)
    (_storage(database) / "LOCK").touch()
    assert rows_of(database, scratch) == {}


def test_something_else_in_its_place(tmp_path: Path, scratch: Path) -> None:
    database = make_node(tmp_path)
    shutil.rmtree(_storage(database))
    _storage(database).write_text("a file")
    assert _failure(database, scratch).code == "no_such_file"


def test_no_rights(tmp_path: Path, scratch: Path) -> None:
    database = make_node(tmp_path)
    user = os.geteuid()
    _storage(database).chmod(0o700 if user == 0 else 0)
    if user == 0:  # whom nothing stops: somebody else for a moment
        for parent in (_storage(database).parent, *list(_storage(database).parents)[1:-2]):
            parent.chmod(parent.stat().st_mode | 0o055)
        scratch.chmod(0o777)
        os.seteuid(65534)
    try:
        chains = open_chains(database, scratch)
        assert list(chains) == []
    finally:
        os.seteuid(user)
        _storage(database).chmod(0o700)
    assert chains.failures[FT_STORAGE].code == "access_denied"


def test_no_room(tmp_path: Path, scratch: Path) -> None:
    database = make_node(tmp_path)
    for other in set(STORAGES) - {FT_STORAGE}:
        shutil.rmtree(_storage(database, other))
    tight = Scratch(str(scratch), margin_bytes=2**60)
    chains = read_chains(str(database), "test", tight, NodeKeys(str(database), "test"))
    assert list(chains) == []
    assert chains.failures[FT_STORAGE].code == "no_scratch_space"
    assert str(scratch) in chains.failures[FT_STORAGE].message
    error = _failure(database, scratch, limits=ChainLimits(copy_bytes=1_000))
    assert error.code == "no_scratch_space"
    assert "1,000 are allowed" in error.message


def test_a_file_that_is_too_large(tmp_path: Path, scratch: Path) -> None:
    database = make_node(tmp_path)
    with (_storage(database) / "000999.ldb").open("wb") as file:
        file.truncate(2**26 + 1)
    assert _failure(database, scratch).code == "too_large_value"


def test_a_directory_that_never_settles(
    tmp_path: Path, scratch: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    database = make_node(tmp_path)
    manifest = next(_storage(database).glob("MANIFEST-*"))
    from rubix_token_sync.nodes import chain_copy

    original = chain_copy.copy_bytes

    def writing(source: int, size: int, target: str, progress: Any) -> None:
        original(source, size, target, progress)
        with manifest.open("ab") as file:
            file.write(b"x")

    monkeypatch.setattr(chain_copy, "copy_bytes", writing)
    error = _failure(database, scratch)
    assert (error.code, error.kind) == ("changed_while_reading", "transient")


def test_without_its_package(
    tmp_path: Path, scratch: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, LEVELDB, None)
    with pytest.raises(SettingsError) as caught:
        open_chains(tmp_path / "Rubix" / "rubix.db", scratch, public_key=lambda _: None)
    assert caught.value.code == "extra_missing"
    assert LEVELDB in caught.value.message
    assert extra_command("chains") in caught.value.remedy


# --- fingerprints ----------------------------------------------------------------


def test_the_fingerprint_changes_with_the_chains(tmp_path: Path, scratch: Path) -> None:
    database = make_node(tmp_path)
    first = chains_fingerprint(str(database), "test")
    rows_of(database, scratch)
    assert chains_fingerprint(str(database), "test") == first
    assert chains_fingerprint(str(database), "main") != first
    with (_storage(database) / "LOG").open("a") as file:
        file.write("nothing")
    assert chains_fingerprint(str(database), "test") == first
    write_chains(database.parent, "test", [generated_block(BOB, TOKENS[0], TEST_WHOLE)])
    assert chains_fingerprint(str(database), "test") != first
