"""``python -m benchmarks.audit --target URL``: how long an audit takes, against bare GROUP BYs.

The target (empty at first; one that was filled before is used again) gets a fleet that is
honest but for one token in ten thousand: each token at its holder, every second one at its
sender (4) as well, some split into parts, whose parents are burnt; each node has its DID, and
every transfer stands in the histories of both.  Measured are

* the bare statements: each rule's statement, read to its end, and nothing else;
* the first audit, an audit in which nothing changed, and one after 1 % of the rows changed.
"""

from __future__ import annotations

import hashlib
import random
import time
from collections.abc import Iterator
from datetime import datetime
from statistics import median
from typing import Any, Final

import click
import pyarrow as pa
import sqlalchemy as sa

from rubix_token_sync.audit.rules import RULES
from rubix_token_sync.audit.run import AuditOptions, run_audit
from rubix_token_sync.ipfs.cid import cid_v0
from rubix_token_sync.records.companions import DIDS, TRANSACTIONS, companion_key
from rubix_token_sync.records.schema import RECORD_SCHEMA, database_key, record_key
from rubix_token_sync.targets.base import Chunk, DatabaseMark, Lease, TargetOptions
from rubix_token_sync.targets.registry import open_target, parse_target
from rubix_token_sync.targets.sql.target import SqlTarget

_BATCH: Final = 10_000
_SPLIT: Final = 20
"""One token in so many is burnt, and its two parts are there."""
_TWICE: Final = 10_000
_TIME: Final = datetime(2026, 1, 1)


def _token_id(number: int, part: int = 0) -> str:
    return cid_v0(hashlib.sha256(f"{number}/{part}".encode()).digest())


def _rows(node: int, nodes: int, count: int) -> Iterator[dict[str, Any]]:
    """The records of one node; its neighbour sent it every second token."""
    source, path = f"vm{node % 3}", f"/mnt/node{node:03d}/Rubix/rubix.db"
    database = database_key(source, path)
    made = 0

    def row(
        token: str,
        status: str,
        owner: int,
        value: str = "1.0",
        parent: str = "",
        transaction: str | None = None,
    ) -> Any:
        key = record_key(database, token)
        return {
            "record_key": key,
            "row_digest": key[8:],
            "source_ip": source,
            "node_name": f"node{node:03d}",
            "did": f"bafybmi{owner:052d}",
            "token_id": token,
            "token_status": status,
            "parent_token_id": parent,
            "transaction_id": transaction,
            "token_value": value,
            "ipfs_data": "001" + hashlib.sha256(token.encode()).hexdigest(),
            "ipfs_fetched": True,
            "db_path": path,
            "ipfs_path": f"/mnt/node{node:03d}/.ipfs",
            "db_last_modified": _TIME,
            "token_kind": "rbt",
            "network": "main",
            "verdict": "genuine",
            "token_level": 1,
            "token_number": int.from_bytes(key[8:14], "big"),
        }

    number = 0
    while made < count:
        token = node * 10_000_000 + number
        if number % _SPLIT == 0 and count - made >= 3:
            parent = _token_id(token)
            yield row(parent, "9", node)
            yield row(_token_id(token, 1), "0", node, "0.25", parent)
            yield row(_token_id(token, 2), "0", node, "0.75", parent)
            made += 3
        elif number % 2:  # this one came from the node before
            yield row(_token_id(token), "0", node, transaction=_transaction(node, number))
            made += 1
        else:  # this one was sent to the next node, which has it with an odd number
            receiver = (node + 1) % nodes
            sent = receiver * 10_000_000 + number + 1
            twice = number % _TWICE == 2
            moved = _transaction(receiver, number + 1)
            yield row(_token_id(sent), "0" if twice else "4", node, transaction=moved)
            made += 1
        number += 1


def _transaction(receiver: int, number: int) -> str:
    """Of the transfer by which a token came; ten tokens have one."""
    return hashlib.sha256(f"{receiver} {number // 20}".encode()).hexdigest()


def _beside(conn: sa.Connection, store: SqlTarget, records: int, nodes: int) -> None:
    """Each node's DID, and every transfer at its sender and its receiver."""
    dids, history = (store.tables.stored[t.name].table for t in (DIDS, TRANSACTIONS))

    def common(node: int, table: str, key: str) -> dict[str, Any]:
        source, path = f"vm{node % 3}", f"/mnt/node{node:03d}/Rubix/rubix.db"
        name = companion_key(database_key(source, path), table, key)
        return {
            "source_ip": source,
            "node_name": f"node{node:03d}",
            "db_path": path,
            "record_key": name,
            "row_digest": name[8:],
        }

    owned = [(node, f"bafybmi{node:052d}") for node in range(nodes)]
    conn.execute(sa.insert(dids), [common(n, "DIDTable", did) | {"did": did} for n, did in owned])
    for receiver, did in owned:
        sender, sent_by = owned[receiver - 1]
        moved = {_transaction(receiver, number) for number in range(1, records // nodes, 2)}
        conn.execute(
            sa.insert(history),
            [
                common(node, "TransactionHistory", key)
                | {"transaction_id": key, "transaction_type": "02", "status": "1",
                   "sender_did": sent_by, "receiver_did": did, "date_time": _TIME}
                for key in sorted(moved)
                for node in (sender, receiver)
            ],
        )  # fmt: skip


def fill(store: SqlTarget, records: int, nodes: int) -> None:
    """Put the fleet in, as syncs would."""
    lease = {f"vm{n}": Lease(f"vm{n}", f"00000000-0000-4000-8000-00000000000{n}") for n in range(3)}
    for held in lease.values():
        store.acquire_lease(held, "benchmark|-|1|1")
    store.prepare_load()
    for node in range(nodes):
        rows = list(_rows(node, nodes, records // nodes))
        source, path = rows[0]["source_ip"], rows[0]["db_path"]
        for start in range(0, len(rows), _BATCH):
            part = pa.RecordBatch.from_pylist(rows[start : start + _BATCH], schema=RECORD_SCHEMA)
            last = start + _BATCH >= len(rows)
            mark = DatabaseMark(
                database_key(source, path), source, rows[0]["node_name"], path, None, "f", "r",
                _TIME, len(rows), 0, 0.0,
            )  # fmt: skip
            store.publish(lease[source], Chunk(part, bulk=True, mark=mark if last else None))
    store.transact(lambda conn: _beside(conn, store, records, nodes))
    store.finish_load()
    for held in lease.values():
        store.release_lease(held)


def bare(store: SqlTarget) -> dict[str, float]:
    """Seconds of each rule's statement, read to its end."""
    found = {}
    for rule in RULES:
        began = time.monotonic()
        query = rule.statement(store.tables)  # type: ignore[attr-defined]
        store.read(lambda conn, query=query: conn.execute(query).all())  # type: ignore[misc]
        found[rule.code] = time.monotonic() - began
    return found


def _audited(store: SqlTarget) -> tuple[float, int]:
    began = time.monotonic()
    done = run_audit(store, AuditOptions(RULES))
    return time.monotonic() - began, sum(done.open.values())


def change(store: SqlTarget, seed: int) -> int:
    """1 % of the rows change their status, from Free to Locked or back; all databases are read."""
    records, databases = store.tables.records, store.tables.databases
    low = random.Random(seed).randrange(99)

    def work(conn: sa.Connection) -> int:
        conn.execute(sa.update(databases).values(last_seen_at=store.now))
        some = (records.c.id % 100 == low, records.c.token_status.in_(("0", "1")))
        turned = sa.case((records.c.token_status == "0", "1"), else_="0")
        return conn.execute(sa.update(records).where(*some).values(token_status=turned)).rowcount

    return store.transact(work)


@click.command()
@click.option("--target", required=True, help="sqlite:///FILE or postgresql://…; mssql://… too.")
@click.option("--records", default=1_000_000, show_default=True)
@click.option("--nodes", default=50, show_default=True)
@click.option("--runs", default=3, show_default=True)
def main(target: str, records: int, nodes: int, runs: int) -> None:
    """Measure audits of one target."""
    options = TargetOptions(pool_size=5, call_seconds=3_600, retry_seconds=7_200)
    store = open_target(parse_target(target), options)
    try:
        store.ensure_schema()
        if not store.holds_records():
            began = time.monotonic()
            fill(store, records, nodes)
            click.echo(f"filled with {records:,} records in {time.monotonic() - began:.1f} s")
        used = time.process_time()
        single = [bare(store) for _ in range(runs)]
        used = (time.process_time() - used) / runs
        for code in single[0]:
            click.echo(f"  {code:<22} {median(one[code] for one in single):8.3f} s")
        whole = median(sum(one.values()) for one in single)
        # On a busy machine a SQLite target's processor time says more than the clock.
        click.echo(f"bare statements          {whole:8.2f} s (this process {used:.2f} s)")
        first, found = _audited(store)
        click.echo(f"first audit              {first:8.2f} s, {found} findings open")
        spent = time.process_time()
        again = median(_audited(store)[0] for _ in range(runs))
        spent = (time.process_time() - spent) / runs
        click.echo(
            f"audit, nothing changed   {again:8.2f} s, {again / whole:.2f} x bare "
            f"(this process {spent:.2f} s)"
        )
        changed = []
        for seed in range(runs):
            rows = change(store, seed)
            changed.append(_audited(store)[0])
        click.echo(f"audit after 1 % changed  {median(changed):8.2f} s ({rows:,} rows)")
    finally:
        store.close()


if __name__ == "__main__":
    main()
