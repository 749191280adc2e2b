"""Settings through the door: which layer wins, and that each of the guide's does something."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from rubix_token_sync.runs import sync as sync_run
from rubix_token_sync.runs.result import RunOptions
from tests.cli.conftest import Run

TARGET = ("--target", "sqlite:///t.db", "--source-ip", "10.0.0.4")


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch, run: Run) -> Any:
    """What a run is told when the program is called so; the run itself is real."""
    seen: list[RunOptions] = []
    original = sync_run.Run.__init__

    def note(self: sync_run.Run, options: RunOptions, *rest: Any) -> None:
        seen.append(options)
        original(self, options, *rest)

    monkeypatch.setattr(sync_run.Run, "__init__", note)

    def call(*arguments: object) -> RunOptions:
        ended = run("sync", *arguments, *TARGET, "-q")
        assert ended.code == 0, ended.err
        return seen[-1]

    return call


def test_flag_environment_file_profile_default(
    told: Any, nodes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = Path("settings.toml")
    config.write_text("batch_size = 300\nbulk_insert_size = 3000\nretry_attempts = 3\n")
    assert told(nodes).store.batch_size == 2000
    profile = told(nodes, "--profile", "high-performance")
    assert (profile.store.batch_size, profile.store.bulk_insert_size) == (5000, 20_000)
    small = told(nodes, "--profile", "resource-constrained")
    assert (small.store.batch_size, small.store.bulk_insert_size) == (1000, 5000)
    assert small.content.workers < profile.content.workers
    assert small.store.pool_size < profile.store.pool_size
    file = told(nodes, "--profile", "high-performance", "--config", config)
    assert (file.store.batch_size, file.store.pool_size) == (300, 15)
    monkeypatch.setenv("BATCH_SIZE", "400")
    assert told(nodes, "--config", config).store.batch_size == 400
    monkeypatch.setenv("RUBIX_SYNC_BATCH_SIZE", "450")
    assert told(nodes, "--config", config).store.batch_size == 450
    flag = told(nodes, "--config", config, "--batch-size", 500)
    assert (flag.store.batch_size, flag.store.bulk_insert_size) == (500, 3000)


@pytest.mark.parametrize(
    ("variable", "value", "read"),
    [
        ("NUM_IPFS_WORKERS", "3", lambda o: o.content.workers),
        ("IPFS_TIMEOUT", "7", lambda o: int(o.content.timeout_s)),
        ("BATCH_SIZE", "70", lambda o: o.store.batch_size),
        ("BULK_INSERT_SIZE", "71", lambda o: o.store.bulk_insert_size),
        ("CONNECTION_POOL_SIZE", "4", lambda o: o.store.pool_size),
        ("RETRY_ATTEMPTS", "5", lambda o: o.store.attempts),
    ],
)
def test_each_of_the_guides_settings_arrives(
    told: Any, nodes: Path, monkeypatch: pytest.MonkeyPatch, variable: str, value: str, read: Any
) -> None:
    monkeypatch.setenv(variable, value)
    assert read(told(nodes)) == int(value)
    monkeypatch.delenv(variable)
    flag = f"--{variable.lower().replace('_', '-')}"
    assert read(told(nodes, flag, value)) == int(value)


def test_sizes_act_on_what_is_done(run: Run, nodes: Path) -> None:
    def batches(name: str, *more: object) -> int:
        target = ("--target", f"sqlite:///{name}.db")
        document = run("sync", nodes, *target, "--json", *more).document
        assert document["records_inserted"] == 120
        return int(document["sql_batches"])

    # 60 records and 100 DIDs a node: with chunks of 10, sixteen a node and one for the mark.
    assert batches("large") == 4
    assert batches("small", "--batch-size", 10, "--bulk-insert-size", 10) >= 32


def test_roots_from_the_file_and_the_current_directory(
    run: Run, nodes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("s.toml").write_text(f"roots = [{json.dumps(str(nodes / 'node001'))}]\n")
    found = run("discover", "--config", "s.toml", "--json").document
    assert found["roots"] == [str(nodes / "node001")]
    assert [n["name"] for n in found["nodes"]] == ["node001"]
    assert run("discover", nodes, "--config", "s.toml", "--json").document["roots"] == [str(nodes)]
    monkeypatch.chdir(nodes)
    assert len(run("discover", "--json").document["nodes"]) == 2


def test_a_mistyped_variable_is_told(
    run: Run, nodes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RUBIX_SYNC_BATCHSIZE", "10")
    assert "Did you mean RUBIX_SYNC_BATCH_SIZE?" in run("sync", nodes, *TARGET).err


def test_a_target_file_is_used_and_a_flag_is_stronger(run: Run, nodes: Path) -> None:
    file = Path("target.txt")
    file.write_text("sqlite:///from_file.db\n")
    file.chmod(0o600)
    assert run("sync", nodes, "--target-file", file).code == 0
    assert Path("from_file.db").exists()
    Path("s.toml").write_text('target_file = "target.txt"\n')
    assert run("sync", nodes, "--config", "s.toml", "--target", "sqlite:///flag.db").code == 0
    assert Path("flag.db").exists()
    file.chmod(0o644)
    run("sync", nodes, "--target-file", file, "--json").error(2, "target_file_insecure")
    assert run("sync", nodes, "--target-file", file, "--allow-insecure-target-file").code == 0


def test_the_guides_connection_file_is_found_and_told(run: Run, nodes: Path) -> None:
    Path("azure_sql_connection.txt").write_text("sqlite:///found.db")
    Path("azure_sql_connection.txt").chmod(0o600)
    ended = run("sync", nodes)
    assert ended.code == 0
    assert "connection file ./azure_sql_connection.txt says (current directory)" in ended.err
    assert Path("found.db").exists()
