"""The queue of events: in order, bounded by bytes, one event at least."""

from __future__ import annotations

import queue
import threading

import pyarrow as pa
import pytest

from rubix_token_sync.runs.event_queue import EventQueue
from rubix_token_sync.runs.jobs import Batch, Tally

LONG = 30.0
AT_ONCE = 0.0


def _event(number: int, size: int) -> Batch:
    rows = pa.RecordBatch.from_arrays([pa.array(["x" * size])], ["text"])
    return Batch(number, Tally(), 1, rows)


def test_events_come_in_order_and_then_there_are_none() -> None:
    events = EventQueue(1 << 20)
    for number in range(5):
        events.put(_event(number, 10), AT_ONCE)
    events.put(None, AT_ONCE)
    taken = [events.get(AT_ONCE) for _ in range(6)]
    assert [event.job for event in taken[:5] if event is not None] == [0, 1, 2, 3, 4]
    assert taken[5] is None
    with pytest.raises(queue.Empty):
        events.get(0.01)


def test_it_is_full_by_bytes() -> None:
    events = EventQueue(1_000_000)
    for number in range(9):
        events.put(_event(number, 100_000), AT_ONCE)
    with pytest.raises(queue.Full):
        events.put(_event(9, 100_000), 0.01)
    events.get(AT_ONCE)
    events.put(_event(9, 100_000), AT_ONCE)


def test_events_without_rows_count_too() -> None:
    events = EventQueue(10 * 4_096)
    for number in range(10):
        events.put(Batch(number, Tally(), 1), AT_ONCE)
    with pytest.raises(queue.Full):
        events.put(Batch(10, Tally(), 1), AT_ONCE)


def test_one_event_fits_however_large() -> None:
    events = EventQueue(1_000)
    events.put(_event(0, 1_000_000), AT_ONCE)
    with pytest.raises(queue.Full):
        events.put(_event(1, 1), AT_ONCE)
    assert events.get(AT_ONCE) is not None
    events.put(_event(1, 1), AT_ONCE)


def test_who_waits_is_woken() -> None:
    events = EventQueue(1_000)
    taken: list[object] = []
    reader = threading.Thread(target=lambda: taken.append(events.get(LONG)))
    reader.start()
    events.put(_event(0, 10_000), AT_ONCE)
    reader.join(LONG)
    assert len(taken) == 1
    events.put(_event(1, 10_000), AT_ONCE)
    writer = threading.Thread(target=events.put, args=(_event(2, 10_000), LONG))
    writer.start()
    assert events.get(LONG) is not None
    writer.join(LONG)
    assert events.get(AT_ONCE) is not None
