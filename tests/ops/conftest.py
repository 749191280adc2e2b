"""A webhook that receives alerts and heartbeats, and the command line in this process."""

from __future__ import annotations

import http.server
import json
import os
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from rubix_token_sync import log
from rubix_token_sync.cli import _run

SECRET = "tok-5eb0bd8f41"
"""Part of every address; must show up nowhere."""


@dataclass
class Answer:
    """What a command gave back."""

    exit_code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """Its one document."""
        return json.loads(self.out)


@dataclass
class Webhook:
    """A server that keeps what it is told; ``status`` is its answer."""

    port: int = 0
    status: int = 200
    messages: list[dict[str, Any]] = field(default_factory=list)
    beats: list[str] = field(default_factory=list)

    @property
    def url(self) -> str:
        """For Apprise."""
        return f"json://127.0.0.1:{self.port}/{SECRET}"

    @property
    def beat_url(self) -> str:
        """For heartbeats."""
        return f"http://127.0.0.1:{self.port}/ping/{SECRET}"

    def take(self) -> list[dict[str, Any]]:
        """What came since the last time."""
        taken, self.messages = self.messages, []
        return taken


@pytest.fixture
def webhook() -> Iterator[Webhook]:
    """A real server on a free port."""
    hook = Webhook()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if hook.status == 200:
                hook.messages.append(json.loads(body))
            self._answer()

        def do_GET(self) -> None:
            hook.beats.append(self.path)
            self._answer()

        def _answer(self) -> None:
            self.send_response(hook.status)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Nothing: stderr is the test's."""

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    hook.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield hook
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def run(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Iterator[Callable[..., Answer]]:
    """Runs the command line as a user does, in this process, with a state of its own."""
    for name in list(os.environ):
        if name.startswith("RUBIX_SYNC_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.delenv("STATE_DIRECTORY", raising=False)

    def run_it(*arguments: str) -> Answer:
        capsys.readouterr()
        exit_code = _run(list(arguments))
        captured = capsys.readouterr()
        return Answer(exit_code, captured.out, captured.err)

    yield run_it
    log.tear_down()


@pytest.fixture
def sync(run: Callable[..., Answer], fleet: Path, tmp_path: Path) -> Callable[..., Answer]:
    """Syncs a healthy node (or the roots given) into an embedded store."""

    def sync_it(*arguments: str, roots: tuple[Path, ...] | None = None) -> Answer:
        return run(
            "sync",
            *map(str, roots if roots is not None else (fleet / "node032",)),
            "--target", f"sqlite:///{tmp_path}/target.db",
            "--source-ip", "vm1",
            "--report", str(tmp_path / "reports"),
            *arguments,
        )  # fmt: skip

    return sync_it
