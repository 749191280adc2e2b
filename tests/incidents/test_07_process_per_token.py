"""7: content comes from the block store; no process per token, no repository's lock."""

from __future__ import annotations

import os

from tests.incidents.conftest import Site


def test_no_ipfs_program_is_started(site: Site) -> None:
    started = site.home / "started"
    programs = site.home / "bin"
    programs.mkdir()
    fake = programs / "ipfs"
    fake.write_text(f'#!/bin/sh\necho "$@" >> {started}\nexit 1\n')
    fake.chmod(0o755)
    for repository in site.fleet.rglob(".ipfs"):
        (repository / "repo.lock").touch()  # a daemon holds it: the program could not open it
    report = site.sync(
        "--num-ipfs-workers", "32",
        env={"PATH": f"{programs}:{os.environ['PATH']}"}, processes=True,
    )  # fmt: skip
    assert not started.exists()
    assert report["content_by_way"]["blockstore"] + report["content_by_way"].get("target", 0) == 323
    told = {
        row[0].split(":")[0]
        for row in site.rows("SELECT ipfs_error FROM TokenRecords WHERE ipfs_error IS NOT NULL")
    }
    assert told == {"damaged", "no_cid", "no_repository", "not_in_repository", "too_large_to_store"}
