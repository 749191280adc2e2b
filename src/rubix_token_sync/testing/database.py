"""Databases shaped as the node software's (GORM's) TokensTable, and changes to them.

For fleets of tests and benchmarks only: these functions write.  Nothing here is
used by a sync.
"""

from __future__ import annotations

import random
import shutil
import sqlite3
import tempfile
from collections.abc import Iterable, Mapping
from contextlib import closing
from pathlib import Path
from typing import Final, Literal

__all__ = [
    "FORK_SCHEMA",
    "KIND_SCHEMAS",
    "NEWEST_SCHEMA",
    "OLDEST_SCHEMA",
    "JournalMode",
    "add_rows",
    "change_status",
    "create_database",
    "delete_tokens",
    "insert_rows",
]

JournalMode = Literal["delete", "wal"]
Row = tuple[object, ...]

_LITE: Final = 4  # the type of a DID, as node software v0.0.20 has it

NEWEST_SCHEMA: Final[Mapping[str, str]] = {
    "token_id": "text",
    "parent_token_id": "text",
    "token_value": "real",
    "did": "text",
    "token_status": "integer",
    "token_state_hash": "text",
    "transaction_id": "text",
    "added": "numeric",
}
"""Columns of TokensTable and their types, as the newest node software makes them."""

OLDEST_SCHEMA: Final[Mapping[str, str]] = {
    name: NEWEST_SCHEMA[name] for name in ("token_id", "parent_token_id", "token_value", "did")
}
"""Early versions: no status."""

FORK_SCHEMA: Final[Mapping[str, str]] = {
    **{name: NEWEST_SCHEMA[name] for name in (*OLDEST_SCHEMA, "token_status")},
    "created_at": "text",
    "updated_at": "text",
}
"""A fork's table with the timestamps that released nodes do not have."""

_TOKEN: Final = {"token_id": "text"}
_STATE: Final = {"token_state_hash": "text", "transaction_id": "text"}

KIND_SCHEMAS: Final[Mapping[str, Mapping[str, str]]] = {
    "FTTokenTable": {
        **_TOKEN,
        "ft_name": "text",
        "owner_did": "text",
        "creator_did": "text",
        "token_status": "integer",
        "token_value": "real",
        **_STATE,
    },
    "NFTTokensTable": {**_TOKEN, "did": "text", "token_status": "integer", "token_value": "real"},
    "DataTokensTable": {
        **_TOKEN,
        "did": "text",
        "commiter_did": "text",
        "batch_id": "text",
        "token_status": "integer",
    },
    "smartcontract": {
        "smart_contract_hash": "text",
        "deployer": "text",
        "binary_code_hash": "text",
        "raw_code_hash": "text",
        "schema_code_hash": "text",
        "contract_status": "integer",
    },
}
"""The tables of the other kinds of token; the first column is the primary key."""


def create_database(
    path: str | Path,
    rows: Iterable[Row],
    *,
    schema: Mapping[str, str] = NEWEST_SCHEMA,
    dids: Iterable[str] = (),
    journal_mode: JournalMode = "delete",
    in_wal: bool = False,
) -> int:
    """Make a node's database at ``path`` with these rows; gives their number.

    Args:
        path: ``NODE/Rubix/rubix.db``; its directory is made.
        rows: one value for each column of ``schema``, in its order.
        schema: column names and types; ``token_id`` is the primary key where it occurs.
        dids: the node's own, for its DIDTable; without any there is no such table.
        journal_mode: of the finished database; a WAL database is left as one that
            was closed cleanly (without ``-wal`` and ``-shm``).
        in_wal: leave all rows in ``rubix.db-wal`` (no ``-shm``), as after a crash.

    Raises:
        FileExistsError: there is a file at ``path``.
    """
    path = Path(path)
    if path.exists():
        raise FileExistsError(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    key = ",PRIMARY KEY (`token_id`)" if "token_id" in schema else ""
    columns = ",".join(f"`{name.replace('`', '``')}` {kind}" for name, kind in schema.items())
    create = f"CREATE TABLE `TokensTable` ({columns}{key})"
    if not in_wal:
        with closing(sqlite3.connect(path)) as db:
            db.execute("PRAGMA journal_mode=off")
            db.execute("PRAGMA synchronous=off")
            db.execute("PRAGMA cache_size=-65536")
            db.execute(create)
            count = _insert(db, rows, len(schema))
            _insert_dids(db, dids)
            db.execute(f"PRAGMA journal_mode={journal_mode}")
        return count
    with tempfile.TemporaryDirectory(dir=path.parent) as scratch:
        written = Path(scratch) / path.name
        with closing(sqlite3.connect(written)) as db:
            db.execute("PRAGMA journal_mode=wal")
            db.execute("PRAGMA wal_autocheckpoint=0")
            db.execute(create)
            count = _insert(db, rows, len(schema))
            _insert_dids(db, dids)
            for suffix in ("", "-wal"):  # copied before closing, which would checkpoint
                shutil.copyfile(f"{written}{suffix}", f"{path}{suffix}")
    return count


def _insert(
    db: sqlite3.Connection, rows: Iterable[Row], columns: int, table: str = "TokensTable"
) -> int:
    with db:
        places = ",".join("?" * columns)
        # Only question marks and a name of ours are put in.
        return db.executemany(f"INSERT INTO {table} VALUES ({places})", rows).rowcount  # noqa: S608


def _insert_dids(db: sqlite3.Connection, dids: Iterable[str]) -> None:
    rows = [(did, _LITE, "root", 0, "") for did in dids]
    if rows:
        with db:
            db.execute(
                "CREATE TABLE `DIDTable` (`did` text,`type` integer,`did_dir` text,"
                "`root_did` integer,`config` text,PRIMARY KEY (`did`))"
            )
            db.executemany("INSERT INTO DIDTable VALUES (?,?,?,?,?)", rows)


def insert_rows(
    path: str | Path, rows: Iterable[Row], *, schema: Mapping[str, str] = NEWEST_SCHEMA
) -> int:
    """Add rows to an existing database, as its node would; gives their number."""
    with closing(sqlite3.connect(path)) as db:
        return _insert(db, rows, len(schema))


def add_rows(path: str | Path, table: str, rows: Iterable[Row]) -> int:
    """Add rows to a table of `KIND_SCHEMAS`, which is made where it is not there."""
    schema = KIND_SCHEMAS[table]
    columns = ",".join(f"`{name}` {kind}" for name, kind in schema.items())
    create = (
        f"CREATE TABLE IF NOT EXISTS `{table}` ({columns},PRIMARY KEY (`{next(iter(schema))}`))"
    )
    with closing(sqlite3.connect(path)) as db, db:
        db.execute(create)
        return _insert(db, rows, len(schema), table)


def _choose(db: sqlite3.Connection, share: float, seed: int) -> list[tuple[int, str]]:
    if not 0 <= share <= 1:
        raise ValueError(f"share must be from 0 to 1, not {share}")
    rows = db.execute("SELECT rowid, token_id FROM TokensTable ORDER BY rowid").fetchall()
    count = round(len(rows) * share) if share else 0
    chosen: list[tuple[int, str]] = random.Random(seed).sample(rows, count)  # noqa: S311
    return chosen


def change_status(path: str | Path, share: float = 0.01, *, seed: int = 1) -> list[str]:
    """Move that share of all rows on to the next token_status, as a node would in place.

    Nothing else in the rows changes.  Gives the token ids; the same seed chooses
    the same rows.
    """
    with closing(sqlite3.connect(path)) as db, db:
        chosen = _choose(db, share, seed)
        db.executemany(
            "UPDATE TokensTable SET token_status = (coalesce(token_status, 0) + 1) % 17"
            " WHERE rowid = ?",
            [(rowid,) for rowid, _ in chosen],
        )
    return [token_id for _, token_id in chosen]


def delete_tokens(path: str | Path, share: float = 0.01, *, seed: int = 1) -> list[str]:
    """Delete that share of all rows; gives their token ids.  Blocks stay where they are."""
    with closing(sqlite3.connect(path)) as db, db:
        chosen = _choose(db, share, seed)
        db.executemany("DELETE FROM TokensTable WHERE rowid = ?", [(rowid,) for rowid, _ in chosen])
    return [token_id for _, token_id in chosen]
