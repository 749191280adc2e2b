"""What crosses the network where a source is shared, and the board that jobs wait at."""

from __future__ import annotations

import dataclasses
from collections import Counter

import pytest

from rubix_token_sync.cluster.board import Board
from rubix_token_sync.cluster.greeting import Versions
from rubix_token_sync.cluster.roster import Member, sharing
from rubix_token_sync.cluster.sharing import (
    Begun,
    Ended,
    Place,
    Share,
    SharedJob,
    ShareEvent,
    read_job,
    read_share,
    read_share_event,
    share_event,
    to_plain,
)
from rubix_token_sync.errors import LeaseLost, SourceError, SyncError
from rubix_token_sync.nodes.discovery import Node
from rubix_token_sync.runs.jobs import (
    ChunkPublished,
    Difference,
    Job,
    JobDone,
    JobFailed,
    RowsRead,
    Summary,
    Tally,
)
from rubix_token_sync.targets.base import Lease, MarkCounts

SHARE = Share("run", "name", "vm1", Lease("vm1", "id", 60.0), (Place("/mnt", 2),), 3, 99,
              {"chains": True, "content_ways": ("blockstore",)})  # fmt: skip
JOB = SharedJob(
    Job(3, "vm1", Node("/mnt/a/Rubix/rubix.db", "a", None), bytes(range(16)), held={"T": 1}),
    Place("/mnt/a/Rubix/rubix.db", 7),
)
EVENTS: list[ShareEvent] = [
    Begun(3),
    RowsRead(
        3,
        Tally(read=2, failures=Counter({"absent": 1}), via=Counter({"blockstore": 1})),
        5,
        (Difference("*", "/mnt/a", "id", ("token_value",)),),
    ),
    ChunkPublished(3, 1, 2, 3, 0, 0, 1, 0, marked=MarkCounts(5, 4, 0)),
    JobDone(3, Summary(5, 0, 0, 1.5)),
    Ended(),
    Ended(interrupted=15),
]


def crossed(value: object) -> object:
    """As msgpack hands it over: a tuple is a list there."""
    if isinstance(value, dict):
        return {name: crossed(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [crossed(one) for one in value]
    assert value is None or isinstance(value, str | bytes | int | float), value
    return value


def test_shares_and_jobs_arrive_as_they_were_sent() -> None:
    arrived = read_share(crossed(to_plain(SHARE)))
    assert dataclasses.replace(arrived, settings=SHARE.settings) == SHARE
    assert arrived.settings == {"chains": True, "content_ways": ["blockstore"]}
    assert read_job(crossed(to_plain(JOB))) == JOB


@pytest.mark.parametrize("content", EVENTS, ids=lambda content: type(content).__name__)
def test_reports_arrive_as_they_were_sent(content: ShareEvent) -> None:
    assert read_share_event(crossed(share_event(SHARE, content)), "run") == ("name", content)


@pytest.mark.parametrize("kind", [SourceError, LeaseLost, SyncError])
def test_errors_keep_their_class(kind: type[SyncError]) -> None:
    error = kind("It is so.", code="code", remedy="Do that.", context={"n": 1})
    for content in (JobFailed(3, error), Ended(error)):
        heard = read_share_event(crossed(share_event(SHARE, content)), "run")
        assert heard is not None
        assert isinstance(heard[1], JobFailed | Ended)
        found = heard[1].error
        assert type(found) is kind
        assert (found.message, found.code, found.remedy) == ("It is so.", "code", "Do that.")
        assert found.context == {"n": "1"}


def test_what_is_not_in_its_form_is_refused() -> None:
    assert read_share_event({"run": "another"}, "run") is None
    assert read_share_event("text", "run") is None
    good = share_event(SHARE, Begun(3))
    for wrong in (
        {**good, "share": 1},
        {**good, "body": []},
        {**good, "kind": "Session"},
        {**good, "body": {"job": "many"}},
        {**good, "kind": "JobFailed", "body": {"job": 1, "error": None}},
        {**good, "kind": "Ended", "body": {"error": "text"}},
    ):
        with pytest.raises(ValueError, match=r"form|version"):
            read_share_event(wrong, "run")
    with pytest.raises(ValueError, match="SharedJob is not in its form"):
        read_job({"job": {}})
    with pytest.raises(ValueError, match="not a share of this version"):
        read_share({**to_plain(SHARE), "settings": {"target": "sqlite:///x"}})
    with pytest.raises(ValueError, match="not for another machine"):
        to_plain(dataclasses.replace(SHARE, settings={"target": "sqlite:///x"}))


def test_an_unknown_class_of_errors_is_an_error_all_the_same() -> None:
    event = share_event(SHARE, Ended(SyncError("No.", code="no")))
    event["body"]["error"]["class"] = "Category"
    heard = read_share_event(event, "run")
    assert heard is not None
    assert isinstance(heard[1], Ended)
    assert type(heard[1].error) is SyncError


def test_a_job_is_taken_once() -> None:
    board = Board(lambda client: client == "c")
    assert board.post("r", "c", [1]) == 1
    assert board.post("r", "c", [2]) == 2
    assert [board.take("r") for _ in range(3)] == [1, 2, None]
    assert board.take("unknown") is None


def test_a_coordinator_that_is_gone_has_no_jobs() -> None:
    there = {"c"}
    board = Board(there.__contains__)
    board.post("r", "c", [1, 2])
    assert board.take("r") == 1
    there.clear()
    assert board.take("r") is None
    there.add("c")
    assert board.take("r") is None, "it is another one now"


def test_old_runs_are_forgotten() -> None:
    board = Board(lambda _client: True)
    for number in range(9):
        board.post(str(number), "c", [number])
    assert board.take("0") is None
    assert board.take("8") == 8


def test_who_shares_a_source() -> None:
    own = Versions("1.0", "3.11", "2026.8.0")
    other = dataclasses.replace(own, program="0.9")
    members, left_out = sharing(
        [
            Member("vm1", "b", "tls://b:1", own),
            Member("vm2", "x", "tls://x:1", own),
            Member("vm1", "a", "tls://a:1", own),
            Member("vm1", "c", "tls://c:1", other),
            Member("vm1", "d", "tls://d:1", None),
        ],
        own,
        "vm1",
    )
    assert [member.host for member in members] == ["a", "b"]
    assert [problem.code for problem in left_out] == ["version_differs"] * 2
