"""Whole runs in this process: how they end, what they leave, what they count."""

from __future__ import annotations

import shutil
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from rubix_token_sync.errors import (
    LeaseHeld,
    LeaseLost,
    SettingsError,
    TargetUnavailable,
    WorkerCrashed,
)
from rubix_token_sync.nodes.discovery import Discovery
from rubix_token_sync.reports.report import build_report
from rubix_token_sync.runs.cancel import CancelToken
from rubix_token_sync.runs.dry_run import dry_run
from rubix_token_sync.runs.progress import Progress
from rubix_token_sync.runs.result import RunOptions, RunResult
from rubix_token_sync.runs.survey import Survey
from rubix_token_sync.runs.sync import Run, sync
from rubix_token_sync.targets.base import Lease
from rubix_token_sync.targets.registry import open_target
from rubix_token_sync.testing import change_status, delete_tokens
from tests.targets.parts import part_with

Options = Callable[..., RunOptions]


def _rows(target: Path, query: str) -> list[tuple[Any, ...]]:
    with closing(sqlite3.connect(target)) as db:
        return db.execute(query).fetchall()


def _databases(fleet: Path) -> list[str]:
    return sorted(str(path) for path in fleet.glob("*/Rubix/rubix.db"))


def _sessions(target: Path) -> list[str]:
    return [row[0] for row in _rows(target, "SELECT status FROM SyncSessions ORDER BY start_time")]


def _at_rest(target: Path) -> None:
    """Nothing of a run is left but its results: one file, no lease, nothing RUNNING."""
    assert _rows(target, "SELECT * FROM SyncLeases") == []
    assert "RUNNING" not in _sessions(target)
    assert [path.name for path in target.parent.iterdir()] == [target.name]


@pytest.fixture
def _target_at_rest(target_file: Path) -> Iterator[None]:
    yield
    _at_rest(target_file)


pytestmark = pytest.mark.usefixtures("_target_at_rest")


# ---------------------------------------------------------------- counts


@pytest.mark.parametrize("processes", [0, 2])
def test_report_and_target_agree(options: Options, target_file: Path, processes: int) -> None:
    outcome = sync(options(processes=processes))
    report = build_report(outcome)
    assert (outcome.status, outcome.exit_code) == ("COMPLETED", 0)
    (row,) = _rows(
        target_file,
        "SELECT count(*), sum(ipfs_fetched), count(*) - sum(ipfs_fetched),"
        " count(validation_errors) FROM TokenRecords WHERE source_deleted_at IS NULL",
    )
    told = ("total_records_processed", "total_ipfs_success", "total_ipfs_failures",
            "total_validation_errors")  # fmt: skip
    assert row == tuple(report[name] for name in told)
    assert report["tokens_read"] == report["records_inserted"] == row[0] == 240
    (session,) = _rows(
        target_file,
        "SELECT total_databases_found, total_databases_processed, total_records_processed,"
        " total_ipfs_success, total_ipfs_failures, total_sql_inserts, progress_percent"
        " FROM SyncSessions",
    )
    assert session == (3, 3, 240, row[1], row[2], 240, 100.0)


def test_a_changed_fleet_is_what_a_dry_run_said(options: Options, small_fleet: Path) -> None:
    sync(options())
    first, second, third = _databases(small_fleet)
    change_status(first, 0.1)
    delete_tokens(second, 0.05)
    shutil.rmtree(Path(third).parents[1])
    told = dry_run(options(dry_run=True))
    did = sync(options())
    assert _told(told) == _told(did)
    assert (did.counters.updated, did.counters.vanished, did.counters.inserted) == (8, 4, 0)
    assert (told.exit_code, did.exit_code) == (1, 1)  # the third is gone


def _told(outcome: RunResult) -> dict[str, Any]:
    """What a dry run and the sync after it must agree on."""
    report = build_report(outcome)
    names = (
        "total_databases_found", "total_databases_processed", "total_databases_unchanged",
        "total_databases_failed", "total_records_processed", "tokens_read", "records_inserted",
        "records_updated", "records_vanished", "exit_code",
    )  # fmt: skip
    databases = [
        {name: d[name] for name in ("db_path", "status", "reason", "records", "inserted",
                                    "updated", "vanished")}
        for d in report["databases"]
    ]  # fmt: skip
    return {name: report[name] for name in names} | {"databases": databases}


def test_a_first_dry_run_says_what_the_first_sync_does(options: Options, target_file: Path) -> None:
    told = dry_run(options(dry_run=True))
    assert list(target_file.parent.iterdir()) == []
    did = sync(options())
    assert _told(told) == _told(did)
    for name in ("ipfs_success", "ipfs_failures", "validation_errors", "content_failures"):
        assert getattr(told.counters, name) == getattr(did.counters, name)


def test_a_dry_run_writes_nothing(options: Options, small_fleet: Path, target_file: Path) -> None:
    sync(options())
    change_status(_databases(small_fleet)[0], 0.5)
    before = _files(target_file.parent) | _tree(small_fleet)
    assert dry_run(options(dry_run=True)).counters.updated == 40
    assert dry_run(options(dry_run=True, processes=1)).counters.updated == 40
    assert _files(target_file.parent) | _tree(small_fleet) == before


def _files(directory: Path) -> dict[str, tuple[int, bytes]]:
    """Without the directory itself, in which SQLite puts a lock file for a moment."""
    return {path: state for path, state in _tree(directory).items() if path != str(directory)}


def _tree(directory: Path) -> dict[str, tuple[int, bytes]]:
    return {
        str(path): (path.stat().st_mtime_ns, path.read_bytes() if path.is_file() else b"")
        for path in [directory, *directory.rglob("*")]
    }


def test_rejected_records_of_repeated_ids_are_accounted_for(
    options: Options, target_file: Path, tmp_path: Path
) -> None:
    path = tmp_path / "fleet/old/Rubix/rubix.db"
    path.parent.mkdir(parents=True)
    with closing(sqlite3.connect(path)) as db, db:
        db.execute("CREATE TABLE TokensTable (token_id, did)")
        db.executemany("INSERT INTO TokensTable VALUES (?, 'd')", [("a",), ("a",), ("b",)])
    outcome = sync(options(nodes=frozenset({"old"})))
    (database,) = (d for d in outcome.databases if d.node_name == "old")
    assert (database.records, outcome.exit_code) == (2, 0)
    assert _rows(target_file, "SELECT record_count, rejected_count FROM ProcessedDatabases") == [
        (2, 1)
    ]
    assert _rows(
        target_file, "SELECT code, occurrences FROM SyncErrors WHERE code LIKE 'dup%'"
    ) == [("duplicate_token_id", 1)]


# ---------------------------------------------------------------- which databases


def test_only_the_named_nodes_and_their_missing(options: Options, small_fleet: Path) -> None:
    sync(options())
    shutil.rmtree(small_fleet / "node001")
    change_status(_databases(small_fleet)[0])
    outcome = sync(options(nodes=frozenset({"node003"})))
    assert [(d.node_name, d.status) for d in outcome.databases] == [("node003", "current")]
    outcome = sync(options(nodes=frozenset({"node001"})))
    assert [(d.node_name, d.status) for d in outcome.databases] == [("node001", "missing")]
    assert outcome.exit_code == 1


def test_a_node_that_nobody_knows_is_an_error(options: Options, target_file: Path) -> None:
    sync(options())
    with pytest.raises(SettingsError) as raised:
        sync(options(nodes=frozenset({"node001", "nod3"})))
    assert raised.value.code == "no_such_node"
    assert raised.value.context == {"nodes": ["nod3"]}
    assert _sessions(target_file) == ["COMPLETED", "FAILED"]


@pytest.mark.parametrize("form", ["{}/", "{}/./", "{}/../fleet", "relative"])
def test_the_same_root_in_other_words(
    options: Options, small_fleet: Path, monkeypatch: pytest.MonkeyPatch, form: str
) -> None:
    sync(options())
    monkeypatch.chdir(small_fleet.parent)
    root = "fleet" if form == "relative" else form.format(small_fleet)
    again = sync(options(roots=(root, root)))
    assert {d.status for d in again.databases} == {"current"}
    assert again.exit_code == 0


def test_a_gone_database_is_retired_only_when_asked(
    options: Options, small_fleet: Path, target_file: Path
) -> None:
    sync(options())
    shutil.rmtree(small_fleet / "node002")
    left = sync(options())
    assert [d.status for d in left.databases] == ["current", "missing", "current"]
    assert (left.exit_code, left.counters.vanished) == (1, 0)
    retired = sync(options(max_shrink=None))
    assert (retired.exit_code, retired.counters.vanished) == (0, 80)
    assert [d.status for d in retired.databases] == ["current", "retired", "current"]
    live = "SELECT count(*) FROM TokenRecords WHERE source_deleted_at IS NULL"
    assert _rows(target_file, live) == [(160,)]
    assert sync(options()).exit_code == 0  # and forgotten


def test_what_cannot_be_looked_into_is_not_gone(
    options: Options, small_fleet: Path, target_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sync(options())
    # As root may read everything, what looks like a repository is not entered.
    (small_fleet / "node002" / "datastore_spec").touch()
    outcome = sync(options(max_shrink=None))
    assert [(d.status, d.reason) for d in outcome.databases] == [
        ("current", ""), ("failed", "not_discovered"), ("current", ""),
    ]  # fmt: skip
    assert (outcome.exit_code, outcome.counters.vanished) == (1, 0)


def test_an_empty_place_is_told(
    options: Options, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "empty").mkdir()
    outcome = sync(options(roots=(str(tmp_path / "empty"),)))
    assert outcome.exit_code == 0
    assert f"No node database was found below {tmp_path / 'empty'}." in caplog.text


def test_retry_failed_reads_only_databases_with_failed_content(
    options: Options, small_fleet: Path, target_file: Path, tmp_path: Path
) -> None:
    blocks = small_fleet / "node001/.ipfs/blocks"
    for number in (2, 3):
        add = small_fleet / f"node00{number}/.ipfs/blocks"
        shutil.rmtree(add)
        shutil.copytree(blocks, add)
    blocks.rename(tmp_path / "aside")
    sync(options())
    failed = _failed(target_file)
    (tmp_path / "aside").rename(blocks)
    shutil.copytree(small_fleet / "node001", small_fleet / "node009")  # never synced
    retry = options(command="retry-failed", only_failed=True)
    outcome = sync(retry)
    assert [(d.node_name, d.reason) for d in outcome.databases] == [
        (f"node00{n}", "failed content") for n in (1, 2, 3)
    ]
    assert outcome.counters.inserted == 0
    assert 0 < failed - _failed(target_file) <= outcome.counters.updated
    assert outcome.counters.databases_found == 3


def _failed(target: Path) -> int:
    return int(_rows(target, "SELECT count(*) FROM TokenRecords WHERE NOT ipfs_fetched")[0][0])


# ---------------------------------------------------------------- stopped by a signal


class StopAfter:
    """A progress listener that asks for the stop at its n-th call."""

    def __init__(self, calls: int) -> None:
        self.stop = CancelToken()
        self.left = calls

    def __call__(self, _progress: Progress) -> None:
        self.left -= 1
        if self.left == 0:
            self.stop.give(15)


@pytest.mark.parametrize("processes", [0, 2])
@pytest.mark.parametrize("calls", [1, 4])
def test_a_signal_under_way_leaves_an_interrupted_session(
    options: Options, target_file: Path, calls: int, processes: int
) -> None:
    listener = StopAfter(calls)
    outcome = sync(options(processes=processes), on_progress=listener, stop=listener.stop)
    assert (outcome.status, outcome.exit_code) == ("INTERRUPTED", 143)
    assert _sessions(target_file) == ["INTERRUPTED"]
    (summary,) = _rows(target_file, "SELECT error_summary FROM SyncSessions")[0]
    assert summary.startswith("Stopped by a signal; ")
    assert {d.status for d in outcome.databases} & {"pending"}
    report = build_report(outcome)
    assert (report["status"], report["exit_code"]) == ("INTERRUPTED", 143)
    again = sync(options())
    assert again.exit_code == 0
    assert _rows(target_file, "SELECT count(*) FROM TokenRecords") == [(240,)]


def _give_at(monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, stop: CancelToken) -> None:
    original = getattr(owner, name)

    def give(*args: Any, **kwargs: Any) -> Any:
        stop.give(2)
        return original(*args, **kwargs)

    monkeypatch.setattr(owner, name, give)


@pytest.mark.parametrize(
    "name",
    ["start_session", "database_states", "prepare_load", "publish"],
)
def test_a_signal_in_the_middle_of_the_store_tears_nothing(
    options: Options, target_file: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    stop = CancelToken()
    _give_at(monkeypatch, part_with(name), name, stop)
    outcome = sync(options(), stop=stop)
    assert (outcome.status, outcome.exit_code) == ("INTERRUPTED", 130)
    assert _sessions(target_file) == ["INTERRUPTED"]


@pytest.mark.parametrize("name", ["finish_load", "note_seen", "record_errors", "finish_session"])
def test_a_signal_after_the_last_record_finds_the_run_complete(
    options: Options, target_file: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    stop = CancelToken()
    _give_at(monkeypatch, part_with(name), name, stop)
    assert sync(options(), stop=stop).exit_code == 0
    assert _sessions(target_file) == ["COMPLETED"]


def test_a_signal_breaks_off_a_long_discovery(
    options: Options, target_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def long(_roots: Any) -> Discovery:
        stop.give(2)
        pytest.fail("went on looking")

    monkeypatch.setattr("rubix_token_sync.runs.survey.discover", long)
    stop = CancelToken()
    assert sync(options(), stop=stop).exit_code == 130
    assert _sessions(target_file) == ["INTERRUPTED"]


# ---------------------------------------------------------------- dry runs


def test_a_signal_ends_a_dry_run(options: Options, monkeypatch: pytest.MonkeyPatch) -> None:
    sync(options())
    stop = CancelToken()
    _give_at(monkeypatch, Survey, "tick", stop)
    outcome = dry_run(options(dry_run=True, force=True), stop=stop)
    assert (outcome.status, outcome.exit_code) == ("INTERRUPTED", 130)


# ---------------------------------------------------------------- ended by an error


def _break(monkeypatch: pytest.MonkeyPatch, name: str, error: Exception, nth: int = 1) -> None:
    part = part_with(name)
    original = getattr(part, name)
    left = [nth]

    def fail(*args: Any, **kwargs: Any) -> Any:
        left[0] -= 1
        if left[0] == 0:
            raise error
        return original(*args, **kwargs)

    monkeypatch.setattr(part, name, fail)


@pytest.mark.parametrize(
    ("name", "nth"),
    [("database_states", 1), ("publish", 1), ("publish", 4), ("note_seen", 1)],
)
def test_a_target_that_fails_ends_the_run_with_that_error(
    options: Options, target_file: Path, small_fleet: Path, monkeypatch: pytest.MonkeyPatch,
    name: str, nth: int,
) -> None:  # fmt: skip
    broken = small_fleet / "broken/Rubix/rubix.db"
    broken.parent.mkdir(parents=True)
    broken.write_bytes(b"")
    gone = TargetUnavailable("The server is gone.", code="gone")
    with monkeypatch.context() as patch:
        _break(patch, name, gone, nth)
        with pytest.raises(TargetUnavailable) as raised:
            sync(options())
    assert raised.value is gone
    assert _sessions(target_file) == ["FAILED"]
    (summary,) = _rows(target_file, "SELECT error_summary FROM SyncSessions")[0]
    assert summary.startswith("The server is gone")
    # What was wrong with sources until then is told, once.
    told = _rows(target_file, "SELECT count(*) FROM SyncErrors WHERE code = 'empty_file'")
    assert told == [(0 if name == "database_states" else 1,)]
    assert sync(options()).counters.databases_failed == 1


def test_a_bug_leaves_a_failed_session_too(
    options: Options, target_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        _break(patch, "note_seen", ZeroDivisionError("oops"))
        with pytest.raises(ZeroDivisionError):
            sync(options())
    assert _sessions(target_file) == ["FAILED"]
    assert "ZeroDivisionError" in _rows(target_file, "SELECT error_summary FROM SyncSessions")[0][0]


def test_a_lost_lease_ends_the_run(
    options: Options, target_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        _break(patch, "publish", LeaseLost("lost", code="lease_lost"), 2)
        with pytest.raises(LeaseLost):
            sync(options())
    assert _sessions(target_file) == ["FAILED"]


def test_a_crash_in_a_worker_ends_the_run(
    options: Options, target_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def crash(*_args: Any) -> None:
        raise ZeroDivisionError("oops")

    with monkeypatch.context() as patch:
        patch.setattr("rubix_token_sync.runs.worker._finished", crash)
        with pytest.raises(WorkerCrashed, match="ZeroDivisionError: oops"):
            sync(options())
    assert _sessions(target_file) == ["FAILED"]


def test_a_second_run_for_the_same_source_is_kept_out(options: Options, target_file: Path) -> None:
    sync(options())
    store = open_target(options().target, options().store)
    other = Lease("10.0.0.4", "00000000-0000-0000-0000-000000000001")
    try:
        store.acquire_lease(other, "elsewhere|boot|1|1")
        with pytest.raises(LeaseHeld, match="elsewhere"):
            sync(options())
        sync(options(source="10.0.0.5"))  # another source is no matter
        store.release_lease(other)
    finally:
        store.close()
    assert _sessions(target_file) == ["COMPLETED", "COMPLETED"]


# ---------------------------------------------------------------- settings that act


def test_batch_sizes_act(options: Options, target_file: Path) -> None:
    few = sync(options())
    assert few.counters.bulk_loads == 0  # the embedded store has one way only
    store = options().store
    target_file.unlink()
    many = sync(options(store=replace(store, bulk_insert_size=10, batch_size=5)))
    assert many.counters.batches > few.counters.batches
    assert many.counters.inserted == few.counters.inserted


@pytest.mark.parametrize(
    ("cpus", "workers", "jobs", "size", "answer", "processes"),
    [
        (8, 3, 100, 10**9, 0.0001, 3),
        (2, 8, 100, 10**9, 0.0001, 2),
        (2, 8, 100, 10**9, 0.02, 4),
        (2, 3, 100, 10**9, 0.02, 3),
        (8, 16, 100, 10**9, 0.02, 9),
        (8, 8, 1, 10**9, 0.02, 1),
        (8, 8, 100, 1_999_999, 0.02, 0),
    ],
)
def test_processes_follow_processors_workers_work_and_distance(
    options: Options, monkeypatch: pytest.MonkeyPatch, cpus: int, workers: int, jobs: int,
    size: int, answer: float, processes: int,
) -> None:  # fmt: skip
    sync(options())
    monkeypatch.setattr("rubix_token_sync.settings.usable_cpus", lambda: cpus)
    wanted = options(processes=None)
    run = Run(replace(wanted, content=replace(wanted.content, workers=workers)), lambda _p: None)
    run.progress.begin({0: size})
    with closing(open_target(wanted.target, wanted.store)) as store:
        monkeypatch.setattr(store, "answer_seconds", lambda: answer)
        assert run._processes(jobs, store, publishes=True) == processes


def test_hosts_that_share_a_source_have_one_worker_for_each_processor(
    options: Options, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However far the target is, or seems to be where its server is busy."""
    sync(options())
    monkeypatch.setattr("rubix_token_sync.settings.usable_cpus", lambda: 2)
    given = options(processes=None)
    run = Run(replace(given, content=replace(given.content, workers=8)), lambda _p: None)
    run.progress.begin({0: 10**9})
    with closing(open_target(given.target, given.store)) as store:
        monkeypatch.setattr(store, "answer_seconds", lambda: 0.02)
        assert run._processes(100, store, publishes=True, shared=True) == 2
        assert run._processes(100, store, publishes=True) == 4


@pytest.mark.parametrize(
    ("pool_size", "publishing", "reading"), [(10, 4, 8), (5, 1, 4), (3, 1, 2), (2, 1, 1)]
)
def test_each_worker_has_the_connections_that_a_bulk_copy_needs(
    options: Options, monkeypatch: pytest.MonkeyPatch, pool_size: int, publishing: int, reading: int
) -> None:
    """SQL Server's logs in by itself; without a second connection rows would go by parameters."""
    sync(options())
    monkeypatch.setattr("rubix_token_sync.settings.usable_cpus", lambda: 8)
    given = options(processes=None)
    content, store_options = (
        replace(given.content, workers=16),
        replace(given.store, pool_size=pool_size),
    )
    run = Run(replace(given, content=content, store=store_options), lambda _p: None)
    run.progress.begin({0: 10**9})
    with closing(open_target(given.target, given.store)) as store:
        store.bulk_differs = True
        assert run._processes(100, store, publishes=True) == publishing
        assert run._processes(100, store, publishes=False) == reading
    assert pool_size < 4 or run._connections(publishing) > 1


def test_the_shortest_answer_says_how_far_a_target_is(
    options: Options, monkeypatch: pytest.MonkeyPatch
) -> None:
    sync(options())
    waits = iter([0.3, 0.1, 0.3])
    with closing(open_target(options().target, options().store)) as store:
        monkeypatch.setattr(store, "server_time", lambda: time.sleep(next(waits)))
        assert 0.1 <= store.answer_seconds() < 0.3


def test_new_tokens_come_with_the_next_run(options: Options) -> None:
    assert sync(options()).counters.inserted == 240
    assert sync(options()).counters.tokens_read == 0
    assert sync(options(force=True)).counters.tokens_read == 240


def test_absent_content_is_asked_for_again_in_vain_without_writing(
    options: Options, small_fleet: Path, target_file: Path
) -> None:
    sync(options())
    absent = _failed(target_file)
    assert absent > 0
    before = _rows(target_file, "SELECT token_id, synced_at FROM TokenRecords")
    now = options(recheck=timedelta(0))
    told = dry_run(replace(now, dry_run=True))
    did = sync(now)
    assert _told(told) == _told(did)
    assert {d.reason for d in did.databases} == {"content may have come"}
    assert did.counters.content_failures.total() == absent
    assert did.counters.updated == 0
    assert _rows(target_file, "SELECT token_id, synced_at FROM TokenRecords") == before
    # One of them changes meanwhile: that is written, though its content still fails.
    path = _databases(small_fleet)[0]
    (token,) = _rows(
        target_file,
        f"SELECT token_id FROM TokenRecords WHERE NOT ipfs_fetched AND db_path = '{path}'",
    )[0]
    with closing(sqlite3.connect(path)) as db, db:
        db.execute("UPDATE TokensTable SET token_status = 16 WHERE token_id = ?", (token,))
    told = dry_run(replace(now, dry_run=True))
    did = sync(now)
    assert told.counters.updated == did.counters.updated == 1
    written = "SELECT token_id FROM TokenRecords WHERE token_status = '16'"
    assert _rows(target_file, written) == [(token,)]
