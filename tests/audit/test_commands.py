"""The commands of the audit: what they print, their exit codes, their contracts."""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Callable, Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any

import jsonschema
import pytest

import rubix_token_sync as rts
from rubix_token_sync import log
from rubix_token_sync.audit.rules import RULES
from rubix_token_sync.cli import _run
from rubix_token_sync.targets.base import Lease
from rubix_token_sync.targets.sql.target import SqlTarget
from tests.audit.fleets import Row, node_path
from tests.audit.ledger import Ledger

TOKEN = "QmUSkNpf5MRsJjdLsTD9qbKy7B8FPRXMZZTtc5XMaizYYf"
ALICE = Row("alice", TOKEN, did="one", block="02", block_owner="one", block_number=4)
BOB = Row("bob", TOKEN, did="two", fetched=False)
DISPUTED = Row("alice", "QmDisputed", verdict="disputed", level=1, number=4_300_000)
HOSTILE = Row("bad\x1b[2J", "Qm\x1b]0;x\x07\n=cmd", "12")


@pytest.fixture
def ledger(embedded: SqlTarget) -> Ledger:
    ledger = Ledger(embedded)
    ledger.sync(ALICE, BOB, DISPUTED, HOSTILE)
    return ledger


Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(
    ledger: Ledger, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Run]:  # fmt: skip
    """Calls the program on the target: exit code, stdout, stderr."""
    for name in list(os.environ):
        if name.startswith("RUBIX_SYNC_"):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)

    def call(*arguments: str) -> tuple[int, str, str]:
        capsys.readouterr()
        code = _run([*arguments, "--target", f"sqlite:///{tmp_path}/target.db"])
        ended = capsys.readouterr()
        assert "\x1b" not in ended.out + ended.err
        assert "Traceback" not in ended.err
        return code, ended.out, ended.err

    yield call
    log.tear_down()


def _valid(text: str) -> dict[str, Any]:
    schema = json.loads(
        files("rubix_token_sync.reports").joinpath("findings.schema.json").read_text("utf-8")
    )
    document: dict[str, Any] = json.loads(text)
    jsonschema.Draft202012Validator(schema).validate(document)
    return document


def test_audit_says_what_is_open_the_worst_first(run: Run) -> None:
    code, out, _ = run("audit")
    assert code == 6
    lines = out.splitlines()
    assert [line.split()[:2] for line in lines[1:4]] == [
        ["error", "suspected"], ["warning", "confirmed"], ["info", "confirmed"],
    ]  # fmt: skip
    assert "Open: 1 error, 1 warning, 1 info. Changed: 3 new." in out
    assert max(map(len, lines)) <= 80
    assert run("audit", "--fail-on", "error", "--without", "held_twice")[0] == 0
    assert run("audit", "--fail-on", "info", "--without", "held_twice")[0] == 6


def test_the_documents_have_their_schema(run: Run, ledger: Ledger) -> None:
    assert _valid(run("findings", "--json")[1])["audit"] is None
    code, out, _ = run("audit", "--json")
    document = _valid(out)
    assert (code, document["exit_code"], document["ok"]) == (6, 6, False)
    assert document["open"] == {"info": 1, "warning": 1, "error": 1}
    assert [rule["rule"] for rule in document["rules"]] == [rule.code for rule in RULES]
    found = document["findings"][0]
    assert (found["rule"], found["token_id"], found["state"]) == ("held_twice", TOKEN, "suspected")
    assert [(e["node_name"], e["did"]) for e in found["evidence"]] == [
        ("alice", "one"), ("bob", "two"),
    ]  # fmt: skip
    document = _valid(run("findings", "--json")[1])
    assert document["audit"]["number"] == 1
    assert document["findings"] == json.loads(out)["findings"]
    ledger.sync(DISPUTED, read=["alice", "bob", HOSTILE.node])
    assert run("audit", "--json")[0] == 0
    resolved = _valid(run("findings", "--state", "resolved", "--json")[1])["findings"]
    assert {one["resolution"] for one in resolved} == {"gone"}


@pytest.mark.parametrize(
    ("filters", "rules"),
    [
        (["--severity", "error"], ["held_twice"]),
        (["--rule", "disputed_limit", "--rule", "held_twice"], ["held_twice", "disputed_limit"]),
        (["--node", "bob"], ["held_twice"]),
        (["--state", "suspected"], ["held_twice"]),
        (["--state", "suppressed"], []),
        (["--since", "1h", "--limit", "1"], ["held_twice"]),
    ],
)
def test_filters(run: Run, filters: list[str], rules: list[str]) -> None:
    run("audit")
    code, out, _ = run("findings", *filters, "--json")
    assert code == 0
    assert [found["rule"] for found in json.loads(out)["findings"]] == rules


def test_one_finding_and_what_is_decided_about_it(run: Run) -> None:
    run("audit")
    code, out, _ = run("findings", "show", f"held_twice:{TOKEN}")
    assert code == 0
    for word in ("alice", "bob", "DID:         two", node_path("bob"), "What to do: "):
        assert word in out
    code, out, _ = run("findings", "suppress", TOKEN, "--reason", "known", "--for", "30d", "--json")
    assert (code, _valid(out)["findings"][0]["state"]) == (0, "suppressed")
    assert run("audit")[0] == 0
    code, out, _ = run("findings", "reopen", TOKEN, "--json")
    assert (code, _valid(out)["findings"][0]["state"]) == (0, "suspected")
    code, out, _ = run("findings", "acknowledge", TOKEN, "--by", "eve", "--note", "n", "--json")
    assert _valid(out)["findings"][0]["acknowledged_by"] == "eve"
    assert run("findings", "suppress", TOKEN, "--for", "30d")[0] == 2
    code, out, _ = run("findings", "show", "QmNothing", "--json")
    assert (code, json.loads(out)["error"]["code"]) == (2, "no_such_finding")


def test_csv_escapes_what_a_spreadsheet_would_run(run: Run) -> None:
    run("audit")
    rows = list(csv.DictReader(io.StringIO(run("findings", "--csv")[1])))
    assert [row["rule"] for row in rows] == ["held_twice", "flagged_by_node", "disputed_limit"]
    assert list(rows[0]) == [*rts.Finding.__dataclass_fields__]
    assert json.loads(rows[0]["evidence"])[0]["node_name"] == "alice"


def _check_sarif(log_file: dict[str, Any]) -> list[dict[str, Any]]:
    """What SARIF 2.1.0 demands of the objects that are used (OASIS, sections 3.13 to 3.49)."""
    assert log_file["version"] == "2.1.0"
    assert log_file["$schema"].endswith("sarif-2.1.0.json")
    assert log_file.keys() == {"$schema", "version", "runs"}
    (one,) = log_file["runs"]
    assert one.keys() == {"tool", "columnKind", "results"}
    driver = one["tool"]["driver"]
    assert driver.keys() == {"name", "semanticVersion", "rules"}
    ids = [rule["id"] for rule in driver["rules"]]
    assert len(ids) == len(set(ids))
    for rule in driver["rules"]:
        assert rule.keys() <= {"id", "shortDescription", "fullDescription", "help",
                               "defaultConfiguration"}  # fmt: skip
        assert rule["defaultConfiguration"]["level"] in ("none", "note", "warning", "error")
        for name in ("shortDescription", "fullDescription", "help"):
            assert rule[name].keys() == {"text"}
            assert rule[name]["text"].endswith(".")
    results: list[dict[str, Any]] = one["results"]
    for result in results:
        assert ids[result["ruleIndex"]] == result["ruleId"]
        assert result["message"]["text"]
        assert result["level"] in ("none", "note", "warning", "error")
        assert result["kind"] == "fail", "only then the level counts"
        assert result["baselineState"] in ("new", "unchanged", "updated", "absent")
        numbers = [related["id"] for related in result["relatedLocations"]]
        assert numbers == sorted(set(numbers))
        assert all(isinstance(value, str) for value in result["partialFingerprints"].values())
        for place in (*result["locations"], *result["relatedLocations"]):
            for logical in place["logicalLocations"]:
                assert logical.keys() == {"fullyQualifiedName", "kind"}
        for suppression in result.get("suppressions", ()):
            assert suppression["kind"] in ("inSource", "external")
            assert suppression["status"] in ("accepted", "underReview", "rejected")
    return results


def test_sarif(run: Run) -> None:
    code, out, _ = run("audit", "--sarif")
    assert code == 6
    results = _check_sarif(json.loads(out))
    assert [(r["ruleId"], r["level"]) for r in results] == [
        ("held_twice", "error"), ("flagged_by_node", "warning"), ("disputed_limit", "note"),
    ]  # fmt: skip
    assert {r["baselineState"] for r in results} == {"new"}
    name = results[0]["partialFingerprints"]["ruleAndToken/v1"]
    run("findings", "suppress", TOKEN, "--reason", "known", "--for", "1d")
    results = _check_sarif(json.loads(run("audit", "--sarif")[1]))
    (hidden,) = [r for r in results if "suppressions" in r]
    assert hidden["partialFingerprints"]["ruleAndToken/v1"] == name
    assert hidden["suppressions"][0]["justification"] == "known"
    assert run("audit", "--sarif", "--json")[0] == 2
    assert _check_sarif(json.loads(run("findings", "--sarif", "--severity", "info")[1]))


def test_rules(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    code, out, _ = run("rules")
    assert code == 0
    assert [line.split()[0] for line in out.splitlines()[1:]] == [rule.code for rule in RULES]
    code, out, _ = run("rules", "held_twice")
    assert "Means: The rows of at least two nodes" in out
    monkeypatch.setenv("RUBIX_SYNC_AUDIT_RULES_OFF", "held_twice")
    monkeypatch.setenv(
        "RUBIX_SYNC_AUDIT_SEVERITIES", "flagged_by_node=error, parts_missing=warning"
    )
    listed = {rule["rule"]: rule for rule in json.loads(run("rules", "--json")[1])["rules"]}
    assert listed["held_twice"]["enabled"] is False
    assert listed["flagged_by_node"]["severity"] == "error"
    assert listed["flagged_by_node"]["default_severity"] == "warning"
    code, out, _ = run("audit", "--json")
    assert (code, [f["rule"] for f in json.loads(out)["findings"]]) == (
        6, ["flagged_by_node", "disputed_limit"],
    )  # fmt: skip
    for setting, value in (("RULES_OFF", "nonsense"), ("SEVERITIES", "nonsense=error")):
        monkeypatch.setenv(f"RUBIX_SYNC_AUDIT_{setting}", value)
        assert json.loads(run("audit", "--json")[1])["error"]["code"] == "unknown_rule"
        monkeypatch.delenv(f"RUBIX_SYNC_AUDIT_{setting}")
    monkeypatch.setenv("RUBIX_SYNC_AUDIT_SEVERITIES", "held_twice=fatal")
    assert json.loads(run("audit", "--json")[1])["error"]["code"] == "setting_invalid"


def test_token(run: Run) -> None:
    run("audit")
    code, out, _ = run("token", TOKEN)
    assert code == 0
    for word in ("Content: content", "alice (vm1)", "bob (vm1)", "held_twice:", "02, number 4"):
        assert word in out
    document = json.loads(run("token", TOKEN, "--json")[1])
    assert document.keys() == {"token_id", "content", "holders", "findings"}
    shown = ("node_name", "ipfs_fetched", "latest_block_number", "latest_block_owner")
    assert [tuple(h[key] for key in shown) for h in document["holders"]] == [
        ("alice", True, 4, "one"), ("bob", False, None, None),
    ]  # fmt: skip
    jsonschema_finding = {"findings": document["findings"]}
    assert _valid(json.dumps(jsonschema_finding))
    code, out, _ = run("token", TOKEN.lower(), "--json")
    assert (code, json.loads(out)["error"]["code"]) == (2, "no_such_token")


def test_status_has_a_line(run: Run) -> None:
    assert json.loads(run("status", "--json")[1])["audit"] is None
    run("audit")
    assert "open: 1 error, 1 warning, 1 info; see `rubix-token-sync findings`." in run("status")[1]
    assert json.loads(run("status", "--json")[1])["audit"]["errors"] == 1


def test_other_ends(run: Run, ledger: Ledger, tmp_path: Path) -> None:
    ledger.store.acquire_lease(
        Lease("audit", "00000000-0000-0000-0000-000000000001"), "elsewhere|-|1|1"
    )
    code, out, _ = run("audit", "--json")
    assert (code, json.loads(out)["error"]["code"]) == (4, "lease_held")
    assert _run(["audit", "--target", f"sqlite:///{tmp_path}/none.db", "--quiet"]) == 3
    assert not (tmp_path / "none.db").exists()


def test_the_library_gives_the_same(run: Run, tmp_path: Path) -> None:
    target = f"sqlite:///{tmp_path}/target.db"
    done = rts.audit_records(target=target, audit_rules_off=["flagged_by_node"])
    assert (done.exit_code, done.open["error"], done.failing) == (6, 1, 1)
    with rts.open_target(target) as reader:
        (found,) = reader.findings(severities=["error"])
        assert reader.finding(found.fingerprint[:20]) == found
        assert reader.token(TOKEN).findings == [found]
        assert [audit.number for audit in reader.audits()] == [1]
    found = rts.acknowledge_finding(TOKEN, by="eve", target=target)
    assert (found.state, found.acknowledged_by) == ("acknowledged", "eve")
