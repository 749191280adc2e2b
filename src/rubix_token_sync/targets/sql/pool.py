"""Whether a connection of the pool is still well is asked only after it idled.

To ask before each transaction costs a round trip each time. A connection that died since its
last use a moment ago fails its first statement, which `Database` makes again over a new one.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Final

import sqlalchemy as sa

__all__ = ["check_after_idling"]

_IDLE_SECONDS: Final = 30.0


def check_after_idling(
    engine: sa.Engine,
    check: Callable[[Any], None],
    is_doubtful: Callable[[Any], bool] = lambda _connection: False,
) -> None:
    """Let ``check`` see connections of the engine that idled for 30 s, or are doubtful, before use.

    Args:
        engine: whose pool.
        check: gets the driver's connection; raises `sqlalchemy.exc.DisconnectionError` where it
            is dead, and the pool opens another one.
        is_doubtful: whether it has to be checked however short it idled.
    """

    def note_use(_connection: Any, record: Any) -> None:
        record.info["used"] = time.monotonic()

    def check_before_use(connection: Any, record: Any, _proxy: Any) -> None:
        doubtful = is_doubtful(connection)
        now = time.monotonic()
        if doubtful or now - record.info.get("used", now) >= _IDLE_SECONDS:
            check(connection)

    sa.event.listen(engine, "checkin", note_use)
    sa.event.listen(engine, "checkout", check_before_use)
