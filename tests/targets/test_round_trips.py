"""How often a command waits for a server, which may be 60 ms away."""

from __future__ import annotations

import re
import select
import socket
import socketserver
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from rubix_token_sync.testing import FleetPlan, make_fleet
from tests.chaos.door import Door
from tests.postgres_server import PostgresServer

_UNANSWERED: Final = (b"H\0\0\0\4", b"X\0\0\0\4")
"""A reminder of what was asked already, and a farewell: nobody waits because of them."""
_WORDS: Final = re.compile(
    rb"(?:BEGIN|COMMIT|ROLLBACK|SAVEPOINT|RELEASE|SELECT|INSERT INTO|UPDATE|DELETE FROM|CREATE"
    rb"|DROP|COPY|SHOW|WITH)\b[^\0]{0,60}"
)


class CountingDoor(socketserver.ThreadingTCPServer):
    """A port that leads to a server, and notes what a client says each time before it listens."""

    daemon_threads = True

    def __init__(self, server: int) -> None:
        super().__init__(("127.0.0.1", 0), _Visit)
        self.turns: list[bytearray] = []
        self.server = server
        self.port: int = self.server_address[1]

    def said(self) -> str:
        """The beginnings of the statements, a round trip a line."""
        found = (b" | ".join(_WORDS.findall(turn)) or b"(login, or rows)" for turn in self.turns)
        return "\n".join(" ".join(turn.decode(errors="replace").split()) for turn in found)


class _Visit(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        door = self.server
        assert isinstance(door, CountingDoor)
        turn: bytearray | None = None
        with socket.create_connection(("127.0.0.1", door.server)) as server:
            while True:
                for end in select.select([self.request, server], [], [])[0]:
                    if not (data := end.recv(1 << 16)):
                        return
                    if end is server:
                        turn = None
                    elif turn is not None:
                        turn += data
                    elif data not in _UNANSWERED:
                        door.turns.append(turn := bytearray(data))
                    (server if end is self.request else self.request).sendall(data)


@pytest.fixture
def counting(postgres_server: PostgresServer) -> Iterator[CountingDoor]:
    with CountingDoor(postgres_server.port) as opened:
        thread = threading.Thread(target=opened.serve_forever, args=(0.05,))
        thread.start()
        yield opened
        opened.shutdown()
        thread.join()


def test_a_night_without_changes_check_and_status_ask_seldom(
    door: Door, counting: CountingDoor, postgres_server: PostgresServer, tmp_path: Path
) -> None:
    make_fleet(tmp_path / "fleet", FleetPlan(nodes=4, tokens_per_node=10))
    name = postgres_server.database()
    target = f"postgresql://rubix:rubix@127.0.0.1:{counting.port}/{name}?sslmode=disable"

    def turns(*arguments: str) -> int:
        counting.turns.clear()
        door.run(*arguments, "--target", target).expect(0)
        print(*arguments, len(counting.turns), counting.said(), sep="\n")
        return len(counting.turns)

    try:
        turns("sync", str(tmp_path / "fleet"))
        assert turns("sync", str(tmp_path / "fleet")) <= 30
        assert turns("check") <= 30
        assert turns("status") <= 15
    finally:
        postgres_server.drop(name)
