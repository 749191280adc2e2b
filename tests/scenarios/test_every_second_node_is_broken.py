"""A fleet of which every second node is broken in another way, as an operator meets it.

The whole nodes are complete and exact, each broken one is named with its true cause and a
cure; once all cures are done, everything is green.
"""

from __future__ import annotations

import re
import shutil
import sqlite3
import stat
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from rubix_token_sync.testing import Fleet
from tests.chaos.door import Door, Finished
from tests.scenarios.broken_nodes import BREAKAGES, TOKENS, Breakage, make_broken_fleet

_UNREAD_REPOSITORIES = ("p closed repository", "u2 a file for a repository")


class Operator:
    """Somebody without root's privileges who looks after the fleet."""

    def __init__(self, door: Door, home: Path, fleet: Path, whole: Path, plan: Fleet) -> None:
        self._door = door
        self._home = home
        self.fleet, self.whole, self.plan = fleet, whole, plan

    def run(self, command: str, *more: str) -> Finished:
        """A command over the whole fleet, or about the target."""
        roots = [] if command in ("status", "databases", "errors") else [str(self.fleet)]
        given = ["--target", f"sqlite:///{self._home}/t.db", "--source-ip", "vm1", *more]
        ended = self._door.run(command, *roots, *given, cwd=self._home, plain=True)
        return ended.expect(0, 1)

    def rows(self, statement: str) -> list[tuple[Any, ...]]:
        """Ask the target."""
        with closing(sqlite3.connect(self._home / "t.db")) as db:
            return db.execute(statement).fetchall()

    def mend(self, breakage: Breakage) -> None:
        """Do what the cure says."""
        node, whole = self.fleet / breakage.name, self.whole / breakage.name
        if breakage.mend is not None:
            breakage.mend(node, whole)
        else:
            shutil.rmtree(node)
            shutil.copytree(whole, node)


@pytest.fixture(scope="module")
def operator(door: Door, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Operator]:
    """The fleet after two nights; the tests read what was said, and the last one mends it."""
    place = tmp_path_factory.mktemp("broken")
    (place / "home").mkdir()
    yield Operator(door, place / "home", *make_broken_fleet(place))
    for path in (place / "fleet").rglob("*"):
        if not stat.S_IMODE(path.lstat().st_mode):
            path.chmod(0o700)


@pytest.fixture(scope="module")
def nights(operator: Operator) -> list[Finished]:
    """Two syncs, one after the other."""
    return [operator.run("sync", "--json") for _ in range(2)]


@pytest.fixture(scope="module")
def said(operator: Operator, nights: list[Finished]) -> dict[str, Finished]:
    """What each command says afterwards."""
    asked = ("status", "databases", "verify", "check", "discover")
    return {"sync": nights[1], **{name: operator.run(name, "--json") for name in asked}}


def _about(problems: list[dict[str, Any]], breakage: Breakage) -> list[dict[str, Any]]:
    """Problems that are about a broken node, by what an operator can see of it."""
    own = f"/fleet/{breakage.name}"
    return [
        one
        for one in problems
        if f"{own}/" in (one["db_path"] or "")
        or f"{own}/" in one["message"]
        or f"{own}:" in one["message"]
    ]


def test_both_nights_end_with_1(nights: list[Finished]) -> None:
    assert [night.code for night in nights] == [1, 1]


def test_what_a_run_finds_adds_up(nights: list[Finished]) -> None:
    for night in nights:
        said = re.search(
            r"(\d+) databases found, (\d+) to read, (\d+) unchanged, (\d+) unreadable", night.stderr
        )
        assert said, night.stderr[:3000]
        found, *parts = (int(number) for number in said.groups())
        assert found == sum(parts)


def test_whole_nodes_are_complete_and_exact(operator: Operator, nights: list[Finished]) -> None:
    del nights
    held = {
        (path, token): tuple(rest)
        for path, token, *rest in operator.rows(
            "SELECT db_path, token_id, parent_token_id, did, token_status, ipfs_data, ipfs_fetched"
            " FROM TokenRecords"
        )
    }
    checked = 0
    for node in operator.plan.nodes[1::2]:
        home = operator.fleet / node.name
        if node is operator.plan.nodes[-1]:
            home = operator.fleet / "second" / "twin"
        for token in operator.plan.truth(node):
            _, parent, _, did, status, *_ = token.row
            record = held[str(home / "Rubix" / "rubix.db"), token.token_id]
            assert record == (parent, did, str(status), token.content.decode(), 1)
            checked += 1
    assert checked == len(BREAKAGES) * TOKENS


def test_whole_nodes_are_not_read_again(nights: list[Finished]) -> None:
    whole = {f"node{2 * number:03d}" for number in range(1, len(BREAKAGES))}
    second = {row["node_name"]: row["status"] for row in nights[1].document["databases"]}
    assert {second[name] for name in whole} == {"current"}
    assert nights[1].document["records_inserted"] == nights[1].document["records_updated"] == 0


@pytest.mark.parametrize("breakage", BREAKAGES, ids=lambda one: one.name)
def test_what_is_left_of_a_broken_node(
    operator: Operator, nights: list[Finished], breakage: Breakage
) -> None:
    del nights
    ((records, content),) = operator.rows(
        "SELECT count(*), coalesce(sum(ipfs_fetched), 0) FROM TokenRecords WHERE db_path LIKE "
        f"'%/fleet/{breakage.name}/%' AND token_id LIKE 'Qm%'"
    )
    assert (records, content) == (breakage.records, breakage.content)


@pytest.mark.parametrize("command", ["sync", "status", "databases", "verify", "check"])
def test_every_command_names_cause_and_cure(said: dict[str, Finished], command: str) -> None:
    ended = said[command]
    assert ended.code == 1
    for breakage in BREAKAGES:
        if command == "check":
            found = [
                (one["code"], one["detail"], one["remedy"])
                for one in ended.document["checks"]
                if f"/fleet/{breakage.name}" in one["detail"] and one["ok"] is breakage.warning
            ]
            if breakage.code == "records_rejected":
                continue  # what it comes to is only known once all of it is read
        else:
            found = [
                (one["detail"] or one["code"], one["message"], one["cure"] or one["message"])
                for one in _about(ended.document["problems"], breakage)
            ]
        if command == "databases" and breakage.hidden:
            continue
        if command == "verify" and breakage.code == "records_rejected":
            continue
        matching = [
            one for one in found if one[0] == breakage.code and breakage.cure in " ".join(one)
        ]
        assert matching, f"{breakage.name}: {found}"
        if command != "check":
            assert any(breakage.says in one[1] for one in matching), f"{breakage.name}: {found}"


def test_nothing_is_said_of_whole_nodes(said: dict[str, Finished]) -> None:
    for command in ("sync", "status", "verify"):
        for problem in said[command].document["problems"]:
            assert not any(f"node{n:03d}" in problem["message"] for n in range(1, 100)), problem


def test_two_nodes_of_one_name_are_told_apart(
    operator: Operator, nights: list[Finished], said: dict[str, Finished]
) -> None:
    named = f"twin ({operator.fleet}/twin/Rubix/rubix.db): The file does not begin"
    (message,) = [
        problem["message"]
        for problem in said["status"].document["problems"]
        if "twin" in problem["message"]
    ]
    assert message.startswith(named)
    assert named in nights[0].stderr


def test_verify_finds_no_difference(said: dict[str, Finished]) -> None:
    verified = said["verify"].document
    assert set(verified["differences"].values()) == {0}
    assert not verified["equal"]
    assert (
        verified["records"] == sum(one.records for one in BREAKAGES) + len(BREAKAGES) * TOKENS + 1
    )


def test_discover_names_what_hides_nodes(operator: Operator, said: dict[str, Finished]) -> None:
    found = said["discover"].document
    hiding = {item["path"] for item in found["skipped"] if item["hides_nodes"]}
    for breakage in BREAKAGES:
        if breakage.hidden or breakage.name in _UNREAD_REPOSITORIES:
            place = str(operator.fleet / breakage.name)
            assert any(path.startswith(place) for path in hiding), breakage.name
            hiding = {path for path in hiding if not path.startswith(place)}
    assert not hiding
    assert all(item["remedy"] for item in found["skipped"] if item["hides_nodes"])


@pytest.mark.usefixtures("said")
def test_once_all_is_mended_all_is_green(operator: Operator) -> None:
    for breakage in BREAKAGES:
        operator.mend(breakage)
    operator.run("sync", "--quiet")
    left = operator.run("status", "--json").document["problems"]
    assert all("retry-failed" in problem["cure"] for problem in left), left
    operator.run("retry-failed", "--quiet").expect(0)
    assert "All is well." in operator.run("status", "--strict").expect(0).stdout
    for command in ("databases", "check", "verify"):
        operator.run(command).expect(0)
    assert operator.rows(
        "SELECT count(*), sum(ipfs_fetched) FROM TokenRecords WHERE source_deleted_at IS NULL"
    ) == [(2 * len(BREAKAGES) * TOKENS,) * 2]
