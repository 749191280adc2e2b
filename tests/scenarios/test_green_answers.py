"""What is green and what is not, of the commands that answer from the target alone.

The third table in docs/RELIABILITY.md is this one.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

import rubix_token_sync as rts
from rubix_token_sync import log
from rubix_token_sync.cli import _run

from .test_green import (
    Site,
    closed_repository,
    content_damaged,
    dead,
    gone,
    interrupted,
    leased,
    made,
    never,
    newer,
    nothing,
    strange,
    table_of,
    unreachable,
    unread,
    unreadable_known,
    unreadable_new,
    well,
)

__all__ = ["made"]

COMMANDS = (
    "audit", "findings", "token", "history", "changes", "export", "evidence create", "backup",
)  # fmt: skip


def held_twice(site: Site) -> None:
    """The first token of each node becomes one that the other has as well, under another DID."""
    with closing(sqlite3.connect(site.database("node001"))) as one:
        row = one.execute("SELECT * FROM TokensTable WHERE token_status = 0 LIMIT 1").fetchone()
        names = [c[1] for c in one.execute("PRAGMA table_info(TokensTable)")]
    values = dict(zip(names, row, strict=True)) | {"did": "bafybmi" + "b" * 52}
    with closing(sqlite3.connect(site.database("node002"))) as two, two:
        marks = ", ".join("?" * len(names))
        two.execute(f"INSERT INTO TokensTable VALUES ({marks})", list(values.values()))
    site.sync()


def mistyped(site: Site) -> None:
    """Each command with a name or a value that nothing has."""
    site.sync()
    site.more = {
        "audit": ["--without", "no_rule"], "findings": ["--node", "nobody"],
        "token": ["--as-of", "soon"], "history": ["--node", "nobody"],
        "changes": ["--source", "nobody"], "export": ["--source", "nobody"],
        "evidence create": ["--max-age", "soon"], "backup": ["--force=x"],
    }  # fmt: skip


def code_of(site: Site, command: str) -> int:
    """The exit code of a command, with whatever it needs besides the target."""
    place = site.file.parent
    with closing(sqlite3.connect(site.nodes / "node002" / "Rubix" / "rubix.db")) as db:
        (token,) = db.execute("SELECT token_id FROM TokensTable LIMIT 1").fetchone()
    needs = {
        "token": [token], "history": ["show", token], "changes": ["--since", "0"],
        "export": ["records", "--to", f"{place}/records.csv"],
        "evidence create": [f"{place}/evidence", "--key", f"{place}/key"],
        "backup": [f"{place}/backup.db"],
    }  # fmt: skip
    words = [*command.split(), *needs.get(command, [])]
    try:
        return _run([*words, "--target", site.target, "--quiet", *site.more.get(command, [])])
    finally:
        log.tear_down()


STATES: dict[str, tuple[Callable[[Site], None], tuple[int, ...]]] = {
    "All is as the nodes have it; some tokens' content is on no node": (
        well, (0, 0, 0, 0, 0, 0, 0, 0)),
    "Content that a cure would bring is missing, above `max_missing_content`": (
        content_damaged, (0, 0, 0, 0, 0, 0, 1, 0)),
    "A node's repository cannot be read": (closed_repository, (1, 0, 0, 0, 0, 0, 1, 0)),
    "A database cannot be read, and never could": (unreadable_new, (1, 0, 0, 0, 0, 0, 1, 0)),
    "A database cannot be read any more": (unreadable_known, (1, 0, 0, 0, 0, 0, 1, 0)),
    "A database is gone": (gone, (1, 0, 0, 0, 0, 0, 1, 0)),
    "A directory cannot be read that may hold nodes": (unread, (1, 0, 0, 0, 0, 0, 1, 0)),
    "A run was stopped before it reached every database": (
        interrupted, (1, 0, 2, 2, 0, 0, 1, 0)),
    "A run died, or hangs": (dead, (0, 0, 0, 0, 0, 0, 1, 0)),
    "Another run holds the lease": (leased, (0, 0, 0, 0, 0, 0, 0, 0)),
    "A token is held twice": (held_twice, (6, 0, 0, 0, 0, 0, 0, 0)),
    "No sync has run yet; the tables are there": (never, (0, 0, 2, 2, 0, 0, 1, 0)),
    "The target does not exist yet": (nothing, (3, 3, 3, 3, 3, 3, 3, 3)),
    "The target is of a newer version of the program": (newer, (3, 3, 3, 3, 3, 3, 3, 3)),
    "The target is not a database of this program": (strange, (3, 3, 3, 3, 3, 3, 3, 3)),
    "The target cannot be reached": (unreachable, (3, 3, 3, 3, 3, 3, 3, 3)),
    "A mistake on the command line": (mistyped, (2, 2, 2, 2, 2, 2, 2, 2)),
}  # fmt: skip
_SHORT = ("A database cannot be read, and never could", "A mistake on the command line")


@pytest.mark.parametrize(
    "state",
    [pytest.param(s, marks=() if s in _SHORT else pytest.mark.long) for s in STATES],
)
def test_each_cell(state: str, made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in [n for n in os.environ if n.startswith("RUBIX_SYNC_")]:
        monkeypatch.delenv(name)
    make, codes = STATES[state]
    site = Site(tmp_path, made)
    rts.make_evidence_key(tmp_path / "key")
    make(site)
    found = {command: code_of(site, command) for command in COMMANDS}
    assert found == dict(zip(COMMANDS, codes, strict=True))


def test_the_page_has_this_table() -> None:
    titles, table = table_of("of what was synced")
    assert titles == tuple(f"`{command}`" for command in COMMANDS)
    assert table == {state: tuple(map(str, codes)) for state, (_, codes) in STATES.items()}
