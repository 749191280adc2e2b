"""Every view, in each of its forms: what it shows is what the command line answers."""

from __future__ import annotations

import csv
import io
import json
import re
import shutil
import sqlite3
import subprocess
import sys
from collections import deque
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, quote, urlsplit

import pytest

import rubix_token_sync as rts
from rubix_token_sync.cli import _run
from rubix_token_sync.evidence import form
from rubix_token_sync.testing import FleetPlan, change_status, make_fleet
from tests.cli.conftest import call_program
from tests.evidence.forging import edit_manifest, sign_again
from tests.web.conftest import KIND_NAMES, Opener, Page, Place, Site

LISTS = ("/fleet", "/nodes", "/runs", "/tokens", "/findings", "/errors", "/events", "/changes")
AGES = frozenset(
    {
        "age_seconds",
        "duration_seconds",
        "heartbeat_age_seconds",
        "server_time",
        "records_per_second",
    }
)


def without_ages(value: Any) -> Any:
    """What two answers a second apart have in common."""
    if isinstance(value, dict):
        return {name: without_ages(one) for name, one in value.items() if name not in AGES}
    if isinstance(value, list):
        return [without_ages(one) for one in value]
    return value


@pytest.fixture
def ask(place: Place, capsys: pytest.CaptureFixture[str]) -> Callable[..., Any]:
    """The document of a command."""

    def run(*arguments: str) -> Any:
        capsys.readouterr()
        _run([*arguments, "--target", place.target, "--json", "--quiet"])
        return json.loads(capsys.readouterr().out)

    return run


def addresses(site: Site) -> dict[str, str]:
    """One address of each view that needs parameters."""
    run = next(r for r in site.json("/runs.json")["sessions"] if r["total_databases_processed"])
    finding = site.json("/findings.json")["findings"][0]
    return {
        "node": "/node?name=node033",
        "run": f"/run?id={run['session_id']}",
        "token": f"/token?id={quote(finding['token_id'])}",
        "finding": f"/finding?name={quote(finding['fingerprint'])}",
        "evidence": "/evidence",
    }


def as_form(address: str, form: str) -> str:
    """The same view as ``json`` or ``csv``."""
    path, mark, query = address.partition("?")
    return f"{path}.{form}{mark}{query}"


def test_every_view_has_its_forms(site: Site) -> None:
    for address in ["/", *LISTS, *addresses(site).values()]:
        page = site.page(address)
        assert page.tags.count("h1") == 1, address
        assert page.tags.count("main") == 1, address
        if address == "/":
            continue
        assert isinstance(site.json(as_form(address, "json")), dict)
        if address.partition("?")[0] not in ("/run", "/evidence"):
            answer = site.get(as_form(address, "csv"))
            assert answer.headers["content-type"].startswith("text/csv"), address
            rows = list(csv.reader(io.StringIO(answer.text)))
            assert {len(row) for row in rows} == {len(rows[0])}, address


@pytest.mark.parametrize(
    ("address", "command"),
    [
        ("/fleet.json", ["status"]),
        ("/nodes.json", ["databases"]),
        ("/nodes.json?node=node033", ["databases", "--node", "node033"]),
        ("/runs.json?limit=20", ["sessions"]),
        ("/runs.json?status=FAILED&limit=20", ["sessions", "--status", "FAILED"]),
        ("/errors.json", ["errors"]),
        ("/errors.json?category=ipfs&limit=2", ["errors", "--category", "ipfs", "--limit", "2"]),
        ("/findings.json?limit=500", ["findings"]),
        ("/findings.json?limit=500&severity=error&state=all",
         ["findings", "--severity", "error", "--state", "all"]),
        ("/changes.json?since=1&limit=40", ["changes", "--since", "1"]),
    ],
)  # fmt: skip
def test_json_is_the_command_lines(
    site: Site, ask: Callable[..., Any], address: str, command: list[str]
) -> None:
    page, told = site.json(address), ask(*command)
    assert told.keys() <= page.keys()
    shared = {name: page[name] for name in told}
    assert without_ages(shared) == without_ages(told)


def test_json_of_single_things_is_the_command_lines(site: Site, ask: Callable[..., Any]) -> None:
    found = site.json("/findings.json")["findings"][0]
    name = quote(found["fingerprint"])
    assert site.json(f"/finding.json?name={name}") == ask("findings", "show", found["fingerprint"])
    token = found["token_id"]
    assert site.json(f"/token.json?id={quote(token)}") == ask("token", token)


def test_every_link_leads_somewhere(site: Site) -> None:
    """Whoever clicks from view to view never meets an error, and never leaves the page."""
    waiting, seen = deque(["/", *LISTS, *addresses(site).values()]), set[str]()
    per_path: dict[str, int] = {}
    while waiting:
        address = waiting.popleft()
        path = urlsplit(address).path
        if address in seen or per_path.get(path, 0) >= 4:
            continue
        seen.add(address)
        per_path[path] = per_path.get(path, 0) + 1
        answer = site.get(address)
        assert answer.status_code == 200, f"{address}: {answer.text[:500]}"
        if answer.headers["content-type"].startswith("text/html"):
            for link in Page.of(answer.text).links:
                assert link.startswith(("/", "#")), link
                if not link.startswith("#"):
                    waiting.append(link)
    assert len(per_path) > 20


def test_numbers_lead_to_the_rows_behind_them(site: Site) -> None:
    """A count of a database, a reason or a rule is as many rows as its link shows."""
    checked = 0
    for database in site.json("/nodes.json?source=vm1")["databases"]:
        here = f"database={quote(database['db_path'])}&source=vm1"
        for filters, number in (
            ("", database["record_count"]),
            ("&content=no", database["ipfs_fail_count"]),
            ("&content=yes", database["ipfs_success_count"]),
            ("&invalid=yes", database["validation_error_count"]),
            *((f"&content={code}", n) for code, n in database["content_failures"].items()),
        ):
            rows = site.tokens(f"{here}{filters}")
            assert len(rows) == number, (database["db_path"], filters)
            checked += 1
    errors = site.json("/errors.json?source=vm1&limit=100")
    for name, reasons in (("content", errors["content"]), ("invalid", errors["validation"])):
        for reason in reasons:
            rows = site.tokens(f"source=vm1&{name}={quote(reason['code'])}")
            assert len(rows) == reason["count"], reason["code"]
            checked += 1
    for count in site.json("/findings.json")["counts"]:
        found = site.json(f"/findings.json?rule={count['rule']}&state={count['state']}&limit=500")
        severities = [f for f in found["findings"] if f["severity"] == count["severity"]]
        assert len(severities) == count["count"]
    assert checked > 30


def test_the_fleet_says_what_is_wrong_and_what_to_do(site: Site) -> None:
    page, told = site.page("/"), site.json("/fleet.json")
    for problem in told["problems"]:
        for sentence in (problem["message"], problem["cure"]):
            assert all(part in page.words for part in sentence.split("`")), sentence
    total = sum(source["record_count"] for source in told["sources"])
    assert f"{total:,}" in page.words


def test_a_run_shows_its_report(site: Site) -> None:
    run = site.json("/runs.json?status=COMPLETED")["sessions"][-1]
    document = site.json(f"/run.json?id={run['session_id']}")
    assert document["report"]["session_id"] == run["session_id"]
    page = site.page(f"/run?id={run['session_id']}")
    for database in document["report"]["databases"]:
        assert database["node_name"] in page.words
    changed = [r for r in site.json("/runs.json")["sessions"] if r["total_sql_inserts"]]
    numbers = [site.json(f"/run.json?id={r['session_id']}")["number"] for r in changed]
    assert None not in numbers


def test_tokens_csv_is_every_row(site: Site, place: Place) -> None:
    with rts.open_target(place.target) as target:
        truth = target.records(sources=["vm1"]).num_rows
    text = site.get("/tokens.csv?source=vm1").text
    rows = list(csv.DictReader(io.StringIO(text)))
    assert len(rows) == truth > 300
    hostile = list(csv.DictReader(io.StringIO(site.get("/tokens.csv?node=../../up").text)))
    assert len(hostile) == 3
    cells = [cell for row in csv.reader(io.StringIO(site.get("/tokens.csv").text)) for cell in row]
    assert not [c for c in cells if c.lstrip().startswith(("=", "@"))], "no formulas"


def test_the_search_finds_tokens_and_dids(site: Site, place: Place) -> None:
    with rts.open_target(place.target) as target:
        rows = target.records(columns=["token_id", "did"], sources=["vm1"]).to_pylist()
    row = next(r for r in rows if (r["token_id"] or "").startswith("Qm") and r["did"])

    def found(text: str) -> str:
        answer = site.get(f"/find?q={quote(text)}")
        assert answer.status_code == 303
        return str(answer.headers["location"])

    assert parse_qs(urlsplit(found(row["token_id"])).query) == {"id": [row["token_id"]]}
    assert parse_qs(urlsplit(found(row["did"])).query)["did"] == [row["did"]]
    assert parse_qs(urlsplit(found(row["token_id"][:16])).query)["id"] == [
        f"{row['token_id'][:16]}*"
    ]
    beginning = site.json(as_form(found(row["token_id"][:16]), "json"))
    assert row["token_id"] in {one["token_id"] for one in beginning["tokens"]}
    assert found("") == "/tokens"


def test_an_empty_target_is_not_green(opened: Opener, tmp_path: Any) -> None:
    empty = f"sqlite:///{tmp_path}/empty.db"
    rts.upgrade_schema(rts.configure(target=empty))
    site = opened(target=empty, reports=(), evidence=())
    page = site.page("/")
    assert "Nothing has been synced yet" in page.words
    assert "rubix-token-sync sync" in page.words
    for address in LISTS:
        assert "good" not in {v for t, n, v in site.page(address).attributes if n == "class"}
    assert "No audit has run yet" in site.page("/findings").words
    assert "Nothing has been synced yet" in site.page("/errors").words


def test_the_first_sync_is_not_green_before_its_end(opened: Opener, tmp_path: Path) -> None:
    target = f"sqlite:///{tmp_path}/t.db"
    rts.upgrade_schema(rts.configure(target=target))
    with closing(sqlite3.connect(tmp_path / "t.db")) as db, db:
        now = "strftime('%Y-%m-%d %H:%M:%f000', 'now')"
        db.execute(
            "INSERT INTO SyncSessions (session_id, source_ip, status, command, start_time,"
            f" heartbeat_at) VALUES ('{'0' * 32}', 'vm1', 'RUNNING', 'sync', {now}, {now})"
        )
    words = opened(target=target, reports=(), evidence=()).page("/").words
    assert "Not all is synced yet" in words
    assert "All is" not in words


def test_what_was_not_read_is_said_of_every_answer(opened: Opener, tmp_path: Path) -> None:
    target = f"sqlite:///{tmp_path}/t.db"
    fleet = make_fleet(tmp_path / "fleet", FleetPlan(nodes=2, tokens_per_node=3))
    given: Any = {"target": target, "source_ip": "vm1", "report": str(tmp_path / "reports")}
    rts.sync(fleet.directory, **given)
    with rts.open_target(target=target) as reader:
        token = reader.records(limit=1).column("token_id")[0].as_py()
    broken, whole = fleet.nodes
    Path(broken.db_path).write_bytes(b"no database")
    rts.sync(fleet.directory, **given)
    site = opened(target=target, reports=(), evidence=())
    said = f"Not read by the last sync ({broken.name})"
    for address in (f"/token?id={token}", "/tokens", "/findings", "/changes", "/errors"):
        assert said in site.page(address).words, address
    assert said in Page.of(site.get("/token?id=nobody").text).words
    assert said not in site.page(f"/tokens?node={whole.name}").words
    assert "1 problem needs you" in site.page("/").words
    assert site.json("/nodes.json")["ok"] is False


def test_what_no_audit_has_judged_is_not_called_good(opened: Opener, tmp_path: Path) -> None:
    """Neither before the first audit, nor of what was synced after the last one."""
    target = f"sqlite:///{tmp_path}/t.db"
    fleet = make_fleet(tmp_path / "fleet", FleetPlan(nodes=1, tokens_per_node=5))
    (node,) = fleet.nodes
    given: Any = {"target": target, "source_ip": "vm1", "report": str(tmp_path / "reports")}
    rts.sync(fleet.directory, **given)
    with rts.open_target(target=target) as reader:
        token = reader.records(limit=1).column("token_id")[0].as_py()

    def said(address: str) -> str:
        return opened(target=target, reports=(), evidence=()).page(address).words

    def command(*arguments: str) -> str:
        return call_program(*arguments, "--target", target).out

    places = (f"/token?id={token}", f"/node?name={node.name}")
    for address in places:
        assert "No audit has run yet" in said(address)
        assert "No audit found" not in said(address)
        assert "Nothing is open" not in said(address)
    assert "No audit has run yet" in command("token", token)
    assert "No audit has run yet" in command("status")
    rts.audit_records(target=target)
    assert "No audit found anything about it." in said(places[0])
    assert "No audit found anything about it." in command("token", token)
    assert "audit has run" not in said(places[1])
    assert "was not audited" not in said("/")
    change_status(node.db_path, 1.0)
    rts.sync(fleet.directory, **given)
    assert "what 1 sync changed since the last audit was not audited" in said("/")
    assert "All is well" not in said("/")
    assert "What 1 sync changed since then was not audited." in command("status")
    for address in places:
        assert "is older than what was synced since" in said(address)
    assert "is older than what was synced since" in command("token", token)


def test_a_time_stamp_that_is_missing_is_said(opened: Opener, place: Place, tmp_path: Any) -> None:
    copy = shutil.copytree(place.evidence / "first", tmp_path / "copy")
    edit_manifest(lambda m: m["predicate"].update(time_stamp_from="tsa.example"))(copy, None)
    sign_again(copy, place.evidence.parent / "key", manifest=False)
    evidence = (str(copy),)
    words = opened(evidence=evidence).page("/evidence").words
    assert "no time stamp of tsa.example" in words
    for name in form.STAMPS:
        (copy / name).write_bytes(b"x")
    site = opened(evidence=evidence)
    assert "time stamp asked of tsa.example, not checked here" in site.page("/evidence").words
    assert site.json("/evidence.json")["evidence"][0]["stamped"] is True


def test_the_command_that_checks_evidence_without_this_program(site: Site, place: Place) -> None:
    """As the page prints it, with the names filled in."""
    words = site.page("/evidence").words
    (command,) = re.findall(r"python3 (-I -S DIR/verify\.py DIR --key SIGNER\.pub)", words)
    directory = place.evidence / "first"
    for name, value in (("DIR", str(directory)), ("SIGNER.pub", str(directory / "key.pem"))):
        command = command.replace(name, value)
    done = subprocess.run(
        [sys.executable, *command.split()], capture_output=True, text=True, timeout=60
    )
    assert done.stdout.startswith("As it was signed at"), done.stderr


def test_what_is_wrong_with_an_address_is_said(site: Site) -> None:
    for address, status, code in (
        ("/tokens?limit=0", 400, "bad_parameter"),
        ("/tokens?nonsense=1", 400, "bad_parameter"),
        ("/tokens?after=x", 400, "bad_cursor"),
        ("/findings?after=held_twice:00", 400, "bad_cursor"),
        ("/changes?since=soon", 400, "not_a_moment"),
        ("/node?name=nobody", 404, "no_such_node"),
        ("/run?id=nobody", 404, "no_such_session"),
        ("/token?id=nobody", 404, "no_such_token"),
        ("/finding?name=nobody", 404, "no_such_finding"),
        *(
            (f"{view}?{name}=nobody", 404, code)
            for name, code in (("node", "no_such_node"), ("source", "no_such_source"))
            for view in ("/nodes", "/tokens", "/errors", "/events", "/changes")
        ),
        ("/findings?node=nobody", 404, "no_such_node"),
        ("/findings?rule=nothing", 404, "unknown_rule"),
        ("/runs?source=nobody", 404, "no_such_source"),
        ("/events?session=nobody", 404, "no_such_session"),
        ("/nowhere", 404, "no_such_page"),
    ):
        answer = site.get(address)
        assert (answer.status_code, code in answer.text) == (status, True), address
        told = site.get(as_form(address, "json")).json()
        assert told["error"]["code"] in (code, "no_such_page"), address


def test_kinds_offered_are_the_kinds_there_are(site: Site) -> None:
    page = site.page("/tokens")
    offered = {value for tag, name, value in page.attributes if tag == "option" and name == "value"}
    assert set(KIND_NAMES) <= offered


def test_a_node_shows_what_runs_changed_in_it(
    site: Site, ask: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = site.json("/node.json?name=node032")
    assert shown["counted_from"] == 0
    assert shown["runs"] == ask("history", "--node", "node032", "--since", "30d")["runs"]
    assert len(shown["runs"]) == 2, "both syncs"
    few = rts.CountedChanges([], 7)
    monkeypatch.setattr(rts.TargetReader, "database_changes", lambda *_: few)
    words = site.page("/node?name=node032&since=29d").words
    assert "Runs before 7 changed too much to be counted here" in words
    assert "No run has changed" not in words


def test_changes_that_are_too_many_to_be_counted_are_said(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = site.json("/changes.json?since=30d&limit=3")
    assert (whole["counted_from"], len(whole["changes"])) == (0, 3)
    few = rts.CountedChanges([], 7)
    monkeypatch.setattr(rts.ChangeFeed, "newest_counts", lambda _: few)
    page = site.page("/changes?since=29d&limit=3")
    assert "Runs before 7 changed too much to be counted here" in page.words
    assert "Nothing has changed" not in page.words
    assert "the first 3" in page.words
    assert site.json("/changes.json?since=29d&limit=4")["counted_from"] == 7


def test_errors_of_a_time_with_many_records(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    assert site.json("/errors.json?since=30d")["nodes"]
    monkeypatch.setattr(rts.TargetReader, "more_stored_since", lambda *_: True)
    found = site.json("/errors.json?since=29d")
    assert found["nodes"] is None
    assert found["content"]
    assert "records were stored since then" in site.page("/errors?since=29d").words
