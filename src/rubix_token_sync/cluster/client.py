"""The coordinator's connection to the scheduler."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from rubix_token_sync.cluster.engine import Connection
from rubix_token_sync.cluster.greeting import Versions, greet, unreachable

if TYPE_CHECKING:
    from distributed import Client

__all__ = ["client_of", "connected"]


def client_of(connection: Connection, own: Versions) -> Client:
    """Greet the scheduler and connect to it; within `running_dask`, and to be closed.

    Raises:
        SchedulerUnreachable: no scheduler answers.
        Refused: a certificate or a version does not fit.
    """
    from distributed import Client

    asyncio.run(greet(connection, own))
    try:
        return Client(
            str(connection.address),
            security=connection.security(),
            timeout=10,
            set_as_default=False,
            direct_to_workers=False,
            name="rubix-token-sync",
        )
    except OSError as error:
        raise unreachable(connection, str(error)) from error


def connected(client: Client, connection: Connection) -> Mapping[str, Mapping[str, Any]]:
    """What the scheduler says of its workers, by their addresses; a second old at most.

    Raises:
        SchedulerUnreachable: it is gone.
    """
    try:
        found: Mapping[str, Mapping[str, Any]] = client.scheduler_info(n_workers=-1)["workers"]
    except OSError as error:
        raise unreachable(connection, str(error)) from error
    return found
