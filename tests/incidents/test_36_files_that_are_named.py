"""36, 43: a pipe or a device in place of a file that somebody names is refused, not waited for."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

import rubix_token_sync as rts
from tests.cli.conftest import call_program


@pytest.fixture
def pipe(tmp_path: Path) -> Path:
    os.mkfifo(tmp_path / "pipe")
    return tmp_path / "pipe"


@pytest.mark.timeout(60)
def test_settings(pipe: Path) -> None:
    for place in (pipe, Path("/dev/zero"), pipe.parent):
        ended = call_program("config", "check", place)
        assert ended.code == 2
        assert "[config_unreadable]" in ended.out + ended.err
    (pipe.parent / "s.toml").write_text(f'alert_urls_file = "{pipe}"\ntarget = "sqlite:///t.db"\n')
    ended = call_program("config", "check", pipe.parent / "s.toml")
    assert "not a regular file. [alert_urls_unreadable]" in ended.out + ended.err


def test_settings_that_come_through_a_pipe(tmp_path: Path) -> None:
    read, write = os.pipe()
    os.write(write, b'target = "sqlite:///t.db"')
    os.close(write)  # as in `--config <(…)`
    assert call_program("config", "check", f"/dev/fd/{read}").code == 0
    os.close(read)
    assert "[no_target_named]" in call_program("config", "check", "/dev/null").out


def test_settings_that_an_editor_of_windows_saved(tmp_path: Path) -> None:
    file = tmp_path / "s.toml"
    file.write_bytes(b'\xef\xbb\xbftarget = "sqlite:///t.db"\r\n')
    assert call_program("config", "check", file).code == 0
    file.write_bytes("target".encode("utf-16"))
    said = call_program("config", "check", file).out
    assert "it is not valid UTF-8. [config_syntax]" in said
    assert "Save it as UTF-8." in said
    file.write_bytes(b"#" * (2**20 + 1))
    assert "it is larger than 1,048,576 bytes" in call_program("config", "check", file).out


@pytest.mark.timeout(60)
def test_keys_and_proofs(pipe: Path) -> None:
    key = pipe.parent / "key"
    rts.make_evidence_key(key)
    for words, code in (
        ((pipe, "--key", f"{key}.pub"), "proof_unreadable"),
        ((f"{key}.pub", "--key", pipe), "key_unreadable"),
    ):
        call_program("evidence", "verify-proof", *words, "--json").error(2, code)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('target = "sqlite:///a\\u0000b"', "[bad_sqlite_url]"),
        ('audit_severities = ["held_twice=y"]', "RULE=info, RULE=warning or RULE=error"),
        ('log_file = "other.db"', "[place_taken]"),
    ],
)
def test_a_settings_file_that_cannot_work_is_not_valid(
    line: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with closing(sqlite3.connect("other.db")) as db, db:
        db.execute("CREATE TABLE t (x)")
    target = "" if line.startswith("target") else '\ntarget = "sqlite:///t.db"'
    Path("s.toml").write_text(line + target)
    ended = call_program("config", "check", "s.toml")
    assert (ended.code, said in ended.out) == (2, True), ended.out
