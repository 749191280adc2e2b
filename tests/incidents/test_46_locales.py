"""46: a locale changes neither what a node is nor a record; names need not be UTF-8."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from tests.incidents.conftest import Site

LOCALES = (
    {"LC_ALL": "C.UTF-8"},
    {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"},
    {"LC_ALL": "POSIX"},
)
ODD = b"n\xff\xc3"


def test_the_same_records_under_every_locale(site: Site) -> None:
    for entry in site.fleet.iterdir():
        if entry.is_symlink():
            entry.unlink()
        elif entry.is_dir() and entry.name != "node032":
            shutil.rmtree(entry)
    shutil.copytree(site.fleet / "node032", site.fleet / "n\u00fc\U0001f642")
    odd = Path(os.fsdecode(os.fsencode(site.fleet) + b"/" + ODD))
    shutil.copytree(site.fleet / "node032", odd)
    records = []
    for number, locale in enumerate(LOCALES):
        site.target = site.home / f"{number}.db"
        environment = {k: v for k, v in os.environ.items() if not k.startswith(("LC_", "LANG"))}
        done = subprocess.run(
            [sys.executable, "-m", "rubix_token_sync", *site.arguments("sync")],
            env={**environment, **locale}, cwd=site.home, capture_output=True, timeout=120,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr.decode(errors="replace")
        records.append(
            site.rows(
                "SELECT record_key, row_digest, node_name, db_path, ipfs_path, ipfs_data "
                "FROM TokenRecords ORDER BY record_key"
            )
        )
    assert records[0] == records[1] == records[2]
    names = {str(row[2]) for row in records[0]}
    assert names == {"node032", "n\u00fc\U0001f642", "n\\xff\\xc3"}
    paths = {str(row[3]) for row in records[0]}
    assert f"file://{site.fleet}/n%FF%C3/Rubix/rubix.db" in paths
    site.run("verify").expect(0)
