"""A login that goes on while the program loads.

A server takes a while for it, and so does Python for SQLAlchemy and what is built on it: here
they do so at the same time.
"""

from __future__ import annotations

import threading
from concurrent.futures import Future

from rubix_token_sync.targets.mssql.connection_string import MssqlTarget
from rubix_token_sync.targets.mssql.driver import DriverConnection, open_connection

__all__ = ["Login"]


class Login:
    """Begins at once, in a thread."""

    def __init__(self, target: MssqlTarget, call_seconds: float) -> None:
        """The arguments are those of `open_connection`."""
        self._made: Future[DriverConnection] = Future()
        # A daemon: a server that does not answer must not keep the program from ending.
        threading.Thread(
            target=self._make, args=(target, call_seconds), name="rubix-login", daemon=True
        ).start()

    def _make(self, target: MssqlTarget, call_seconds: float) -> None:
        try:
            self._made.set_result(open_connection(target, call_seconds))
        except BaseException as error:  # noqa: BLE001 - raised again by `connection`
            self._made.set_exception(error)

    def connection(self) -> DriverConnection:
        """Waits for it; whoever asks closes it, and is the only one to ask.

        Raises:
            mssql_python.Error, SchemaError: as `open_connection`.
        """
        return self._made.result()

    def drop(self) -> None:
        """Nobody will ask: close the connection, as soon as there is one."""
        self._made.add_done_callback(_close)


def _close(made: Future[DriverConnection]) -> None:
    if made.exception() is None:
        made.result().close()
