"""23: what differs in the target is made equal again; a sync notices what is missing."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.chaos.door import Door
from tests.incidents.conftest import Site

_SOME = "SELECT min(record_key) FROM TokenRecords WHERE ipfs_fetched"

_TAMPERING = {
    "a deleted row": f"DELETE FROM TokenRecords WHERE record_key = ({_SOME})",
    "a third of all rows deleted": "DELETE FROM TokenRecords WHERE id % 3 = 0",
    "all rows deleted": "DELETE FROM TokenRecords",
    "an owner": f"UPDATE TokenRecords SET did = 'somebody' WHERE record_key = ({_SOME})",
    "a token id": f"UPDATE TokenRecords SET token_id = 'QmOther' WHERE record_key = ({_SOME})",
    "a source": f"UPDATE TokenRecords SET source_ip = 'elsewhere' WHERE record_key = ({_SOME})",
    "a content": f"UPDATE TokenRecords SET ipfs_data = 'forged' WHERE record_key = ({_SOME})",
    "a content away": "UPDATE TokenRecords SET ipfs_data = NULL, ipfs_fetched = 0,"
    f" ipfs_error = 'gone: gone' WHERE record_key = ({_SOME})",
    "a record said to be gone": "UPDATE TokenRecords SET source_deleted_at = '2026-01-01'"
    f" WHERE record_key = ({_SOME})",
    "a digest": f"UPDATE TokenRecords SET row_digest = zeroblob(16) WHERE record_key = ({_SOME})",
    "a record that no node has": "INSERT INTO TokenRecords (record_key, row_digest, source_ip,"
    " node_name, token_id, db_path, db_last_modified) SELECT CAST(substr(record_key, 1, 8) ||"
    " zeroblob(16) AS BLOB), zeroblob(16), source_ip, node_name, 'QmStranger', db_path,"
    " db_last_modified"
    f" FROM TokenRecords WHERE record_key = ({_SOME})",
    "a record of no database": "INSERT INTO TokenRecords (record_key, row_digest, source_ip,"
    " node_name, token_id, db_path, db_last_modified) SELECT zeroblob(24), zeroblob(16),"
    " source_ip, node_name, 'QmStranger', '/nowhere', db_last_modified"
    f" FROM TokenRecords WHERE record_key = ({_SOME})",
}
_COUNTED = [what for what, how in _TAMPERING.items() if "DELETE" in how or "source_deleted" in how]
_LIVE = (
    "SELECT record_key, row_digest, source_ip, node_name, did, token_id, token_status, ipfs_data,"
    " ipfs_fetched, validation_errors, db_path FROM TokenRecords WHERE source_deleted_at IS NULL"
    " ORDER BY record_key"
)


@pytest.fixture(scope="module")
def synced(door: Door, unpacked_fleet: Path, tmp_path_factory: pytest.TempPathFactory) -> Site:
    """A machine whose fleet was synced once: only to be copied."""
    site = Site(door, unpacked_fleet, tmp_path_factory.mktemp("synced"))
    site.sync()
    return site


@pytest.fixture
def untouched(synced: Site, tmp_path: Path) -> Site:
    """The same fleet, which is only to be read, and a copy of its target."""
    shutil.copy(synced.target, tmp_path / synced.target.name)
    return Site(synced.door, synced.fleet, tmp_path)


@pytest.mark.parametrize("command", [("verify", "--repair"), ("sync", "--force")])
@pytest.mark.parametrize("what", _TAMPERING)
def test_it_is_made_equal_again(untouched: Site, what: str, command: tuple[str, ...]) -> None:
    site = untouched
    whole = site.rows(_LIVE)
    site.change(_TAMPERING[what])
    assert site.rows(_LIVE) != whole or what == "a token id"
    found = site.run("verify", "--json")
    assert (found.code, found.document["equal"]) == (5, False)
    repaired = site.run(*command, "--json")
    # The fixture fleet has databases that cannot be read: 1, but never 5.
    assert repaired.code == 1, repaired.stderr
    assert site.rows(_LIVE) == whole
    after = site.run("verify", "--json")
    assert (after.code, sum(after.document["differences"].values())) == (1, 0)


@pytest.mark.parametrize("what", _COUNTED)
def test_a_nightly_sync_notices_missing_records(untouched: Site, what: str) -> None:
    site = untouched
    whole = site.rows(_LIVE)
    site.change(_TAMPERING[what])
    report = site.sync()
    assert report["tokens_read"] > 0
    assert site.rows(_LIVE) == whole
    assert site.sync()["tokens_read"] == 0


def test_content_that_only_the_target_has_survives_a_repair(site: Site) -> None:
    site.sync()
    token = site.one(
        "SELECT min(token_id) FROM TokenRecords WHERE ipfs_fetched AND node_name = 'node032'"
        " AND token_id LIKE 'Qm%'"
    )
    data = site.one("SELECT ipfs_data FROM TokenRecords WHERE token_id = ? LIMIT 1", token)
    for block in Path(site.fleet).glob("**/.ipfs/blocks/*/*.data"):
        block.unlink()
    site.change("UPDATE TokenRecords SET did = 'somebody' WHERE token_id = ?", token)
    assert site.run("verify", "--repair").code == 1
    stored = site.rows("SELECT ipfs_data, did FROM TokenRecords WHERE token_id = ?", token)
    assert {row[0] for row in stored} == {data}
    assert "somebody" not in {row[1] for row in stored}
