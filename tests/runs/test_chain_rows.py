"""Token chains from the node to the target, through whole runs."""

from __future__ import annotations

import json
import sqlite3
import sys
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from rubix_token_sync.errors import SettingsError
from rubix_token_sync.installation import LEVELDB
from rubix_token_sync.monitor.databases import list_databases
from rubix_token_sync.monitor.filters import Filters
from rubix_token_sync.monitor.problems import Rules, judge_databases
from rubix_token_sync.nodes.chains import CHAIN_SCHEMA, STORAGES
from rubix_token_sync.records.companions import CHAINS
from rubix_token_sync.runs.jobs import Difference
from rubix_token_sync.runs.result import RunOptions, RunResult
from rubix_token_sync.runs.sync import sync
from rubix_token_sync.runs.verify import verify
from rubix_token_sync.targets.base import TargetOptions
from rubix_token_sync.targets.registry import open_target, parse_target
from rubix_token_sync.testing import (
    block_id,
    create_database,
    generated_block,
    transferred_block,
    write_chains,
)
from rubix_token_sync.testing.chains import FT
from tests.nodes.chain_nodes import ALICE, BOB, QUORUM, TOKENS, make_node

pytest.importorskip(LEVELDB)

Options = Callable[..., RunOptions]


def ask(path: Path, query: str, *values: object) -> list[tuple[Any, ...]]:
    with closing(sqlite3.connect(path)) as db, db:
        return db.execute(query, values).fetchall()


def wrote(outcome: RunResult) -> tuple[int, int, int]:
    counts = outcome.counters.companions.get(CHAINS.name)
    return (counts.inserted, counts.updated, counts.vanished) if counts else (0, 0, 0)


def compared(options: RunOptions) -> tuple[int, list[Difference]]:
    found: list[Difference] = []
    result = verify(replace(options, command="verify"), on_difference=found.append)
    return result.exit_code, found


def mark(target: Path) -> tuple[Any, ...]:
    (row,) = ask(
        target,
        "SELECT record_count, chain_count, chains_fingerprint IS NOT NULL, chains_error,"
        " chains_read_at FROM ProcessedDatabases",
    )
    return row


def said_of(target: Path) -> list[tuple[str, str, str | None]]:
    """What `databases` and `status` say is wrong with its chains."""
    store = open_target(parse_target(f"sqlite:///{target}"), TargetOptions(read_only=True))
    try:
        rows = list_databases(store, Filters(), store.server_time())
    finally:
        store.close()
    found = judge_databases(rows, Rules())
    return [(p.code, p.severity, p.detail) for p in found if p.code != "content_missing"]


@pytest.fixture
def database(tmp_path: Path) -> Path:
    """A node with six chains and two tokens."""
    made = make_node(tmp_path / "nodes").with_name("rubixtest.db")
    create_database(made, [(t, "", 0.5, ALICE.did, 0, "", "", 0) for t in TOKENS[:2]])
    return made


@pytest.fixture
def chained(options: Options, database: Path) -> RunOptions:
    return options(roots=(str(database.parents[2]),), chains=True)


def move_one(database: Path) -> None:
    """The fourth token goes to Bob."""
    first = generated_block(ALICE, TOKENS[3], FT, value=0.5)
    previous = {TOKENS[3]: block_id(first, TOKENS[3])}
    block = transferred_block(ALICE, BOB.did, previous, FT, QUORUM, epoch=1_795_968_200)
    write_chains(database.parent, "test", [block])


def manifest_of(database: Path) -> Path:
    """What LevelDB knows its tables from."""
    return next((database.parent / "TestNet" / "FTchainstorage").glob("MANIFEST-*"))


def test_the_table_holds_what_the_reader_gives() -> None:
    assert list(CHAINS.source) == [name for name in CHAIN_SCHEMA.names if name != "network"]
    assert {CHAINS[name].arrow for name in CHAINS.source} == {field.type for field in CHAIN_SCHEMA}


def test_only_what_changed_is_read_and_written(
    chained: RunOptions, database: Path, target_file: Path
) -> None:
    assert wrote(sync(chained)) == (6, 0, 0)
    assert mark(target_file)[:4] == (2, 6, 1, None)
    assert compared(chained) == (0, [])
    again = sync(chained)
    assert (again.counters.databases_current, wrote(again)) == (1, (0, 0, 0))
    move_one(database)  # while the database stays as it is
    before = ask(target_file, "SELECT * FROM TokenRecords")
    outcome = sync(chained)
    assert [d.reason for d in outcome.databases] == ["chains changed"]
    assert wrote(outcome) == (0, 1, 0)
    assert ask(target_file, "SELECT * FROM TokenRecords") == before
    query = "SELECT block_count, latest_block_owner, hashes_valid, links_valid, signatures_wrong"
    (row,) = ask(target_file, f"{query} FROM TokenChains WHERE token_id = ?", TOKENS[3])
    assert row == (2, BOB.did, 1, 1, 0)
    with closing(sqlite3.connect(database)) as db, db:  # and the other way about
        db.execute("UPDATE TokensTable SET token_status = 4")
    outcome = sync(chained)
    assert (outcome.counters.updated, wrote(outcome)) == (2, (0, 0, 0))


def test_without_the_option_what_is_there_stays(
    chained: RunOptions, database: Path, target_file: Path
) -> None:
    sync(chained)
    before = mark(target_file), ask(target_file, "SELECT * FROM TokenChains")
    move_one(database)
    with closing(sqlite3.connect(database)) as db, db:
        db.execute("DELETE FROM TokensTable WHERE token_id = ?", (TOKENS[0],))
    plain = replace(chained, chains=False)
    assert sync(plain).counters.databases_processed == 1
    after = mark(target_file), ask(target_file, "SELECT * FROM TokenChains")
    assert (after[0][1:], after[1]) == (before[0][1:], before[1])
    assert compared(plain) == (0, [])
    ask(target_file, "DELETE FROM TokenChains WHERE id = 1")
    assert sync(plain).counters.databases_current == 1
    assert wrote(sync(chained)) == (2, 0, 0)  # the missing one, and the other replaced
    assert compared(chained) == (0, [])


def test_a_chain_changed_behind_its_back(chained: RunOptions, target_file: Path) -> None:
    sync(chained)
    ask(target_file, "UPDATE TokenChains SET links_valid = 0, block_count = 9 WHERE id = 2")
    code, found = compared(chained)
    assert code == 5
    assert [(d.letter, d.table, d.columns) for d in found] == [
        ("*", CHAINS.name, ("block_count", "links_valid"))
    ]
    assert sync(replace(chained, force=True)).exit_code == 0
    assert compared(chained) == (0, [])


def test_a_directory_that_cannot_be_read_costs_itself_only(
    chained: RunOptions, database: Path, target_file: Path
) -> None:
    sync(chained)
    manifest = manifest_of(database)
    right = manifest.read_bytes()
    manifest.write_bytes(b"not a manifest" * 9)
    with closing(sqlite3.connect(database)) as db, db:
        db.execute("UPDATE TokensTable SET token_status = 4")
    outcome = sync(chained)
    assert (outcome.status, outcome.exit_code) == ("COMPLETED", 1)
    assert [d.chains_unread for d in outcome.databases] == [1]
    assert (outcome.counters.updated, wrote(outcome)) == (2, (0, 0, 0))
    records, chains, known, error, read_at = mark(target_file)
    assert (records, chains, known) == (2, 6, 0)
    assert error.startswith("chains_damaged: ")
    assert read_at is not None
    query = "SELECT code, message, context FROM SyncErrors WHERE code LIKE 'chains%'"
    (entry,) = ask(target_file, query)
    assert entry[0] == "chains_damaged"
    assert "FTchainstorage" in entry[1]
    assert json.loads(entry[2])["directory"] == "FTchainstorage"
    assert said_of(target_file) == [("chains_unread", "error", "chains_damaged")]
    assert sync(chained).exit_code == 1  # as long as it lasts
    assert compared(chained)[0] == 1
    manifest.write_bytes(right)
    assert sync(chained).exit_code == 0
    assert mark(target_file)[:4] == (2, 6, 1, None)
    assert said_of(target_file) == []
    assert compared(chained) == (0, [])


@pytest.mark.parametrize(
    ("value", "code", "severity", "exit_code"),
    [
        (b"no block", "chains_unread", "error", 1),  # nobody can say what it is
        (None, "chains_wrong", "warning", 0),  # a finding of the audit
    ],
)
def test_a_chain_that_is_not_right_is_named_until_it_is_read_again(
    chained: RunOptions,
    database: Path,
    target_file: Path,
    value: bytes | None,
    code: str,
    severity: str,
    exit_code: int,
) -> None:
    plyvel = pytest.importorskip(LEVELDB)
    other = generated_block(ALICE, TOKENS[3], FT, value=0.7)
    key = f"ft-{TOKENS[3]}-{9:016x}-{'ab' * 32}".encode()
    with plyvel.DB(str(database.parent / "TestNet" / "FTchainstorage")) as store:
        store.put(key, value or other)
    outcome = sync(chained)
    assert (outcome.status, outcome.exit_code) == ("COMPLETED", exit_code)
    named = [(found, how) for found, how, _ in said_of(target_file)]
    assert named == [(code, severity)]
    assert mark(target_file)[2] == 1  # it is not read again until it changes
    assert compared(chained) == (exit_code, [])
    assert sync(chained).counters.databases_current == 1
    assert [(found, how) for found, how, _ in said_of(target_file)] == named
    with plyvel.DB(str(database.parent / "TestNet" / "FTchainstorage")) as store:
        store.delete(key)
    assert sync(chained).exit_code == 0
    assert said_of(target_file) == []


def test_without_the_package_nothing_is_written(
    chained: RunOptions, target_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, LEVELDB, None)
    with pytest.raises(SettingsError, match=LEVELDB) as refused:
        sync(chained)
    assert (refused.value.code, refused.value.exit_code) == ("extra_missing", 2)
    assert "chains" in refused.value.remedy
    assert not target_file.exists()


def test_the_real_fleet(real_nodes: Path, options: Options, target_file: Path) -> None:
    """Of nine real nodes every content, all that it names, every chain: length and last block."""
    truth = json.loads((real_nodes / "truth.json").read_text(encoding="utf-8"))
    run = options(roots=(str(real_nodes),), chains=True)
    sync(run)
    said = ask(
        target_file, "SELECT token_id, ipfs_data FROM TokenRecords WHERE ipfs_data IS NOT NULL"
    )
    texts = {token: content.get("text") for token, content in truth["content"].items()}
    assert len(said) > 2_000
    assert all(data == texts[token] for token, data in said if texts[token] is not None)
    trees = "SELECT token_kind, attributes -> 'trees' FROM TokenRecords WHERE ipfs_fetched"
    sizes = Counter(
        (kind, name, tree["kind"], tree["size"], tree["files"])
        for kind, found in ask(target_file, trees)
        for name, tree in json.loads(found or "{}").items()
    )
    assert sizes == {
        ("nft", "artifact_hash", "directory", 3_035, 2): 2,
        ("contract", "binary_code_hash", "file", 400_008, 1): 2,
        ("contract", "raw_code_hash", "file", 12, 1): 2,
        ("contract", "schema_code_hash", "file", 13, 1): 2,
    }
    assert sync(run).counters.tokens_read == 0
    for name, node in truth["nodes"].items():
        if "chains" not in node:
            continue
        wanted = Counter(
            (STORAGES[storage], token, len(blocks), blocks[-1][0], blocks[-1][1], blocks[-1][2])
            for storage, tokens in node["chains"].items()
            for token, blocks in tokens.items()
        )
        query = (
            "SELECT token_kind, token_id, block_count,"
            " latest_block_number || '-' || latest_block_hash, latest_block_type,"
            " coalesce(latest_block_owner, '') FROM TokenChains WHERE db_path = ?"
        )
        path = str(real_nodes / name / "Rubix" / node["db"])
        assert Counter(ask(target_file, query, path)) == wanted, name
    (sums,) = ask(
        target_file,
        "SELECT sum(signatures_wrong), sum(hashes_valid = 0), sum(links_valid = 0), count(error)"
        " FROM TokenChains",
    )
    assert sums == (0, 0, 0, 0)
