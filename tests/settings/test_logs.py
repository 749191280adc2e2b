"""The log: its forms, that no secret is in it, that nobody can forge a line."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import re
import subprocess
import sys
import warnings
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from _pytest.logging import LogCaptureHandler
from hypothesis import given
from hypothesis import strategies as st

from rubix_token_sync import log
from rubix_token_sync.errors import SettingsError
from rubix_token_sync.log import (
    LOGGER,
    ProgressPace,
    bind,
    log_event,
    progress_line,
    redact,
    register_secrets,
    set_up,
    tear_down,
)

SECRET = 'pa"ss}wö/rd&+ 1\\n'
LINE = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} (DEBUG|INFO|WARNING|ERROR) .*")


@pytest.fixture(autouse=True)
def clean_log() -> Iterator[None]:
    yield
    tear_down()


def as_text(**options: Any) -> io.StringIO:
    stream = io.StringIO()
    set_up(stream=stream, **options)
    return stream


def entries(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_the_guides_progress_line() -> None:
    assert (
        progress_line(0.25, 125_430, 387.2, 119_203, 0)
        == "Progress: 25.0% | Records: 125,430 | Rate: 387.2/sec | IPFS Success: 119,203"
        " | SQL Errors: 0"
    )
    assert progress_line(1, 3_400_000, 41_234.56, 0, 1_000).startswith("Progress: 100.0% |")
    assert "Rate: 41,234.6/sec" in progress_line(1, 3_400_000, 41_234.56, 0, 1_000)


def test_progress_is_every_100_records_but_at_most_once_a_second() -> None:
    pace = ProgressPace()
    steps = [
        (0, 5.0, True),  # at once
        (50, 7.0, False),
        (99, 8.0, False),
        (100, 8.1, True),
        (250, 8.2, False),
        (900, 9.05, False),
        (901, 9.15, True),
        (1000, 20.0, False),
        (1001, 20.0, True),
    ]
    assert [pace.due(records, now) for records, now, _ in steps] == [due for *_, due in steps]


def test_lines_for_people_are_in_utc_and_end_in_the_file_too(tmp_path: Path) -> None:
    file = tmp_path / "sync_distributed_tokens.log"
    stream = as_text(log_file=str(file))
    before = datetime.now(UTC).replace(tzinfo=None) - timedelta(milliseconds=1)
    LOGGER.getChild("sync").info("%s of %d", "one", 2)
    log_event(LOGGER, logging.INFO, "progress", progress_line(0.25, 5, 1.0, 5, 0), records=5)
    lines = stream.getvalue().splitlines()
    assert [LINE.fullmatch(line) is not None for line in lines] == [True, True]
    assert lines[0].endswith(" INFO one of 2")
    written = datetime.strptime(lines[0][:23], "%Y-%m-%d %H:%M:%S,%f")
    assert before <= written <= datetime.now(UTC).replace(tzinfo=None)
    assert file.read_text(encoding="utf-8") == stream.getvalue()
    # As the guide says.
    found = subprocess.run(["grep", "Progress:", str(file)], capture_output=True, check=True)
    assert found.stdout.decode().rstrip().endswith("IPFS Success: 5 | SQL Errors: 0")


def test_json_lines() -> None:
    stream = as_text(log_format="json")
    bind(session="s-1", run=None)
    log_event(
        LOGGER.getChild("runs.worker"),
        logging.WARNING,
        "database_failed",
        "node038: the file is no database",
        category="database",
        node="node038",
        path=Path("/mnt/x"),
        counts={"rows": 0, "share": 0.5, "ok": False, "none": None},
        tags=("a", "b"),
        message_is_mine=True,
        level="not overwritten",
    )
    LOGGER.info("plain")
    first, second = entries(stream)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", first.pop("time"))
    assert first == {
        "level": "warning",
        "event": "database_failed",
        "message": "node038: the file is no database",
        "session": "s-1",
        "category": "database",
        "node": "node038",
        "path": "/mnt/x",
        "counts": {"rows": 0, "share": 0.5, "ok": False, "none": None},
        "tags": ["a", "b"],
        "message_is_mine": True,
        "logger": "rubix_token_sync.runs.worker",
    }
    assert (second["event"], second["message"], second["session"]) == ("log", "plain", "s-1")
    bind(session=None)
    LOGGER.info("after")
    assert "session" not in entries(stream)[2]


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_no_secret_is_in_any_line(log_format: Any) -> None:
    stream = as_text(log_format=log_format, secrets=[SECRET])
    LOGGER.info("it is %s", SECRET)
    LOGGER.info("in a URL: postgresql://u:pa%%22ss%%7Dw%%C3%%B6%%2Frd%%26%%2B%%201%%5Cn@h")
    LOGGER.info("braced: PWD={%s}", SECRET.replace("}", "}}"))
    LOGGER.info("repr: %r and json %s", SECRET, json.dumps(SECRET))
    log_event(LOGGER, logging.INFO, "e", f"m {SECRET}", deep={SECRET: [{"x": (SECRET,)}]})
    bind(bound=SECRET)
    register_secrets(["another-one"])
    try:
        raise ValueError(f"login failed with {SECRET} or another-one")
    except ValueError as error:
        log_event(LOGGER, logging.ERROR, "failed", "broken", exc_info=error)
        LOGGER.exception("again")
    text = stream.getvalue()
    assert text.count("***") >= 9
    plain = text + "".join(
        json.dumps(entry, ensure_ascii=False)
        for entry in (entries(stream) if log_format == "json" else [])
    )
    for part in ('pa"ss', 'pa\\"ss', "pa%22ss", "wö/rd", "w\\u00f6/rd", "another-one"):
        assert part not in plain
    assert "ValueError" in text


def test_short_texts_are_not_taken_for_secrets_everywhere() -> None:
    stream = as_text(secrets=["", "a", "abc"])
    LOGGER.info("abracadabra abc")
    assert stream.getvalue().endswith(" INFO abracadabra abc\n")


def test_a_secret_that_begins_another_leaves_no_rest_of_it() -> None:
    register_secrets(["hunter2", "hunter2-Sesame"])
    assert redact("hunter2-Sesame hunter2") == "*** ***"


@given(st.text(min_size=4), st.text(), st.text())
def test_a_registered_secret_never_survives(secret: str, before: str, after: str) -> None:
    tear_down()
    register_secrets([secret])
    # The marker itself could complete a secret made of stars only.
    if not set(secret) <= {"*"}:
        redacted = redact(f"{before}{secret}{after}")
        assert "***" in redacted
        assert redact(secret) == "***"
    tear_down()
    assert redact(secret) == secret


@contextlib.contextmanager
def unreported() -> Iterator[None]:
    """pytest's own copy of the log stays empty: xdist cannot send a lone surrogate."""
    root = logging.getLogger()
    captures = [h for h in root.handlers if isinstance(h, LogCaptureHandler)]
    for handler in captures:
        root.removeHandler(handler)
    yield  # pytest adds its handler anew for each phase, so a fixture would come too early
    for handler in captures:
        root.addHandler(handler)


def test_nobody_can_forge_a_line() -> None:
    stream = as_text()
    forged = "x\n2025-01-01 00:00:00,000 INFO Progress: 100.0%\r\x1b[2J\x85\u2028\udcff\x00é"
    with unreported():
        LOGGER.info("node %s", forged)
        try:
            raise OSError(forged)
        except OSError as error:
            log_event(LOGGER, logging.ERROR, "failed", "broken", exc_info=error)
    lines = stream.getvalue().splitlines()
    assert lines[0].endswith(
        r"INFO node x\n2025-01-01 00:00:00,000 INFO Progress: 100.0%"
        r"\r\x1b[2J\x85\u2028\udcff\x00é"
    )
    assert lines[1].endswith(" ERROR broken")
    assert len(lines) > 4
    assert all(line.startswith("  | ") for line in lines[2:])
    assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f]", stream.getvalue())


def test_json_lines_stay_one_line_each() -> None:
    stream = as_text(log_format="json")
    with unreported():
        LOGGER.info("a\nb\u2028c\udcff")
    (entry,) = entries(stream)
    assert entry["message"] == "a\nb\u2028c\udcff"
    assert stream.getvalue().isascii()


def test_how_much_is_shown(tmp_path: Path) -> None:
    def shown(verbosity: Any) -> tuple[list[str], list[str]]:
        file = tmp_path / f"{verbosity}.log"
        stream = as_text(verbosity=verbosity, log_file=str(file))
        for level in (logging.DEBUG, logging.INFO, logging.WARNING, logging.ERROR):
            LOGGER.log(level, "x")
        return tuple(  # type: ignore[return-value] # two of them
            [line.split()[2] for line in text.splitlines()]
            for text in (stream.getvalue(), file.read_text(encoding="utf-8"))
        )

    assert shown("quiet") == (["WARNING", "ERROR"], ["INFO", "WARNING", "ERROR"])
    assert shown("normal") == (["INFO", "WARNING", "ERROR"],) * 2
    assert shown("verbose") == (["DEBUG", "INFO", "WARNING", "ERROR"],) * 2


def test_a_pool_tells_nothing_of_connections_that_it_gives_up() -> None:
    """With a traceback, where a server went away between two statements."""
    stream = as_text(verbosity="verbose")
    try:
        raise OSError("the connection is lost")
    except OSError:
        logging.getLogger("sqlalchemy.pool.impl.QueuePool").exception("Exception during reset")
    assert stream.getvalue() == ""


def test_other_packages_warnings_are_shown_and_their_chatter_is_not() -> None:
    stream = as_text(secrets=["hunter2"])
    logging.getLogger("httpx").info("HTTP Request: GET http://u:hunter2@h")
    logging.getLogger("alembic").warning("with hunter2")
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        logging.captureWarnings(True)
        warnings.warn("old thing", UserWarning, stacklevel=1)
        logging.captureWarnings(False)
    lines = stream.getvalue().splitlines()
    assert lines[0].endswith("WARNING with ***")
    assert "old thing" in lines[1]
    assert len(lines) == 2


def test_a_log_file_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="cannot be written: No such file") as caught:
        set_up(log_file=str(tmp_path / "none" / "x.log"), stream=io.StringIO())
    assert caught.value.code == "log_file_unwritable"
    assert not log._handlers  # nothing half set up


def test_the_log_file_is_rotated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log, "FILE_BYTES", 200)
    monkeypatch.setattr(log, "FILES_KEPT", 2)
    file = tmp_path / "x.log"
    as_text(log_file=str(file))
    for index in range(20):
        LOGGER.info("line %d of a log that grows and grows", index)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["x.log", "x.log.1", "x.log.2"]
    assert "line 19" in file.read_text(encoding="utf-8")


def test_setting_up_again_replaces_the_former(tmp_path: Path) -> None:
    first = as_text(secrets=["hunter2"])
    second = as_text()
    LOGGER.info("hunter2")
    assert first.getvalue() == ""
    assert second.getvalue().endswith(" INFO hunter2\n")
    tear_down()
    before = second.getvalue()
    LOGGER.warning("nowhere")
    assert second.getvalue() == before


def test_logging_loads_neither_pydantic_nor_arrow() -> None:
    code = (
        "import sys, rubix_token_sync.log;"
        "print([m for m in ('pydantic', 'pyarrow', 'structlog', 'rich') if m in sys.modules])"
    )
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert run.stdout == "[]\n"
