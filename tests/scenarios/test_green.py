"""What is green and what is not: every state, the exit code of every command in it.

The table in docs/RELIABILITY.md is this one; a test holds the two together.
"""

from __future__ import annotations

import os
import re
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

import rubix_token_sync as rts
from rubix_token_sync import log
from rubix_token_sync.cli import _run
from rubix_token_sync.installation import LEVELDB
from rubix_token_sync.testing import (
    FleetPlan,
    change_status,
    create_database,
    generated_block,
    make_fleet,
)
from rubix_token_sync.testing.chains import FT
from tests.nodes.chain_nodes import ALICE, TOKENS, make_node

PAGE = Path(__file__).parents[2] / "docs" / "RELIABILITY.md"
COMMANDS = ("check", "sync", "verify", "status", "databases")


class Site:
    """A fleet of two nodes, a target, and the commands of a person who looks after them."""

    def __init__(self, place: Path, made: Path) -> None:
        self.nodes = shutil.copytree(made, place / "nodes")
        self.target = f"sqlite:///{place / 't.db'}"
        self.file = place / "t.db"
        self.fault: str | None = None
        self.roots = [self.nodes]
        self.more: dict[str, list[str]] = {}

    def database(self, node: str = "node001") -> Path:
        return self.nodes / node / "Rubix" / "rubix.db"

    def change(self, statement: str) -> None:
        with closing(sqlite3.connect(self.file)) as db, db:
            db.execute(statement)

    def sync(self) -> rts.SyncResult:
        return rts.sync(self.nodes, target=self.target, source_ip="me")

    def code(self, command: str) -> int:
        name, *flags = command.split()
        asks = name in ("status", "databases")
        roots = [] if asks else [str(root) for root in self.roots]
        arguments = [
            name, *flags, *roots, "--target", self.target, "--source-ip", "me", "--quiet",
            *self.more.get(command, []),
        ]  # fmt: skip
        if self.fault is None:
            try:
                return _run(arguments)
            finally:
                log.tear_down()
        ended = subprocess.run(
            [sys.executable, "-m", "rubix_token_sync", *arguments],
            capture_output=True, timeout=100,
            env={**os.environ, "RUBIX_SYNC_FAULT": self.fault},
        )  # fmt: skip
        assert b"Traceback" not in ended.stderr
        return ended.returncode


def well(site: Site) -> None:
    site.sync()


def damage(site: Site, share: float) -> None:
    """Blocks of node001 whose bytes are not what their names say."""
    blocks = sorted((site.nodes / "node001" / ".ipfs" / "blocks").rglob("*.data"))
    for block in blocks[: int(len(blocks) * share)]:
        block.chmod(0o600)
        block.write_bytes(b"damaged" + block.read_bytes())


def content_damaged(site: Site) -> None:
    damage(site, 1)
    site.sync()


def content_damaged_a_little(site: Site) -> None:
    damage(site, 0.06)
    site.sync()


def strict(site: Site) -> None:
    content_damaged_a_little(site)
    site.more = {name: ["--strict"] for name in ("check", "sync", "status", "databases")}


def unreadable_new(site: Site) -> None:
    site.database("node003").parent.mkdir(parents=True, exist_ok=True)
    site.database("node003").write_bytes(b"no database")
    site.sync()


def unreadable_known(site: Site) -> None:
    site.sync()
    site.database().write_bytes(b"no database")
    site.sync()


def gone(site: Site) -> None:
    site.sync()
    shutil.rmtree(site.nodes / "node001")
    site.sync()


def shrunk(site: Site) -> None:
    site.sync()
    with closing(sqlite3.connect(site.database())) as db, db:
        db.execute("DELETE FROM TokensTable WHERE rowid > 5")
    site.sync()


def another_node_synced_since(site: Site) -> None:
    unreadable_known(site)
    rts.sync(site.nodes, target=site.target, source_ip="me", nodes=["node002"])


def other_root_synced_since(site: Site) -> None:
    unreadable_new(site)
    rts.sync(site.nodes, target=site.target, source_ip="me", nodes=["node002"])
    elsewhere = shutil.copytree(site.nodes / "node002", site.nodes.parent / "more" / "node004")
    rts.sync(elsewhere.parent, target=site.target, source_ip="me")


def unread_and_other_root_synced_since(site: Site) -> None:
    (site.nodes / "node009" / "Rubix").mkdir(parents=True)
    (site.nodes / "node009" / "Rubix" / "rubix.db").symlink_to("rubix.db")
    other_root_synced_since(site)


def repeated(site: Site) -> None:
    """A table without a key, in which a row stands twice."""
    with closing(sqlite3.connect(site.database())) as db, db:
        db.execute("CREATE TABLE Copied AS SELECT * FROM TokensTable")
        db.execute("INSERT INTO Copied SELECT * FROM TokensTable LIMIT 1")
        db.execute("DROP TABLE TokensTable")
        db.execute("ALTER TABLE Copied RENAME TO TokensTable")
    site.sync()


def without_repository(site: Site) -> None:
    shutil.rmtree(site.nodes / "node001" / ".ipfs")
    site.sync()


def without_repository_strict(site: Site) -> None:
    without_repository(site)
    site.more = {name: ["--strict"] for name in ("check", "sync", "status", "databases")}


def closed_repository(site: Site) -> None:
    repository = site.nodes / "node001" / ".ipfs"
    shutil.rmtree(repository)
    repository.symlink_to("/nowhere/ipfs")
    site.sync()


def invalid(site: Site) -> None:
    with closing(sqlite3.connect(site.database())) as db, db:
        db.execute("UPDATE TokensTable SET did = NULL, token_status = 'x' WHERE rowid < 9")
    site.sync()


def altered(site: Site) -> None:
    site.sync()
    site.change("UPDATE TokenRecords SET did = 'x' WHERE id = 1")


def emptied(site: Site) -> None:
    shutil.rmtree(site.nodes)
    site.nodes.mkdir()
    site.sync()


def emptied_strict(site: Site) -> None:
    emptied(site)
    site.more = {name: ["--strict"] for name in ("check", "sync", "status", "databases")}


def taken(site: Site) -> None:
    site.sync()
    site.change("UPDATE SyncSources SET machine = 'another', host = 'another'")


def newer(site: Site) -> None:
    site.sync()
    site.change("UPDATE alembic_version SET version_num = '9999'")


def strange(site: Site) -> None:
    site.file.write_bytes(b"this is no database" * 99)


def changed_since(site: Site) -> None:
    site.sync()
    change_status(site.database(), 0.1)


def tampered(site: Site) -> None:
    site.sync()
    site.change("DELETE FROM TokenRecords WHERE id = 1")


def unread(site: Site) -> None:
    """What a link leads to is not known: any number of nodes could be there."""
    site.sync()
    (site.nodes / "node009").mkdir()
    (site.nodes / "node009" / "Rubix").symlink_to("Rubix")
    site.sync()


def root_unread(site: Site) -> None:
    """The first of two roots cannot be listed."""
    site.sync()
    aside = site.nodes.parent / "aside"  # read first, and it holds nothing that is known
    aside.mkdir()
    site.roots = [aside, site.nodes]
    site.fault = "discovery.scan:1:error"
    site.code("sync")


def interrupted(site: Site) -> None:
    stop = rts.CancelToken()

    class Stopping(rts.Observer):
        def on_progress(self, progress: rts.Progress) -> None:
            stop.signal_number = 2

    result = rts.sync(
        site.nodes, target=site.target, source_ip="me", observers=[Stopping()], stop=stop
    )
    assert result.status == "INTERRUPTED"


def dead(site: Site) -> None:
    site.sync()
    site.change(
        "INSERT INTO SyncSessions"
        " (session_id, source_ip, status, command, start_time, heartbeat_at) VALUES ("
        "'00000000000000000000000000000001', 'other', 'RUNNING', 'sync',"
        " '2026-01-01 00:00:00.000000', '2026-01-01 00:00:00.000000')"
    )


def failed_run(site: Site) -> None:
    site.sync()
    site.change("UPDATE SyncSessions SET status = 'FAILED'")


def overdue(site: Site) -> None:
    site.sync()
    site.change("UPDATE ProcessedDatabases SET last_seen_at = '2026-01-01 00:00:00.000000'")
    site.more = {"status": ["--max-age", "26h"], "databases": ["--max-age", "26h"]}


def refused(site: Site) -> None:
    rts.upgrade_schema(rts.configure(target=site.target))
    with closing(sqlite3.connect(site.database())) as db:
        (token,) = db.execute("SELECT token_id FROM TokensTable LIMIT 1").fetchone()
    site.change(
        f"CREATE TRIGGER no BEFORE INSERT ON TokenRecords WHEN new.token_id = '{token}'"
        " BEGIN SELECT RAISE(ABORT, 'CHECK constraint failed: no'); END"
    )
    site.sync()


def never(site: Site) -> None:
    rts.upgrade_schema(rts.configure(target=site.target))


def nothing(site: Site) -> None:
    pass


def unreachable(site: Site) -> None:
    site.target = f"sqlite:///{site.file.parent}/missing/t.db"


def leased(site: Site) -> None:
    site.sync()
    change_status(site.database(), 0.1)
    site.sync()
    take_lease(site)


def first_under_way(site: Site) -> None:
    never(site)
    take_lease(site)
    now = "strftime('%Y-%m-%d %H:%M:%f000', 'now')"
    site.change(
        "INSERT INTO SyncSessions"
        " (session_id, source_ip, status, command, start_time, heartbeat_at)"
        f" VALUES ('{'0' * 32}', 'me', 'RUNNING', 'sync', {now}, {now})"
    )


def closed_blocks(site: Site) -> None:
    """Root reads through any mode; a disk that is not mounted leaves nothing to read."""
    shutil.rmtree(site.nodes / "node001" / ".ipfs" / "blocks")
    site.sync()


def chained(site: Site, key: str, value: bytes) -> None:
    """A node with token chains, one of which has a block that does not belong there."""
    plyvel = pytest.importorskip(LEVELDB)
    database = make_node(site.nodes).with_name("rubixtest.db")
    create_database(database, [(t, "", 0.5, ALICE.did, 0, "", "", 0) for t in TOKENS[:2]])
    with plyvel.DB(str(database.parent / "TestNet" / "FTchainstorage")) as store:
        store.put(key.encode(), value)
    rts.sync(site.nodes, target=site.target, source_ip="me", chains=True)
    site.more = {"sync": ["--chains"], "verify": ["--chains"]}


_FOREIGN = f"ft-{TOKENS[3]}-{9:016x}-{'ab' * 32}"


def chains_unread(site: Site) -> None:
    chained(site, _FOREIGN, b"no block")


def chains_wrong(site: Site) -> None:
    chained(site, _FOREIGN, generated_block(ALICE, TOKENS[3], FT, value=0.7))


def unusual_night(site: Site) -> None:
    """After four nights in which few tokens got another owner, all of them do."""
    for owner, share in (("a", 2), ("b", 2), ("c", 2), ("d", 2), ("e", 60)):
        site.sync()
        for node in ("node001", "node002"):
            with closing(sqlite3.connect(site.database(node))) as db, db:
                db.execute(f"UPDATE TokensTable SET did = '{owner}' WHERE rowid <= {share}")
    site.sync()
    (problem,) = rts.status(target=site.target).problems
    assert problem.code == "unusual_change"


def unusual_night_strict(site: Site) -> None:
    unusual_night(site)
    site.more = {name: ["--strict"] for name in ("check", "sync", "status", "databases")}


def other_dbms(site: Site) -> None:
    chains = site.nodes / "node003" / "Rubix" / "MainNet" / "tokenchainstorage"
    chains.mkdir(parents=True)
    (chains / "000001.ldb").write_bytes(b"a chain")
    site.sync()


def findings_open(site: Site) -> None:
    """The first node's tokens stand in a copy of it as well, free there and under another DID."""
    shutil.copytree(site.nodes / "node001", site.nodes / "copy")
    with closing(sqlite3.connect(site.database("copy"))) as db, db:
        db.execute("UPDATE TokensTable SET did = ?", ("bafybmi" + "b" * 52,))
    site.sync()
    try:
        assert _run(["audit", "--target", site.target, "--quiet"]) == 6
    finally:
        log.tear_down()


def file_for_repository(site: Site) -> None:
    repository = site.nodes / "node001" / ".ipfs"
    shutil.rmtree(repository)
    repository.write_text("moved")
    site.sync()


def take_lease(site: Site) -> None:
    with closing(sqlite3.connect(site.file)) as db, db:
        columns = [row[1] for row in db.execute("PRAGMA table_info(SyncLeases)")]
        soon = "strftime('%Y-%m-%d %H:%M:%f000', 'now', '+50 seconds')"
        now = "strftime('%Y-%m-%d %H:%M:%f000', 'now')"
        values = {
            "source_ip": "'me'", "session_id": f"'{'0' * 32}'", "holder": "'elsewhere|boot|1|1'",
            "acquired_at": now, "heartbeat_at": now, "expires_at": soon,
        }  # fmt: skip
        used = [name for name in columns if name in values]
        db.execute(
            f"INSERT INTO SyncLeases ({', '.join(used)}) "
            f"VALUES ({', '.join(values[name] for name in used)})"
        )


def usage(site: Site) -> None:
    site.sync()
    site.more = {
        "check": ["--content-ways", "gateway"], "sync": ["--node", "nobody"],
        "verify": ["--node", "nobody"], "status": ["--max-age", "soon"],
        "databases": ["--limit", "0"],
    }  # fmt: skip


STATES: dict[str, tuple[Callable[[Site], None], tuple[int, ...]]] = {
    "All is as the nodes have it; some tokens' content is on no node": (well, (0, 0, 0, 0, 0)),
    "Content that a cure would bring is missing, above `max_missing_content`": (
        content_damaged, (1, 1, 1, 1, 1)),
    "The same, below it (shown as a warning)": (content_damaged_a_little, (0, 0, 0, 0, 0)),
    "The same, with `--strict`": (strict, (1, 1, 0, 1, 1)),
    "A node has no repository (a warning)": (without_repository, (0, 0, 0, 0, 0)),
    "A node has no repository, with `--strict`": (
        without_repository_strict, (1, 1, 0, 1, 1)),
    "A node's repository cannot be read": (closed_repository, (1, 1, 1, 1, 1)),
    "The blocks in a node's repository cannot be read": (closed_blocks, (1, 1, 1, 1, 1)),
    "A file is in the repository's place": (file_for_repository, (1, 1, 1, 1, 1)),
    "A node keeps its tokens in another database system": (other_dbms, (1, 1, 1, 1, 1)),
    "An audit left findings open": (findings_open, (0, 0, 0, 0, 0)),
    "Records have validation errors": (invalid, (0, 0, 0, 0, 0)),
    "Token chains cannot be read (with `--chains`)": (chains_unread, (0, 1, 1, 1, 1)),
    "Something is wrong with a token chain (a warning)": (chains_wrong, (0, 0, 0, 0, 0)),
    "Far more changed hands than usual (a warning)": (unusual_night, (0, 0, 0, 0, 0)),
    "The same, with `--strict`, at `status`": (unusual_night_strict, (0, 0, 0, 1, 0)),
    "A database cannot be read, and never could": (unreadable_new, (1, 1, 1, 1, 1)),
    "A database cannot be read any more": (unreadable_known, (1, 1, 1, 1, 1)),
    "The same, after a sync of another node": (another_node_synced_since, (1, 1, 1, 1, 1)),
    "The same, of one that never could, after a sync of another node and of other roots": (
        other_root_synced_since, (1, 1, 1, 1, 1)),
    "A database is gone": (gone, (0, 1, 5, 1, 1)),
    "A database lost most of its rows": (shrunk, (0, 1, 5, 1, 1)),
    "A directory cannot be read that may hold nodes": (unread, (1, 1, 1, 1, 1)),
    "The disk fails while a root is listed": (root_unread, (1, 1, 1, 1, 0)),
    "The same, after a sync of another node and of other roots": (
        unread_and_other_root_synced_since, (1, 1, 1, 1, 1)),
    "No node was found below the roots (a warning)": (emptied, (0, 0, 0, 0, 0)),
    "The same, with `--strict`, at the sync": (emptied_strict, (1, 1, 0, 0, 0)),
    "A run was stopped before it reached every database (status afterwards)": (
        interrupted, (0, 0, 5, 1, 1)),
    "A run died, or hangs": (dead, (0, 0, 0, 1, 0)),
    "The last run failed": (failed_run, (0, 0, 0, 1, 0)),
    "A node was not synced for longer than `--max-age`": (overdue, (0, 0, 0, 1, 1)),
    "The target refused a record": (refused, (0, 1, 5, 1, 1)),
    "A node's table has a row twice (the second is left out)": (repeated, (0, 1, 0, 1, 1)),
    "A node changed since the last sync": (changed_since, (0, 0, 5, 0, 0)),
    "A record was deleted in the target behind the program's back": (tampered, (0, 0, 5, 0, 0)),
    "A record was changed there": (altered, (0, 0, 5, 0, 0)),
    "Another run holds the lease": (leased, (0, 4, 0, 0, 0)),
    "The first sync is under way (a warning)": (first_under_way, (0, 4, 5, 0, 0)),
    "No sync has run yet; the tables are there": (never, (0, 0, 5, 1, 0)),
    "The target does not exist yet": (nothing, (0, 0, 3, 3, 3)),
    "The source belongs to another machine": (taken, (2, 2, 0, 0, 0)),
    "The target is of a newer version of the program": (newer, (3, 3, 3, 3, 3)),
    "The target is not a database of this program": (strange, (3, 3, 3, 3, 3)),
    "The target cannot be reached": (unreachable, (3, 3, 3, 3, 3)),
    "A mistake on the command line": (usage, (2, 2, 2, 2, 2)),
}  # fmt: skip


OTHERS = ("sync --dry-run", "sync --force", "verify --repair", "retry-failed")
OTHER_CODES: dict[str, tuple[Callable[[Site], None], tuple[int, ...]]] = {
    "Content that a cure would bring is missing": (content_damaged, (0, 1, 1, 1)),
    "A database cannot be read, and never could": (unreadable_new, (1, 1, 1, 0)),
    "A database cannot be read any more": (unreadable_known, (1, 1, 1, 1)),
    "A database is gone": (gone, (1, 1, 5, 1)),
    "A database lost most of its rows": (shrunk, (1, 1, 1, 1)),
    "A directory cannot be read that may hold nodes": (unread, (1, 1, 1, 1)),
    "The target refused a record": (refused, (0, 1, 1, 1)),
    "A record was changed or deleted behind the program's back": (altered, (0, 0, 0, 0)),
    "Another run holds the lease": (leased, (0, 4, 4, 4)),
    "The source belongs to another machine": (taken, (2, 2, 2, 2)),
    "The target cannot be reached": (unreachable, (3, 3, 3, 3)),
}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("made") / "fleet"
    make_fleet(directory, FleetPlan(nodes=2, tokens_per_node=60, absent=0.05))
    return directory


@pytest.mark.parametrize("state", STATES)
def test_each_cell(state: str, made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in [n for n in os.environ if n.startswith("RUBIX_SYNC_")]:
        monkeypatch.delenv(name)
    site = Site(tmp_path, made)
    make, codes = STATES[state]
    make(site)
    if state != "The target does not exist yet":  # where `check` makes its tables
        assert site.code("check") == codes[0]
    found = {command: site.code(command) for command in ("verify", "status", "databases", "sync")}
    assert found == {
        name: code for name, code in zip(COMMANDS, codes, strict=True) if name in found
    }


def test_nothing_is_called_well_before_the_first_sync_has_ended(
    made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    site = Site(tmp_path, made)
    first_under_way(site)
    capsys.readouterr()
    assert _run(["status", "--target", site.target]) == 0
    said = capsys.readouterr().out
    assert "No sync of me has completed yet; the first one is under way." in said
    assert "All is well" not in said


_SHORT = ("The target refused a record", "The target cannot be reached", "A database is gone")


@pytest.mark.parametrize(
    "state",
    [pytest.param(s, marks=() if s in _SHORT else pytest.mark.long) for s in OTHER_CODES],
)
def test_the_other_commands(
    state: str, made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in [n for n in os.environ if n.startswith("RUBIX_SYNC_")]:
        monkeypatch.delenv(name)
    make, codes = OTHER_CODES[state]
    site = Site(tmp_path, made)
    make(site)
    assert {command: site.code(command) for command in OTHERS} == dict(
        zip(OTHERS, codes, strict=True)
    )


def test_a_repair_that_ends_with_0_leaves_nothing_to_find(made: Path, tmp_path: Path) -> None:
    site = Site(tmp_path, made)
    altered(site)
    assert [site.code(command) for command in ("verify --repair", "verify")] == [0, 0]


def table_of(first: str) -> tuple[tuple[str, ...], dict[str, tuple[str, ...]]]:
    """Titles and rows of the page's table that begins with this cell."""
    section = PAGE.read_text("utf-8").partition("## What is green and what is not\n")[2]
    section = section.partition("\n## ")[0]
    lines = section[section.index(f"| {first} |") :].partition("\n\n")[0].splitlines()
    rows = [re.fullmatch(r"\| (.+?) \| (.+) \|", line) for line in lines if "|---" not in line]
    assert all(rows), "every line is a row"
    table = {row[1]: tuple(row[2].split(" | ")) for row in rows if row}
    assert len(table) == len(rows), "every state once"
    return table.pop(first), table


@pytest.mark.parametrize(
    ("first", "commands", "states"),
    [("state", COMMANDS, STATES), ("also in this state", OTHERS, OTHER_CODES)],
)
def test_the_page_has_these_tables(
    first: str,
    commands: tuple[str, ...],
    states: dict[str, tuple[Callable[[Site], None], tuple[int, ...]]],
) -> None:
    titles, table = table_of(first)
    assert titles == tuple(f"`{command}`" for command in commands)
    assert table == {state: tuple(map(str, codes)) for state, (_, codes) in states.items()}
