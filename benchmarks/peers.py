"""What others make of the same data.  Each peer runs in a process of its own.

    python -m benchmarks.peers dlt-merge --records SYNCED.db --to URL
    python -m benchmarks.peers dlt-tokens --fleet DIR --to URL --backend pyarrow
    python -m benchmarks.peers sqlite-utils --fleet DIR --to FILE
    python -m benchmarks.peers ipfs-cat --fleet DIR --program IPFS --tokens N

Each prints one JSON line: records and seconds.  The seconds leave out the
interpreter's start and imports, in the peer's favour.
"""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, Literal

import click

from benchmarks.fleets import BenchFleet
from rubix_token_sync.ipfs.cid import parse
from rubix_token_sync.testing.flatfs import Block, block_path

_CHUNK = 50_000
_DLT = {"RUNTIME__DLTHUB_TELEMETRY": "false", "RUNTIME__LOG_LEVEL": "ERROR"}
_HEXED = ("record_key", "row_digest")

Result = tuple[int, float]


def run_peer(*arguments: str) -> Result:
    """Run this module in a process of its own; gives records and seconds."""
    with tempfile.TemporaryDirectory() as home:
        done = subprocess.run(
            [sys.executable, "-W", "ignore", "-m", "benchmarks.peers", *arguments],
            capture_output=True,
            text=True,
            check=False,
            cwd=Path(__file__).resolve().parent.parent,
            env={**os.environ, **_DLT, "DLT_DATA_DIR": home},
        )
    if done.returncode:
        raise RuntimeError(f"peer {arguments[0]} failed:\n{done.stderr[-2000:]}")
    found = json.loads(done.stdout.splitlines()[-1])
    return found["records"], found["seconds"]


def _told(records: int, seconds: float) -> None:
    click.echo(json.dumps({"records": records, "seconds": seconds}))


@click.group()
def main() -> None:
    """Peers of the benchmarks."""


@main.command("dlt-merge")
@click.option("--records", type=click.Path(path_type=Path), required=True)
@click.option("--to", required=True)
def dlt_merge(records: Path, to: str) -> None:
    """Merge finished records into PostgreSQL with dlt's pyarrow backend, the same indexes there.

    dlt's CSV loader takes no binary columns, so keys and digests come as hex text.
    """
    with tempfile.TemporaryDirectory() as scratch:
        source = Path(scratch) / "records.db"
        count = _hex_records(records, source)
        _run_dlt(Path(scratch), to, _dlt_records(source, limit=True))
        _index(to)
        began = time.perf_counter()
        _run_dlt(Path(scratch), to, _dlt_records(source, limit=False))
        _told(count, time.perf_counter() - began)


def _hex_records(synced: Path, path: Path) -> int:
    """A copy of TokenRecords with a text key."""
    with closing(sqlite3.connect(path)) as db:
        db.execute("ATTACH ? AS synced", (f"{synced}",))
        info = db.execute("SELECT name, type FROM pragma_table_info('TokenRecords', 'synced')")
        columns = info.fetchall()
        kinds = ", ".join(f"{name} {'TEXT' if name in _HEXED else kind}" for name, kind in columns)
        values = ", ".join(f"hex({name})" if name in _HEXED else name for name, _ in columns)
        db.execute(f"CREATE TABLE token_records ({kinds})")
        with db:
            return db.execute(
                f"INSERT INTO token_records SELECT {values} FROM synced.TokenRecords ORDER BY id"
            ).rowcount


def _dlt_records(source: Path, *, limit: bool) -> Any:
    from dlt.sources.sql_database import sql_table

    table = sql_table(
        credentials=f"sqlite:///{source}",
        table="token_records",
        backend="pyarrow",
        chunk_size=1 if limit else _CHUNK,
        write_disposition="merge",
        primary_key="record_key",
    )
    return table.add_limit(1) if limit else table


def _run_dlt(scratch: Path, to: str, data: Any) -> None:
    import dlt

    # dlt insists on a host and a password; the server goes by the socket and trusts us.
    address = to.replace("//postgres@/", "//postgres:unused@localhost/")
    pipeline = dlt.pipeline(
        pipeline_name="bench",
        pipelines_dir=str(scratch / "pipelines"),
        destination=dlt.destinations.postgres(address),
        dataset_name="peer",
    )
    pipeline.run(data).raise_on_failed_jobs()


def _index(to: str) -> None:
    """Give dlt's table the indexes of ours."""
    import psycopg

    from rubix_token_sync.targets.postgresql.target import SPELLING
    from rubix_token_sync.targets.sql.tables import build_tables

    with psycopg.connect(to, autocommit=True) as db:
        for index in build_tables(SPELLING).records.indexes:
            columns = ", ".join(column.name for column in index.columns)
            options = index.dialect_options["postgresql"]
            include = ", ".join(map(str, options.get("include") or ()))
            where = options.get("where")
            db.execute(
                f"CREATE {'UNIQUE ' if index.unique else ''}INDEX ON peer.token_records ({columns})"
                + (f" INCLUDE ({include})" if include else "")
                + (" WHERE validation_errors IS NOT NULL" if where is not None else "")
            )


@main.command("dlt-tokens")
@click.option("--fleet", type=click.Path(path_type=Path), required=True)
@click.option("--to", required=True)
@click.option("--backend", type=click.Choice(["sqlalchemy", "pyarrow"]), required=True)
def dlt_tokens(fleet: Path, to: str, backend: Literal["sqlalchemy", "pyarrow"]) -> None:
    """Append the rows of every TokensTable to one table of PostgreSQL; no content, no index."""
    import dlt
    from dlt.sources.sql_database import sql_table

    databases = BenchFleet(fleet, 0, 0).databases

    def node(number: int, path: str) -> Any:
        table = sql_table(
            credentials=f"sqlite:///{path}",
            table="TokensTable",
            backend=backend,
            chunk_size=_CHUNK,
            write_disposition="append",
        )
        return table.with_name(f"node{number}").apply_hints(table_name="tokens")

    @dlt.source
    def fleet_source() -> Iterator[Any]:
        for number, path in enumerate(databases):
            yield node(number, path)

    with tempfile.TemporaryDirectory() as scratch:
        began = time.perf_counter()
        _run_dlt(Path(scratch), to, fleet_source())
        seconds = time.perf_counter() - began
    import psycopg

    with psycopg.connect(to) as db:
        row = db.execute("SELECT count(*) FROM peer.tokens").fetchone()
    assert row is not None
    _told(row[0], seconds)


@main.command("sqlite-utils")
@click.option("--fleet", type=click.Path(path_type=Path), required=True)
@click.option("--to", type=click.Path(path_type=Path), required=True)
def sqlite_utils_tokens(fleet: Path, to: Path) -> None:
    """Upsert the rows of every TokensTable into one SQLite file; no content, no second index."""
    import sqlite_utils

    began = time.perf_counter()
    target = sqlite_utils.Database(to)
    for path in BenchFleet(fleet, 0, 0).databases:
        source = sqlite_utils.Database(sqlite3.connect(f"file:{path}?mode=ro", uri=True))
        rows = ({**row, "db_path": path} for row in source["TokensTable"].rows)
        target.table("tokens").upsert_all(rows, pk=("db_path", "token_id"), batch_size=_CHUNK)
    seconds = time.perf_counter() - began
    _told(target.table("tokens").count, seconds)


@main.command("ipfs-cat")
@click.option("--fleet", type=click.Path(path_type=Path), required=True)
@click.option("--program", required=True)
@click.option("--tokens", type=int, default=30)
def ipfs_cat(fleet: Path, program: str, tokens: int) -> None:
    """One real `ipfs cat` process a token, on a repository with an identity of its own."""
    database, repository = next(zip(*_first_node(fleet), strict=True))
    with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as db:
        ids = [
            name for (name,) in db.execute("SELECT token_id FROM TokensTable LIMIT ?", (tokens,))
        ]
    with tempfile.TemporaryDirectory() as scratch:
        environment = {**os.environ, "IPFS_PATH": f"{scratch}/ipfs"}

        def ipfs(*arguments: str) -> bytes:
            return subprocess.run(
                [program, *arguments], env=environment, capture_output=True, check=True
            ).stdout

        ipfs("init", "--empty-repo")
        ipfs("config", "--json", "Bootstrap", "[]")
        for name in ids:
            cid = parse(name)
            assert cid is not None
            path = Path("blocks") / block_path(Block(cid.multihash, b""))
            (Path(scratch, "ipfs") / path).parent.mkdir(exist_ok=True)
            shutil.copyfile(Path(repository) / path, Path(scratch, "ipfs") / path)
        began = time.perf_counter()
        for name in ids:
            assert ipfs("cat", "--offline", name)
        _told(len(ids), time.perf_counter() - began)


def _first_node(fleet: Path) -> tuple[list[str], list[str]]:
    node = BenchFleet(fleet, 0, 0)
    return node.databases[:1], node.repositories[:1]


if __name__ == "__main__":
    main(prog_name="python -m benchmarks.peers")
