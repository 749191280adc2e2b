"""A fleet of which every second node is broken in another way, and what mends each of them.

Each way is a `Breakage`: what it does to a node, what an operator must read about it, and
what the cure that is printed comes down to.
"""

from __future__ import annotations

import os
import re
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from rubix_token_sync.testing import Fleet, FleetPlan, make_fleet

__all__ = ["BREAKAGES", "TOKENS", "Breakage", "make_broken_fleet"]

TOKENS: Final = 6
"""Of each node."""


@dataclass(frozen=True)
class Breakage:
    """One way in which a node is broken; the functions take the node's directory."""

    name: str
    code: str
    """What explains it, as in brackets behind the sentence."""
    says: str
    """A part of the sentence: the true cause."""
    cure: str
    """A part of the advice."""
    spoil: Callable[[Path], object]
    records: int = 0
    """How many of the node's own records the target holds all the same …"""
    content: int = 0
    """… and how many of them with content."""
    mend: Callable[[Path, Path], object] | None = None
    """The cure, given the node and its copy from before; None: that copy is put in its place."""
    warning: bool = False
    """Nothing of the exit code's, unless ``--strict``."""
    hidden: bool = False
    """Found in the way of a walk only: the target has no row of such a database."""


def _database(node: Path) -> Path:
    return node / "Rubix" / "rubix.db"


def _repository(node: Path) -> Path:
    return node / ".ipfs"


def _file_for_a_repository(node: Path) -> None:
    shutil.rmtree(_repository(node))
    _repository(node).write_text("moved")


def _shut(part: str) -> Callable[[Path], object]:
    return lambda node: (node / part).chmod(0)


def _open(part: str) -> Callable[[Path, Path], object]:
    return lambda node, whole: (node / part).chmod((whole / part).stat().st_mode)


def _instead(make: Callable[[Path], object], part: str = "Rubix/rubix.db") -> Callable[..., object]:
    """Something else in a file's place."""

    def spoil(node: Path) -> None:
        (node / part).unlink()
        make(node / part)

    return spoil


def _damage_pages(node: Path) -> None:
    data = bytearray(_database(node).read_bytes())
    for page in range(4096, len(data), 4096):
        data[page : page + 512] = b"\xa5" * 512
    _database(node).write_bytes(bytes(data))


def _cut_off(node: Path) -> None:
    with closing(sqlite3.connect(_database(node))) as db, db:
        db.executemany(
            "INSERT INTO TokensTable (token_id, did) VALUES (?, '')",
            ((f"more {number}",) for number in range(400)),
        )
    os.truncate(_database(node), _database(node).stat().st_size // 8192 * 4096)


def _rewrite(node: Path, pragma: str, *statements: str, key: bool) -> None:
    """The same rows in another database file, and then what the statements do to it."""
    path = _database(node)
    with closing(sqlite3.connect(path)) as old:
        (sql,) = old.execute("SELECT sql FROM sqlite_master WHERE name = 'TokensTable'").fetchone()
        rows = old.execute("SELECT * FROM TokensTable").fetchall()
    path.unlink()
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute(pragma)
        db.execute(sql if key else re.sub(r",\s*PRIMARY KEY\s*\([^)]*\)", "", sql))
        db.executemany(f"INSERT INTO TokensTable VALUES ({','.join('?' * len(rows[0]))})", rows)
        for statement in statements:
            db.execute(statement)


def _damage_index(node: Path) -> None:
    unique = "CREATE UNIQUE INDEX ux ON TokensTable(token_id)"
    _rewrite(
        node,
        "PRAGMA page_size = 4096",
        "INSERT INTO TokensTable SELECT * FROM TokensTable LIMIT 1",
        unique.replace("UNIQUE ", ""),
        "PRAGMA writable_schema = ON",
        f"UPDATE sqlite_master SET sql = '{unique}' WHERE name = 'ux'",
        key=False,
    )


def _drop_the_repeated_row(node: Path, whole: Path) -> None:
    del whole
    with closing(sqlite3.connect(_database(node))) as db, db:
        db.execute("DELETE FROM TokensTable WHERE rowid = (SELECT max(rowid) FROM TokensTable)")
        db.execute("REINDEX")


def _ids_that_become_equal(node: Path) -> None:
    one = "INSERT INTO TokensTable (token_id) VALUES (CAST(X'00D84100' AS TEXT))"
    _rewrite(
        node, "PRAGMA encoding = 'UTF-16le'", one, one.replace("00D84100", "00D841DC"), key=True
    )


def _rename_the_table(node: Path) -> None:
    with closing(sqlite3.connect(_database(node))) as db, db:
        db.execute("ALTER TABLE TokensTable RENAME TO Other")


def _view(node: Path) -> None:
    _rename_the_table(node)
    with closing(sqlite3.connect(_database(node))) as db, db:
        db.execute("CREATE VIEW TokensTable AS SELECT * FROM Other")


def _hot_journal_from_elsewhere(node: Path) -> None:
    (node / "Rubix" / "rubix.db-journal").mkdir()


def _spec(text: str) -> Callable[[Path], object]:
    return lambda node: (_repository(node) / "datastore_spec").write_text(text)


def _old_spec(node: Path, whole: Path) -> None:
    shutil.copyfile(_repository(whole) / "datastore_spec", _repository(node) / "datastore_spec")


def _badger_with_a_fifo(node: Path) -> None:
    shutil.rmtree(_repository(node) / "blocks")
    (_repository(node) / "badgerds").mkdir()
    (_repository(node) / "badgerds" / "MANIFEST").write_bytes(b"x")
    _spec('{"type":"badgerds","path":"badgerds"}')(node)
    os.mkfifo(_repository(node) / "api")


def _no_disk(node: Path) -> None:
    shutil.rmtree(_repository(node) / "blocks")
    (_repository(node) / "blocks").mkdir()


def _blocks_again(node: Path, whole: Path) -> None:
    blocks = _repository(node) / "blocks"
    shutil.rmtree(blocks)
    shutil.copytree(_repository(whole) / "blocks", blocks)


def _damage_a_block(node: Path) -> None:
    block = min((_repository(node) / "blocks").rglob("*.data"))
    block.chmod(0o600)
    block.write_bytes(b"damaged" + block.read_bytes())


def _link_to_nowhere(node: Path) -> None:
    shutil.rmtree(_repository(node))
    _repository(node).symlink_to("/nowhere/ipfs")


def _only_chains(node: Path) -> None:
    shutil.rmtree(node / "Rubix")
    chains = node / "Rubix" / "MainNet" / "tokenchainstorage"
    chains.mkdir(parents=True)
    (chains / "000001.ldb").write_bytes(b"a chain")


_RESTORE: Final = "Restore it from a backup"
_STORED: Final = {"records": TOKENS, "content": 0}

BREAKAGES: Final = (
    Breakage("a unreadable database", "access_denied", "Permission denied", "read access",
             _shut("Rubix/rubix.db"), mend=_open("Rubix/rubix.db")),
    Breakage("b damaged pages", "corrupt", "malformed", "restore the file from a backup",
             _damage_pages),
    Breakage("c cut off", "corrupt", "malformed", "restore the file from a backup", _cut_off),
    Breakage("d damaged index", "records_rejected", "1 row could not be stored",
             "`rubix-token-sync errors`", _damage_index, records=TOKENS, content=TOKENS,
             mend=_drop_the_repeated_row),
    Breakage("e UTF-16", "records_rejected", "1 row could not be stored",
             "`rubix-token-sync errors`", _ids_that_become_equal, records=TOKENS, content=TOKENS),
    Breakage("f zero bytes", "empty_file", "is empty", "restore the file from a backup",
             _instead(Path.touch)),
    Breakage("g garbage", "not_a_database", "does not begin as a SQLite database", _RESTORE,
             _instead(lambda path: path.write_bytes(b"no database" * 900))),
    Breakage("h directory", "not_a_file", "Something other than a regular file",
             "Put the node's database in its place", _instead(Path.mkdir), hidden=True),
    Breakage("i FIFO", "not_a_file", "Something other than a regular file",
             "Put the node's database in its place", _instead(os.mkfifo), hidden=True),
    Breakage("j link to itself", "broken_link", "leads nowhere or in a circle",
             "make it lead there", _instead(lambda path: path.symlink_to(path.name)), hidden=True),
    Breakage("k no table", "no_tokens_table", "another kind of token; it has DIDTable, Other",
             "Start the node once", _rename_the_table),
    Breakage("l view", "not_a_table", "is a view", "Restore the node's database", _view),
    Breakage("m journal", "not_a_file", "-journal is not a regular file", "remove what stands",
             _hot_journal_from_elsewhere,
             mend=lambda node, _whole: (node / "Rubix" / "rubix.db-journal").rmdir()),
    Breakage("n chains only", "other_dbms", "Token chains without", "Restore the database",
             _only_chains, hidden=True),
    Breakage("o closed node", "access_denied", "any nodes inside were not looked at",
             "Run as the user that owns it", _shut("."), mend=_open("."), hidden=True),
    Breakage("p closed repository", "access_denied", "may not read the node's repository",
             "let this user read its repository", _shut(".ipfs"), mend=_open(".ipfs"), **_STORED),
    Breakage("q hostile specification", "read_error", "could not be read",
             "Correct the repository's files", _spec('{"mounts":[{"mountpoint":["/blocks"]}]}'),
             mend=_old_spec, **_STORED),
    Breakage("r badger and a FIFO", "program_failed", "no ipfs program could read",
             "--ipfs-program", _badger_with_a_fifo, **_STORED),
    Breakage("s damaged block", "damaged", "1 of 6 records without content",
             "ipfs repo verify", _damage_a_block, records=TOKENS, content=TOKENS - 1,
             mend=_blocks_again),
    Breakage("t disk not mounted", "read_error", "could not be read",
             "its disk or its mount", _no_disk, mend=_blocks_again, **_STORED),
    Breakage("u broken link", "broken_link", "leads nowhere or in a circle", "Mount or restore",
             _link_to_nowhere, **_STORED, hidden=True),
    Breakage("u2 a file for a repository", "read_error", "could not be read",
             "Correct the repository's files", _file_for_a_repository, **_STORED),
    Breakage("v no repository", "no_repository", "no IPFS repository on this machine",
             "Restore or mount", lambda node: shutil.rmtree(_repository(node)), warning=True,
             **_STORED),
    Breakage("twin", "not_a_database", "does not begin as a SQLite database", _RESTORE,
             _instead(lambda path: path.write_bytes(b"\0" * 100))),
)  # fmt: skip


def make_broken_fleet(place: Path) -> tuple[Path, Path, Fleet]:
    """Write the fleet; gives its directory, that of every node as it was before, and its plan.

    Every second node is whole and keeps its name (``node002`` …), but for one that shares
    the name ``twin`` with a broken one.
    """
    whole = make_fleet(place / "whole", FleetPlan(nodes=2 * len(BREAKAGES), tokens_per_node=TOKENS))
    for number, breakage in enumerate(BREAKAGES):
        (whole.directory / f"node{2 * number + 1:03d}").rename(whole.directory / breakage.name)
    last = whole.directory / whole.nodes[-1].name
    (whole.directory / "second").mkdir()
    last.rename(whole.directory / "second" / "twin")
    fleet = shutil.copytree(whole.directory, place / "fleet")
    for breakage in BREAKAGES:
        breakage.spoil(fleet / breakage.name)
    return fleet, whole.directory, whole
