"""Each setting is read by the program, and its extremes work or are refused (incidents 30, 44)."""

from __future__ import annotations

import ast
import dataclasses
import io
import json
import os
from collections.abc import Callable, Iterator
from contextlib import redirect_stderr, redirect_stdout
from importlib.util import find_spec
from pathlib import Path
from typing import get_args

import pytest

from rubix_token_sync import log
from rubix_token_sync.cli import main
from rubix_token_sync.installation import LEVELDB
from rubix_token_sync.settings import Settings
from rubix_token_sync.targets.mssql.address import MssqlTarget
from rubix_token_sync.testing import FleetPlan, make_fleet

SOURCE = Path(__file__).parents[2] / "src" / "rubix_token_sync"


def attributes(*, of: str | None, without: str) -> set[str]:
    """Names read as attributes, of things called ``of`` if given, outside the file ``without``."""
    found = set()
    for path in SOURCE.rglob("*.py"):
        if path.relative_to(SOURCE).as_posix().startswith(without):
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Attribute) or not isinstance(node.ctx, ast.Load):
                continue
            owner = ast.unparse(node.value).rpartition(".")[2]
            if of is None or owner == of:
                found.add(node.attr)
    return found


def test_every_setting_is_read() -> None:
    """A setting that nobody reads would be accepted and ignored."""
    unread = set(Settings.model_fields) - attributes(of="settings", without="settings/")
    # The profile is a set of defaults: `settings.load` turns it into values.
    assert unread == {"profile"}


def test_every_keyword_of_a_connection_string_is_read() -> None:
    fields = {field.name for field in dataclasses.fields(MssqlTarget)}
    sent = (SOURCE / "targets/mssql/address.py").read_text(encoding="utf-8")
    to_driver = sent.partition("def to_driver")[2].partition("\ndef ")[0]
    unread = fields - attributes(of=None, without="targets/mssql/address.py")
    assert {name for name in unread if f"self.{name}" not in to_driver} <= {"packet_bytes"}
    assert "self.packet_bytes" in sent, "through the property `packet`"


# --- extremes -------------------------------------------------------------------


def extremes() -> list[tuple[str, str]]:
    """Each setting with the smallest and largest value it may have, and each of its words."""
    found = []
    for name, field in Settings.model_fields.items():
        for limit in ("ge", "le"):
            found += [(name, f"{getattr(m, limit)}") for m in field.metadata if hasattr(m, limit)]
        words = [
            word
            for kind in (field.annotation, *get_args(field.annotation))
            for word in get_args(kind)
            if isinstance(word, str)
        ]
        found += [(name, word) for word in words]
        if field.annotation is bool:
            found += [(name, "true"), (name, "false")]
    return [*found, ("source_ip", "x"), ("source_ip", "y" * 45)]


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("extremes") / "fleet"
    make_fleet(directory, FleetPlan(nodes=1, tokens_per_node=12, absent=0.2, part_tokens=0.0))
    return directory


@pytest.fixture
def sync(
    fleet: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., int]]:
    """Syncs the fleet as a user does, with variables of the environment; returns the exit code."""
    monkeypatch.chdir(tmp_path)
    for name in list(os.environ):
        if name.startswith("RUBIX_SYNC_"):
            monkeypatch.delenv(name)

    def call(target: str, **given: str) -> int:
        for name, value in {"RUBIX_SYNC_SOURCE_IP": "vm1", **given}.items():
            monkeypatch.setenv(name, value)
        out, err = io.StringIO(), io.StringIO()
        with redirect_stdout(out), redirect_stderr(err), pytest.raises(SystemExit) as left:
            main(["sync", str(fleet), "--json", "--target", target])
        document = json.loads(out.getvalue())
        if left.value.code == 2:
            lacking = "chains" in document["error"]["message"] and find_spec(LEVELDB) is None
            code = "extra_missing" if lacking else "setting_invalid"
            assert document["error"]["code"] == code, document
        else:
            assert document["records_inserted"] == 12
            codes = {problem["code"] for problem in document["problems"]}
            # Where content can come by no way but one that is not there, that is an error.
            assert left.value.code == (1 if codes == {"content_missing"} else 0), err.getvalue()
        return int(left.value.code)

    yield call
    log.tear_down()


@pytest.mark.timeout(60)  # at once, even on a busy machine
@pytest.mark.parametrize(("name", "value"), extremes())
def test_an_extreme_works_or_is_refused_at_once(
    sync: Callable[..., int], name: str, value: str
) -> None:
    code = sync("sqlite:///t.db", **{f"RUBIX_SYNC_{name.upper()}": value})
    assert (code != 2) == Path("t.db").exists(), "refused before anything is written"


@pytest.mark.timeout(60)
@pytest.mark.parametrize("size", ["1", "2", "100"])
def test_any_allowed_pool_works_on_a_server(
    sync: Callable[..., int], postgres_url: str, size: str
) -> None:
    assert sync(postgres_url, CONNECTION_POOL_SIZE=size) == (2 if size == "1" else 0)
