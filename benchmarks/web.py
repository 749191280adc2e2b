"""``python -m benchmarks.web --target URL``: how fast the page answers on a large fleet.

The target (empty at first; one that was filled before is used again) gets records of three
machines, 1 % of them without content, one in a thousand invalid, a year of runs and 10,000
findings.  Then the program serves it, and viewers click through every view, each waiting so many
seconds between two clicks, as people do.  Measured are, of each view, the median, the 95th
percentile and the longest answer; the server's memory; and, with ``--writing``, the records a
second that a process publishes into the same target without viewers and with them; with
``--apart``, the publisher has a processor of its own.
"""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import random
import re
import subprocess
import sys
import threading
import time
import uuid
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from pathlib import Path
from statistics import median, quantiles
from typing import Any, Final
from urllib.parse import quote, urlsplit

import click
import pyarrow as pa
import sqlalchemy as sa

from benchmarks.audit import fill
from rubix_token_sync.audit.rules import RULES
from rubix_token_sync.records.schema import RECORD_SCHEMA, database_key, record_key
from rubix_token_sync.targets.base import Chunk, DatabaseMark, Lease, TargetOptions
from rubix_token_sync.targets.registry import open_target, parse_target
from rubix_token_sync.targets.sql.target import SqlTarget

_NIGHTS: Final = 365
_BATCH: Final = 2_000


def finish(store: SqlTarget, findings: int) -> None:
    """What a page shows beside records: failures, runs, findings with two holders each."""
    tables = store.tables
    records, databases = tables.records, tables.databases
    now = store.server_time()

    def failures(conn: sa.Connection) -> None:
        conn.execute(
            sa.update(records)
            .where(records.c.id % 100 == 7)
            .values(ipfs_fetched=False, ipfs_data=None,
                    ipfs_error="not_in_repository: the node's repository does not hold it")
        )  # fmt: skip
        conn.execute(
            sa.update(records)
            .where(records.c.id % 1000 == 11)
            .values(validation_errors='[{"code":"did_missing","field":"did","message":"no DID"}]')
        )
        conn.execute(
            sa.update(databases).values(
                last_seen_at=now,
                last_processed=now,
                ipfs_success_count=databases.c.record_count * 99 / 100,
                ipfs_fail_count=databases.c.record_count / 100,
                kind_counts='{"rbt": 1}',
            )
        )

    def runs(conn: sa.Connection) -> None:
        sessions = []
        for night in range(_NIGHTS):
            for source in range(3):
                began = now - timedelta(days=night, minutes=source)
                sessions.append(
                    {"session_id": str(uuid.uuid4()), "start_time": began,
                     "end_time": began + timedelta(minutes=7), "source_ip": f"vm{source}",
                     "status": "FAILED" if night % 50 == 9 else "COMPLETED", "command": "sync",
                     "total_records_processed": 9_000, "total_sql_inserts": 800,
                     "progress_percent": 100.0}
                )  # fmt: skip
        conn.execute(sa.insert(tables.sessions), sessions)

    def found(conn: sa.Connection) -> None:
        audit = tables.audit
        conn.execute(
            sa.insert(audit.runs).values(
                run_id=str(uuid.uuid4()), started_at=now, ended_at=now, status="COMPLETED",
                databases=150, databases_unread=0, rules_run=json.dumps([r.code for r in RULES]),
            )
        )  # fmt: skip
        rows, evidence = [], []
        query = sa.select(
            records.c.record_key, records.c.token_id, records.c.source_ip, records.c.node_name,
            records.c.db_path, records.c.did,
        ).limit(findings)  # fmt: skip
        for number, row in enumerate(conn.execute(query)):
            rule = RULES[number % len(RULES)]
            key = hashlib.blake2b(bytes(row.record_key), digest_size=16).digest()
            own = {"rule": rule.code, "token_key": key, "token_kind": "rbt",
                   "token_id": row.token_id, "weight": 1}  # fmt: skip
            rows.append(
                own | {"severity": rule.severity, "state": "confirmed", "first_seen_run": 1,
                       "first_seen_at": now, "last_seen_run": 1, "last_seen_at": now,
                       "suspected_at": now, "change": "new", "changed_run": 1, "changed_at": now}
            )  # fmt: skip
            evidence += [
                own | {"run_number": 1, "role": "holder", "record_token_id": row.token_id,
                       "source_ip": row.source_ip, "node_name": row.node_name,
                       "db_path": row.db_path, "did": row.did, "ipfs_fetched": True}
            ] * 2  # fmt: skip
        conn.execute(sa.insert(audit.findings), rows)
        conn.execute(sa.insert(audit.evidence), evidence)

    for work in (failures, runs, found):
        store.transact(work)
    store.finish_load()


def write(address: str, seconds: float, source: str, own: int | None) -> tuple[float, ...]:
    """Publish new records of a database of its own, as a sync does.

    Records a second, microseconds of a processor for each, and records a second of the time in
    which it, or its server's process, did not wait for a processor.  ``own`` is one for it.
    """
    store = open_target(parse_target(address), TargetOptions())
    processes = [os.getpid()]

    def note_server(connection: Any, _record: Any) -> None:
        """The server's process for a connection, where there is one on this machine."""
        if (info := getattr(connection, "info", None)) is not None:
            processes.append(info.backend_pid)
            if own is not None:
                os.sched_setaffinity(info.backend_pid, {own})

    sa.event.listen(store.engine, "connect", note_server)
    if own is not None:
        os.sched_setaffinity(0, {own})
    lease = Lease(source, str(uuid.uuid4()))
    store.acquire_lease(lease, "benchmark|-|1|1")
    path, done, began = f"/mnt/writing-{lease.session_id}/Rubix/rubix.db", 0, time.monotonic()
    database, waited = database_key(source, path), waiting(processes)
    try:
        while time.monotonic() - began < seconds:
            rows = []
            for number in range(done, done + _BATCH):
                token = f"{lease.session_id}{number}"
                key = record_key(database, token)
                rows.append(
                    {"record_key": key, "row_digest": key[8:], "source_ip": source,
                     "node_name": "writing", "did": f"bafybmi{number % 9:052d}",
                     "token_id": token, "token_status": "0", "token_value": "1.0",
                     "ipfs_data": "001" + hashlib.sha256(token.encode()).hexdigest(),
                     "ipfs_fetched": True, "db_path": path, "token_kind": "rbt",
                     "db_last_modified": datetime(2026, 1, 1)}
                )  # fmt: skip
            part = pa.RecordBatch.from_pylist(rows, schema=RECORD_SCHEMA)
            done += len(rows)
            mark = DatabaseMark(
                database,
                source,
                "writing",
                path,
                None,
                "f",
                "r",
                datetime(2026, 1, 1),
                done,
                0,
                0.0,
            )
            store.publish(lease, Chunk(part, mark=mark))
        took = time.monotonic() - began
        undisturbed = took - (waiting(processes) - waited)
        return done / took, 1e6 * time.process_time() / done, done / undisturbed
    finally:
        store.release_lease(lease)
        store.close()


def waiting(processes: list[int]) -> float:
    """Seconds for which their threads were ready and had no processor."""
    tasks = [task for pid in processes for task in Path(f"/proc/{pid}/task").iterdir()]
    return sum(int((task / "schedstat").read_text().split()[1]) for task in tasks) / 1e9


# --- viewers ------------------------------------------------------------------------------------


def views(ask: Any) -> dict[str, list[str]]:
    """Addresses of every view, several of each."""
    databases = json.loads(ask("/nodes.json"))["databases"]
    nodes = [f"name={quote(d['node_name'])}" for d in databases]
    tokens = json.loads(ask("/tokens.json?limit=200"))["tokens"]
    runs = json.loads(ask("/runs.json?limit=50"))["sessions"]
    findings = json.loads(ask("/findings.json?limit=100"))["findings"]
    dids = sorted({t["did"] for t in tokens if t["did"]})
    return {
        "fleet": ["/"],
        "nodes": ["/nodes", "/nodes?page=2", "/nodes?sort=missing"],
        "node": [f"/node?{name}" for name in nodes],
        "runs": ["/runs", "/runs?source=vm1"],
        "run": [f"/run?id={run['session_id']}" for run in runs],
        "tokens": ["/tokens", *(f"/tokens?node={name[5:]}" for name in nodes)],
        "tokens, rare": ["/tokens?status=77", "/tokens?verdict=forged_form", "/tokens?kind=nft"],
        "tokens, DID": [f"/tokens?did={quote(did)}" for did in dids],
        "tokens, number": [f"/tokens?level=1&number={n}" for n in range(1, 200)],
        "tokens, missing": ["/tokens?content=no", "/tokens?invalid=yes"],
        "token": [f"/token?id={quote(t['token_id'])}" for t in tokens],
        "findings": ["/findings", "/findings?severity=error", "/findings?state=all"],
        "finding": [f"/finding?name={quote(f['fingerprint'])}" for f in findings],
        "errors": ["/errors", "/errors?source=vm1", "/errors?since=24h"],
        "events": ["/events"],
        "changes": ["/changes", *(f"/changes?node={name[5:]}" for name in nodes)],
        "evidence": ["/evidence"],
    }


class Viewers:
    """People who click."""

    def __init__(self, place: str, think: float) -> None:
        split = urlsplit(place)
        self._host, self._port = str(split.hostname), int(split.port or 80)
        self._think = think
        self.took: defaultdict[str, list[float]] = defaultdict(list)
        self.failed: list[str] = []
        self._stop = threading.Event()

    def ask(self, path: str) -> bytes:
        """One answer."""
        connection = http.client.HTTPConnection(self._host, self._port, timeout=60)
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            data = answer.read()
            if answer.status != 200:
                self.failed.append(f"{answer.status} {path}")
            return data
        finally:
            connection.close()

    def _click(self, seed: int, places: dict[str, list[str]]) -> None:
        draw = random.Random(seed)
        names = list(places)
        while not self._stop.wait(draw.uniform(0, 2 * self._think)):
            name = draw.choice(names)
            began = time.monotonic()
            self.ask(draw.choice(places[name]))
            self.took[name].append(time.monotonic() - began)

    def click(self, number: int, seconds: float, places: dict[str, list[str]]) -> None:
        """So many of them, so long."""
        threads = [
            threading.Thread(target=self._click, args=(seed, places)) for seed in range(number)
        ]
        for thread in threads:
            thread.start()
        time.sleep(seconds)
        self._stop.set()
        for thread in threads:
            thread.join()
        self._stop.clear()


def memory(pid: int) -> float:
    """Resident megabytes at most so far."""
    status = Path(f"/proc/{pid}/status").read_text()
    found = re.search(r"VmHWM:\s+(\d+) kB", status)
    return int(found[1]) / 1024 if found else 0.0


@click.command()
@click.option("--target", required=True, help="sqlite:///FILE or postgresql://…")
@click.option("--records", default=3_400_000, show_default=True)
@click.option("--databases", default=150, show_default=True)
@click.option("--findings", default=10_000, show_default=True)
@click.option("--viewers", default=20, show_default=True)
@click.option("--seconds", default=60.0, show_default=True)
@click.option("--settle", default=10.0, show_default=True, help="Seconds reported by themselves.")
@click.option("--think", default=1.0, show_default=True, help="Seconds between clicks, on average.")
@click.option("--writing", is_flag=True, help="While a process publishes records.")
@click.option("--turns", default=3, show_default=True, help="By turns without viewers and with.")
@click.option(
    "--apart",
    is_flag=True,
    help="Processor 0 is the publisher's, and its server's process's (as root); the page and the "
    "viewers have the others.  What else the server starts: taskset -cp 1 its main process.",
)
@click.option("--write-for", type=float, hidden=True, help="Only publish, for so many seconds.")
def main(
    target: str, records: int, databases: int, findings: int, viewers: int, seconds: float,
    settle: float, think: float, writing: bool, turns: int, apart: bool, write_for: float | None,
) -> None:  # fmt: skip
    """Measure the page over one target."""
    if write_for is not None:
        published = write(target, write_for, "writer", 0 if apart else None)
        click.echo(" ".join(f"{number:.1f}" for number in published))
        return
    if apart:
        os.sched_setaffinity(0, os.sched_getaffinity(0) - {0})
    options = TargetOptions(pool_size=5, call_seconds=3_600, retry_seconds=7_200)
    store = open_target(parse_target(target), options)
    store.ensure_schema()
    if not store.holds_records():
        began = time.monotonic()
        fill(store, records, databases)
        finish(store, findings)
        click.echo(f"filled with {records:,} records in {time.monotonic() - began:.1f} s")
    store.close()
    writer = [sys.executable, "-m", "benchmarks.web", "--target", target]
    writer += [*(["--apart"] if apart else []), "--write-for"]
    command = [sys.executable, "-P", "-m", "rubix_token_sync", "serve", "--port", "0"]
    with subprocess.Popen(
        [*command, "--target", target], stdout=subprocess.PIPE, text=True
    ) as server:
        try:
            assert server.stdout is not None
            found = re.search(r"http://\S+", server.stdout.readline())
            assert found, "the server did not start"
            people = Viewers(found[0], think)
            places = views(people.ask)
            people.click(viewers, settle, places)  # the first answers of a server's life
            report(people, memory(server.pid), processor(server.pid), detailed=False)
            people.took.clear()
            before, turn = processor(server.pid), seconds / turns
            published: tuple[list[list[float]], ...] = ([], [])
            for number in range(turns):
                if not writing:
                    people.click(viewers, turn, places)
                    continue
                for watched in (number % 2, 1 - number % 2):  # each is as often the first
                    with ThreadPoolExecutor(1) as beside:
                        other = beside.submit(written, writer, turn)
                        if watched:
                            people.click(viewers, turn, places)
                        published[watched].append(other.result())
            report(people, memory(server.pid), processor(server.pid) - before)
            for name, found in zip(("without", "with"), published, strict=True):
                if found:
                    rate, used, free = (median(numbers) for numbers in zip(*found, strict=True))
                    click.echo(
                        f"published {name} viewers: {rate:,.0f} records/s, {used:.0f} µs of a "
                        f"processor each ({', '.join(f'{one[0]:,.0f}' for one in found)}); while "
                        f"not waiting for one {free:,.0f} "
                        f"({', '.join(f'{one[2]:,.0f}' for one in found)})"
                    )
        finally:
            server.terminate()


def written(writer: list[str], seconds: float) -> list[float]:
    """What a process of its own published, as `write` says it."""
    command = [*writer, f"{seconds:.1f}"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return [float(number) for number in done.stdout.split()]


def processor(pid: int) -> float:
    """Seconds of a processor so far: on a busy machine they say more than the clock."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def report(people: Viewers, megabytes: float, used: float, *, detailed: bool = True) -> None:
    """The table."""
    everything = sorted(t for took in people.took.values() for t in took)
    lines = [*people.took.items()] if detailed else []
    for name, took in [*lines, ("all", everything)]:
        p95 = quantiles(took, n=20)[-1] if len(took) > 1 else took[0]
        click.echo(
            f"{name:<16} {len(took):5} answers   median {1000 * median(took):6.0f} ms   "
            f"p95 {1000 * p95:6.0f} ms   longest {1000 * max(took):6.0f} ms"
        )
    click.echo(
        f"the server: {megabytes:.0f} MB at most, {1000 * used / len(everything):.0f} ms of a "
        "processor for each answer"
    )
    for line in people.failed[:5]:
        click.echo(f"FAILED: {line}")


if __name__ == "__main__":
    main()
