"""A small fleet in two states, and targets that hold the first: what faults are tried on.

The fleet has what makes runs interesting: several chunks a database, transactions and
pledges beside the tokens (several chunks as well, some of them repeated), every kind of token,
content that is absent, a database whose rows are only in its ``-wal``, one in WAL mode, one
without a primary key (repeated and missing ids), one that is no database, and one that is gone
in the second state.
"""

from __future__ import annotations

import shutil
import sqlite3
from collections import Counter
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rubix_token_sync.testing import (
    FleetPlan,
    add_tokens,
    block_id,
    change_status,
    delete_tokens,
    generated_block,
    make_fleet,
    make_identity,
    transferred_block,
    write_chains,
)
from rubix_token_sync.testing.chains import FT, NFT
from tests.chaos.door import Door
from tests.chaos.target_state import Content, content_of, leftovers

__all__ = ["BROKEN", "SETTINGS", "SOURCE", "Battlefield", "Phase"]

SOURCE = "vm1"
SETTINGS = {"BATCH_SIZE": "20", "BULK_INSERT_SIZE": "40", "NUM_IPFS_WORKERS": "2"}
_KINDS: dict[str, Any] = {
    "ft_rows": 25, "nft_rows": 2, "data_rows": 2, "contract_rows": 1, "did_count": 8,
}  # fmt: skip
BROKEN = 1
"""The exit code of an undisturbed run: one database of the fleet is no database."""


@dataclass(frozen=True)
class Phase:
    """What a run starts from, and what an undisturbed one makes of it.

    Attributes:
        template: the SQLite target to start from (None: there is none yet).
        points: how often such a run passes each fault point, without worker processes.
        in_workers: how often one worker process passes each (the most of any), with them.
        in_run: how often the run itself passes each, with worker processes.
    """

    name: str
    template: Path | None
    content: Content
    points: Counter[str]
    in_workers: Counter[str]
    in_run: Counter[str]


@dataclass(frozen=True)
class Battlefield:
    """The files are in the second state.

    ``first``: there is no target yet.  ``change``: the target holds the first state.
    """

    home: Path
    fleet: Path
    first: Phase
    change: Phase
    chains: bool = False
    """Runs read the token chains, too."""

    def arguments(self, target: str) -> tuple[str, ...]:
        """A sync of the fleet into ``target``."""
        more = ("--chains",) if self.chains else ()
        return (*_arguments(self.home, self.fleet, target), *more)

    def phase(self, name: str) -> Phase:
        """``first`` or ``change``."""
        return {"first": self.first, "change": self.change}[name]

    def fresh_sqlite(self, path: Path, phase: Phase) -> str:
        """A target at ``path`` as ``phase`` starts from; gives its URL."""
        for suffix in ("", "-wal", "-shm"):
            path.with_name(path.name + suffix).unlink(missing_ok=True)
        if phase.template is not None:
            shutil.copyfile(phase.template, path)
        return f"sqlite:///{path}"

    @staticmethod
    def make(home: Path, door: Door, *, tokens: int = 60) -> Battlefield:
        """Make the fleet below ``home`` and sync both of its states, undisturbed."""
        fleet = home / "fleet"
        plain = FleetPlan(nodes=1, tokens_per_node=tokens, seed=7, absent=0.1, **_KINDS)
        made = make_fleet(fleet / "a", plain)
        live = FleetPlan(nodes=1, tokens_per_node=tokens, seed=8, journal_mode="wal", did_count=5)
        busy = make_fleet(fleet / "b", live)
        make_fleet(
            fleet / "c",
            FleetPlan(nodes=1, tokens_per_node=tokens // 2, seed=9, in_wal=True, did_count=5),
        )
        _keyless(fleet / "d" / "node001" / "Rubix" / "rubix.db")
        _broken(fleet)
        gone = FleetPlan(nodes=1, tokens_per_node=tokens // 3, seed=10, did_count=5)
        make_fleet(fleet / "f", gone)
        _add_history(made.nodes[0].db_path)
        template = home / "template.db"
        door.run(*_arguments(home, fleet, f"sqlite:///{template}"), env=SETTINGS).expect(BROKEN)
        _fold(template)
        for sown in (made, busy):
            node = sown.nodes[0]
            change_status(node.db_path, 0.2)
            delete_tokens(node.db_path, 0.1)
            add_tokens(sown, node, tokens // 4)
        _change_history(made.nodes[0].db_path)
        _change_kinds(made.nodes[0].db_path)
        shutil.rmtree(fleet / "f" / "node001")
        return Battlefield._observed(home, fleet, template, door)

    @staticmethod
    def make_chained(home: Path, door: Door) -> Battlefield:
        """The same of a smaller fleet, chains included: some grew, new ones came, some are gone."""
        fleet = home / "fleet"
        plan = FleetPlan(nodes=1, tokens_per_node=20, seed=11, chains=True, test_rows=4, **_KINDS)
        (node,) = make_fleet(fleet / "a", plan).nodes
        _broken(fleet)
        template = home / "template.db"
        arguments = (*_arguments(home, fleet, f"sqlite:///{template}"), "--chains")
        door.run(*arguments, env=SETTINGS).expect(BROKEN)
        _fold(template)
        rubix = Path(node.db_path).parent
        shutil.rmtree(rubix / "MainNet" / "nftchainstorage")
        _change_kinds(node.db_path)
        owner, other, *quorum = (make_identity(11, number) for number in range(7))
        for token, type_ in (("new token", FT), ("new nft", NFT)):
            first = generated_block(owner, token, type_)
            write_chains(rubix, "main", [first])
        block = transferred_block(owner, other.did, {token: block_id(first, token)}, type_, quorum)
        write_chains(rubix, "main", [block])
        return Battlefield._observed(home, fleet, template, door, chains=True)

    @staticmethod
    def _observed(
        home: Path, fleet: Path, template: Path, door: Door, *, chains: bool = False
    ) -> Battlefield:
        nothing = Content({}, {})
        field = Battlefield(
            home,
            fleet,
            Phase("first", None, nothing, Counter(), Counter(), Counter()),
            Phase("change", template, nothing, Counter(), Counter(), Counter()),
            chains,
        )
        return replace(
            field,
            first=field._observe(door, field.first),
            change=field._observe(door, field.change),
        )

    def _observe(self, door: Door, phase: Phase) -> Phase:
        """What undisturbed runs make of a phase, with worker processes and without."""
        url = self.fresh_sqlite(self.home / f"{phase.name}.db", phase)
        passed = self._passed(door, url, processes=False)
        content = content_of(url)
        assert not leftovers(url), leftovers(url)
        url = self.fresh_sqlite(self.home / f"{phase.name}-workers.db", phase)
        apart = self._passed(door, url, processes=True)
        assert content_of(url).difference(content) == ""
        assert not leftovers(url), leftovers(url)
        in_workers: Counter[str] = Counter()
        for pid in apart.keys() - {0}:
            in_workers |= apart[pid]
        return replace(
            phase, content=content, points=passed[0], in_workers=in_workers, in_run=apart[0]
        )

    def _passed(self, door: Door, url: str, *, processes: bool) -> dict[int, Counter[str]]:
        """Points passed by each process of an undisturbed run; 0 is the run itself."""
        running = door.start(*self.arguments(url), env=SETTINGS, processes=processes, watched=True)
        assert running.ended_within(60), running.stderr
        passed: dict[int, Counter[str]] = {0: Counter()}
        for pid, name in running.points():
            passed.setdefault(0 if pid == running.pid else pid, Counter())[name] += 1
        running.wait().expect(BROKEN)
        return passed


def _arguments(home: Path, fleet: Path, target: str) -> tuple[str, ...]:
    return (
        "sync", str(fleet), "--target", target, "--source-ip", SOURCE, "--allow-shrink",
        "--report", str(home / "reports"), "--quiet",
    )  # fmt: skip


def _broken(fleet: Path) -> None:
    """A database that is none."""
    bad = fleet / "e" / "node001" / "Rubix" / "rubix.db"
    bad.parent.mkdir(parents=True)
    bad.write_bytes(b"no database" * 100)


def _change_kinds(path: Path | str) -> None:
    """One row of each kind changed, some are gone."""
    with closing(sqlite3.connect(path)) as db, db:
        db.execute("UPDATE FTTokenTable SET token_status = 16 WHERE rowid % 3 = 0")
        db.execute("DELETE FROM FTTokenTable WHERE rowid % 5 = 0")
        for table in ("NFTTokensTable", "DataTokensTable"):
            db.execute(f"UPDATE {table} SET token_status = 5 WHERE rowid = 1")
        db.execute("UPDATE smartcontract SET contract_status = 10")
        db.execute("DELETE FROM NFTTokensTable WHERE rowid = 2")


def _add_history(path: Path | str) -> None:
    """Transactions in several chunks, and pledges of both sorts without a primary key."""
    with closing(sqlite3.connect(path)) as db, db:
        db.execute(
            "CREATE TABLE TransactionHistory (transaction_id text, amount real, status numeric,"
            " comment text, PRIMARY KEY (transaction_id))"
        )
        db.execute("CREATE TABLE TokenStateHashTable (did, token_state_hash, pledged_token)")
        db.execute("CREATE TABLE UnpledgeSequence (tx_id, pledge_tokens, epoch)")
        db.executemany(
            "INSERT INTO TransactionHistory VALUES (?, ?, 0, ?)",
            [(f"tx{n}", n / 4, "'; --" * (n % 3)) for n in range(90)],
        )
        db.executemany(
            "INSERT INTO TokenStateHashTable VALUES ('did', ?, ?)",
            [(f"state {n % 12}" if n % 5 else None, f"token {n}") for n in range(20)],
        )
        db.execute("INSERT INTO UnpledgeSequence VALUES ('tx1', 'a,b', 1795968035)")


def _change_history(path: Path | str) -> None:
    """Some are new, some changed, some gone."""
    with closing(sqlite3.connect(path)) as db, db:
        db.execute("UPDATE TransactionHistory SET status = 1 WHERE amount < 12")
        db.execute("DELETE FROM TransactionHistory WHERE amount > 20")
        db.execute("INSERT INTO TransactionHistory VALUES ('new', 1, 0, NULL)")
        db.execute("DELETE FROM UnpledgeSequence")


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
