"""20, 27: an answer says what it cannot speak for; a name that nothing has is a mistake."""

from __future__ import annotations

from pathlib import Path

import pytest

import rubix_token_sync as rts
from rubix_token_sync.testing import FleetPlan, make_fleet
from tests.cli.conftest import Ended, call_program


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two nodes, a third whose database cannot be read, and a directory that leads nowhere."""
    place = tmp_path_factory.mktemp("made")
    make_fleet(place / "nodes", FleetPlan(nodes=2, tokens_per_node=10))
    for name in ("broken", "loop"):
        (place / "nodes" / name).mkdir()
    (place / "nodes" / "broken" / "Rubix").mkdir()
    (place / "nodes" / "broken" / "Rubix" / "rubix.db").write_bytes(b"no database")
    (place / "nodes" / "loop" / "Rubix").symlink_to("Rubix")
    rts.sync(place / "nodes", target=f"sqlite:///{place}/t.db", source_ip="me")
    return place


def ask(place: Path, *words: str) -> Ended:
    return call_program(*words, "--target", f"sqlite:///{place}/t.db")


def test_an_audit_is_not_green_without_them(place: Path) -> None:
    ended = ask(place, "audit", "--json")
    document = ended.document
    assert (ended.code, document["ok"], document["exit_code"]) == (1, False, 1)
    found = {(p["code"], p["node_name"]) for p in document["problems"]}
    assert found == {("database_failed", "broken"), ("directory_unread", None)}
    shown = ask(place, "audit").out
    assert "Not looked at, because the last syncs did not read it:\n" in shown
    assert "✗ broken: The file does not begin as a SQLite database does." in shown
    assert "[not_a_database]" in shown


def test_databases_is_not_green_either(place: Path) -> None:
    ended = ask(place, "databases", "--json")
    assert "directory_unread" in {p["code"] for p in ended.document["problems"]}
    assert "/loop/Rubix: The symbolic link leads nowhere" in ask(place, "databases").out


@pytest.mark.parametrize(
    "words",
    [
        ("findings",), ("changes", "--since", "0"), ("history", "show", "--node", "broken"),
        ("export", "records", "--format", "csv", "--to", "-"),
    ],
    ids=lambda words: words[0],
)  # fmt: skip
def test_other_answers_say_it(
    place: Path, words: tuple[str, ...], capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    if words[0] == "export":
        words = (*words[:-1], str(place / "r.csv"))
    ended = ask(place, *words)
    assert ended.code == 0, ended.err
    assert "! Not read by the last sync (" in ended.err
    assert "broken" in ended.err
    assert "! Not read" not in ask(place, *words, "--quiet").err
    capfdbinary.readouterr()


@pytest.mark.parametrize(
    "words",
    [
        ("status",), ("databases",), ("databases", "--as-of", "1"), ("errors",), ("findings",),
        ("changes", "--since", "0"), ("history", "show"),
        ("export", "records", "--to", "x.csv"),
    ],
    ids=" ".join,
)  # fmt: skip
def test_a_name_that_nothing_has_is_a_mistake(
    place: Path, words: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    ask(place, *words, "--node", "nobody", "--json").error(2, "no_such_node")
    if words[0] != "findings":
        ask(place, *words, "--source", "nobody", "--json").error(2, "no_such_source")
    assert not list(tmp_path.iterdir())


def test_sessions_of_nobody(place: Path) -> None:
    ask(place, "sessions", "--source", "nobody", "--json").error(2, "no_such_source")


def test_a_node_that_was_never_read_has_a_name(place: Path) -> None:
    assert ask(place, "status", "--node", "broken").code == 1
    assert ask(place, "errors", "--node", "broken").code == 0


def test_tokens_that_nobody_could_judge_are_counted(place: Path) -> None:
    rules = {rule["rule"]: rule for rule in ask(place, "audit", "--json").document["rules"]}
    with rts.open_target(f"sqlite:///{place}/t.db") as target:
        missing = target.records(columns=["verdict"], with_content=False)
    undecided = missing["verdict"].to_pylist().count("not_decidable")
    for name in ("forged_form", "out_of_range", "disputed_limit"):
        assert rules[name]["not_looked_at"] == undecided


def test_what_is_not_text_is_nothings_name(place: Path) -> None:
    for words in (("token", "a\udcff"), ("history", "show", "a\udcff")):
        ask(place, *words, "--json").error(2, "no_such_token")
    ask(place, "errors", "--node", "a\udcff", "--json").error(2, "no_such_node")
