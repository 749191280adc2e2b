"""The commands of evidence: what they print, their exit codes, their JSON, and what they hide."""

from __future__ import annotations

import base64
import json
import os
import re
import shutil
import sqlite3
import stat
import subprocess
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

import rubix_token_sync as rts
from rubix_token_sync import failpoints, log
from rubix_token_sync.evidence import form
from rubix_token_sync.evidence.keys import open_signer
from rubix_token_sync.testing import add_tokens, change_status, delete_tokens, make_fleet
from tests.cli.conftest import Run
from tests.evidence.conftest import PLAN, SOURCE, Signed


@pytest.fixture(autouse=True)
def _place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    yield
    log.tear_down()


@pytest.fixture
def target(signed: Signed, tmp_path: Path) -> Path:
    """An empty copy of the target."""
    path = Path(shutil.copy(signed.target.removeprefix("sqlite:///"), tmp_path / "t.db"))
    with closing(sqlite3.connect(path)) as db, db:
        for table in ("TokenRecords", "ProcessedDatabases"):
            db.execute(f"DELETE FROM {table}")
    return path


def test_a_key_is_private_and_never_written_over(run: Run, tmp_path: Path) -> None:
    made = run("evidence", "key", "k")
    assert made.code == 0
    assert stat.S_IMODE((tmp_path / "k").stat().st_mode) == 0o600
    public = (tmp_path / "k.pub").read_text()
    assert all(line in made.out for line in public.splitlines())
    assert re.search(r"^  SHA256:\S{43}$", made.out, re.MULTILINE)
    before = (tmp_path / "k").read_bytes()
    run("evidence", "key", "k", "--json").error(2, "key_exists")
    (tmp_path / "k").unlink()
    run("evidence", "key", "k", "--json").error(2, "key_exists")  # its public half is there
    assert (tmp_path / "k.pub").read_text() == public
    assert "PRIVATE" in before.decode()
    document = run("evidence", "key", "other", "--json").document
    assert document.keys() == {
        "file", "public_file", "fingerprint", "pem", "openssh", "verifier_key",
    }  # fmt: skip
    run("evidence", "key", "nowhere/k", "--json").error(2, "key_unwritable")


def test_the_private_key_is_nowhere_but_in_its_file(
    run: Run, signed: Signed, tmp_path: Path
) -> None:
    said = ""
    for arguments in (
        ("key", "k"),
        ("create", "e", "--key", "k", "--target", signed.target, "--verbose"),
        ("create", "e", "--key", "k", "--target", signed.target, "--json", "--verbose"),
        ("verify", "e", "--key", "k.pub", "--json"),
        ("verify", "e", "--key", "k"),  # not a public one
    ):
        ended = run("evidence", *arguments)
        said += ended.out + ended.err
    pem = (tmp_path / "k").read_text()
    data = base64.b64decode("".join(pem.splitlines()[1:-1]))
    secrets = [data[-32:], data[-32:].hex().encode(), base64.b64encode(data)[20:], b"PRIVATE KEY"]
    files = b"".join(path.read_bytes() for path in (tmp_path / "e").iterdir())
    assert open_signer(tmp_path / "k").public.pem.encode() in files
    for secret in secrets:
        assert secret not in files
        assert secret not in said.encode()


@pytest.mark.parametrize(
    ("prepare", "code"),
    [
        (lambda key: key.chmod(0o640), "key_insecure"),
        (lambda key: key.write_text("-----BEGIN PRIVATE KEY-----\nx\n"), "key_unusable"),
        (lambda key: key.write_text("ssh-rsa AAAA"), "key_unusable"),
        (lambda key: key.write_bytes(b"\xff" * 100), "key_unusable"),
        (lambda key: key.write_text("a+b+c"), "key_unusable"),
        (lambda key: key.unlink(), "key_unreadable"),
    ],
    ids=["others may read it", "cut off", "of another kind", "no text", "no verifier", "gone"],
)
def test_a_key_that_cannot_be_used(
    run: Run, signed: Signed, tmp_path: Path, prepare: object, code: str
) -> None:
    key = Path(shutil.copy(signed.key, tmp_path / "k"))
    prepare(key)  # type: ignore[operator]
    run("evidence", "create", "e", "--key", "k", "--target", signed.target, "--json").error(2, code)
    assert not (tmp_path / "e").exists()


def test_keys_of_openssh_and_its_agent(run: Run, signed: Signed, tmp_path: Path) -> None:
    if not all(map(shutil.which, ("ssh-keygen", "ssh-agent", "ssh-add"))):
        pytest.skip("OpenSSH is not here")
    quiet = {"check": True, "capture_output": True, "text": True, "timeout": 60}
    make = ["ssh-keygen", "-q", "-t", "ed25519", "-f", "k"]
    subprocess.run([*make, "-N", ""], **quiet)  # type: ignore[call-overload]
    create = ("evidence", "create", "e", "--target", signed.target, "--json")
    assert run(*create, "--key", "k").code == 0
    assert run("evidence", "verify", "e", "--key", "k.pub").code == 0
    shutil.rmtree("e")
    run(*create, "--key", "k.pub").error(2, "agent_unreachable")
    started = subprocess.run(["ssh-agent", "-s", "-a", "a"], **quiet)  # type: ignore[call-overload]
    pid = int(re.search(r"SSH_AGENT_PID=(\d+)", started.stdout)[1])  # type: ignore[index]
    os.environ["SSH_AUTH_SOCK"] = "a"
    try:
        run(*create, "--key", "k.pub").error(2, "agent_refused")
        subprocess.run(["ssh-add", "k"], **quiet)  # type: ignore[call-overload]
        assert run(*create, "--key", "k.pub").code == 0
    finally:
        del os.environ["SSH_AUTH_SOCK"]
        os.kill(pid, 15)
    assert run("evidence", "verify", "e", "--key", "k.pub").code == 0
    subprocess.run([*make[:-1], "locked", "-N", "secret"], **quiet)  # type: ignore[call-overload]
    run(*create, "--key", "locked").error(2, "key_unusable")


def test_create_says_what_it_signed(run: Run, signed: Signed, tmp_path: Path) -> None:
    common = ("--key", signed.key, "--target", signed.target)
    document = run("evidence", "create", "e", *common, "--json").document
    assert document.keys() == {
        "ok", "exit_code", "directory", "checkpoint", "complete", "one_moment", "counts",
        "findings", "time_stamp", "problems",
    }  # fmt: skip
    assert document["counts"]["records"] == 300 == sum(document["counts"]["kinds"].values())
    assert sorted(path.name for path in (tmp_path / "e").iterdir()) == sorted(form.NAMES)
    assert stat.S_IMODE((tmp_path / "e").stat().st_mode) == 0o700
    assert {stat.S_IMODE(p.stat().st_mode) for p in (tmp_path / "e").iterdir()} == {0o600}
    run("evidence", "create", "e", *common, "--json").error(2, "evidence_exists")
    run("evidence", "create", "no/e", *common, "--json").error(2, "evidence_unwritable")
    inside = signed.fleet / "node001" / "e"
    run("evidence", "create", inside, *common, "--json").error(2, "inside_a_node")
    manifest = json.loads((tmp_path / "e" / form.MANIFEST).read_bytes())
    assert manifest["_type"] == "https://in-toto.io/Statement/v1"
    predicate = manifest["predicate"]
    assert (predicate["complete"], predicate["one_moment"], predicate["previous"]) == (
        True, True, None,
    )  # fmt: skip
    assert [d["records"] for d in predicate["scope"]["databases"]] == [150, 150]


def test_it_names_the_evidence_before(run: Run, signed: Signed) -> None:
    first = json.loads((signed.directory / form.MANIFEST).read_bytes())["predicate"]
    second = json.loads((signed.other / form.MANIFEST).read_bytes())["predicate"]
    assert second["previous"]["run"] == first["run"] != second["run"]
    assert second["previous"]["root"] == first["tree"]["root"]
    ended = run(
        "evidence", "create", "e", "--key", signed.other_key, "--previous", signed.directory,
        "--target", signed.target, "--json",
    )  # fmt: skip
    ended.error(5, "evidence_other_key")


def test_what_was_not_read_is_never_green(run: Run, signed: Signed, target: Path) -> None:
    """A database that fails at night is named in the manifest, and every check says so."""
    broken = shutil.copytree(signed.fleet, Path("nodes"))
    (broken / "node001/Rubix/rubix.db").write_bytes(b"not a database" * 100)
    common = ("--target", f"sqlite:///{target}")
    assert run("sync", broken, *common, "--source-ip", SOURCE, "--quiet").code == 1
    made = run("evidence", "create", "e", "--key", signed.key, *common)
    assert made.code == 1
    assert "Not everything had been read" in made.out
    checked = run("evidence", "verify", "e", "--key", signed.public)
    assert checked.code == 1
    assert "node001/Rubix/rubix.db: failed" in checked.out
    predicate = json.loads(Path("e", form.MANIFEST).read_bytes())["predicate"]
    assert predicate["complete"] is False
    (unread,) = predicate["not_read"]["databases"]
    assert (unread["node_name"], unread["error"]) == ("node001", "not_a_database")


def test_a_run_under_way_is_not_green(run: Run, signed: Signed, tmp_path: Path) -> None:
    """It may have stored half of a database."""
    path = shutil.copy(signed.target.removeprefix("sqlite:///"), tmp_path / "t.db")
    with closing(sqlite3.connect(path)) as db, db:
        db.execute(
            "INSERT INTO SyncSessions (session_id, start_time, heartbeat_at, source_ip, status)"
            " SELECT ?, max(start_time), max(heartbeat_at), 'vm2', 'RUNNING' FROM SyncSessions",
            ("00000000-0000-4000-8000-000000000009",),
        )
    assert run("evidence", "create", "e", "--key", signed.key, "--target",
               f"sqlite:///{path}").code == 1  # fmt: skip
    checked = run("evidence", "verify", "e", "--key", signed.public)
    assert checked.code == 1
    assert "the run 00000000-0000-4000-8000-000000000009 was under way" in checked.out


def test_against_the_nodes(run: Run, signed: Signed, target: Path, tmp_path: Path) -> None:
    fleet = make_fleet(tmp_path / "nodes", PLAN)  # the same once more, to be changed
    nodes = fleet.directory
    common = ("--target", f"sqlite:///{target}", "--source-ip", SOURCE)
    assert run("sync", nodes, *common, "--quiet").code == 0
    assert run("evidence", "create", "e", "--key", signed.key, *common[:2]).code == 0
    verify = ("evidence", "verify", "e", "--key", signed.public, "--roots", nodes)
    same = run(*verify)
    assert same.code == 0
    assert "300 records as signed; 0 changed, 0 new, 0 vanished since." in same.out
    first, second = (nodes / name / "Rubix/rubix.db" for name in ("node001", "node002"))
    changed = change_status(first, 0.1)
    gone = delete_tokens(first, 0.05)
    add_tokens(fleet, fleet.nodes[1], 4)
    compared = run(*verify, "--json").document["compared"]
    assert (compared["new"], compared["vanished"]) == (4, len(gone))
    assert compared["changed"] == len(set(changed) - set(gone))
    assert compared["same"] == 300 - len(gone) - compared["changed"]
    assert {"row_digest", "token_status"} in [
        set(one["columns"]) for one in compared["examples"] if one["kind"] == "changed"
    ]
    assert run(*verify).code == 5
    shutil.rmtree(second.parents[1])
    document = run(*verify, "--json").document
    assert document["compared"]["not_compared"] == {str(second.absolute()): 150}
    shutil.rmtree(first.parents[1])
    shutil.copytree(signed.fleet / "node001", first.parents[1])
    assert run(*verify).code == 1  # what was read is as signed, and not all was
    run(*verify, "--source-ip", "10.9.9.9", "--json").error(2, "evidence_other_source")


def test_verify_without_a_key(run: Run, signed: Signed) -> None:
    ended = run("evidence", "verify", signed.directory)
    assert ended.code == 1
    assert "Who signed it is not known" in ended.out
    document = run("evidence", "verify", signed.directory, "--json").document
    assert document.keys() == {
        "ok", "exit_code", "directory", "checkpoint", "key", "key_named", "complete",
        "one_moment", "time_stamp", "manifest", "compared",
    }  # fmt: skip
    assert document["key"] == open_signer(signed.key).public.fingerprint
    run("evidence", "verify", "nowhere", "--json").error(2, "evidence_missing")


def test_proofs_by_the_door(run: Run, signed: Signed) -> None:
    leaf = json.loads((signed.directory / form.LEAVES).read_bytes().split(b"\n")[7])
    made = run("evidence", "prove", leaf["record_key"], "--from", signed.directory)
    assert made.code == 0
    file = made.out.strip()
    shown = run("evidence", "verify-proof", file, "--key", signed.public)
    assert shown.code == 0
    assert f"did:              {leaf['did']}" in shown.out
    document = run("evidence", "verify-proof", file, "--key", signed.public, "--json").document
    assert document["record"] == leaf
    run("evidence", "verify-proof", "none", "--key", signed.public, "--json").error(
        2, "proof_unreadable"
    )
    text = Path(file).read_text().replace("index 7", "index 8")
    Path(file).write_text(text)
    run("evidence", "verify-proof", file, "--key", signed.public, "--json").error(5, "proof_wrong")
    run("evidence", "prove", "Qm", "--from", signed.directory, "--json").error(2, "no_such_leaf")
    prove = ("evidence", "prove", leaf["record_key"], "--from", signed.directory)
    run(*prove, "--to", "nowhere", "--json").error(2, "proof_unwritable")


@pytest.mark.parametrize("point", ["evidence.records", "evidence.sign", "evidence.rename"])
def test_what_fails_half_way_leaves_nothing(
    run: Run, signed: Signed, tmp_path: Path, point: str
) -> None:
    failpoints.arm(f"{point}:1:error")
    ended = run("evidence", "create", "e", "--key", signed.key, "--target", signed.target)
    assert ended.code != 0
    assert "Traceback" not in ended.err
    assert list(tmp_path.iterdir()) == []


def test_whoever_interrupts_it_leaves_nothing(signed: Signed, tmp_path: Path) -> None:
    def stop(_done: int, _total: int) -> None:
        raise rts.Interrupted(15)

    with pytest.raises(rts.Interrupted):
        rts.create_evidence("e", key=signed.key, target=signed.target, on_progress=stop)
    with pytest.raises(rts.Interrupted):
        rts.export_table("records", "e.parquet", target=signed.target, on_progress=stop)
    assert list(tmp_path.iterdir()) == []
