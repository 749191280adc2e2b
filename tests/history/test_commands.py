"""`history`, `changes` and `--as-of`: what they print, their exit codes, their contracts."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from rubix_token_sync import log
from rubix_token_sync.cli import _run
from rubix_token_sync.targets.base import TargetOptions
from rubix_token_sync.targets.registry import open_target, parse_target

from .fleet_made import Source

HOSTILE = "Qm\x1b[2J\nx"


@dataclass
class Fleet:
    source: Source
    runs: list[int]
    token: str


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Fleet, str]]:
    """Three runs: two tokens; one transferred and a third; one gone."""
    address = f"sqlite:///{tmp_path_factory.mktemp('commands')}/target.db"
    store = open_target(parse_target(address), TargetOptions())
    store.ensure_schema()
    source = Source(store, "10.0.0.4", tokens={1: {}, 2: {}})
    runs = [source.run()]
    runs.append(source.run(lambda: source.tokens.update({1: {"did": HOSTILE}, 3: {}})))
    runs.append(source.run(lambda: source.tokens.pop(2)))
    yield Fleet(source, runs, next(iter(source.said(runs[0])))), address
    store.close()


Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(
    fleet: tuple[Fleet, str], tmp_path: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Run]:  # fmt: skip
    """Calls the program on the target: exit code, stdout, stderr."""
    for name in list(os.environ):
        if name.startswith("RUBIX_SYNC_"):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)

    def call(*arguments: Any) -> tuple[int, str, str]:
        capsys.readouterr()
        code = _run([*map(str, arguments), "--target", fleet[1]])
        ended = capsys.readouterr()
        assert "\x1b" not in ended.out + ended.err
        assert "Traceback" not in ended.err
        return code, ended.out, ended.err

    yield call
    log.tear_down()


@pytest.fixture
def made(fleet: tuple[Fleet, str]) -> Fleet:
    return fleet[0]


def test_changes_for_people(run: Run, made: Fleet) -> None:
    code, out, _ = run("changes", "--since", made.runs[0])
    assert code == 0
    assert "3 changes." in out
    assert "Qm\\x1b[2J\\nx" in out
    assert f"changes --since {made.runs[2]}" in out
    code, out, _ = run("changes", "--since", made.runs[2])
    assert (code, "Nothing has changed." in out) == (0, True)


def test_changes_as_a_document(run: Run, made: Fleet) -> None:
    code, out, _ = run("changes", "--since", made.runs[0], "--json")
    document = json.loads(out)
    assert code == 0
    assert document.keys() == {"server_time", "target", "since", "cursor", "nodes", "changes"}
    assert (document["since"], document["cursor"]) == (str(made.runs[0]), str(made.runs[2]))
    (node,) = document["nodes"]
    assert node.keys() == {
        "source_ip", "node_name", "run", "at", "new", "changed", "vanished", "returned", "columns",
    }  # fmt: skip
    assert (node["new"], node["changed"], node["vanished"]) == (1, 1, 1)
    assert node["columns"] == {"did": 1}
    assert document["changes"][0].keys() == {
        "run", "at", "what", "source_ip", "node_name", "db_path", "token_id", "token_kind",
        "columns", "old", "new",
    }  # fmt: skip
    whats = {change["what"]: change for change in document["changes"]}
    assert set(whats) == {"new", "changed", "vanished"}
    assert whats["changed"]["new"] == {"did": HOSTILE}
    assert len(json.loads(run("changes", "--json", "--limit", 1)[1])["changes"]) == 1


def test_changes_as_a_feed(run: Run, made: Fleet) -> None:
    lines = [json.loads(line) for line in run("changes", "--since", 0, "--jsonl")[1].splitlines()]
    assert [line.get("cursor") or line["run"] for line in lines] == [
        made.runs[0], made.runs[0], str(made.runs[0]),
        made.runs[1], made.runs[1], str(made.runs[1]),
        made.runs[2], str(made.runs[2]),
    ]  # fmt: skip
    again = run("changes", "--since", lines[-1]["cursor"], "--jsonl")[1]
    assert json.loads(again) == {"type": "cursor", "cursor": str(made.runs[2])}


def test_the_history_of_a_token(run: Run, made: Fleet) -> None:
    code, out, _ = run("history", made.token)
    assert code == 0
    assert f"run {made.runs[0]}" in out
    assert "changed then: did" in out
    document = json.loads(run("history", made.token, "--json")[1])
    assert document.keys() == {"server_time", "target", "token_id", "versions"}
    assert document["versions"][0].keys() == {
        "source_ip", "node_name", "db_path", "token_id", "token_kind", "since_run", "since",
        "until_run", "until", "changed", "gone", "values",
    }  # fmt: skip
    assert [one["changed"] for one in document["versions"]] == [["did"], []]


def test_the_history_of_a_node(run: Run, made: Fleet) -> None:
    for option in (("--node", "node001"), ("--database", made.source.path)):
        document = json.loads(run("history", *option, "--json")[1])
        assert document.keys() == {"server_time", "target", "since", "runs"}
        assert [(one["run"], one["new"], one["changed"]) for one in document["runs"]] == [
            (made.runs[0], 2, 0),
            (made.runs[1], 1, 1),
            (made.runs[2], 0, 0),
        ]
    code, out, _ = run("history", "--node", "node001")
    assert (code, "Vanished" in out) == (0, True)


def test_as_of(run: Run, made: Fleet) -> None:
    token = json.loads(run("token", made.token, "--as-of", made.runs[0], "--json")[1])
    now = json.loads(run("token", made.token, "--json")[1])
    assert now["holders"][0]["did"] == HOSTILE != token["holders"][0]["did"]
    assert token["content"] == now["content"] is not None
    counts = [
        json.loads(run("databases", "--as-of", number, "--json")[1])["databases"][0]["record_count"]
        for number in made.runs
    ]
    assert counts == [2, 3, 2]
    code, out, _ = run("databases", "--as-of", made.runs[1])
    assert (code, "1 database, 3 records then." in out) == (0, True)


def test_exports_of_the_past(run: Run, made: Fleet) -> None:
    for number, tokens in zip(made.runs, ({1, 2}, {1, 2, 3}, {1, 3}), strict=True):
        code, out, _ = run(
            "export", "records", "--as-of", number, "--to", f"{number}.jsonl", "--json"
        )
        assert (code, json.loads(out)["rows"]) == (0, len(tokens))
    rows = [json.loads(line) for line in Path(f"{made.runs[0]}.jsonl").read_text().splitlines()]
    assert {row["token_id"] for row in rows} == set(made.source.said(made.runs[0]))
    assert HOSTILE not in {row["did"] for row in rows}
    assert all(row["ipfs_data"] for row in rows), "content is what it always was"
    run("export", "history", "--to", "history.jsonl")
    versions = [json.loads(line) for line in Path("history.jsonl").read_text().splitlines()]
    first, second, third = made.runs
    assert sorted(
        (row["since_run"], row["ended_run"] or 0, row["changed"], bool(row["source_deleted_at"]))
        for row in versions
    ) == [
        (first, second, "did", False),
        (first, third, "source_deleted_at", False),
        (second, 0, None, False),
        (second, 0, None, False),
        (third, 0, None, True),
    ]
    code, _, err = run("export", "pledges", "--as-of", "1", "--to", "p.jsonl")
    assert (code, "export_filter" in err) == (2, True)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("history",), "Usage"),
        (("history", "show"), "Give TOKEN, --node, --database or --source."),
        (("history", "show", "x", "--database", "y"), "--database goes without TOKEN."),
        (("history", "QmNobody"), "no_such_token"),
        (("history", "prune"), "--older-than"),
        (("changes", "--since", "soon"), "not_a_moment"),
        (("changes", "--since", "999999"), "no_such_run"),
        (("changes", "--column", "owner"), "unknown_column"),
        (("changes", "--json", "--jsonl"), "not both"),
        (("databases", "--as-of", "1", "--failed"), "--as-of goes with"),
        (("token", "x", "--as-of", "soon"), "not_a_moment"),
    ],
)
def test_what_it_refuses(run: Run, arguments: tuple[str, ...], said: str) -> None:
    code, out, err = run(*arguments)
    assert code == (2 if arguments != ("history",) else code)
    assert said in out + err


def test_pruning(run: Run, made: Fleet) -> None:
    """The last one: what it removes, the others need."""
    assert json.loads(run("history", "prune", "--older-than", "1d", "--json")[1]) == {
        "runs": 0, "versions": 0, "kept": 0,
    }  # fmt: skip
    code, out, _ = run("history", "prune", "--older-than", "0s")
    assert (code, "2 versions of" in out) == (0, True)
    code, _, err = run("changes", "--since", made.runs[0])
    assert (code, "history_pruned" in err) == (2, True)
