"""Which settings file and which target: one order, nothing guessed (incident 19)."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from rubix_token_sync.errors import SettingsError
from rubix_token_sync.settings import load_settings
from rubix_token_sync.settings.search import (
    GUIDE_CONNECTION_FILE,
    Candidate,
    FileFacts,
    choose_settings_file,
    choose_target,
    connection_candidates,
    find_settings_file,
    look_at,
    settings_candidates,
)

ME = 1000
MINE = FileFacts("there", frozenset({ME}))
HERE = "./rubix-token-sync.toml"
ORDER = [
    HERE,
    "/home/me/.config/rubix-token-sync/settings.toml",
    "/home/me/.config/rubix-token-sync/rubix-token-sync.toml",
    "/etc/rubix-token-sync/settings.toml",
    "/etc/rubix-token-sync/rubix-token-sync.toml",
]


def no_node(_path: str) -> str | None:
    return None


def test_the_documented_order() -> None:
    assert [c.path for c in settings_candidates(None, {}, "/home/me")] == ORDER
    for number, path in enumerate(ORDER):
        facts = dict.fromkeys(ORDER[number:], MINE)
        places = settings_candidates(None, {}, "/home/me")
        assert choose_settings_file(places, facts, ME).path == path
    assert choose_settings_file(settings_candidates(None, {}, "/home/me"), {}, ME).path is None


def test_a_named_file_is_the_only_one_even_where_it_is_missing() -> None:
    both = {"RUBIX_SYNC_CONFIG": "/e.toml"}
    assert settings_candidates("/f.toml", both, "/home/me") == (
        Candidate("/f.toml", "--config", named=True),
    )
    (place,) = settings_candidates(None, both, "/home/me")
    assert choose_settings_file((place,), {}, ME) == ("/e.toml", "RUBIX_SYNC_CONFIG", ())
    assert len(settings_candidates(None, {"RUBIX_SYNC_CONFIG": " "}, "/home/me")) == 5


def test_xdg_and_no_home() -> None:
    xdg = settings_candidates(None, {"XDG_CONFIG_HOME": "/x"}, "/home/me")
    assert xdg[1].path == "/x/rubix-token-sync/settings.toml"
    relative = settings_candidates(None, {"XDG_CONFIG_HOME": "x"}, "/home/me")
    assert [c.path for c in relative] == ORDER
    assert [c.path for c in settings_candidates(None, {}, None)] == [ORDER[0], *ORDER[3:]]


@pytest.mark.parametrize(
    ("facts", "words"),
    [
        (FileFacts("there", frozenset({ME, 1001})), "belongs to another user (id 1001)"),
        (FileFacts("there", frozenset({ME}), writable_by_others=True), "others may write it"),
        (FileFacts("there", frozenset({ME}), node="/mnt/node1"), "inside the node's directory"),
    ],
)
def test_what_a_stranger_could_have_planted_stops_the_run(facts: FileFacts, words: str) -> None:
    places = settings_candidates(None, {}, "/home/me")
    later = dict.fromkeys(ORDER[1:], MINE)  # a settings file further down does not hide it
    with pytest.raises(SettingsError, match="not used") as caught:
        choose_settings_file(places, {**later, HERE: facts}, ME)
    assert caught.value.code == "config_untrusted"
    assert words in caught.value.message
    assert "--config FILE" in caught.value.remedy
    with pytest.raises(SettingsError, match="not used") as caught:
        choose_target(
            load_settings({}, environ={}), None, {"./azure_sql_connection.txt": facts}, ME
        )
    assert "--target-file FILE" in caught.value.remedy


def test_roots_own_file_is_trusted_and_a_named_one_always() -> None:
    places = settings_candidates(None, {}, None)
    facts = {HERE: FileFacts("there", frozenset({0}))}
    assert choose_settings_file(places, facts, ME).path == HERE
    named = settings_candidates("x", {}, None)
    assert choose_settings_file(named, {"x": FileFacts("there", frozenset({7}))}, ME).path == "x"


def test_what_cannot_be_seen_is_said() -> None:
    places = settings_candidates(None, {}, "/home/op")
    hidden = FileFacts("hidden", hidden="Permission denied")
    found = choose_settings_file(places, {places[1].path: hidden, places[3].path: MINE}, ME)
    assert found.path == "/etc/rubix-token-sync/settings.toml"
    assert "settings file at /home/op/.config/rubix-token-sync/settings.toml" in found.notes[0]


def test_the_targets_order(tmp_path: Path) -> None:
    file = tmp_path / "s.toml"
    file.write_text("batch_size = 5\n")
    beside = str(tmp_path / "azure_sql_connection.txt")
    here = "./azure_sql_connection.txt"
    all_there = dict.fromkeys((beside, here, GUIDE_CONNECTION_FILE), MINE)

    def chosen(facts: dict[str, FileFacts], settings_file: str | None, **given: object) -> object:
        settings = load_settings(given, settings_file, environ={})
        return choose_target(settings, settings_file, facts, ME)[:3]

    flag = "flag: --target"
    assert chosen(all_there, str(file), target="sqlite:///x") == ("address", "sqlite:///x", flag)
    assert chosen(all_there, str(file)) == ("file", beside, "beside the settings file")
    del all_there[beside]
    assert chosen(all_there, str(file)) == ("file", here, "current directory")
    del all_there[here]
    assert chosen(all_there, str(file)) == ("file", GUIDE_CONNECTION_FILE, "the guide's place")
    assert chosen({}, str(file)) == ("none", "", "none named")
    assert chosen({}, None) == ("address", "sqlite:///rubix-tokens.db", "default")
    file.write_text('target = "sqlite:///y"\n')
    assert chosen({beside: MINE}, str(file)) == ("address", "sqlite:///y", f"file: {file}")


def test_no_default_where_it_is_forbidden() -> None:
    settings = load_settings({}, environ={})
    assert choose_target(settings, None, {}, ME, embedded=False).kind == "none"


def test_the_connection_file_of_the_current_directory_is_never_trusted_unseen() -> None:
    for settings_file in (None, "rubix-token-sync.toml", "./x.toml", "/etc/x.toml"):
        (here,) = [c for c in connection_candidates(settings_file) if c.path.startswith("./")]
        assert here.untrusted


def test_facts_of_real_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    file = Path("rubix-token-sync.toml")
    assert look_at(str(file)).state == "absent"
    assert look_at("a\0b").state == "absent"
    file.write_text("")
    file.chmod(0o600)
    assert look_at(str(file)) == FileFacts("there", frozenset({os.geteuid()}))
    file.chmod(0o620)
    assert look_at(str(file)).writable_by_others
    file.chmod(0o600)
    link = Path("link.toml")
    link.symlink_to(file)
    assert look_at(str(link)).owners == {os.geteuid()}
    link.unlink()
    link.symlink_to("nowhere")
    assert look_at(str(link)).state == "there", "a broken link is an error, not nothing"
    found = find_settings_file(None, {"HOME": str(tmp_path)}, no_node)
    assert found.path == "./rubix-token-sync.toml"
    with pytest.raises(SettingsError, match="inside the node's directory /n"):
        find_settings_file(None, {"HOME": str(tmp_path)}, lambda _path: "/n")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_a_strangers_link_or_file_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("mine").write_text("")
    Path("rubix-token-sync.toml").symlink_to("mine")
    os.chown("rubix-token-sync.toml", 1234, 1234, follow_symlinks=False)
    with pytest.raises(SettingsError, match="another user"):
        find_settings_file(None, {}, no_node)
