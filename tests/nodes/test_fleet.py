"""The fixture fleet, database by database."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from rubix_token_sync.errors import SourceError
from rubix_token_sync.nodes.snapshot import fingerprint, open_snapshot

from .databases import everything, tree

GOOD = [
    "node032/Rubix/rubix.db",
    "node033/Rubix/rubix.db",
    "node034/Rubix/rubix.db",
    "node041/Rubix/rubix.db",
    "pool/a/node035/Rubix/rubix.db",
    "SafePass/Rubix/Qnode1/Rubix/rubix.db",
]


@pytest.mark.parametrize("name", GOOD)
def test_every_token_is_read_and_nothing_is_touched(
    name: str, fleet: Path, expected: dict[str, list[dict[str, Any]]], scratch: Path
) -> None:
    before = tree(fleet)
    with open_snapshot(str(fleet / name), str(scratch)) as snapshot:
        rows = everything(snapshot, 7)
        assert snapshot.count == len(rows) == len(expected[name])
        assert snapshot.fingerprint == fingerprint(str(fleet / name))
    assert tree(fleet) == before
    assert list(scratch.iterdir()) == []

    def plain(value: object) -> object:
        return value.hex() if isinstance(value, bytes) else value

    # SOURCE_COLUMNS: 0 is the token id, 4 the status (which the truth has for most)
    assert {plain(row[0]) for row in rows} == {token["token_id"] for token in expected[name]}
    statuses = {plain(row[0]): plain(row[4]) for row in rows}
    for token in expected[name]:
        if "status" in token:
            assert statuses[token["token_id"]] == token["status"]


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("node037/Rubix/rubix.db", "no_tokens_table"),
        ("node038/Rubix/rubix.db", "not_a_database"),
        ("node039/Rubix/rubix.db", "empty_file"),
        ("node040/Rubix/rubix.db", "no_such_file"),
        ("node040/Rubix", "not_a_file"),
    ],
)
def test_what_cannot_be_read_says_why(name: str, code: str, fleet: Path) -> None:
    before = tree(fleet)
    with pytest.raises(SourceError) as caught:
        open_snapshot(str(fleet / name))
    assert caught.value.code == code
    assert caught.value.kind == "permanent"
    assert caught.value.remedy
    assert tree(fleet) == before


def test_rows_only_in_the_log_are_read_from_a_copy(fleet: Path, scratch: Path) -> None:
    with open_snapshot(str(fleet / GOOD[-1]), str(scratch)) as snapshot:
        assert (snapshot.way, snapshot.count) == ("copy", 60)


def test_a_forks_columns_and_an_old_schema(fleet: Path) -> None:
    with open_snapshot(str(fleet / "pool/a/node035/Rubix/rubix.db")) as fork:
        assert fork.tables[0].columns == {
            "token_id",
            "did",
            "created_at",
            "updated_at",
            "token_status",
            "parent_token_id",
            "token_value",
        }
        assert {type(row[2]) for row in everything(fork)} > {str}
    with open_snapshot(str(fleet / "node034/Rubix/rubix.db")) as old:
        assert old.tables[0].columns == {"token_id", "did", "parent_token_id", "token_value"}
        assert {row[2:5] for row in everything(old)} == {(None, None, None)}
