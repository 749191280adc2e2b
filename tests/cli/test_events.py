"""`--events`: each line is one that the schema describes, the last one says how it ended."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from importlib.resources import files
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from rubix_token_sync.cli import output
from tests.cli.conftest import Ended, Run

SCHEMA = json.loads(
    files("rubix_token_sync.reports").joinpath("events.schema.json").read_text("utf-8")
)
KEYS = {event["title"]: event["properties"].keys() for event in SCHEMA["oneOf"]}
TARGET = ("--target", "sqlite:///t.db", "--source-ip", "vm1")


def events(ended: Ended) -> list[dict[str, Any]]:
    """Its lines, each of which the schema allows, with all keys and no others."""
    lines = [json.loads(line) for line in ended.out.splitlines()]
    for line in lines:
        jsonschema.validate(line, SCHEMA, format_checker=jsonschema.FormatChecker())
        assert line.keys() == KEYS[line["event"]]
    times = [line["time"] for line in lines]
    assert times == sorted(times)
    assert lines[-1]["event"] == "ended"
    assert (lines[-1]["exit_code"], lines[-1]["ok"]) == (ended.code, ended.code == 0)
    return lines


def of(lines: list[dict[str, Any]], event: str) -> list[dict[str, Any]]:
    return [line for line in lines if line["event"] == event]


def test_a_sync_a_verify_and_an_audit(run: Run, nodes: Path) -> None:
    lines = events(run("sync", nodes, *TARGET, "--events"))
    assert [lines[0]["event"], lines[0]["command"]] == ["started", "sync"]
    assert [row["status"] for row in of(lines, "database")] == ["processed", "processed"]
    assert of(lines, "progress"), "at least once"
    assert lines[-1]["numbers"]["inserted"] == 120
    assert Path(lines[-1]["report_file"]).exists()

    with closing(sqlite3.connect("t.db")) as db:
        db.execute("DELETE FROM TokenRecords WHERE id IN (SELECT id FROM TokenRecords LIMIT 3)")
        db.commit()
    lines = events(run("verify", nodes, *TARGET, "--events"))
    assert [row["letter"] for row in of(lines, "difference")] == ["+", "+", "+"]
    assert [row["code"] for row in of(lines, "problem")] == ["records_differ"]
    assert (lines[-1]["exit_code"], lines[-1]["numbers"]["new"]) == (5, 3)

    lines = events(run("retry-failed", nodes, *TARGET, "--events", "--allow-shrink"))
    assert lines[0]["command"] == "retry-failed"
    done = run("audit", *TARGET, "--events")
    lines = events(done)
    assert len(of(lines, "rule")) > 10
    assert len(of(lines, "finding")) == sum(lines[-1]["numbers"].values())


def test_failures_are_events_too(run: Run, nodes: Path) -> None:
    lines = events(run("sync", "nowhere", *TARGET, "--events"))
    assert [line["event"] for line in lines] == ["started", "error", "ended"]
    assert lines[1]["code"] == "no_such_root"
    lines = events(run("sync", nodes, "--target", "nonsense", "--events"))
    assert [line["event"] for line in lines] == ["error", "ended"]
    assert run("sync", nodes, *TARGET, "--events", "--json").code == 2
    assert run("audit", *TARGET, "--events", "--sarif").code == 2


@pytest.mark.parametrize(
    ("variables", "terminal", "coloured"),
    [
        ({}, True, True),
        ({}, False, False),
        ({"NO_COLOR": "1"}, True, False),
        ({"NO_COLOR": ""}, True, True),
        ({"FORCE_COLOR": "1"}, False, True),
        ({"FORCE_COLOR": "1", "NO_COLOR": "1"}, True, False),
        ({"TERM": "dumb"}, True, False),
    ],
)
def test_colours(
    variables: dict[str, str],
    terminal: bool,
    coloured: bool,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for name in ("NO_COLOR", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm")
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("sys.stdout.isatty", lambda: terminal)
    output.say("it failed", "31")
    assert ("\x1b[31m" in capsys.readouterr().out) is coloured
