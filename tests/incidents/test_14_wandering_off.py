"""14: discovery stays inside its roots and on their file systems, and survives what it meets."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
from pathlib import Path

from tests.incidents.conftest import Site


def _skipped(report: dict[str, object]) -> dict[str, str]:
    return {item["path"]: item["reason_code"] for item in report["skipped"]}  # type: ignore[attr-defined, index]


def test_what_may_not_be_read_is_skipped_and_told(site: Site) -> None:
    closed = site.fleet / "closed"
    shutil.copytree(site.fleet / "node032", closed / "node099")
    closed.chmod(0)
    odd = site.fleet / "odd" / "Rubix"
    odd.mkdir(parents=True)
    os.mkfifo(odd / "rubix.db")
    with socket.socket(socket.AF_UNIX) as listener:
        with contextlib.chdir(site.fleet):  # names of sockets are short
            listener.bind("socket")
        report = site.sync(plain=True)
    closed.chmod(0o700)
    skipped = _skipped(report)
    assert skipped[str(closed)] == "access_denied"
    assert skipped[str(odd / "rubix.db")] == "not_a_file"
    assert report["total_databases_processed"] == 6
    assert report["records_inserted"] == 373


def test_links_do_not_lead_outside(site: Site) -> None:
    outside = site.home / "outside"
    shutil.copytree(site.fleet / "node032", outside / "node077")
    (site.fleet / "way_out").symlink_to(outside)
    (site.fleet / "deep").mkdir()
    (site.fleet / "deep" / "up").symlink_to("..")
    (site.fleet / "kernel").symlink_to("/sys")
    report = site.sync()
    skipped = _skipped(report)
    for name in ("way_out", "deep/up", "kernel"):
        assert skipped[str(site.fleet / name)] == "symlink"
    assert all(d["db_path"].startswith(str(site.fleet)) for d in report["databases"])
    assert report["records_inserted"] == 373


def test_other_file_systems_are_left_out(site: Site) -> None:
    """`/` as a root, but its process and kernel trees are other file systems."""
    found = site.door.run("discover", "/sys/firmware", "/proc/self", "--json")
    found.expect(0)
    crossed = site.door.run("discover", "/sys", "--json").expect(0).document
    mounts = {
        line.split()[4]
        for line in Path("/proc/self/mountinfo").read_text().splitlines()
        if line.split()[4].startswith("/sys/")
    }
    top = {m for m in mounts if not any(m.startswith(f"{other}/") for other in mounts)}
    said = {s["path"]: s["reason_code"] for s in crossed["skipped"]}
    assert {path: said.get(path) for path in top if os.path.isdir(path)} == {
        path: "other_file_system" for path in top if os.path.isdir(path)
    }
