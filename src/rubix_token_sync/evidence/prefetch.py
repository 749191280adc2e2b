"""Make the next item while the last one is being used: two processors instead of one."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

__all__ = ["prefetched"]

T = TypeVar("T")


def prefetched(items: Iterator[T]) -> Iterator[T]:
    """The same items, each made on a thread of its own one step ahead; memory: two of them.

    It pays where making an item leaves the interpreter to others (Arrow, compression, hashes of
    much data), and only there.
    """
    with ThreadPoolExecutor(1) as thread:
        waiting = thread.submit(next, items, None)
        while (item := waiting.result()) is not None:
            waiting = thread.submit(next, items, None)
            yield item
