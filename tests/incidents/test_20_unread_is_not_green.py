"""20, 42: what this user may not read is named and counted, also where it was never seen before."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator

import pytest

from tests.incidents.conftest import Site

NOBODY = 65534


@pytest.fixture
def closed(site: Site) -> Iterator[Site]:
    """Two nodes that nobody else may look into: one as a whole, of one the repository."""
    for name in ("closed", "half"):
        shutil.copytree(site.fleet / "node032", site.fleet / name)
    hidden = (site.fleet / "closed", site.fleet / "half" / ".ipfs")
    for path in hidden:
        path.chmod(0)
    yield site
    for path in hidden:
        path.chmod(0o700)


def _named(document: dict[str, object]) -> dict[str, bool]:
    skipped: list[dict[str, object]] = document["skipped"]  # type: ignore[assignment]
    return {
        str(item["path"]): bool(item["hides_nodes"])
        for item in skipped
        if item["reason_code"] == "access_denied"
    }


def test_discovery_names_what_hides_nodes(closed: Site) -> None:
    found = closed.door.run("discover", str(closed.fleet), "--json", plain=True)
    named = _named(found.expect(0).document)
    assert named == {
        str(closed.fleet / "closed"): True,
        str(closed.fleet / "half" / ".ipfs"): True,
    }


def test_the_run_counts_it(closed: Site) -> None:
    shutil.rmtree(closed.fleet / "node037")
    report = closed.sync(plain=True)
    unread = [e for e in report["errors"] if e["code"] == "directory_unread"]
    assert {e["context"]["path"] for e in unread} == set(
        _named(closed.door.run("discover", str(closed.fleet), "--json", plain=True).document)
    )
    assert closed.run("sync", plain=True).code == 1


def test_a_repository_that_may_not_be_read_is_not_absent(closed: Site) -> None:
    closed.sync(plain=True)
    errors = closed.rows(
        "SELECT DISTINCT ipfs_error FROM TokenRecords WHERE node_name = 'half' AND NOT ipfs_fetched"
    )
    assert errors
    for (error,) in errors:
        assert str(error).startswith(("access_denied: ", "no_cid: ")), error


def test_a_root_that_may_not_be_read_costs_itself_only(closed: Site) -> None:
    whole, shut = str(closed.fleet / "node033"), str(closed.fleet / "closed")
    given = ("--source-ip", "vm1", "--target", closed.url, "--json")
    ended = closed.door.run("sync", whole, shut, *given, plain=True).expect(1)
    assert [row["node_name"] for row in ended.document["databases"]] == ["node033"]
    (problem,) = [p for p in ended.document["problems"] if p["code"] == "directory_unread"]
    assert problem["message"].startswith(f"{shut}: This user may not read it")
    for command in ("check", "verify"):
        ended = closed.door.run(command, whole, shut, *given, plain=True).expect(1)
        assert shut in ended.stdout


@pytest.mark.parametrize("part", ["blocks", "datastore_spec"])
def test_verify_does_not_call_equal_what_it_could_not_read(site: Site, part: str) -> None:
    shutil.copytree(site.fleet / "node032", site.home / "few" / "node")
    place = site.home / "few" / "node" / ".ipfs" / part
    mode = place.stat().st_mode
    place.chmod(0)
    for command in ("sync", "verify"):
        given = (str(site.home / "few"), "--source-ip", "vm1", "--target", site.url)
        ended = site.door.run(command, *given, "--quiet", plain=True).expect(1)
        assert "without content: this user may not read the node's repository." in ended.stdout
    assert "not everything could be compared" in ended.stdout
    place.chmod(mode)
    site.door.run("verify", *given, plain=True).expect(5)


def test_content_that_the_target_holds_is_proven_without_the_node(site: Site) -> None:
    given = (str(site.fleet / "node032"), "--source-ip", "vm1", "--target", site.url)
    site.door.run("sync", *given).expect(0)
    blocks = site.fleet / "node032" / ".ipfs" / "blocks"
    blocks.chmod(0)
    assert "equal." in site.door.run("verify", *given, plain=True).expect(0).stdout
    blocks.chmod(0o700)


def test_check_fails(closed: Site) -> None:
    checked = closed.run("check", "--json", plain=True)
    assert checked.code == 1
    failed = [c for c in checked.document["checks"] if c["name"] == "skipped" and not c["ok"]]
    assert {c["code"] for c in failed} == {"access_denied"}
    assert os.path.basename(str(closed.fleet)) in failed[0]["detail"]
