"""The library through its own door: options, observers, records, errors."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from pathlib import Path

import pyarrow as pa
import pytest

import rubix_token_sync as rts
from rubix_token_sync.testing import FleetPlan, make_fleet

TARGET = "sqlite:///t.db"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("made") / "fleet"
    make_fleet(directory, FleetPlan(nodes=2, tokens_per_node=60, absent=0.1))
    return directory


@pytest.fixture(autouse=True)
def _place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in [n for n in os.environ if n.startswith("RUBIX_SYNC_")]:
        monkeypatch.delenv(name)


class Noting(rts.Observer):
    def __init__(self) -> None:
        self.calls: list[str] = []

    def on_start(self, options: rts.RunOptions) -> None:
        self.calls.append(f"start {options.command}")

    def on_progress(self, progress: rts.Progress) -> None:
        if self.calls[-1] != "progress":
            self.calls.append("progress")

    def on_difference(self, difference: rts.Difference) -> None:
        self.calls.append(f"difference {difference.letter}")

    def on_database(self, database: rts.DatabaseOutcome) -> None:
        self.calls.append(f"database {database.node_name} {database.records}")

    def on_end(self, result: rts.SyncResult | rts.VerifyResult) -> None:
        self.calls.append(f"end {result.exit_code}")

    def on_failure(self, error: BaseException, result: rts.RunResult | None) -> None:
        self.calls.append(f"failure {getattr(error, 'code', error)}")

    def close(self) -> None:
        self.calls.append("close")


def test_a_sync_and_who_looks_on(made: Path) -> None:
    noting = Noting()
    result = rts.sync(made, target=TARGET, source_ip="me", observers=[noting, rts.Observer()])
    assert result.ok
    assert result.counters.inserted == 120
    assert noting.calls == [
        "start sync", "progress", "database node001 60", "database node002 60", "end 0", "close",
    ]  # fmt: skip


def test_numbers_are_the_targets_also_when_nothing_was_read(made: Path) -> None:
    """Incident 25, in the library and in the report."""
    rts.sync(made, target=TARGET, source_ip="me")
    result = rts.sync(made, target=TARGET, source_ip="me")
    assert result.counters.tokens_read == 0
    assert [(d.status, d.records) for d in result.databases] == [("current", 60)] * 2
    report = rts.report_of(result)
    assert report["total_records"] == 120
    assert report["total_records_with_content"] + sum(report["missing_content"].values()) == 120


def test_verify_gives_each_difference_to_observers(made: Path) -> None:
    rts.sync(made, target=TARGET, source_ip="me")
    with closing(sqlite3.connect("t.db")) as db, db:
        db.execute("DELETE FROM TokenRecords WHERE id <= 3")
    noting = Noting()
    found = rts.verify(made, target=TARGET, source_ip="me", observers=[noting])
    assert (found.exit_code, found.differences["+"], len(found.examples)) == (5, 3, 3)
    assert noting.calls.count("difference +") == 3
    assert noting.calls[-2:] == ["end 5", "close"]
    assert [p.code for p in found.problems] == ["records_differ"]


def test_an_observer_that_fails_before_the_run_stops_it(made: Path) -> None:
    class Refusing(rts.Observer):
        def on_start(self, options: rts.RunOptions) -> None:
            raise rts.SettingsError("No.", code="no")

    noting = Noting()
    with pytest.raises(rts.SettingsError):
        rts.sync(made, target=TARGET, source_ip="me", observers=[noting, Refusing()])
    assert noting.calls == ["start sync", "close"]
    assert not Path("t.db").exists()


def test_an_observer_that_fails_at_the_end_does_not_silence_the_others(made: Path) -> None:
    class Failing(rts.Observer):
        def on_end(self, result: rts.SyncResult | rts.VerifyResult) -> None:
            raise OSError("full")

    noting = Noting()
    with pytest.raises(OSError, match="full"):
        rts.sync(made, target=TARGET, source_ip="me", observers=[Failing(), noting])
    assert "end 0" in noting.calls
    assert noting.calls[-1] == "close"


def test_a_failure_reaches_observers(made: Path) -> None:
    Path("t.db").write_bytes(b"this is not a database, but long enough to be taken for one" * 9)
    noting = Noting()
    with pytest.raises(rts.TargetError):
        rts.sync(made, target=TARGET, source_ip="me", observers=[noting])
    assert noting.calls == ["start sync", "failure damaged_target", "close"]


def test_usage_is_wrong_before_anything_is_written(made: Path) -> None:
    """Incident 27."""
    for wrong in (
        lambda: rts.sync(made, target=TARGET, source_ip="me", nodes=["nobody"]),
        lambda: rts.sync(made, target=TARGET, source_ip="me", content_ways=["gateway"]),
        lambda: rts.sync("nowhere", target=TARGET, source_ip="me"),
    ):
        with pytest.raises(rts.SettingsError):
            wrong()
    assert not Path("t.db").exists()
    rts.sync(made, target=TARGET, source_ip="me")
    with pytest.raises(rts.SettingsError):
        rts.sync(made, target=TARGET, source_ip="me", nodes=["nobody"])
    assert [run.status for run in rts.sessions(target=TARGET)] == ["COMPLETED"]


def test_records_with_filters(made: Path) -> None:
    rts.sync(made, target=TARGET, source_ip="me")
    with rts.open_target(TARGET) as target:
        everything = target.records()
        assert tuple(everything.schema.names) == rts.RECORD_COLUMNS
        assert everything.num_rows == 120
        assert pa.types.is_timestamp(everything.schema.field("synced_at").type)
        ids = everything["id"].to_pylist()
        assert ids == sorted(ids)
        assert target.records(nodes=["node001"]).num_rows == 60
        assert target.records(nodes=["node001", "node002"], limit=70).num_rows == 70
        assert target.records(sources=["somebody"]).num_rows == 0
        token = everything["token_id"][0].as_py()
        assert (
            token in target.records(token_ids=[token], columns=["token_id"])["token_id"].to_pylist()
        )
        with_content = target.records(with_content=True).num_rows
        assert 0 < with_content < 120
        assert with_content + target.records(with_content=False).num_rows == 120
        assert target.records(deleted=True).num_rows == 0
        batches = list(target.record_batches(columns=["token_id", "ipfs_fetched"]))
        assert sum(batch.num_rows for batch in batches) == 120
        with pytest.raises(rts.SettingsError, match="not a column"):
            target.records(columns=["password"])
        with pytest.raises(TypeError):
            target.records(nodes="node001")
        with pytest.raises(TypeError, match="no filter node"):
            target.records(node=["node001"])  # type: ignore[call-arg]


def test_a_target_that_is_not_there() -> None:
    with pytest.raises(rts.TargetRefused) as caught:
        rts.open_target("sqlite:///nowhere.db")
    assert caught.value.code == "target_absent"


def test_a_configuration_or_settings_not_both(made: Path) -> None:
    configuration = rts.configure(made, target=TARGET, source_ip="me")
    assert rts.sync(configuration=configuration).ok
    with pytest.raises(TypeError):
        rts.sync(configuration=configuration, target="sqlite:///other.db")
    assert rts.status(target=TARGET).ok
    assert {row.state for row in rts.databases(target=TARGET)} == {"current"}
    assert rts.failures(target=TARGET).content
