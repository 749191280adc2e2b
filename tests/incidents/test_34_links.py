"""34, 42: links that stand for a node, its database or its repository are followed."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from rubix_token_sync.errors import SettingsError
from rubix_token_sync.nodes.discovery import discover
from rubix_token_sync.nodes.keep_out import keep_out
from tests.incidents.conftest import Site


@pytest.fixture
def big(site: Site) -> Path:
    """Another disk, below which parts of nodes were moved."""
    path = site.home / "big"
    path.mkdir()
    return path


def _move(path: Path, to: Path) -> Path:
    shutil.move(path, to)
    path.symlink_to(to)
    return to


def test_a_linked_repository_and_a_linked_database(site: Site, big: Path) -> None:
    before = site.sync()
    fetched = site.one("SELECT count(*) FROM TokenRecords WHERE ipfs_fetched")
    site.target.unlink()
    _move(site.fleet / "node032" / ".ipfs", big / "repository")
    moved = _move(site.fleet / "node033" / "Rubix" / "rubix.db", big / "node033.db")
    after = site.sync()
    for name in ("records_inserted", "total_databases_processed"):
        assert after[name] == before[name], name
    assert site.one("SELECT count(*) FROM TokenRecords WHERE ipfs_fetched") == fetched
    site.run("verify").expect(0, 1)
    # the real places are the nodes'
    for path in (moved, big / "repository" / "blocks" / "report"):
        with pytest.raises(SettingsError):
            keep_out(path, "The report")
    # a change of the real file is a change
    os.utime(moved)
    assert [d["status"] for d in site.sync()["databases"] if d["node_name"] == "node033"] == [
        "processed"
    ]


@pytest.mark.parametrize("part", ["", "Rubix"])
def test_a_linked_node_and_a_linked_directory_rubix(part: str, site: Site, big: Path) -> None:
    _move(site.fleet / "node032" / part, big / "moved")
    found = discover([site.fleet])
    (node,) = [node for node in found.nodes if node.name == "node032"]
    assert node.db_path == str(site.fleet / "node032/Rubix/rubix.db")
    assert node.repository == str(site.fleet / "node032/.ipfs")
    both = discover([site.fleet, big])
    assert len([n for n in both.nodes if Path(n.db_path).samefile(node.db_path)]) == 1


def test_advice_for_other_links_works(site: Site, big: Path) -> None:
    shutil.copytree(site.fleet / "node032", big / "deep" / "node099")
    (site.fleet / "more").symlink_to(big)
    found = discover([site.fleet])
    (item,) = [item for item in found.skipped if item.path == str(site.fleet / "more")]
    assert "Give the link's target as a root" in item.remedy
    advised = discover([site.fleet, os.readlink(site.fleet / "more")])
    assert "node099" in [node.name for node in advised.nodes]
    assert item.path not in [other.path for other in discover([site.fleet, item.path]).skipped]


def test_loops_and_broken_links_are_named(tmp_path: Path) -> None:
    for name in ("loop", "gone"):
        (tmp_path / name / "Rubix").mkdir(parents=True)
    (tmp_path / "loop/Rubix/rubix.db").symlink_to("rubix.db")
    (tmp_path / "gone/Rubix/rubixtest.db").symlink_to("/nowhere/rubixtest.db")
    (tmp_path / "gone/.ipfs").symlink_to("/nowhere/.ipfs")
    found = discover([tmp_path])
    assert found.nodes == []
    assert {os.path.relpath(i.path, tmp_path): i.reason_code for i in found.skipped} == {
        "loop/Rubix/rubix.db": "broken_link",
        "gone/Rubix/rubixtest.db": "broken_link",
        "gone/.ipfs": "broken_link",
    }
    assert all(item.hides_nodes for item in found.skipped)


def test_two_links_to_one_database_are_one_node(tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        (tmp_path / name / "Rubix").mkdir(parents=True)
    (tmp_path / "c/Rubix/rubix.db").touch()
    for name in ("a", "b"):
        (tmp_path / name / "Rubix/rubix.db").symlink_to("../../c/Rubix/rubix.db")
    found = discover([tmp_path])
    assert [node.name for node in found.nodes] == ["c"]
    assert {item.reason_code for item in found.skipped} == {"same_place"}
