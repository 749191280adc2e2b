"""Which databases are read, why, and with which content asked for again: the whole table."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from rubix_token_sync.errors import SourceError
from rubix_token_sync.nodes.discovery import Node, Skipped
from rubix_token_sync.runs.plan import Observed, Plan, PlanRules, left_out, make_plan, observe
from tests.runs.makers import NOW, SOURCE, make_node, make_state

NODE = Node("/fleet/a/Rubix/rubix.db", "a", "/fleet/a/.ipfs")
SAME = "as it was"
SAME_REPOSITORY = "repository as it was"
FAILED = {"ipfs_fail_count": 3, "ipfs_success_count": 97}
OLD = {"content_checked_at": NOW - timedelta(days=7, microseconds=1)}


def _look(fingerprint: str, repository_now: str | None) -> Callable[..., Observed]:
    def look(node: Node, *, repository: bool, chains: bool) -> Observed:
        return Observed(node, fingerprint, repository_now if repository else None, 10)

    return look


def _plan(
    state: dict[str, Any] | None,
    rules: PlanRules = PlanRules(),  # noqa: B008 - frozen
    fingerprint: str = SAME,
    repository: str | None = SAME_REPOSITORY,
) -> Plan:
    return make_plan(
        SOURCE,
        [NODE],
        [] if state is None else [make_state(NODE, **state)],
        rules,
        now=NOW,
        inside=lambda _path: True,
        look=_look(fingerprint, repository),
    )


FORCE = PlanRules(force=True)
RETRY = PlanRules(only_failed=True)
VERIFY = PlanRules(everything=True)
DAILY = PlanRules(recheck=timedelta(0))
NEVER_READ = {"fingerprint": None}


@pytest.mark.parametrize(
    ("state", "rules", "fingerprint", "repository", "reason", "retry"),
    [
        # nothing known of it
        (None, PlanRules(), SAME, SAME_REPOSITORY, "new", True),
        (NEVER_READ, PlanRules(), SAME, SAME_REPOSITORY, "new", True),
        (None, FORCE, SAME, SAME_REPOSITORY, "new", True),
        # as it was
        ({}, PlanRules(), SAME, SAME_REPOSITORY, "", False),
        ({}, FORCE, SAME, SAME_REPOSITORY, "forced", False),
        ({}, VERIFY, SAME, SAME_REPOSITORY, "verify", False),
        # a repository that changed is no matter where no content failed
        ({}, PlanRules(), SAME, "other", "", False),
        (OLD, PlanRules(), SAME, SAME_REPOSITORY, "", False),
        # the database changed
        ({}, PlanRules(), "other", SAME_REPOSITORY, "changed", False),
        ({}, FORCE, "other", SAME_REPOSITORY, "changed", False),
        ({"fingerprint": ""}, PlanRules(), SAME, SAME_REPOSITORY, "changed", False),
        (FAILED, PlanRules(), "other", SAME_REPOSITORY, "changed", False),
        (FAILED, PlanRules(), "other", "other", "changed", True),
        (FAILED | OLD, PlanRules(), "other", SAME_REPOSITORY, "changed", True),
        # content failed: not due, then due for each reason
        (FAILED, PlanRules(), SAME, SAME_REPOSITORY, "", False),
        (FAILED, FORCE, SAME, SAME_REPOSITORY, "forced", False),
        (FAILED, PlanRules(), SAME, "other", "content may have come", True),
        (FAILED, PlanRules(), SAME, None, "content may have come", True),
        (FAILED | OLD, PlanRules(), SAME, SAME_REPOSITORY, "content may have come", True),
        (FAILED, DAILY, SAME, SAME_REPOSITORY, "content may have come", True),
        (
            FAILED | {"content_checked_at": None}, PlanRules(), SAME, SAME_REPOSITORY,
            "content may have come", True,
        ),
        (
            FAILED | {"content_checked_at": NOW - timedelta(days=7)}, PlanRules(), SAME,
            SAME_REPOSITORY, "", False,
        ),
        # moved: another repository, another name
        ({"ipfs_path": "/elsewhere"}, PlanRules(), SAME, SAME_REPOSITORY, "moved", False),
        ({"ipfs_path": None}, PlanRules(), SAME, SAME_REPOSITORY, "moved", False),
        ({"node_name": "b"}, PlanRules(), SAME, SAME_REPOSITORY, "moved", False),
        (FAILED | {"ipfs_path": None}, PlanRules(), SAME, SAME_REPOSITORY, "moved", True),
        (FAILED | {"node_name": "b"}, PlanRules(), SAME, SAME_REPOSITORY, "moved", False),
        # retry-failed looks at failed content only, due or not
        ({}, RETRY, "other", "other", "", False),
        (FAILED, RETRY, SAME, SAME_REPOSITORY, "failed content", True),
        (FAILED, RETRY, "other", SAME_REPOSITORY, "failed content", True),
        (NEVER_READ | FAILED, RETRY, SAME, SAME_REPOSITORY, "", False),
        # verify reads whatever is known
        (None, VERIFY, SAME, SAME_REPOSITORY, "verify", False),
        (FAILED, VERIFY, "other", "other", "verify", False),
    ],
)  # fmt: skip
def test_decision(
    state: dict[str, Any] | None,
    rules: PlanRules,
    fingerprint: str,
    repository: str | None,
    reason: str,
    retry: bool,
) -> None:
    plan = _plan(state, rules, fingerprint, repository)
    if not reason:
        assert (plan.read, plan.current) == ([], [NODE])
    else:
        assert plan.current == []
        assert [(p.reason, p.retry_content) for p in plan.read] == [(reason, retry)]
    assert plan.missing == plan.unreadable == plan.unreachable == []


def test_retry_failed_says_nothing_of_databases_that_were_never_synced() -> None:
    assert _plan(None, RETRY) == Plan()


def test_a_node_without_a_repository_has_not_moved() -> None:
    node = replace(NODE, repository=None)
    plan = make_plan(
        SOURCE, [node], [make_state(node)], PlanRules(),
        now=NOW, inside=lambda _path: True, look=_look(SAME, None),
    )  # fmt: skip
    assert plan.current == [node]


def test_a_path_cut_to_the_column_is_not_a_move() -> None:
    node = replace(NODE, repository="/r" * 300)
    plan = make_plan(
        SOURCE, [node], [make_state(node, ipfs_path=("/r" * 300)[:500])], PlanRules(),
        now=NOW, inside=lambda _path: True, look=_look(SAME, None),
    )  # fmt: skip
    assert plan.current == [node]


def test_the_repository_that_was_asked_goes_with_the_job() -> None:
    changed = _plan(FAILED, fingerprint="other").read[0]
    assert (changed.retry_content, changed.asked_repository) == (False, SAME_REPOSITORY)
    assert _plan({}, fingerprint="other").read[0].asked_repository is None
    assert _plan(None).read[0].asked_repository is None


def test_large_databases_come_first_then_by_path() -> None:
    nodes = [Node(f"/fleet/{name}/Rubix/rubix.db", name, None) for name in "cab"]
    sizes = {"a": 1, "b": 5, "c": 1}
    plan = make_plan(
        SOURCE, nodes, [], PlanRules(), now=NOW, inside=lambda _path: True,
        look=lambda node, *, repository, chains: Observed(node, "", None, sizes[node.name]),
    )  # fmt: skip
    assert [planned.node.name for planned in plan.read] == ["b", "a", "c"]


def test_what_cannot_be_looked_at_is_unreadable_and_not_missing() -> None:
    gone = Node("/nowhere/Rubix/rubix.db", "nowhere", None)
    plan = make_plan(
        SOURCE, [gone], [make_state(gone)], PlanRules(), now=NOW, inside=lambda _path: True
    )
    assert [(node, error.category) for node, error in plan.unreadable] == [(gone, "database")]
    assert plan.missing == []


@pytest.mark.parametrize(
    ("error", "code"),
    [(PermissionError(13, "Permission denied"), "access_denied"), (OSError(5, "I/O"), "io_error")],
)
def test_errors_of_the_system_are_named(error: OSError, code: str) -> None:
    def look(node: Node, *, repository: bool, chains: bool) -> Observed:
        raise error

    plan = make_plan(SOURCE, [NODE], [], PlanRules(), now=NOW, inside=lambda _path: True, look=look)
    assert [e.code for _, e in plan.unreadable] == [code]


def test_missing_are_those_below_the_roots_only() -> None:
    here, elsewhere = (Node(f"/{name}/n/Rubix/rubix.db", "n", None) for name in ("here", "there"))
    plan = make_plan(
        SOURCE, [], [make_state(here), make_state(elsewhere)], PlanRules(),
        now=NOW, inside=lambda path: path.startswith("/here/"),
    )  # fmt: skip
    assert [state.db_path for state in plan.missing] == [here.db_path]


def test_missing_but_hidden_is_unreachable() -> None:
    hidden = SourceError("hidden", code="access_denied")
    plan = make_plan(
        SOURCE, [], [make_state(NODE)], PlanRules(),
        now=NOW, inside=lambda _path: True, missed=lambda _path: hidden,
    )  # fmt: skip
    assert plan.missing == []
    assert [error for _, error in plan.unreachable] == [hidden]


PATH = "/fleet/a/Rubix/rubix.db"


@pytest.mark.parametrize(
    ("skipped", "code"),
    [
        ([], None),
        ([Skipped("/fleet/b", "access_denied", "")], None),
        ([Skipped("/fleet/a", "access_denied", "")], "access_denied"),
        ([Skipped("/fleet/a/Rubix", "io_error", "")], "io_error"),
        ([Skipped("/fleet/a/Rub", "io_error", "")], None),
        ([Skipped("/fleet", "other_file_system", "")], "other_file_system"),
        ([Skipped(PATH, "symlink", "")], "symlink"),
        ([Skipped("/fleet", "stalled", "")], "stalled"),
        ([Skipped("/fleet/slow", "stalled", "")], None),
        # these say that somebody looked, and found nothing
        ([Skipped("/fleet/a/Rubix", "no_database", "")], None),
        ([Skipped("/fleet/a/.ipfs", "bare_repository", "")], None),
    ],
)
def test_why_discovery_missed_it(skipped: list[Skipped], code: str | None) -> None:
    error = left_out(PATH, skipped)
    assert (error and error.code) == code


def test_a_file_that_is_there_is_never_gone(tmp_path: Path) -> None:
    (tmp_path / "rubix.db").touch()
    error = left_out(str(tmp_path / "rubix.db"), [])
    assert error is not None
    assert error.code == "not_discovered"


def test_observes_database_log_and_only_repositories_that_matter(tmp_path: Path) -> None:
    node = make_node(tmp_path / "n", 3, in_wal=True)
    seen = observe(node, repository=False)
    assert seen.repository_fingerprint is None
    assert seen.size == sum(os.path.getsize(node.db_path + end) for end in ("", "-wal"))
    assert observe(node, repository=True).repository_fingerprint
    assert observe(node, repository=False).fingerprint == seen.fingerprint
