"""Pages of lists: together they are everything, each once, on every target."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import asdict
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

import rubix_token_sync as rts
from rubix_token_sync.audit.authenticity import WholeToken
from rubix_token_sync.targets.base import TargetOptions
from rubix_token_sync.targets.registry import open_target, parse_target
from rubix_token_sync.targets.sql.functions import beginning
from tests.audit.fleets import BEGAN, Row, insert, put_database
from tests.web.conftest import HOSTILE_NODES, fill_with_hostile_rows

NODES = ("n1", "n2", "n3")
NUMBERED = WholeToken(2, 4_711).token_id()


def fill(address: str) -> None:
    """Three nodes with 40 records each, and the hostile ones; findings about every third token."""
    rts.upgrade_schema(rts.configure(target=address))
    store = open_target(parse_target(address), TargetOptions())
    rows = [
        Row(
            node, f"Qm{number:044d}", token_status=str(number % 5), did=f"bafybmi{number % 7:052d}",
            kind="ft" if number % 4 == 0 else "rbt", fetched=number % 6 != 0,
            error="not_found: nobody has it" if number % 6 == 0 else None,
            verdict="genuine" if number % 2 else None, level=1 if number % 2 else None,
            number=number if number % 2 else None, gone=number % 10 == 9,
            source=f"vm{number_of % 2}",
        )
        for number_of, node in enumerate(NODES)
        for number in range(number_of * 20, number_of * 20 + 40)
    ]  # fmt: skip
    rows.append(Row("n1", NUMBERED, level=2, number=4_711, verdict="genuine", source="vm0"))

    def work(conn: Any) -> None:
        insert(conn, store.tables, rows)
        for number_of, node in enumerate(NODES):
            put_database(conn, store.tables, node, BEGAN, source=f"vm{number_of % 2}")

    store.transact(work)
    store.close()
    fill_with_hostile_rows(address)
    rts.audit_records(target=address)


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def reader(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[rts.TargetReader]:
    """A filled target of each kind."""
    if request.param == "sqlite":
        address = f"sqlite:///{tmp_path_factory.mktemp('lists')}/t.db"
    else:
        server = request.getfixturevalue("postgres_server")
        address = server.url(server.database())
    fill(address)
    with rts.open_target(address) as opened:
        yield opened


def truth(reader: rts.TargetReader) -> list[dict[str, Any]]:
    """Every record, by one plain question."""
    rows: list[dict[str, Any]] = reader.records(deleted=None).to_pylist()
    return rows


def all_pages(reader: rts.TargetReader, limit: int, **search: Any) -> list[dict[str, Any]]:
    """Every record of every page, having seen that no page is too long."""
    found: list[dict[str, Any]] = []
    after: str | None = None
    for _ in range(500):
        page = reader.find_tokens(after=after, limit=limit, **search)
        assert len(page.tokens) <= limit
        found += [asdict(one) for one in page.tokens]
        if page.next is None:
            return found
        assert page.next != after
        after = page.next
    raise AssertionError("the list does not end")


def key(row: dict[str, Any]) -> tuple[Any, ...]:
    """What names a record."""
    return (row["source_ip"], row["db_path"], row["token_id"], row["token_kind"])


SEARCHES: list[tuple[dict[str, Any], Any]] = [
    ({}, lambda r: True),
    ({"gone": True}, lambda r: r["source_deleted_at"] is not None),
    ({"nodes": ["n2"]}, lambda r: r["node_name"] == "n2"),
    ({"sources": ["vm0"]}, lambda r: r["source_ip"] == "vm0"),
    ({"databases": ["/mnt/n3/Rubix/rubix.db"]}, lambda r: r["node_name"] == "n3"),
    ({"nodes": ["n2", HOSTILE_NODES[0]]}, lambda r: r["node_name"] in ("n2", HOSTILE_NODES[0])),
    ({"nodes": ["nobody"]}, lambda r: False),
    ({"kinds": ["ft"]}, lambda r: r["token_kind"] == "ft"),
    ({"statuses": ["1", "3"]}, lambda r: r["token_status"] in ("1", "3")),
    ({"verdicts": ["none"]}, lambda r: r["verdict"] is None),
    ({"verdicts": ["genuine"], "kinds": ["rbt"]},
     lambda r: r["verdict"] == "genuine" and r["token_kind"] == "rbt"),
    ({"level": 1}, lambda r: r["token_level"] == 1),
    ({"level": 2, "number": 4_711}, lambda r: r["token_id"] == NUMBERED),
    ({"number": 4_711}, lambda r: r["token_id"] == NUMBERED),
    ({"number": 4_712}, lambda r: False),
    ({"content": "no"}, lambda r: not r["ipfs_fetched"]),
    ({"content": "yes", "nodes": ["n1"]}, lambda r: r["ipfs_fetched"] and r["node_name"] == "n1"),
    ({"content": "not_found"}, lambda r: (r["ipfs_error"] or "").startswith("not_found:")),
    ({"content": "not_found", "nodes": ["n1"]},
     lambda r: (r["ipfs_error"] or "").startswith("not_found:") and r["node_name"] == "n1"),
    ({"did": f"bafybmi{3:052d}"}, lambda r: r["did"] == f"bafybmi{3:052d}"),
    ({"did": f"bafybmi{3:052d}", "statuses": ["0"]},
     lambda r: r["did"] == f"bafybmi{3:052d}" and r["token_status"] == "0"),
    ({"token": f"Qm{25:044d}"}, lambda r: r["token_id"] == f"Qm{25:044d}"),
    ({"token": f"qm{25:044d}"}, lambda r: False),
    ({"token": f"Qm{25:044d}"[:45] + "*"}, lambda r: r["token_id"].startswith(f"Qm{25:044d}"[:45])),
    ({"token": "Qm*"}, lambda r: r["token_id"].startswith("Qm")),
    ({"token": "*"}, lambda r: True),
    ({"token": "<scr*"}, lambda r: r["token_id"].startswith("<scr")),
]  # fmt: skip


@pytest.mark.parametrize("limit", [7, 500])
@pytest.mark.parametrize("place", range(len(SEARCHES)))
def test_pages_are_what_was_looked_for(reader: rts.TargetReader, place: int, limit: int) -> None:
    search, wanted = SEARCHES[place]
    live = [r for r in truth(reader) if r["source_deleted_at"] is None or "gone" in search]
    found = all_pages(reader, limit, **search)
    expected = [key(row) for row in live if wanted(row)]
    assert sorted(map(key, found), key=str) == sorted(expected, key=str)
    assert len(set(map(key, found))) == len(found), "each once"


def test_a_page_that_runs_out_of_time_goes_on(reader: rts.TargetReader) -> None:
    """With no time at all each page looks through one block, says so, and none is lost."""
    pages, after, found = 0, None, []
    while True:
        page = reader.find_tokens(
            after=after, limit=500, seconds=0.0, sources=["vm0", "vm1"], statuses=["1"]
        )
        pages += 1
        found += page.tokens
        assert page.in_time == (page.next is None)
        if page.next is None:
            break
        after = page.next
    expected = [
        r for r in truth(reader) if r["token_status"] == "1" and r["source_ip"] != "evil'\"<&"
    ]
    assert pages == 3, "one for each database"
    assert len(found) == sum(r["source_deleted_at"] is None for r in expected)


@pytest.mark.parametrize("after", ["", "x", "i", "k00", "i-1", "k" + "g" * 48, "i" + "9" * 30])
def test_a_cursor_of_somebody_else_is_refused(reader: rts.TargetReader, after: str) -> None:
    if after == "":
        return
    with pytest.raises(rts.SettingsError, match="cursor"):
        reader.find_tokens(after=after)


def test_sql_server_is_asked_in_its_own_words() -> None:
    store = open_target(parse_target("mssql://u:p@nowhere.invalid/db"), TargetOptions())
    try:
        begins = beginning(store.tables.records.c.token_id, sa.literal(2)) == "Qm"
        query = sa.select(store.tables.records.c.id).where(begins).limit(3)
        assert "left(" in str(query.compile(store.engine))
    finally:
        store.close()


def test_findings_by_the_page_are_those_of_the_list(reader: rts.TargetReader) -> None:
    everything = reader.findings()
    assert len(everything) >= 10
    found, after = [], None
    while True:
        page = reader.find_findings(after=after, limit=3)
        found += page.findings
        if page.next is None:
            break
        after = page.next
    assert {f.fingerprint: f for f in found} == {f.fingerprint: f for f in everything}
    assert len(found) == len(everything)
    order = ["error", "warning", "info"]
    assert [order.index(f.severity) for f in found] == sorted(
        order.index(f.severity) for f in found
    )
    counts = reader.count_findings()
    assert sum(one.count for one in counts) == len(everything)


def test_events_by_the_page(reader: rts.TargetReader) -> None:
    assert reader.events().events == []
    assert reader.events(session_id="not a uuid", codes=["x"]).events == []
    assert reader.nights() == []
    with pytest.raises(rts.SettingsError, match="no run"):
        reader.run("'; DROP TABLE")


def test_events_and_nights_of_real_runs(unpacked_fleet: Path, tmp_path: Path) -> None:
    target = f"sqlite:///{tmp_path}/t.db"
    rts.sync(
        unpacked_fleet, target=target, source_ip="vm1",
        state_directory=os.environ.get("STATE_DIRECTORY"),
    )  # fmt: skip
    with rts.open_target(target) as reader:
        found, before = [], None
        while True:
            page = reader.events(before=before, limit=3)
            found += page.events
            if page.next is None:
                break
            before = page.next
        counted = reader.errors(limit=100).events
        assert sum(e.occurrences for e in found) == sum(reason.count for reason in counted)
        assert [e.id for e in found] == sorted((e.id for e in found), reverse=True)
        (run,) = reader.sessions()
        (night,) = reader.nights()
        assert run.start_time is not None
        assert (night.day, night.completed) == (run.start_time.date(), 1)
        assert night.new == run.total_sql_inserts
        assert reader.nights(days=0) == reader.nights(sources=["other"]) == []
        view = reader.run(run.session_id)
        assert (view.run.session_id, view.number) == (run.session_id, 1)
        assert reader.find_findings(since=timedelta(days=1)).findings == []
