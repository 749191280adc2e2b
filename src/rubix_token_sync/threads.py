"""Threads of our own, which leave signals to the main thread.

The system gives a signal to any thread that does not block it.  Python runs its
handlers in the main thread, but only one that was itself disturbed leaves the call
that it is in; so a stop that another thread received could wait for an hour.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from typing import Any, Final

__all__ = ["daemon"]

_STOP: Final = (signal.SIGINT, signal.SIGTERM)


def daemon(target: Callable[..., None], name: str, *args: Any) -> threading.Thread:
    """Start a thread that calls ``target`` and does not keep the program alive.

    Raises:
        RuntimeError: the system refuses a thread.
    """
    thread = threading.Thread(target=target, name=name, args=args, daemon=True)
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _STOP)  # a new thread inherits it
    try:
        thread.start()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    return thread
