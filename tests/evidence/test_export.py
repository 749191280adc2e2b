"""`export`: the same rows in every form, with types that other programs read."""

from __future__ import annotations

import csv
import gzip
import json
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import rubix_token_sync as rts
from rubix_token_sync import log
from rubix_token_sync.export.run import _Parts
from rubix_token_sync.export.tables import TABLES
from tests.chaos.door import Door
from tests.cli.conftest import Run
from tests.evidence.conftest import Signed


@pytest.fixture(autouse=True)
def _place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    yield
    log.tear_down()


@pytest.fixture(scope="module")
def records(signed: Signed) -> list[dict[str, Any]]:
    """What the library says of them."""
    with rts.open_target(signed.target) as target:
        rows: list[dict[str, Any]] = target.records().to_pylist()
    return rows


def tokens(rows: list[dict[str, Any]]) -> list[tuple[str, str]]:
    return sorted((row["node_name"], row["token_id"]) for row in rows)


def test_the_same_rows_in_every_form(
    run: Run, signed: Signed, records: list[dict[str, Any]]
) -> None:
    for name in ("r.parquet", "r.csv", "r.jsonl", "r.csv.gz", "r.jsonl.zst"):
        ended = run("export", "records", "--to", name, "--target", signed.target)
        assert ended.code == 0
        assert ended.out == f"300 rows of records in {Path.cwd() / name}.\n"
        assert Path(name).stat().st_mode & 0o777 == 0o600
    table = pq.read_table("r.parquet")
    assert tokens(table.to_pylist()) == tokens(records)
    times = [f.type for f in table.schema if pa.types.is_timestamp(f.type)]
    assert set(times) == {pa.timestamp("us", tz="UTC")}
    group = pq.ParquetFile("r.parquet").metadata.row_group(0)
    encodings = {
        group.column(n).path_in_schema: group.column(n).encodings for n in range(group.num_columns)
    }
    assert any("DICTIONARY" in one for one in encodings["db_path"])
    assert not any("DICTIONARY" in one for one in encodings["token_id"])
    assert group.column(0).compression == "ZSTD"
    lines = [json.loads(line) for line in Path("r.jsonl").read_text().splitlines()]
    assert lines[0].keys() == set(TABLES["records"].schema.names)
    assert tokens(lines) == tokens(records)
    first = table.to_pylist()[0]
    assert lines[0]["record_key"] == first["record_key"].hex()
    assert (
        lines[0]["synced_at"] == f"{first['synced_at'].replace(tzinfo=None):%Y-%m-%dT%H:%M:%S.%f}Z"
    )
    with open("r.csv", newline="") as file:
        assert tokens(list(csv.DictReader(file))) == tokens(records)
    assert gzip.decompress(Path("r.csv.gz").read_bytes()) == Path("r.csv").read_bytes()
    with pa.CompressedInputStream("r.jsonl.zst", "zstd") as stream:
        assert stream.read() == Path("r.jsonl").read_bytes()
    assert [path.name for path in Path().iterdir() if path.name.startswith(".")] == []


def test_filters(run: Run, signed: Signed, records: list[dict[str, Any]]) -> None:
    did = records[0]["did"]
    for given, wanted in (
        (("--node", "node002"), lambda row: row["node_name"] == "node002"),
        (("--did", did), lambda row: row["did"] == did),
        (("--kind", "ft"), lambda row: row["token_kind"] == "ft"),
        (("--since", "1h", "--source", "10.0.0.4"), lambda row: True),
    ):
        document = run(
            "export", "records", "--to", "x.parquet", *given, "--target", signed.target, "--json"
        ).document
        assert document.keys() == {
            "ok", "exit_code", "table", "format", "rows", "files", "at", "one_moment",
        }  # fmt: skip
        found = pq.read_table("x.parquet").to_pylist()
        assert tokens(found) == tokens([row for row in records if wanted(row)])
        assert document["rows"] == len(found)


@pytest.mark.parametrize("table", TABLES)
def test_every_table(signed: Signed, table: Any) -> None:
    since = timedelta(days=1) if "since" in TABLES[table].filters else None
    for form in ("parquet", "csv", "jsonl"):
        done = rts.export_table(table, f"x.{form}", target=signed.target, since=since)
        assert done.one_moment
    assert pq.read_schema("x.parquet").equals(TABLES[table].schema)
    assert Path("x.csv").read_text().splitlines()[0] == ",".join(TABLES[table].schema.names)


def test_partitions_as_others_read_them(
    run: Run, signed: Signed, records: list[dict[str, Any]]
) -> None:
    wanted_place = ("--to", "p", "--partition", "node")
    ended = run("export", "records", *wanted_place, "--target", signed.target)
    assert ended.code == 0
    assert sorted(str(path) for path in Path().glob("p/*/*")) == [
        "p/node_name=node001/part-0.parquet", "p/node_name=node002/part-0.parquet",
    ]  # fmt: skip
    wanted = {name: sum(row["node_name"] == name for row in records) for name in
              ("node001", "node002")}  # fmt: skip
    pandas, polars = pytest.importorskip("pandas"), pytest.importorskip("polars")
    duckdb = pytest.importorskip("duckdb")
    frame = pandas.read_parquet("p")
    assert frame.groupby("node_name", observed=True).size().to_dict() == wanted
    assert str(frame["synced_at"].dtype) == "datetime64[us, UTC]"
    lazy = polars.scan_parquet("p/**/*.parquet", hive_partitioning=True).collect()
    assert dict(lazy.group_by("node_name").len().rows()) == wanted
    assert lazy.schema["synced_at"] == polars.Datetime("us", "UTC")
    asked = duckdb.sql(
        "SELECT node_name, count(*), max(typeof(synced_at)) FROM"
        " read_parquet('p/**', hive_partitioning = true) GROUP BY 1"
    ).fetchall()
    assert {name: count for name, count, _ in asked} == wanted
    assert {kind for _, _, kind in asked} == {"TIMESTAMP WITH TIME ZONE"}
    again = ("export", "records", "--to", "p", "--partition", "node", "--json")
    run(*again, "--target", signed.target).error(2, "export_exists")


def test_hostile_and_many_partitions(tmp_path: Path) -> None:
    """Values of nodes never leave the directory, and few files are open at once."""
    schema = pa.schema([("a", pa.string()), ("n", pa.int64())])
    values = ["..", "a/b", "", None, *(f"v{n}" for n in range(80))]
    parts = _Parts(tmp_path, tmp_path, schema, "parquet", "a")
    with parts:
        for turn in range(2):
            rows = pa.record_batch([pa.array(values), pa.array([turn] * len(values))], schema)
            parts.write(rows)
            assert len(parts._open) <= 32
    found = pq.read_table(tmp_path, partitioning="hive")
    assert found.num_rows == 2 * len(values)
    assert {path.parent.parent for path in tmp_path.rglob("*.parquet")} == {tmp_path}
    assert len(parts.names) == len(set(parts.names)) == len(list(tmp_path.rglob("*.parquet")))


def test_standard_output_holds_nothing_else(signed: Signed, door: Door) -> None:
    ended = door.run(
        "export", "records", "--to", "-", "--format", "jsonl", "--target", signed.target
    ).expect(0)
    assert len([json.loads(line) for line in ended.stdout.splitlines()]) == 300


@pytest.mark.parametrize(
    ("given", "code"),
    [
        (("findings", "--to", "f.csv", "--did", "x"), "export_filter"),
        (("transactions", "--to", "f.csv", "--kind", "ft"), "export_filter"),
        (("records", "--to", "f"), "export_form"),
        (("transactions", "--to", "f", "--format", "csv", "--partition", "kind"),
         "export_partition"),
        (("records", "--to", "no/f.csv"), "export_unwritable"),
        (("records", "--to", "-", "--json", "--format", "csv"), "usage"),
    ],
)  # fmt: skip
def test_what_makes_no_sense(run: Run, signed: Signed, given: tuple[str, ...], code: str) -> None:
    run("export", *given, "--target", signed.target, *(() if "--json" in given else ("--json",))
        ).error(2, code)  # fmt: skip
    assert list(Path().iterdir()) == []


def test_formulas_stay_text_in_csv(tmp_path: Path) -> None:
    from rubix_token_sync.export.lines import LinesFile

    schema = pa.schema([("did", pa.string()), ("at", pa.timestamp("us", tz="UTC"))])
    rows = pa.record_batch(
        [pa.array(["=1+1", 'a"b\n']), pa.array([None, 0], pa.timestamp("us", tz="UTC"))], schema
    )
    with open("x.csv", "wb") as file, LinesFile(file, schema, as_csv=True) as lines:
        lines.write(rows)
    assert Path("x.csv").read_text() == ('did,at\n\'=1+1,\n"a""b\\n",1970-01-01T00:00:00.000000Z\n')
