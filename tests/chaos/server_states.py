"""The battlefield's phases as databases of a PostgreSQL server."""

from __future__ import annotations

from urllib.parse import urlsplit

from tests.chaos.battlefield import Battlefield, Phase
from tests.chaos.target_state import copy_target
from tests.postgres_server import PostgresServer

__all__ = ["ServerStates"]


class ServerStates:
    """Fresh databases as a phase starts from, by cloning."""

    def __init__(self, server: PostgresServer, field: Battlefield) -> None:
        self._server = server
        self._template = server.database()
        self._made: list[str] = []
        copy_target(f"sqlite:///{field.change.template}", server.url(self._template))

    def fresh(self, phase: Phase) -> str:
        """The address of a new database."""
        options = f"TEMPLATE {self._template}" if phase.template is not None else ""
        self._made.append(self._server.database(options))
        return self._server.url(self._made[-1])

    def drop(self, url: str) -> None:
        """Remove a database."""
        name = urlsplit(url).path.removeprefix("/")
        self._made.remove(name)
        self._server.drop(name)

    def drop_all(self) -> None:
        """Remove every database that is left."""
        while self._made:
            self._server.drop(self._made.pop())
