"""A generated database of the older system, and what must become of it.

Everything that went wrong there is in it: duplicates, rows without ids, texts
that are too long, placeholders, contents that are stripped, wrong or in a wrong
encoding, timestamps that no other system takes.  `oracle` says what a right
migration holds, from the generated rows alone.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import psycopg

from rubix_token_sync.ipfs.cid import cid_v0
from rubix_token_sync.ipfs.unixfs import encode_leaf

TABLES = """
CREATE TABLE tokenrecords (
    id SERIAL PRIMARY KEY, source_ip TEXT, node_name TEXT, did TEXT, token_id TEXT,
    created_at TIMESTAMP, updated_at TIMESTAMP, token_status TEXT, parent_token_id TEXT,
    token_value TEXT, ipfs_data TEXT, ipfs_fetched BOOLEAN DEFAULT FALSE, ipfs_error TEXT,
    db_path TEXT, ipfs_path TEXT, db_last_modified TIMESTAMP,
    synced_at TIMESTAMP DEFAULT CURRENT_TIMESTAMP, validation_errors TEXT);
CREATE TABLE processeddatabases (
    db_path TEXT PRIMARY KEY, last_modified TIMESTAMP, last_processed TIMESTAMP,
    record_count INTEGER)
"""
COLUMNS = (
    "id", "source_ip", "node_name", "did", "token_id", "created_at", "updated_at",
    "token_status", "parent_token_id", "token_value", "ipfs_data", "ipfs_fetched",
    "ipfs_error", "db_path", "ipfs_path", "db_last_modified", "synced_at", "validation_errors",
)  # fmt: skip

Row = dict[str, Any]


@lru_cache(maxsize=200_000)
def token(number: int) -> tuple[str, str]:
    """The id of a whole token and its content."""
    content = "004" + hashlib.sha256(str(number).encode()).hexdigest()
    return id_of(content.encode()), content


def id_of(content: bytes) -> str:
    return cid_v0(hashlib.sha256(encode_leaf(content)).digest())


def rows(count: int, *, databases: int = 6, seed: int = 1, latin1: bool = True) -> Iterator[Row]:
    """``count`` rows of ``databases`` databases on two machines; the same ones every time."""
    dice = random.Random(seed)
    made: list[tuple[int, int]] = []
    for number in range(1, count + 1):
        if made and dice.random() < 0.15:
            database, which = dice.choice(made[-5_000:])
        else:
            database, which = dice.randrange(databases), number
            made.append((database, which))
        token_id, content = token(which)
        row: Row = {
            "id": number,
            "source_ip": f"10.0.0.{1 + database % 2}",
            "node_name": f"node{database // 2:03d}",
            "did": "bafybmi" + "d" * 52,
            "token_id": token_id,
            "token_status": str(dice.randrange(17)),
            "token_value": "1.0",
            "ipfs_data": content,
            "ipfs_fetched": True,
            "db_path": f"/mnt/d/node{database // 2:03d}/Rubix/rubix.db",
            "ipfs_path": f"/mnt/d/node{database // 2:03d}/.ipfs",
            "db_last_modified": "2026-02-03 04:05:06.789012",
            "synced_at": f"2026-03-{1 + number % 28:02d} 10:00:{number % 60:02d}",
        }
        spoil(row, dice.random(), number, latin1=latin1)
        yield row


def spoil(row: Row, chance: float, number: int, *, latin1: bool) -> None:
    """Half of the rows are ordinary; the others each have a trouble of their own."""
    trouble = int((chance - 0.5) * 46) if chance >= 0.5 else -1
    match trouble:
        case 0:
            row.update(ipfs_data=None, ipfs_fetched=False, ipfs_error="lock conflict: repo.lock")
        case 1:
            row.update(ipfs_data="not what the id names")
        case 2:
            row.update(ipfs_data=None, ipfs_fetched=True)
        case 3:
            row.update(did="D" * (900 + number % 3_000))
        case 4:
            row.update(created_at="infinity", updated_at="-infinity")
        case 5:
            row.update(created_at="0044-03-15 12:00:00 BC", updated_at="20260-01-01 00:00:00")
        case 6:
            row.update(created_at="1969-12-31 23:59:59.999999", updated_at="0001-01-01 00:00:00")
        case 7:
            row.update(node_name=b"node-\xfc\xe9" if latin1 else "node-Ã¼Ã©")
        case 8:
            content = f"caf\xe9 {number}"
            row.update(
                token_id=id_of(content.encode("latin-1")),
                ipfs_data=content.encode("latin-1") if latin1 else content,
            )
        case 9:
            content = f"{number:x}\n"
            row.update(token_id=id_of(content.encode()), ipfs_data=content.rstrip("\n"))
        case 10:
            row.update(token_id=None, ipfs_data=None, ipfs_fetched=None)
        case 11:
            row.update(parent_token_id="c not found", did="c not found", token_value=None)
        case 12:
            row.update(token_status="x" * 51, parent_token_id="🪙" * 300)
        case 13:
            row.update(validation_errors="token id missing; did missing")
        case 14:
            row.update(validation_errors='[{"code": "did_malformed"}]', ipfs_error="")
        case 15:
            size = 450 + number % 100
            row.update(token_id=str(size).ljust(size, "X"), ipfs_fetched=False)
        case 16:
            row.update(ipfs_data="z" * 60_000, token_id=id_of(b"z" * 60_000))
        case 17:
            row.update(node_name=None, db_last_modified=None, synced_at=None)
        case 18:
            row.update(token_value="tab\there\\ back\nline \"'", ipfs_error="e" * 1_500)
        case 19:
            row.update(token_id="no cid at all", ipfs_data="whatever")
        case 20:
            row.update(created_at="2026-03-29 02:30:00", updated_at="2026-10-25 02:30:00")
        case 21 if number % 7 == 0:
            row.update(db_path=None)
        case 22 if number % 7 == 0:
            row.update(source_ip=None)


def fill(url: str, count: int, **options: Any) -> None:
    """Make the tables and fill them, by COPY."""
    with psycopg.connect(url) as conn:
        for statement in TABLES.split(";"):
            conn.execute(statement)
        paths = set()
        with conn.cursor().copy(f"COPY tokenrecords ({', '.join(COLUMNS)}) FROM STDIN") as copy:
            lines: list[bytes] = []
            for row in rows(count, **options):
                lines.append(b"\t".join(copy_field(row.get(name)) for name in COLUMNS) + b"\n")
                paths.add(row["db_path"])
                if len(lines) == 10_000:
                    copy.write(b"".join(lines))
                    lines = []
            copy.write(b"".join(lines))
        conn.execute("SELECT setval('tokenrecords_id_seq', (SELECT max(id) FROM tokenrecords))")
        paths.discard(None)
        for path in sorted(paths):
            conn.execute(
                "INSERT INTO processeddatabases VALUES (%s, '2026-02-03 04:05:06.5', now(), 7)",
                (path,),
            )
        conn.execute(
            "INSERT INTO processeddatabases VALUES ('/mnt/d/empty/Rubix/rubix.db', now(), now(), 0)"
        )


def copy_field(value: Any) -> bytes:
    """One field of COPY's text format."""
    if value is None:
        return b"\\N"
    if isinstance(value, bool):
        return b"t" if value else b"f"
    data = value if isinstance(value, bytes) else str(value).encode()
    for plain, escaped in ((b"\\", b"\\\\"), (b"\n", b"\\n"), (b"\t", b"\\t"), (b"\r", b"\\r")):
        data = data.replace(plain, escaped)
    return data


@dataclass
class Expected:
    """What the records of one database must be: by token id, and how many have none."""

    rows: int = 0
    records: dict[str, Row] = field(default_factory=dict)
    without_id: int = 0


def oracle(count: int, **options: Any) -> dict[tuple[str, str], Expected]:
    """By source and path, told from the generated rows alone."""
    found: dict[tuple[str, str], Expected] = {}
    for row in rows(count, **options):
        if row["source_ip"] is None or row["db_path"] is None:
            continue
        place = found.setdefault((row["source_ip"], row["db_path"]), Expected())
        place.rows += 1
        name = row["token_id"]
        if name is None:
            place.without_id += 1
            continue
        content = true_content(row)
        before = place.records.get(name)
        newer = before is None or (row["synced_at"] or "", row["id"]) > before["age"]
        record = {
            "age": (row["synced_at"] or "", row["id"]),
            "token_status": row["token_status"],
            "content": content,
        }
        if newer and before is not None and content is None:
            record["content"] = before["content"]
        if newer:
            place.records[name] = record
        elif before is not None and before["content"] is None:
            before["content"] = content
    return found


def true_content(row: Row) -> str | None:
    """The content as ``ipfs_data`` must hold it; None where the row has none that is true."""
    data, name = row["ipfs_data"], row["token_id"]
    if data is None or name is None:
        return None
    if isinstance(data, bytes) or "\xe9" in data:
        import base64

        raw = data if isinstance(data, bytes) else data.encode("latin-1")
        text = "data:application/octet-stream;base64," + base64.b64encode(raw).decode()
        return text if id_of(raw) == name else None
    for content in (data, data + "\n"):
        if len(content) <= 51_200 and id_of(content.encode()) == name:
            return content
    return None
