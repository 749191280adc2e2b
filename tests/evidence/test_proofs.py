"""Proofs of single records: what is forged proves nothing, in the program and in verify.py."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest

import rubix_token_sync as rts
from rubix_token_sync.evidence import form, standalone
from rubix_token_sync.evidence.keys import read_public_key
from rubix_token_sync.evidence.leaves import canonical
from tests.evidence import rfc6962
from tests.evidence.conftest import Signed
from tests.evidence.forging import edit_lines, edit_record, sign_again

Change = Callable[[list[str]], list[str]]
"""Of the lines of a proof: head, extra, index, hashes, an empty one, the checkpoint."""


def lines_of(directory: Path) -> list[bytes]:
    return (directory / form.LEAVES).read_bytes().split(b"\n")[:-1]


def proof_of(directory: Path, index: int) -> str:
    key = json.loads(lines_of(directory)[index])["record_key"]
    (proof,) = rts.prove_token(key, evidence=directory)
    assert proof.index == index
    return proof.text


def line(number: int, text: str) -> Change:
    return lambda lines: [*lines[:number], text, *lines[number + 1 :]]


def leaf(**values: object) -> Change:
    """Another record in the proof."""

    def change(lines: list[str]) -> list[str]:
        record = json.loads(base64.b64decode(lines[1].removeprefix("extra ")))
        data = canonical({**record, **values})
        return line(1, "extra " + base64.b64encode(data).decode())(lines)

    return change


def spaced(lines: list[str]) -> list[str]:
    """The same record, written in another way."""
    record = json.loads(base64.b64decode(lines[1].removeprefix("extra ")))
    return line(1, "extra " + base64.b64encode(json.dumps(record).encode()).decode())(lines)


def bit(number: int) -> Change:
    """One letter of a line is another one."""

    def change(lines: list[str]) -> list[str]:
        text = lines[number]
        at = len(text) // 2
        return line(number, text[:at] + ("A" if text[at] != "A" else "B") + text[at + 1 :])(lines)

    return change


def in_text(pattern: str, replacement: str) -> Change:
    def change(lines: list[str]) -> list[str]:
        text = "\n".join(lines)
        changed = re.sub(pattern, replacement, text, count=1)
        assert changed != text
        return changed.split("\n")

    return change


FORGED: dict[str, Change] = {
    "another holder": leaf(did="somebody else"),
    "another status": leaf(token_status="77"),
    "another verdict": leaf(verdict="genuine", verdict_source="me"),
    "another content": leaf(content_sha256="0" * 64),
    "another type": leaf(**{"@type": "rubix-token-record/2"}),
    "the record in another form": spaced,
    "a record that is none": line(1, "extra " + base64.b64encode(b"[1]").decode()),
    "no record": line(1, "extra "),
    "a line less at the top": lambda lines: lines[1:],
    "another head": line(0, "c2sp.org/tlog-proof@v2"),
    "another index": line(2, "index 7"),
    "an index beyond the tree": line(2, "index 99999"),
    "a negative index": line(2, "index -1"),
    "an index with a zero in front": line(2, "index 005"),
    "an index that is huge": line(2, "index " + "9" * 5000),
    "a bit in the first hash": bit(3),
    "a bit in the last hash": bit(10),
    "a hash less": lambda lines: [*lines[:3], *lines[4:]],
    "a hash more": lambda lines: [*lines[:3], lines[3], *lines[3:]],
    "hashes swapped": lambda lines: [*lines[:3], lines[4], lines[3], *lines[5:]],
    "thousands of hashes": lambda lines: [*lines[:3], *[lines[3]] * 5000, *lines[3:]],
    "a short hash": line(3, "AAAA"),
    "a hash that is not base64": line(3, "*" * 44),
    "another root": in_text(r"\n\n(.*\n\d+\n).{10}", r"\n\n\1AAAAAAAAAA"),
    "another size": in_text(r"(\n\n.*\n)\d+", r"\g<1>301"),
    "another time": in_text("made 2", "made 1"),
    "a bit in the signature": in_text(r"(— \S+ .{20}).", r"\1_"),
    "no signature": in_text("— .*", ""),
    "no checkpoint": in_text(r"(?s)\n\n.*", ""),
    "line ends of another system": lambda lines: [f"{one}\r" for one in lines],
    "nothing": lambda lines: [],
}


@pytest.mark.parametrize("name", FORGED)
def test_what_is_forged_proves_nothing(signed: Signed, name: str) -> None:
    text = "\n".join(FORGED[name](proof_of(signed.directory, 5).split("\n")))
    _refused(text.encode(), signed.public)


def _refused(data: bytes, public: Path) -> None:
    from rubix_token_sync.evidence.proofs import check_proof

    key = read_public_key(public)
    with pytest.raises(rts.EvidenceRefused) as refusal:
        check_proof(data, key)
    assert refusal.value.message
    assert refusal.value.remedy
    with pytest.raises((standalone.Refused, ValueError)):
        standalone.check_proof(data, key.raw)


def test_a_proof_of_another_run_or_by_another_key(signed: Signed, tmp_path: Path) -> None:
    mine, other = proof_of(signed.directory, 5), proof_of(signed.other, 5)
    head, note = mine.partition("\n\n")[0], other.partition("\n\n")[2]
    # The records are the same in both runs, and so is the tree: what differs is who says when.
    (tmp_path / "mixed").write_text(f"{head}\n\n{note}")
    mixed = rts.verify_proof(tmp_path / "mixed", key=signed.public)
    assert (
        mixed.checkpoint.run
        != json.loads((signed.directory / form.MANIFEST).read_bytes())["predicate"]["run"]
    )
    _refused(mine.encode(), signed.other_key.with_name("other.pub"))


def test_a_proof_of_a_run_with_other_records(signed: Signed, copy: Path) -> None:
    """Signed by the same key: the path of one does not lead to the root of the other."""
    edit_lines(edit_record(did="somebody else"))(copy, signed)
    sign_again(copy, signed.key, tree=True)
    for index in (2, 3, 299):  # the record that differs, one beside it, one of another block
        (mine, my_note), (other, other_note) = (
            proof_of(place, index).split("\n\n", 1) for place in (signed.directory, copy)
        )
        _refused(f"{other}\n\n{my_note}".encode(), signed.public)
        _refused(f"{mine}\n\n{other_note}".encode(), signed.public)


def test_every_record_can_be_proven(signed: Signed, tmp_path: Path) -> None:
    """The last leaf and the edges of blocks too; a second implementation agrees."""
    lines, key = lines_of(signed.directory), read_public_key(signed.public)
    root = rfc6962.mth(lines)
    for index in (0, 1, 255, 256, len(lines) - 1):
        text = proof_of(signed.directory, index)
        (tmp_path / "proof").write_text(text)
        found = rts.verify_proof(tmp_path / "proof", key=signed.public)
        assert (found.index, found.record) == (index, json.loads(lines[index]))
        hashes = [base64.b64decode(one) for one in text.split("\n\n")[0].split("\n")[3:]]
        assert hashes == rfc6962.path(index, lines)
        assert rfc6962.root(index, len(lines), lines[index], hashes) == root
        match, record = standalone.check_proof(text.encode(), key.raw)
        assert (record, int(match["size"])) == (found.record, len(lines))


def test_a_token_of_several_holders_has_a_proof_of_each(signed: Signed) -> None:
    holders: dict[str, list[str]] = {}
    for one in map(json.loads, lines_of(signed.directory)):
        holders.setdefault(one["token_id"], []).append(one["node_name"])
    token = next(token for token, nodes in holders.items() if len(nodes) > 1)
    proofs = rts.prove_token(token, evidence=signed.directory)
    assert sorted(p.record["node_name"] for p in proofs) == sorted(holders[token])
    (one,) = rts.prove_token(token, evidence=signed.directory, nodes=["node002"])
    assert one.record["node_name"] == "node002"
    with pytest.raises(rts.SettingsError, match="no record of this token"):
        rts.prove_token('x","did":"', evidence=signed.directory)


def test_leaves_that_were_changed_give_no_proof(signed: Signed, copy: Path) -> None:
    lines = lines_of(copy)
    key = json.loads(lines[4])["record_key"]
    lines[4] = canonical({**json.loads(lines[4]), "did": "somebody else"})
    (copy / form.LEAVES).write_bytes(b"\n".join(lines) + b"\n")
    with pytest.raises(rts.EvidenceRefused, match="not those signed"):
        rts.prove_token(key, evidence=copy)
    (copy / form.BLOCKS).write_bytes((copy / form.BLOCKS).read_bytes()[:40])
    with pytest.raises(rts.EvidenceRefused, match=r"tree\.blocks"):
        rts.prove_token(key, evidence=copy)
