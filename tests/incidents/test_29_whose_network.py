"""29: of which network a database's tokens are is said where something there says it."""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from rubix_token_sync.nodes.did_keys import NodeKeys
from rubix_token_sync.nodes.kinds import network_of
from rubix_token_sync.testing import FleetPlan, make_fleet, make_identity, write_public_keys
from tests.chaos.door import Door

from .conftest import Site

DID = "bafybmibpgg676xo6ft35arwskqt7wj6mvreg7bc3chd7nulvojtsa5sycq"


def _beside(path: Path, *files: str) -> str:
    (path / "Rubix").mkdir(parents=True)
    for name in ("rubix.db", *files):
        there = path / "Rubix" / name
        there.parent.mkdir(parents=True, exist_ok=True)
        there.write_bytes(b"x")
    return str(path / "Rubix/rubix.db")


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ((), None),
        (("rubixtest.db",), "main"),
        (("MainNet/tokenchainstorage/000003.log",), "main"),
        (("MainNet/FTchainstorage/000003.ldb",), "main"),
        (("TestNet/tokenchainstorage/000003.log",), "test"),
        (("TestNet/nftchainstorage/000003.log",), "test"),
        (("TestNet/tokenchainstorage/LOG",), None),
        (("TestNet/tokenchainstorage/000003.log", "rubixtest.db"), "main"),
        (("TestNet/tokenchainstorage/1.log", "MainNet/tokenchainstorage/1.log"), None),
        ((f"{DID}/pubKey.pem",), "main"),
        ((f"TestNetDID/{DID}/pubKey.pem",), "test"),
        ((f"TestNetDID/{DID}/pubKey.pem", "MainNet/tokenchainstorage/1.log"), "main"),
        ((f"TestNetDID/{DID}/pubKey.pem", f"{DID}/pubKey.pem"), None),
        (("TestNetDID/somebody/pubKey.pem",), None),
        ((f"TestNetDID/{DID}",), None),
    ],
)
def test_what_says_it(files: tuple[str, ...], expected: str | None, tmp_path: Path) -> None:
    assert network_of(_beside(tmp_path, *files)) == expected
    assert network_of(str(tmp_path / "Rubix/rubixtest.db")) == "test"


def test_a_copy_of_a_database_alone_says_nothing(
    door: Door, real_nodes: Path, tmp_path: Path
) -> None:
    """The tokens of a test net's node, in a file whose name is that of the main net."""
    target = ("--target", f"sqlite:///{tmp_path}/t.db")
    roots = [str(real_nodes / name) for name in ("bob", "bob-backup")]
    door.run("sync", *roots, *target, "--source-ip", "vm1").expect(0, 1)
    with closing(sqlite3.connect(tmp_path / "t.db")) as db:
        rows = db.execute("SELECT node_name, network, token_id FROM TokenRecords").fetchall()
    assert {row[:2] for row in rows} == {("bob", "test"), ("bob-backup", None)}
    tokens = {name: {row[2] for row in rows if row[0] == name} for name in ("bob", "bob-backup")}
    both = sorted(tokens["bob"] & tokens["bob-backup"])
    said = door.run("token", both[0], *target).expect(0).stdout
    assert ", test net" in said
    assert ", network unknown" in said
    assert "main net" not in said


def test_it_is_read_again_once_something_says_it(site: Site) -> None:
    def networks() -> set[object]:
        return {row[0] for row in site.rows("SELECT DISTINCT network FROM TokenRecords")}

    shutil.rmtree(site.fleet)
    make_fleet(site.fleet, FleetPlan(nodes=1, tokens_per_node=3))
    site.sync()
    assert networks() == {None}
    assert site.sync()["total_databases_processed"] == 0
    (rubix,) = site.fleet.glob("*/Rubix")
    write_public_keys(rubix, "test", [make_identity(1, 1)])
    assert site.run("verify").code == 5
    assert site.sync()["records_updated"] == 3
    assert networks() == {"test"}
    assert site.run("verify").code == 0


def test_keys_are_looked_for_in_both_places_where_it_is_unknown(tmp_path: Path) -> None:
    main, test = (make_identity(1, number) for number in (1, 2))
    write_public_keys(tmp_path, "main", [main])
    write_public_keys(tmp_path, "test", [test])
    keys = NodeKeys(str(tmp_path / "rubix.db"), None)
    assert keys.many([main.did, test.did, DID]) == [main.public_key, test.public_key, None]
