"""33: the node's own program is found where the node software keeps it, or the option is named."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from rubix_token_sync.ipfs.readers.program import find_program
from tests.incidents.conftest import Site


@pytest.mark.parametrize("place", ["node", "node/..", "node/Rubix", "node/.ipfs"])
def test_its_places(place: str, tmp_path: Path) -> None:
    repository = tmp_path / "node" / ".ipfs"
    (tmp_path / "node" / "Rubix").mkdir(parents=True)
    repository.mkdir()
    assert find_program(str(repository)) is None
    program = tmp_path / place / "ipfs"
    program.touch()
    assert find_program(str(repository)) is None  # nobody may execute it
    program.chmod(0o755)
    found = find_program(str(repository))
    assert found is not None
    assert Path(found).samefile(program)


def test_the_message_names_the_option(site: Site) -> None:
    repository = site.fleet / "node032" / ".ipfs"
    (repository / "datastore_spec").write_text(json.dumps({"type": "pebbleds", "path": "pebbleds"}))
    (repository / "pebbleds").mkdir()
    site.sync("--node", "node032")
    with closing(sqlite3.connect(site.target)) as db:
        errors = {
            str(error)
            for (error,) in db.execute("SELECT DISTINCT ipfs_error FROM TokenRecords")
            if error is not None
        }
    (error,) = {error for error in errors if not error.startswith("no_cid")}
    assert error.startswith("program_failed: ")
    assert "--ipfs-program" in error
    assert str(site.fleet / "node032" / "ipfs") in error
