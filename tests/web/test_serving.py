"""The server as a process, its stream, who asks the target, and what a sync does not load."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest

import rubix_token_sync as rts
from rubix_token_sync.installation import extra_command
from rubix_token_sync.web.desk import Desk
from rubix_token_sync.web.live import Stream
from rubix_token_sync.web.options import ServeOptions
from rubix_token_sync.web.query import Query
from rubix_token_sync.web.views import errors, nodes
from tests.cli.conftest import call_program, clean_environment
from tests.web.conftest import Place, Site

PROGRAM = [sys.executable, "-P", "-m", "rubix_token_sync"]


@contextmanager
def served(place: Place, *options: str) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """The program, serving on a free port; its address."""
    command = [*PROGRAM, "serve", "--port", "0", "--target", place.target, *options]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env=clean_environment(),
    ) as process:  # fmt: skip
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            found = re.search(r"http://\S+", line)
            assert found, line + (process.stderr.read() if process.stderr else "")
            yield found[0], process
        finally:
            process.kill()


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 0), (signal.SIGTERM, -signal.SIGTERM)]
)
def test_it_serves_streams_and_stops(place: Place, number: signal.Signals, code: int) -> None:
    with served(place) as (address, process):
        assert "Rubix Token Sync" in httpx.get(address).text
        with httpx.stream("GET", f"{address}live", timeout=20) as stream:
            assert stream.headers["content-type"].startswith("text/event-stream")
            for line in stream.iter_lines():
                if line.startswith("data: "):
                    told = json.loads(line[6:])
                    break
            assert told.keys() == {"runs", "fleet", "findings"}
            # An open tab does not keep the server from stopping.
            process.send_signal(number)
            assert process.wait(15) == code
            assert process.stderr is not None
            assert "Traceback" not in process.stderr.read()


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full here")
def test_it_serves_whatever_is_behind_its_standard_output(place: Place) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with open("/dev/full", "w") as full, subprocess.Popen(
        [*PROGRAM, "serve", "--port", str(port), "--target", place.target],
        stdout=full, stderr=subprocess.PIPE, text=True, env=clean_environment(),
    ) as process:  # fmt: skip
        try:
            assert process.stderr is not None
            said = [next(process.stderr) for _ in range(3)]
            assert "could not be printed" in said[2], said
            assert httpx.get(f"http://127.0.0.1:{port}/healthz").text == "ok\n"
        finally:
            process.kill()


def test_the_port_of_another_is_an_error(place: Place) -> None:
    with served(place) as (address, _):
        port = address.rsplit(":", 1)[1].strip("/")
        ended = call_program("serve", "--port", port, "--target", place.target, "--json")
        assert ended.error(2, "web_port_taken")


def test_what_is_refused_on_the_command_line(place: Place, tmp_path: Path) -> None:
    target = ("--target", place.target, "--json")
    assert call_program("serve", "--host", "0.0.0.0", *target).error(2, "web_exposed")
    token = tmp_path / "token"
    token.write_text("a-token-that-is-long-enough\n")
    token.chmod(0o644)
    arguments = ("serve", "--token-file", str(token), *target)
    assert call_program(*arguments).error(2, "web_token_file")
    assert call_program("serve", "--trusted-proxy", "x", *target).error(2, "web_option")
    assert call_program("serve", "--root-path", "a b", *target).error(2, "web_option")
    for option in ("--evidence", "--reports"):
        named = call_program("serve", option, str(tmp_path / "mistyped"), *target)
        assert str(tmp_path / "mistyped") in named.error(2, "web_option")["message"]
    token.chmod(0o600)
    for host in ("a" * 64, "nowhere.invalid"):
        elsewhere = ("serve", "--token-file", str(token), "--host", host, *target)
        assert host in call_program(*elsewhere).error(2, "web_port_taken")["message"]
    missing = ("serve", "--target", f"sqlite:///{tmp_path}/none.db", "--json")
    assert call_program(*missing).error(3, "target_absent")


def test_without_the_extra_one_sentence(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("uvicorn", "starlette"):
        for module in [m for m in sys.modules if m.split(".")[0] == name]:
            monkeypatch.delitem(sys.modules, module)
        monkeypatch.setitem(sys.modules, name, None)
    for module in [m for m in sys.modules if m.startswith("rubix_token_sync.web.")]:
        monkeypatch.delitem(sys.modules, module)
    error = call_program("serve", "--target", place.target, "--json").error(2, "extra_missing")
    assert extra_command("web") in error["remedy"]


def test_a_sync_loads_nothing_of_the_page(unpacked_fleet: Path, tmp_path: Path) -> None:
    program = (
        "import sys, rubix_token_sync.cli as c\n"
        f"code = c._run(['sync', {str(unpacked_fleet / 'node032')!r}, '--target', "
        f"'sqlite:///{tmp_path}/t.db', '--report', '{tmp_path}/r', '--source-ip', 'vm1', '-q'])\n"
        "print(code, sorted(m for m in sys.modules if m.split('.')[0] in "
        "('starlette', 'uvicorn') or m.startswith('rubix_token_sync.web')))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True,
        env=clean_environment() | {"STATE_DIRECTORY": os.environ.get("STATE_DIRECTORY", "")},
    )  # fmt: skip
    assert done.stdout.splitlines()[-1] == "0 []"


# --- who asks the target ------------------------------------------------------------------------


@pytest.fixture
def desk(place: Place) -> Iterator[Desk]:
    configuration = rts.configure(target=place.target)
    with rts.open_target(configuration=configuration) as reader:
        yield Desk(configuration, reader, ServeOptions())


def in_threads(number: int, work: Callable[[], Any]) -> list[Any]:
    """What so many threads got at the same time."""
    found: list[Any] = []
    threads = [threading.Thread(target=lambda: found.append(work())) for _ in range(number)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    return found


def test_twenty_viewers_are_one_question(desk: Desk) -> None:
    entered, leave = threading.Event(), threading.Event()
    asked: list[int] = []

    def slow() -> int:
        asked.append(1)
        entered.set()
        assert leave.wait(20)
        return 42

    first = threading.Thread(target=lambda: desk.ask("x", slow))
    first.start()
    assert entered.wait(20)
    threading.Timer(0.2, leave.set).start()
    assert in_threads(20, lambda: desk.ask("x", slow)) == [42] * 20
    first.join(20)
    assert (len(asked), desk.questions) == (1, 1)


def test_what_was_asked_before_a_change_is_not_given_after_it(desk: Desk) -> None:
    entered, leave = threading.Event(), threading.Event()
    asked: list[int] = []

    def question() -> int:
        asked.append(1)
        number = len(asked)
        if number == 1:
            entered.set()
            assert leave.wait(20)
        return number

    first: list[int] = []
    asker = threading.Thread(target=lambda: first.append(desk.ask(("/runs", ()), question)))
    asker.start()
    assert entered.wait(20)
    desk.forget(only_runs=True)
    assert desk.ask(("/runs", ()), question) == 2, "not that of before"
    leave.set()
    asker.join(20)
    assert first == [1]
    assert desk.ask(("/runs", ()), question) == 2


class Clock:
    """Goes when it is told to."""

    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


def test_an_old_answer_is_renewed_behind_the_back(desk: Desk) -> None:
    clock = Clock()
    desk = Desk(desk.configuration, desk.reader, desk.options, clock)
    asked: list[int] = []
    renewed = threading.Event()

    def question() -> int:
        asked.append(1)
        if len(asked) > 1:
            renewed.set()
        return len(asked)

    assert desk.ask("x", question) == 1
    clock.now += 1.0
    assert desk.ask("x", question) == 1, "it is young"
    clock.now += 2.0
    assert desk.ask("x", question) == 1, "at once, with what is known"
    assert renewed.wait(20)
    until = time.monotonic() + 20
    while desk.ask("x", question) != 2:
        assert time.monotonic() < until
    clock.now += 60.0
    assert desk.ask("x", question) == 3, "too old to be shown"
    desk.forget()
    assert desk.ask("x", question) == 4
    desk.forget(only_runs=True)
    assert desk.ask("x", question) == 4
    desk.ask(("/runs", ()), question)
    desk.forget(only_runs=True)
    assert desk.ask(("/runs", ()), question) == 6


class Slow:
    """A desk, and a question that takes two seconds of its clock; the answer is its number."""

    def __init__(self, desk: Desk) -> None:
        self.clock = Clock()
        self.desk = Desk(desk.configuration, desk.reader, desk.options, self.clock)
        self.asked = 0

    def __call__(self) -> int:
        self.asked += 1
        self.clock.now += 2.0
        return self.asked


def test_what_takes_long_is_asked_seldom(desk: Desk) -> None:
    slow = Slow(desk)
    clock, desk = slow.clock, slow.desk
    assert desk.ask("x", slow) == 1
    clock.now += 39.0
    assert desk.ask("x", slow) == 1
    assert slow.asked == 1, "twenty times as long as it took"
    desk.forget()
    assert desk.ask("x", slow) == 1, "nobody waits for what was there"
    desk.renew()
    assert desk.ask("x", slow) == 2
    for number in range(20):
        desk.ask(number, slow)
    before = slow.asked
    desk.renew()
    assert slow.asked == before + 8, "those that were asked last"


def test_whoever_decided_sees_it_at_once(desk: Desk) -> None:
    slow = Slow(desk)
    desk = slow.desk
    key = ("/findings", ())
    assert desk.ask(key, slow) == 1
    desk.forget()
    assert desk.ask(key, slow) == 1, "it took long: until there is a new one"
    desk.forget(decided=True)
    assert desk.ask(key, slow) == 2


def test_a_failed_question_is_asked_again(desk: Desk) -> None:
    def fails() -> int:
        raise rts.SettingsError("no", code="x")

    with pytest.raises(rts.SettingsError):
        desk.ask("x", fails)
    assert desk.ask("x", lambda: 7) == 7


def test_a_target_that_died_is_not_spoken_for(desk: Desk) -> None:
    clock = Clock()
    desk = Desk(desk.configuration, desk.reader, desk.options, clock)
    dead, asked = threading.Event(), threading.Event()

    def question() -> int:
        if dead.is_set():
            asked.set()
            raise rts.TargetUnavailable("The target does not answer.", code="gone")
        return 7

    assert desk.ask("x", question) == 7
    dead.set()
    clock.now += 5.0
    assert desk.ask("x", question) == 7, "once more, while the next one is on its way"
    assert asked.wait(20)

    def ask_until_it_is_known() -> None:
        until = time.monotonic() + 20
        while desk.ask("x", question) == 7:
            assert time.monotonic() < until

    with pytest.raises(rts.TargetUnavailable):
        ask_until_it_is_known()


def test_nobody_waits_for_ever_for_the_question_of_another(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rubix_token_sync.web.desk._MOST_WAIT", 0.1)
    entered, leave = threading.Event(), threading.Event()

    def hangs() -> int:
        entered.set()
        assert leave.wait(20)
        return 1

    first = threading.Thread(target=lambda: desk.ask("x", hangs))
    first.start()
    assert entered.wait(20)
    try:
        with pytest.raises(rts.SettingsError) as caught:
            desk.ask("x", hangs)
        assert caught.value.code == "web_busy"
    finally:
        leave.set()
        first.join(20)


@pytest.mark.parametrize("what", ["gone", "another program's", "of an older version"])
def test_another_file_in_the_targets_place_is_seen(place: Place, tmp_path: Path, what: str) -> None:
    """A server keeps its connection; the file behind it may be nobody's any more."""
    file = tmp_path / "target.db"
    with closing(sqlite3.connect(place.target.removeprefix("sqlite:///"))) as held:
        held.execute(f"VACUUM INTO '{file}'")
    copied = Place(f"sqlite:///{file}", place.reports, place.evidence)
    with (
        served(copied) as (address, _),
        httpx.stream("GET", f"{address}live", timeout=30) as stream,
    ):
        events = (line for line in stream.iter_lines() if line.startswith("event: "))
        assert next(events) == "event: pulse"
        assert httpx.get(f"{address}fleet.json").status_code == 200
        other = tmp_path / "other.db"
        with closing(sqlite3.connect(other)) as made:
            if what == "of an older version":
                made.executescript(
                    "CREATE TABLE alembic_version (version_num TEXT);"
                    "INSERT INTO alembic_version VALUES ('0001')"
                )
            else:
                made.execute("CREATE TABLE theirs (x)")
        file.unlink()
        if what != "gone":
            other.rename(file)
        assert next(events) == "event: lost", "an open tab hears of it"
        until = time.monotonic() + 20
        while httpx.get(f"{address}fleet.json").status_code == 200:
            assert time.monotonic() < until
        answer = httpx.get(address)
        assert answer.status_code == 503
        assert "All is" not in answer.text
        assert httpx.get(f"{address}healthz").status_code == 503


def test_a_target_that_hangs_is_not_called_up_to_date(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither for the tabs that are open: they hear of it, and of the end of it."""
    monkeypatch.setattr("rubix_token_sync.web.live._PATIENCE", 0.2)
    monkeypatch.setattr("rubix_token_sync.web.live._EVERY", 0.05)
    hangs = threading.Event()

    def pulse() -> dict[str, Any]:
        assert hangs.wait(20)
        return {"runs": [], "fleet": [], "findings": []}

    monkeypatch.setattr(desk, "pulse", pulse)
    heard: list[str] = []

    async def listen() -> None:
        stream = Stream(desk)
        async with stream.running():
            async for line in stream._lines():
                heard.append(line.split("\n")[0])
                if heard[-1] == "event: lost":
                    hangs.set()
                if heard[-1] == "event: pulse":
                    return

    anyio.run(listen)
    assert heard == ["retry: 10000", "event: lost", "event: pulse"]


def test_answers_are_bounded(desk: Desk) -> None:
    for number in range(1_000):
        desk.ask(number, lambda n=number: n)  # type: ignore[misc]
    assert len(desk._answers) <= 64


def test_answers_that_are_worth_nothing_are_not_kept(desk: Desk) -> None:
    clock = Clock()
    desk = Desk(desk.configuration, desk.reader, desk.options, clock)
    for number in range(50):
        desk.ask(number, lambda: None)
    clock.now += 15.0
    desk.ask("often", lambda: None)
    clock.now += 15.0
    desk.ask("new", lambda: None)
    assert set(desk._answers) == {"often", "new"}


def test_what_is_asked_often_is_kept(desk: Desk) -> None:
    """However many other things are asked meanwhile: nobody waits for it again."""
    asked: list[int] = []
    for number in range(200):
        desk.ask("often", lambda: asked.append(1))
        desk.ask(number, lambda: None)
    assert len(asked) == 1


def test_an_answer_says_of_when_it_is(desk: Desk) -> None:
    """Not when it was given, where it is made of one that was there."""
    known, failed = desk.known(), desk.failures()
    clock = desk.reader.server_time
    until = time.monotonic() + 20
    while clock() <= max(known.server_time, failed.at):
        assert time.monotonic() < until
    for view, query, at in (
        (nodes.ask_all, Query([]), known.server_time),
        (nodes.ask_one, Query([("name", "node033")]), known.server_time),
        (errors.ask, Query([("node", "node033")]), failed.at),
    ):
        answer = view(desk, query)
        assert (answer.at, answer.document["server_time"]) == (at, at)


def test_errors_of_a_time_are_counted_once(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """For whatever machine, node or category is asked for."""
    counted: list[Any] = []
    count = rts.TargetReader.failure_counts
    monkeypatch.setattr(
        rts.TargetReader,
        "failure_counts",
        lambda reader, **asked: counted.append(asked) or count(reader, **asked),
    )
    found = []
    for more in ([], [("node", "node033")], [("category", "ipfs")], [("source", "elsewhere")]):
        query = Query([("since", "24h"), *more])
        found.append(errors.ask(desk, query).document["content"])
    assert counted == [{"since": timedelta(days=1), "by_node": True}]
    assert found[2] == found[0] != found[1] != []
    assert found[3] == []


def test_a_target_that_is_gone_is_said(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(*_: object, **__: object) -> None:
        raise rts.TargetUnavailable("The target does not answer.", code="gone", remedy="Start it.")

    monkeypatch.setattr(rts.TargetReader, "find_tokens", gone)
    answer = site.get("/tokens?status=77")
    assert answer.status_code == 503
    assert "Start it." in answer.text
    assert site.get("/tokens.json?status=77").json()["error"]["code"] == "gone"
