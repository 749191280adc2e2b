"""The rules' statements find what the same rules in plain Python find, on random small fleets."""

from __future__ import annotations

import re
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from sqlalchemy.dialects import mssql, postgresql, sqlite

from rubix_token_sync.audit.rule import SEVERITIES, StatementRule
from rubix_token_sync.audit.rules import RULES
from rubix_token_sync.targets.mssql.target import SPELLING
from rubix_token_sync.targets.sql.tables import build_tables
from rubix_token_sync.targets.sql.target import SqlTarget
from tests.audit.fleets import Row, Sent, insert
from tests.audit.model import MODELS, Found

_IDS = ("QmA", "Qma", "QmB", "QmC", "X'0A'")
"""Two that differ by case only, and one that stands for something that was no text."""

_sent = st.builds(
    Sent,
    transaction=st.sampled_from(("t1", "t2")),
    sender=st.sampled_from(("one", "two")),
    receiver=st.sampled_from(("one", "two")),
    day=st.sampled_from((1, 2)),
    status=st.sampled_from(("1", "1", "1", "0")),
)
_rows = st.builds(
    Row,
    node=st.sampled_from(("a", "b", "c")),
    token_id=st.sampled_from(_IDS),
    token_status=st.sampled_from(("0", "0", "2", "4", "9", "9", "15", "16", "12", "2302", None)),
    did=st.sampled_from(("one", "two", "two", "", None)),
    kind=st.sampled_from(("rbt", "rbt", "rbt", "ft", "contract")),
    parent=st.sampled_from(("", "", None, "QmA", "QmB", "QmElsewhere")),
    value=st.sampled_from(
        ("1.0", "0.5", "0.25", "0.3", "0.1", "0.001", "2.0", "12.", "-1.0", "1e9", "", "much", None)
    ),
    fetched=st.booleans(),
    error=st.sampled_from(
        ("damaged: the hash differs", "not_in_repository: it is not there", "no_repository: none",
         "program_failed: none was found", "damaged", None)
    ),
    verdict=st.sampled_from(
        ("genuine", "disputed", "out_of_range", "forged_form", "signature_wrong", None)
    ),
    level=st.sampled_from((None, 1, 1, 2)),
    number=st.sampled_from((None, 7, 7, 8)),
    gone=st.sampled_from((False, False, False, True)),
    source=st.just("vm1"),
    block=st.sampled_from((None, "02", "02", "05", "04", "08", "13")),
    block_owner=st.sampled_from(("one", "two", None)),
    chain_error=st.sampled_from((None, None, "chain_forked: two blocks have the same number")),
    block_number=st.sampled_from((1, 1, 2, None)),
    owns=st.sampled_from((None, "one", "two")),
    transaction=st.sampled_from((None, "t1", "t2")),
    history=st.lists(_sent, max_size=2).map(tuple),
)  # fmt: skip
_WITHOUT_BOUNDS = [
    Row("a", "QmA", "9"),
    Row("a", "QmB", parent="QmA", value="9" * 25),
    Row("a", "QmC", "9", value="9" * 25),
    Row("a", "X'0A'", parent="QmC"),
]
"""What a node's row says a token is worth is more than a number of the target holds."""
_fleets = st.lists(_rows, max_size=9, unique_by=lambda row: (row.node, row.kind, row.token_id))


def _found(conn: sa.Connection, store: SqlTarget, rule: StatementRule) -> Found:
    """What the statement gives, by the names that the model uses."""
    records = store.tables.records
    named = sa.select(records.c.id, records.c.node_name, records.c.token_id)
    names = {row.id: (row.node_name, row.token_id) for row in conn.execute(named)}
    found: dict[Any, tuple[int, set[tuple[str, str, str]]]] = {}
    seen = []
    for row in conn.execute(rule.statement(store.tables)):
        token = (row.token_kind, row.token_id)
        weight, evidence = found.setdefault(token, (row.weight, set()))
        assert row.weight == weight
        evidence.add((row.role, *names[row.record_id]))
        seen.append((bytes(row.token_key), row.role, row.record_id))
    assert len(seen) == len(set(seen)), "a record is evidence once"
    return found


def _agree(store: SqlTarget, rows: list[Row]) -> None:
    def work(conn: sa.Connection) -> None:
        insert(conn, store.tables, rows)
        for rule in RULES:
            assert isinstance(rule, StatementRule)
            expected = MODELS[rule.code](rows)
            found = _found(conn, store, rule)
            assert found.keys() == expected.keys(), rule.code
            for token, (weight, evidence) in expected.items():
                assert found[token][1] == evidence, (rule.code, token)
                assert abs(found[token][0] - weight) <= 1, (rule.code, token)  # of 0.00001
        conn.rollback()

    with store.engine.connect() as conn, conn.begin():
        work(conn)


def test_every_rule_has_its_model() -> None:
    assert MODELS.keys() == {rule.code for rule in RULES}
    assert {rule.severity for rule in RULES} == set(SEVERITIES)


_AGREE = settings(
    max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None
)


@_AGREE
@given(rows=_fleets)
@example(rows=[Row("a", "QmA", did="one"), Row("b", "QmA", did="two")])
@example(rows=[Row("a", "QmA", did="one"), Row("b", "Qma", did="two")])  # two tokens
@example(rows=[Row("a", "QmA", "9"), *(Row(n, "QmB", parent="QmA", value="0.6") for n in "ab"),
               Row("a", "QmC", parent="QmA", value="0.5")])  # fmt: skip
@example(rows=[Row("a", "QmA", "9", value="0.3"),
               *(Row("a", i, parent="QmA", value="0.1") for i in _IDS[1:4])])  # fmt: skip
@example(rows=_WITHOUT_BOUNDS)
@example(rows=[Row("a", "QmA", did="one", owns="two"), Row("b", "QmA", "4", did="one")])
@example(
    rows=[
        Row("a", "QmA", did="one"),
        Row("b", "QmA", "4", did="one", transaction="t1", history=(Sent("t1", "one", "two", 1),)),
    ]
)
@example(
    rows=[
        Row("a", "QmA", did="one", transaction="t1"),
        Row(
            "b",
            "QmA",
            did="two",
            transaction="t2",
            history=(Sent("t1", "two", "one", 1), Sent("t2", "one", "two", 2)),
        ),
    ]
)
@example(rows=[Row("a", "QmA", did="one", block="02", block_owner="one"),
               Row("b", "QmA", "9", block="08", block_owner="two", block_number=2)])  # fmt: skip
def test_statement_and_model_agree(embedded: SqlTarget, rows: list[Row]) -> None:
    _agree(embedded, rows)


@settings(_AGREE, max_examples=15)
@given(rows=_fleets)
@example(rows=_WITHOUT_BOUNDS)
def test_they_agree_on_postgresql(postgres_store: SqlTarget, rows: list[Row]) -> None:
    _agree(postgres_store, rows)


@pytest.mark.long
@pytest.mark.timeout(900)
@settings(_AGREE, max_examples=300)
@given(rows=_fleets)
def test_they_agree_at_length(embedded: SqlTarget, rows: list[Row]) -> None:
    _agree(embedded, rows)


@pytest.mark.long
@pytest.mark.timeout(900)
@settings(_AGREE, max_examples=100)
@given(rows=_fleets)
def test_they_agree_on_postgresql_at_length(postgres_store: SqlTarget, rows: list[Row]) -> None:
    _agree(postgres_store, rows)


@pytest.mark.long
@pytest.mark.timeout(1800)
@settings(_AGREE, max_examples=25)
@given(rows=_fleets)
@example(rows=_WITHOUT_BOUNDS)
def test_they_agree_on_sql_server(server_store: SqlTarget, rows: list[Row]) -> None:
    _agree(server_store, rows)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.code)
def test_a_statement_is_one_on_every_target(rule: StatementRule) -> None:
    """It compiles for all; SQL Server runs it where RUBIX_TEST_MSSQL names one."""
    tables = build_tables(SPELLING)
    for dialect in (mssql.dialect(), postgresql.dialect(), sqlite.dialect()):
        text = str(rule.insertion(tables, 1).compile(dialect=dialect))
        assert text.count("INSERT INTO") == 1
        assert ";" not in text
    server = str(rule.insertion(tables, 1).compile(dialect=mssql.dialect()))
    assert "GLOB" not in server
    assert " ~ " not in server
    # SQL Server's usual collation ignores case, token ids do not.
    assert "Latin1_General_BIN2" in server
    assert not re.search(r"HAVING m\w+\([\w.]+token_id\) ", server), "compared without its case"


def test_the_index_on_token_ids_is_used(embedded: SqlTarget) -> None:
    """Holders and parents are looked up; nobody reads the table once for each token."""
    used = []
    for rule in RULES:
        assert isinstance(rule, StatementRule)
        query = rule.statement(embedded.tables)
        text = query.compile(embedded.engine, compile_kwargs={"literal_binds": True})
        with embedded.engine.connect() as conn:
            plan = conn.exec_driver_sql(f"EXPLAIN QUERY PLAN {text}").all()
        used += [rule.code] * any("ix_tokenrecords_token_id" in str(step) for step in plan)
    assert set(used) == {rule.code for rule in RULES} - {"same_number_twice"}
