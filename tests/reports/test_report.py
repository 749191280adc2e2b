"""The JSON report: its form is the published schema's, its numbers are the target's."""

from __future__ import annotations

import copy
import json
import sqlite3
from importlib.resources import files
from typing import Any

import jsonschema
import pytest

from .conftest import Run

SCHEMA = json.loads(
    files("rubix_token_sync.reports").joinpath("report.schema.json").read_text("utf-8")
)
VALIDATOR = jsonschema.Draft202012Validator(
    SCHEMA, format_checker=jsonschema.Draft202012Validator.FORMAT_CHECKER
)


def test_the_schema_is_one() -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)


def test_the_report_has_the_published_form(synced: Run) -> None:
    VALIDATOR.validate(synced.report)
    assert synced.report["databases"]
    assert synced.report["errors"]
    assert synced.report["skipped"]
    assert synced.report["rate_samples"]


def test_every_key_is_published(synced: Run) -> None:
    """The other way round: nothing is written that the schema does not describe."""
    only_printed = {"report_file", "page_file"}
    assert set(synced.report) == set(SCHEMA["properties"]) - only_printed
    for name in ("databases", "skipped", "errors", "rate_samples"):
        described = set(SCHEMA["properties"][name]["items"]["properties"])
        for item in synced.report[name]:
            assert set(item) == described, name


def test_everything_is_described() -> None:
    def look(node: dict[str, Any], place: str) -> None:
        assert node.get("description"), place
        for name, child in node.get("properties", {}).items():
            look(child, f"{place}.{name}")
        if "items" in node:
            look(node["items"], f"{place}[]")

    for name, child in SCHEMA["properties"].items():
        look(child, name)


@pytest.mark.parametrize(
    ("key", "wrong"),
    [
        ("report_version", 2),
        ("ipfs_success_rate", 100.5),
        ("status", "DONE"),
        ("total_records_processed", -1),
        ("errors", {}),
    ],
)
def test_the_schema_refuses(synced: Run, key: str, wrong: object) -> None:
    report = copy.deepcopy(synced.report)
    report[key] = wrong
    with pytest.raises(jsonschema.ValidationError):
        VALIDATOR.validate(report)
    del report[key]
    with pytest.raises(jsonschema.ValidationError):
        VALIDATOR.validate(report)


def test_the_numbers_are_the_targets(synced: Run) -> None:
    """Incident 17, and row M9 of the guide."""
    report = synced.report
    with sqlite3.connect(synced.target) as conn:
        records, content, invalid = conn.execute(
            "SELECT COUNT(*), SUM(ipfs_fetched), SUM(validation_errors IS NOT NULL)"
            " FROM TokenRecords"
        ).fetchone()
        session = conn.execute(
            "SELECT session_id, total_databases_found, total_databases_processed,"
            " total_records_processed, total_ipfs_success, total_ipfs_failures,"
            " total_validation_errors, status FROM SyncSessions"
        ).fetchone()
    conn.close()
    assert report["total_records_processed"] == records == 373
    assert report["total_ipfs_success"] == content
    assert report["total_ipfs_failures"] == records - content
    assert report["total_validation_errors"] == invalid
    assert report["ipfs_success_rate"] == round(content * 100 / records, 2)
    assert sum(report["content_failures"].values()) == records - content
    assert sum(d["records"] for d in report["databases"]) == records
    assert session == (
        report["session_id"],
        report["total_databases_found"],
        report["total_databases_processed"],
        records,
        content,
        records - content,
        invalid,
        report["status"],
    )


def test_rates_over_batches_end_at_all_that_was_read(synced: Run) -> None:
    samples = synced.report["rate_samples"]
    assert samples[-1]["tokens_read"] == synced.report["tokens_read"] == 373
    times = [s["seconds"] for s in samples]
    assert times == sorted(times)
    assert times[-1] <= synced.report["duration_seconds"]
