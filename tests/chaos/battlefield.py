"""A small fleet in two states, and targets that hold the first: what faults are tried on.

The fleet has what makes runs interesting: several chunks a database, content that
is absent, a database whose rows are only in its ``-wal``, one in WAL mode, one
without a primary key (repeated and missing ids), one that is no database.
"""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from chaos.door import Door
from chaos.target_state import Content, content_of, leftovers
from rubix_token_sync.testing import (
    FleetPlan,
    add_tokens,
    change_status,
    delete_tokens,
    make_fleet,
)

__all__ = ["SETTINGS", "SOURCE", "Battlefield"]

SOURCE = "vm1"
SETTINGS = {"BATCH_SIZE": "20", "BULK_INSERT_SIZE": "40", "NUM_IPFS_WORKERS": "2"}
_BROKEN = 1  # exit code: one database of the fleet is no database


@dataclass(frozen=True)
class Battlefield:
    """``first`` and ``second`` are what a target holds after an undisturbed sync of each state.

    The files are in the second state; ``template`` is a SQLite target of the first.
    """

    home: Path
    fleet: Path
    template: Path
    first_load: Content
    change: Content

    def arguments(self, target: str) -> tuple[str, ...]:
        """A sync of the fleet into ``target``."""
        return (
            "sync", str(self.fleet), "--target", target, "--source-ip", SOURCE,
            "--report", str(self.home / "reports"), "--quiet",
        )  # fmt: skip

    def fresh_sqlite(self, path: Path, *, change: bool) -> str:
        """A target at ``path``: none yet, or one that holds the first state."""
        for suffix in ("", "-wal", "-shm"):
            path.with_name(path.name + suffix).unlink(missing_ok=True)
        if change:
            shutil.copyfile(self.template, path)
        return f"sqlite:///{path}"

    def expected(self, *, change: bool) -> Content:
        """What the target must hold in the end."""
        return self.change if change else self.first_load

    @staticmethod
    def make(home: Path, door: Door, *, tokens: int = 60) -> Battlefield:
        """Make the fleet below ``home`` and sync both of its states, undisturbed."""
        fleet = home / "fleet"
        plain = FleetPlan(nodes=1, tokens_per_node=tokens, seed=7, absent=0.1)
        made = make_fleet(fleet / "a", plain)
        live = FleetPlan(nodes=1, tokens_per_node=tokens, seed=8, journal_mode="wal")
        busy = make_fleet(fleet / "b", live)
        make_fleet(
            fleet / "c", FleetPlan(nodes=1, tokens_per_node=tokens // 2, seed=9, in_wal=True)
        )
        _keyless(fleet / "d" / "node001" / "Rubix" / "rubix.db")
        bad = fleet / "e" / "node001" / "Rubix" / "rubix.db"
        bad.parent.mkdir(parents=True)
        bad.write_bytes(b"no database" * 100)
        template = home / "template.db"
        field = Battlefield(home, fleet, template, Content({}, {}), Content({}, {}))
        arguments = field.arguments(f"sqlite:///{template}")
        door.run(*arguments, env=SETTINGS).expect(_BROKEN)
        _fold(template)
        for sown in (made, busy):
            node = sown.nodes[0]
            change_status(node.db_path, 0.2)
            delete_tokens(node.db_path, 0.1)
            add_tokens(sown, node, tokens // 4)
        after = home / "after.db"
        shutil.copyfile(template, after)
        door.run(*field.arguments(f"sqlite:///{after}"), env=SETTINGS).expect(_BROKEN)
        fresh = home / "fresh.db"
        door.run(*field.arguments(f"sqlite:///{fresh}"), env=SETTINGS).expect(_BROKEN)
        for target in (after, fresh):
            assert not leftovers(f"sqlite:///{target}")
        return Battlefield(
            home,
            fleet,
            template,
            content_of(f"sqlite:///{fresh}"),
            content_of(f"sqlite:///{after}"),
        )


def _keyless(path: Path) -> None:
    """A table without a primary key: repeated ids, missing ids, odd values."""
    path.parent.mkdir(parents=True)
    with closing(sqlite3.connect(path)) as db, db:
        db.execute(
            "CREATE TABLE TokensTable (token_id text, parent_token_id text, token_value real,"
            " did text, token_status integer)"
        )
        rows: list[tuple[object, ...]] = [
            (f"token {n % 25}" if n % 7 else None, "", 1.0 / (n + 1), b"\xff\x00" * (n % 3), n)
            for n in range(30)
        ]
        db.executemany("INSERT INTO TokensTable VALUES (?, ?, ?, ?, ?)", rows)


def _fold(path: Path) -> None:
    """Leave a target as one file."""
    with closing(sqlite3.connect(path)) as db:
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        db.execute("PRAGMA journal_mode=DELETE")
    for suffix in ("-wal", "-shm"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)
