"""42, 20: what one run could not read is not forgotten by a run that looked elsewhere."""

from __future__ import annotations

import shutil

from tests.incidents.conftest import Site


def _open(site: Site) -> set[str]:
    """Codes of what `status` shows of the database and of the directory that cannot be read."""
    problems = site.door.run("status", "--target", site.url, "--json").document["problems"]
    return {one["detail"] for one in problems if one["severity"] == "error"}


def _sync(site: Site, *arguments: str) -> int:
    target = ("--source-ip", "vm1", "--target", site.url, "--quiet")
    return site.door.run("sync", *arguments, *target).code


def test_other_roots_and_single_nodes_settle_nothing(site: Site) -> None:
    few = site.home / "few"
    for name in ("good", "bad"):
        shutil.copytree(site.fleet / "node032", few / name)
    (few / "bad" / "Rubix" / "rubix.db").write_bytes(b"no database")
    (few / "link" / "Rubix").mkdir(parents=True)
    link = few / "link" / "Rubix" / "rubix.db"
    link.symlink_to("rubix.db")
    assert _sync(site, str(few)) == 1
    both = {"not_a_database", "broken_link"}
    assert _open(site) == both
    assert _sync(site, str(few), "--node", "good") == 1  # the link is below the root
    assert _open(site) == both
    assert _sync(site, str(site.fleet / "node033")) == 0  # did all that it was asked for
    assert _open(site) == both
    assert _sync(site, str(few / "good")) == 0  # leaves them out on purpose
    assert _open(site) == set()
    assert _sync(site, str(few)) == 1
    assert _open(site) == both


def test_what_is_removed_is_settled(site: Site) -> None:
    few = site.home / "few"
    shutil.copytree(site.fleet / "node032", few / "bad")
    (few / "bad" / "Rubix" / "rubix.db").write_bytes(b"no database")
    assert _sync(site, str(few)) == 1
    shutil.rmtree(few / "bad")
    assert _sync(site, str(site.fleet / "node033")) == 0
    assert _open(site) == set()
