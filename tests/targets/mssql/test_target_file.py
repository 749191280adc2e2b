"""Files with connection strings: who may read them, and how they are written."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from rubix_token_sync.errors import SettingsError
from rubix_token_sync.targets.connection_file import read_target_file

TEXT = "Server=h;Database=d;User ID=u;Password=hunter2"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "azure_sql_connection.txt"
    path.write_text(TEXT)
    path.chmod(0o600)
    return path


def code_of(path: Path) -> str:
    with pytest.raises(SettingsError) as caught:
        read_target_file(path)
    assert "hunter2" not in f"{caught.value} {caught.value!r} {caught.value.context}"
    assert caught.value.remedy
    return caught.value.code


def test_a_private_file_is_read(file: Path) -> None:
    found = read_target_file(file)
    assert found.text.get_secret_value() == TEXT
    assert found.warnings == ()
    assert "hunter2" not in repr(found)


@pytest.mark.parametrize("mode", [0o604, 0o640, 0o620, 0o602, 0o644, 0o666])
def test_a_file_that_others_can_read_is_refused_or_loudly_taken(file: Path, mode: int) -> None:
    file.chmod(mode)
    assert code_of(file) == "target_file_insecure"
    found = read_target_file(file, allow_insecure=True)
    assert found.text.get_secret_value() == TEXT
    assert f"{mode:o}" in found.warnings[0]


@pytest.mark.parametrize(
    "data",
    [
        b"# comment\r\n\r\n" + TEXT.encode() + b"\r\n",
        b"\xef\xbb\xbf" + TEXT.encode(),
        TEXT.encode("utf-16"),
        TEXT.replace(";", ";\n").encode(),
        b"# Server=no;\n" + TEXT.replace(";", "\n").encode() + b"\n\n",
    ],
)
def test_editors_leave_their_marks(file: Path, data: bytes) -> None:
    file.write_bytes(data)
    assert read_target_file(file).text.get_secret_value() == TEXT


@pytest.mark.parametrize("data", [b"", b"# only a comment\n", b"\xff\xfe\x00", b"a" * 70_000])
def test_a_file_without_a_string_is_refused(file: Path, data: bytes) -> None:
    file.write_bytes(data)
    assert code_of(file) == "target_file_content"


def test_what_cannot_be_opened_is_refused(file: Path, tmp_path: Path) -> None:
    assert code_of(tmp_path / "none") == "target_file_missing"
    assert code_of(file / "below") == "target_file_missing"
    assert code_of(tmp_path) == "target_file_unreadable"
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo, 0o600)
    assert code_of(fifo) == "target_file_unreadable"


def test_the_template_is_refused_until_it_is_filled_in() -> None:
    from rubix_token_sync.targets.mssql.address import parse_connection_string

    template = Path(__file__).parents[3] / "azure_sql_connection_template.txt"
    found = read_target_file(template, allow_insecure=True)
    with pytest.raises(SettingsError) as caught:
        parse_connection_string(found.text.get_secret_value())
    assert caught.value.code == "connection_placeholder"
    filled = found.text.get_secret_value()
    for placeholder, value in (
        ("your_server", "h"),
        ("your_database", "d"),
        ("your_user", "u"),
        ("{your_password}", "p"),
    ):
        assert placeholder in filled
        filled = filled.replace(placeholder, value)
    assert parse_connection_string(filled).password.get_secret_value() == "p"
