"""Transactions and pledges from the node to the target, through whole runs."""

from __future__ import annotations

import json
import shutil
import sqlite3
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rubix_token_sync.nodes.connection import VALUE_LIMIT_BYTES
from rubix_token_sync.records.values import to_text
from rubix_token_sync.runs.jobs import Difference
from rubix_token_sync.runs.result import RunOptions, RunResult
from rubix_token_sync.runs.sync import sync
from rubix_token_sync.runs.verify import repair, verify
from rubix_token_sync.targets.registry import parse_target
from rubix_token_sync.testing import make_identity, write_public_keys

Options = Callable[..., RunOptions]

TABLES = (
    "CREATE TABLE TransactionHistory (transaction_id text, transaction_type text, block_id text,"
    " mode integer, sender_did text, receiver_did text, amount real, total_time real, comment text,"
    " date_time datetime, status numeric, deployer_did text, epoch integer,"
    " PRIMARY KEY (transaction_id))",
    "CREATE TABLE TokenStateHashTable (did text, token_state_hash text, pledged_token text,"
    " transaction_id text, PRIMARY KEY (token_state_hash))",
    "CREATE TABLE UnpledgeSequence (tx_id text, pledge_tokens text, epoch integer,"
    " quorum_did text, PRIMARY KEY (tx_id))",
)
COUNTS = ("transaction_count", "pledge_count")


def ask(path: Path, query: str, *values: object) -> list[tuple[Any, ...]]:
    with closing(sqlite3.connect(path)) as db, db:
        return db.execute(query, values).fetchall()


@pytest.fixture
def node(small_fleet: Path) -> Path:
    """The database of one node, with some transactions and pledges."""
    path = sorted(small_fleet.glob("*/Rubix/rubix.db"))[0]
    with closing(sqlite3.connect(path)) as db, db:
        for statement in TABLES:
            db.execute(statement)
        db.executemany(
            "INSERT INTO TransactionHistory (transaction_id, amount, comment) VALUES (?, ?, ?)",
            [(f"{n:064x}", n / 4, "") for n in range(70)],
        )
        db.execute("INSERT INTO TokenStateHashTable VALUES ('did', 'Qmstate', 'Qma,Qmb', 'tx')")
        db.execute("INSERT INTO UnpledgeSequence VALUES ('tx', 'Qma,Qmb', 1795968035, 'did')")
    return path


def live(target: Path, table: str, columns: str) -> Counter[tuple[Any, ...]]:
    query = f"SELECT {columns} FROM {table} WHERE source_deleted_at IS NULL"
    return Counter(ask(target, query))


def marks(target: Path) -> tuple[int, int]:
    (row,) = ask(target, f"SELECT {', '.join(f'sum({c})' for c in COUNTS)} FROM ProcessedDatabases")
    return row[0], row[1]


def wrote(outcome: RunResult, table: str = "TokenTransactions") -> tuple[int, int, int]:
    counts = outcome.counters.companions.get(table)
    return (counts.inserted, counts.updated, counts.vanished) if counts else (0, 0, 0)


def compared(options: RunOptions) -> tuple[int, list[Difference]]:
    found: list[Difference] = []
    result = verify(replace(options, command="verify"), on_difference=found.append)
    return result.exit_code, found


def test_only_what_changed_travels(options: Options, node: Path, target_file: Path) -> None:
    assert wrote(sync(options())) == (70, 0, 0)
    assert marks(target_file) == (70, 2)
    assert sync(options()).counters.databases_current == 3
    ask(node, "UPDATE TransactionHistory SET status = 1 WHERE amount < 1")
    ask(node, "DELETE FROM TransactionHistory WHERE amount > 17")
    ask(node, "INSERT INTO TransactionHistory (transaction_id) VALUES ('new')")
    ask(node, "DELETE FROM UnpledgeSequence")
    before = ask(target_file, "SELECT * FROM TokenRecords")
    outcome = sync(options())
    assert (wrote(outcome), wrote(outcome, "TokenPledges")) == ((1, 4, 1), (0, 0, 1))
    assert (outcome.counters.inserted, outcome.counters.updated) == (0, 0)
    assert ask(target_file, "SELECT * FROM TokenRecords") == before
    assert marks(target_file) == (70, 1)
    assert compared(options()) == (0, [])
    ask(node, "DROP TABLE TransactionHistory")
    assert wrote(sync(options())) == (0, 0, 70)
    assert marks(target_file) == (0, 1)


def test_the_nodes_dids_with_the_keys_that_prove_themselves(
    options: Options, node: Path, target_file: Path
) -> None:
    """Only what the DID follows from; a key that comes later is noticed with the next change."""
    own, late, forged, foreign = (make_identity(1, number) for number in range(4))
    write_public_keys(node.parent, "main", [own, foreign])
    write_public_keys(node.parent, "main", [replace(foreign, did=forged.did)])
    with closing(sqlite3.connect(node)) as db, db:
        db.execute("DELETE FROM DIDTable")
        db.executemany(
            "INSERT INTO DIDTable VALUES (?, 4, 'root', 0, 'secret')",
            [(signer.did,) for signer in (own, late, forged)] + [("../../etc/passwd",)],
        )
    sync(options())
    query = "SELECT did, did_type, root_did, public_key FROM NodeDids WHERE node_name = ?"
    found = {row[0]: row[1:] for row in ask(target_file, query, node.parents[1].name)}
    without = ("4", "0", None)
    assert found == {
        own.did: ("4", "0", own.public_key.decode()), late.did: without, forged.did: without,
        "../../etc/passwd": without,
    }  # fmt: skip
    assert b"secret" not in target_file.read_bytes()
    assert compared(options()) == (0, [])
    write_public_keys(node.parent, "main", [late])
    assert [set(d.columns) for d in compared(options())[1]] == [{"public_key", "row_digest"}]
    ask(node, "UPDATE TransactionHistory SET status = 1 WHERE amount < 1")
    sync(options())
    assert compared(options()) == (0, [])


def test_a_missing_row_is_noticed_and_mended(
    options: Options, node: Path, target_file: Path
) -> None:
    sync(options())
    assert node.exists()
    ask(target_file, "DELETE FROM TokenTransactions WHERE id = 7")
    ask(target_file, "UPDATE TokenPledges SET pledged_tokens = 'other' WHERE id = 1")
    code, found = compared(options())
    assert (code, sorted((d.letter, d.table, d.columns) for d in found)) == (
        5,
        [("*", "TokenPledges", ("pledged_tokens",)), ("+", "TokenTransactions", ())],
    )
    outcome = sync(options())  # as many records as before: it is the transactions that are fewer
    assert (outcome.counters.databases_processed, wrote(outcome)) == (1, (1, 0, 0))
    assert compared(options()) == (0, [])


def test_repair(options: Options, node: Path, target_file: Path) -> None:
    sync(options())
    assert node.exists()
    ask(
        target_file,
        "UPDATE TokenTransactions SET amount = '9', row_digest = row_digest WHERE id < 4",
    )
    ask(
        target_file,
        "INSERT INTO TokenTransactions (source_ip, node_name, db_path, record_key, row_digest)"
        " SELECT source_ip, node_name, db_path,"
        " CAST(substr(record_key, 1, 8) || zeroblob(16) AS BLOB),"
        " zeroblob(16) FROM TokenTransactions WHERE id = 9",
    )
    found: list[Difference] = []
    result = repair(options(), on_difference=found.append)
    assert result.repaired
    assert Counter((d.letter, d.table) for d in found) == {
        ("*", "TokenTransactions"): 3,
        ("-", "TokenTransactions"): 1,
    }
    assert compared(options()) == (0, [])
    assert marks(target_file) == (70, 2)


def test_a_database_that_is_gone(options: Options, node: Path, target_file: Path) -> None:
    sync(options())
    shutil.rmtree(node.parents[1])
    sync(options())
    assert marks(target_file) == (70, 2)
    sync(options(max_shrink=None))
    assert live(target_file, "TokenTransactions", "1") == Counter()
    assert live(target_file, "TokenPledges", "1") == Counter()


def test_a_shrunk_database_keeps_its_transactions(
    options: Options, node: Path, target_file: Path
) -> None:
    sync(options())
    ask(node, "DELETE FROM TokensTable")
    ask(node, "DELETE FROM TransactionHistory")
    outcome = sync(options())
    assert [error.code for _, error in outcome.failed] == ["shrunk"]
    assert sum(live(target_file, "TokenTransactions", "1").values()) == 70


def test_a_value_too_large_costs_its_row_only(
    options: Options, node: Path, target_file: Path
) -> None:
    large = "x" * (VALUE_LIMIT_BYTES + 1)
    for rowid in (1, 2, 31, 70):
        ask(node, "UPDATE TransactionHistory SET comment = ? WHERE rowid = ?", large, rowid)
    ask(
        node,
        "UPDATE TransactionHistory SET comment = ? WHERE rowid = 50",
        large[:VALUE_LIMIT_BYTES],
    )
    outcome = sync(options())
    assert marks(target_file) == (66, 2)
    (kept,) = ask(
        target_file,
        "SELECT length(comment), validation_errors FROM TokenTransactions WHERE comment <> ''",
    )
    assert kept[0] == 4000
    assert json.loads(kept[1])[0]["value_bytes"] == VALUE_LIMIT_BYTES
    entries = [e for e in outcome.errors if e.code == "too_large_value"]
    assert entries == []  # published with the mark, in the target
    (told,) = ask(
        target_file, "SELECT occurrences, context FROM SyncErrors WHERE code = 'too_large_value'"
    )
    assert (told[0], json.loads(told[1])) == (4, {"table": "TransactionHistory"})
    assert compared(options()) == (0, [])


def test_rows_that_repeat_a_key_or_have_none(
    options: Options, node: Path, target_file: Path
) -> None:
    ask(node, "DROP TABLE UnpledgeSequence")
    ask(node, "CREATE TABLE UnpledgeSequence (tx_id, pledge_tokens)")  # of a fork
    for key, tokens in (("a", "1"), (None, "2"), ("a", "3"), (None, "4"), (1, "5"), ("1", "6")):
        ask(node, "INSERT INTO UnpledgeSequence VALUES (?, ?)", key, tokens)
    sync(options())
    query = "pledged_tokens, epoch", "TokenPledges"
    found = live(target_file, query[1], query[0])
    assert found == Counter([("Qma,Qmb", None), *((n, None) for n in "12456")])
    (told,) = ask(target_file, "SELECT occurrences FROM SyncErrors WHERE code = 'duplicate_row'")
    assert told == (1,)
    assert sync(options()).counters.databases_current == 3


STEPS = st.lists(
    st.one_of(
        st.tuples(
            st.just("put"), st.integers(0, 5),
            st.one_of(st.none(), st.text(max_size=8), st.binary(max_size=4), st.integers(0, 9),
                      st.sampled_from([0.0, 0.5, 1e-5, 1.0])),
        ),
        st.tuples(st.just("drop"), st.integers(0, 5), st.none()),
    ),
    max_size=6,
)  # fmt: skip


@settings(
    max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(nights=st.lists(STEPS, min_size=1, max_size=3))
def test_any_changes_any_nights(
    options: Options, small_fleet: Path, node: Path, tmp_path: Path, nights: list[Any]
) -> None:
    """Insert, change, vanish, return: the target's live rows are the node's, row by row."""
    target = tmp_path / "any.db"
    target.unlink(missing_ok=True)
    made = options(target=parse_target(f"sqlite:///{target}"), roots=(str(node.parents[1]),))
    ask(node, "DELETE FROM TransactionHistory")
    for steps in nights:
        for what, key, value in steps:
            ask(node, "DELETE FROM TransactionHistory WHERE transaction_id = ?", f"t{key}")
            if what == "put":
                ask(
                    node,
                    "INSERT INTO TransactionHistory (transaction_id, status) VALUES (?, ?)",
                    f"t{key}", value,
                )  # fmt: skip
        sync(made)
        wanted = ask(node, "SELECT transaction_id, status FROM TransactionHistory")
        assert live(target, "TokenTransactions", "transaction_id, status") == Counter(
            (key, None if value == "" else to_text(value)) for key, value in wanted
        )
        assert marks(target)[0] == len(wanted)
        assert compared(made) == (0, [])


def test_the_real_fleet(real_nodes: Path, options: Options, target_file: Path) -> None:
    """Every transaction and pledge of nine real nodes, exactly."""
    truth = json.loads((real_nodes / "truth.json").read_text(encoding="utf-8"))["nodes"]
    sync(options(roots=(str(real_nodes),)))
    for name, node in truth.items():
        tables = node.get("tables")
        if tables is None:
            continue
        path = str(real_nodes / name / "Rubix" / node["db"])
        for theirs, ours, columns in _COLUMNS:
            wanted = Counter(
                tuple(_stored(theirs_name, row[theirs_name]) for theirs_name in columns)
                for row in tables[theirs]
            )
            names = ", ".join(columns.values())
            where = f"db_path = '{path}'"
            if ours == "TokenPledges":
                where += f" AND pledge_source = '{theirs}'"
            query = f"SELECT {names} FROM {ours} WHERE {where} AND source_deleted_at IS NULL"
            assert Counter(ask(target_file, query)) == wanted, (name, theirs)
    assert ask(target_file, "SELECT count(*) FROM TokenTransactions") == [(43,)]
    assert ask(target_file, "SELECT count(*) FROM TokenPledges") == [(96,)]
    assert ask(target_file, "SELECT count(validation_errors) FROM TokenTransactions") == [(0,)]


_COLUMNS = (
    (
        "TransactionHistory",
        "TokenTransactions",
        {
            name: name
            for name in (
                "transaction_id", "transaction_type", "block_id", "mode", "sender_did",
                "receiver_did", "deployer_did", "amount", "total_time", "comment", "date_time",
                "status", "epoch",
            )
        },
    ),
    (
        "TokenStateHashTable",
        "TokenPledges",
        {
            "transaction_id": "transaction_id", "did": "did",
            "token_state_hash": "token_state_hash", "pledged_token": "pledged_tokens",
        },
    ),
    (
        "UnpledgeSequence",
        "TokenPledges",
        {"tx_id": "transaction_id", "quorum_did": "did", "pledge_tokens": "pledged_tokens",
         "epoch": "epoch"},
    ),
)  # fmt: skip


def _stored(column: str, value: Any) -> Any:
    """A value of the truth as the target has it: NULL for '', times in microseconds."""
    if column == "date_time":
        seconds, _, fraction = value.removesuffix("+00:00").partition(".")
        return f"{seconds}.{fraction[:6]:0<6}"
    return None if value == "" else to_text(value)
