"""Ways to forge evidence: by somebody without the key, and by the signer himself."""

from __future__ import annotations

import base64
import json
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from rubix_token_sync.evidence import form
from rubix_token_sync.evidence.keys import open_signer, read_public_key, sshsig
from rubix_token_sync.evidence.leaves import canonical
from rubix_token_sync.evidence.notes import Checkpoint, parse_note, sign_note
from rubix_token_sync.evidence.tree import BlockTree
from tests.evidence.conftest import Signed

__all__ = ["BY_ANYBODY", "BY_THE_SIGNER", "Forgery", "edit_manifest", "sign_again"]

Change = Callable[[Path, Any], None]
"""Of a copy of evidence; beside it what was `Signed`."""


@dataclass(frozen=True)
class Forgery:
    """One way, and the code with which it is refused."""

    name: str
    change: Change
    code: str
    seen_by_standalone: bool = True
    """False: only the program reads Parquet."""


def flip(name: str) -> Change:
    """One bit, in the middle of a file."""

    def change(directory: Path, _: Signed) -> None:
        data = bytearray((directory / name).read_bytes() or b" ")
        data[len(data) // 2] ^= 1
        (directory / name).write_bytes(data)

    return change


def truncate(name: str) -> Change:
    def change(directory: Path, _: Signed) -> None:
        data = (directory / name).read_bytes()
        (directory / name).write_bytes(data[:-1] or b"x")

    return change


def remove(name: str) -> Change:
    return lambda directory, _: (directory / name).unlink()


def from_other(*names: str) -> Change:
    """Files of another run by the same key."""

    def change(directory: Path, signed: Signed) -> None:
        for name in names:
            (directory / name).write_bytes((signed.other / name).read_bytes())

    return change


def edit_lines(work: Callable[[list[bytes]], list[bytes]], *, whole: bool = False) -> Change:
    """Other leaves; ``whole``: with the sums, the manifest and the text of the checkpoint, too."""

    def change(directory: Path, signed: Signed) -> None:
        lines = (directory / form.LEAVES).read_bytes().split(b"\n")[:-1]
        (directory / form.LEAVES).write_bytes(b"".join(one + b"\n" for one in work(lines)))
        if whole:
            sign_again(directory, signed.other_key, tree=True)

    return change


def edit_record(**values: Any) -> Callable[[list[bytes]], list[bytes]]:
    """The third leaf says something else; None: it does not say it."""

    def work(lines: list[bytes]) -> list[bytes]:
        record = json.loads(lines[2])
        record.update(values)
        kept = {name: value for name, value in record.items() if value is not None}
        return [*lines[:2], canonical(kept), *lines[3:]]

    return work


def swap(lines: list[bytes]) -> list[bytes]:
    return [lines[1], lines[0], *lines[2:]]


def edit_manifest(work: Callable[[dict[str, Any]], None]) -> Change:
    def change(directory: Path, _: Signed) -> None:
        found = json.loads((directory / form.MANIFEST).read_bytes())
        work(found)
        (directory / form.MANIFEST).write_bytes(canonical(found) + b"\n")

    return change


def edit_text(name: str, pattern: str, replacement: str) -> Change:
    def change(directory: Path, _: Signed) -> None:
        text = (directory / name).read_text(encoding="utf-8")
        changed = re.sub(pattern, replacement, text, count=1)
        assert changed != text
        (directory / name).write_text(changed, encoding="utf-8")

    return change


def link(name: str) -> Change:
    """A symbolic link to the same bytes."""

    def change(directory: Path, signed: Signed) -> None:
        (directory / name).unlink()
        (directory / name).symlink_to(signed.directory / name)

    return change


def special(make: Callable[[Path], object]) -> Change:
    def change(directory: Path, _: Signed) -> None:
        (directory / form.FINDINGS).unlink()
        make(directory / form.FINDINGS)

    return change


def add(name: str) -> Change:
    return write(name, b"x")


def write(name: str, data: bytes) -> Change:
    """A file with this in it."""

    def change(directory: Path, _: Signed) -> None:
        (directory / name).write_bytes(data)

    return change


def sign_again(directory: Path, key: Path, *, tree: bool = False, manifest: bool = True) -> None:
    """Make everything consistent again, and sign it with a key."""
    signer = open_signer(key)
    old, _ = parse_note(
        (directory / form.CHECKPOINT).read_bytes(), read_public_key(directory / form.KEY_PEM)
    )
    (directory / form.KEY_PEM).write_text(signer.public.pem)
    (directory / form.SIGNERS).write_text(
        f'evidence namespaces="rubix-token-sync-evidence" {signer.public.ssh_line}\n'
    )
    size, root = old.size, old.root
    if tree:
        lines = (directory / form.LEAVES).read_bytes().split(b"\n")[:-1]
        built = BlockTree()
        built.extend(lines)
        size, root = built.size, built.root()
        offsets = form.block_offsets(lines, 0, 0)
        (directory / form.BLOCKS).write_bytes(form.blocks_file(offsets, built.all_blocks()))
    if manifest:
        found = json.loads((directory / form.MANIFEST).read_bytes())
        data = {name: (directory / name).read_bytes() for name in form.CONTENTS}
        found["subject"] = [
            {"name": name, "digest": {"sha256": form.digest(data[name])}} for name in form.CONTENTS
        ]
        found["predicate"]["sizes"] = {name: len(data[name]) for name in form.CONTENTS}
        found["predicate"]["tree"] |= {"leaves": size, "root": _base64(root)}
        (directory / form.MANIFEST).write_bytes(canonical(found) + b"\n")
    sums = form.sums_text(
        {name: form.digest((directory / name).read_bytes()) for name in form.SIGNED}
    ).encode()
    (directory / form.SUMS).write_bytes(sums)
    seal(directory, key, size, root, old.made_at, old.run)


def seal(directory: Path, key: Path, size: int, root: bytes, made_at: str, run: str) -> None:
    """A new checkpoint over SHA256SUMS as it is."""
    signer = open_signer(key)
    sums = (directory / form.SUMS).read_bytes()
    checkpoint = Checkpoint(signer.public.origin, size, root, made_at, run, form.digest(sums))
    note, signature = sign_note(checkpoint, signer)
    (directory / form.CHECKPOINT).write_text(note)
    (directory / form.TEXT).write_text(checkpoint.text)
    (directory / form.RAW_SIGNATURE).write_bytes(signature)
    (directory / form.SSH_SIGNATURE).write_text(sshsig(signer, checkpoint.text.encode()))


def signed_again(change: Change, *, tree: bool = False, manifest: bool = True) -> Change:
    """The signer signs what was changed."""

    def both(directory: Path, signed: Signed) -> None:
        change(directory, signed)
        sign_again(directory, signed.key, tree=tree, manifest=manifest)

    return both


def sealed_sums(pattern: str, replacement: str) -> Change:
    """The signer signs other sums."""

    def change(directory: Path, signed: Signed) -> None:
        edit_text(form.SUMS, pattern, replacement)(directory, signed)
        old, _ = parse_note((directory / form.CHECKPOINT).read_bytes(), _key(signed.key))
        seal(directory, signed.key, old.size, old.root, old.made_at, old.run)

    return change


def by_other_key(directory: Path, signed: Signed) -> None:
    sign_again(directory, signed.other_key)


def edit_table(work: Callable[[pa.Table], pa.Table], **options: Any) -> Change:
    """Another table beside the same leaves."""

    def change(directory: Path, _: Signed) -> None:
        found = pq.read_table(directory / form.RECORDS)
        pq.write_table(work(found), directory / form.RECORDS, **options)

    return change


def column(name: str, value: object) -> Callable[[pa.Table], pa.Table]:
    """Another value in the third row."""

    def work(table: pa.Table) -> pa.Table:
        values = table.column(name).to_pylist()
        values[2] = value
        place = table.schema.get_field_index(name)
        return table.set_column(
            place, table.schema.field(name), pa.array(values, table.schema.field(name).type)
        )

    return work


def bomb(table: pa.Table) -> pa.Table:
    """Millions of rows in some kilobytes."""
    rows = 70_000
    arrays = [
        pa.array([False], pa.bool_()).take(pa.array([0] * rows))
        if pa.types.is_boolean(f.type)
        else pa.array([_some(f.type)], f.type).take(pa.array([0] * rows))
        for f in table.schema
    ]
    return pa.table(arrays, schema=table.schema)


def _some(kind: pa.DataType) -> object:
    if pa.types.is_fixed_size_binary(kind):
        return bytes(kind.byte_width)
    if pa.types.is_string(kind):
        return ""
    return 0


def bomb_of_the_stated_size(directory: Path, signed: Signed) -> None:
    """A table of 70,000 rows in one group, and a checkpoint that says so."""
    edit_table(bomb, row_group_size=100_000, compression="zstd")(directory, signed)
    sign_again(directory, signed.key)
    old, _ = parse_note((directory / form.CHECKPOINT).read_bytes(), _key(signed.key))
    edit_manifest(lambda m: m["predicate"]["tree"].update(leaves=70_000))(directory, signed)
    sums = form.sums_text(
        {name: form.digest((directory / name).read_bytes()) for name in form.SIGNED}
    )
    (directory / form.SUMS).write_text(sums)
    seal(directory, signed.key, 70_000, old.root, old.made_at, old.run)


def _key(path: Path) -> Any:
    return open_signer(path).public


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


_BINARY = (form.RECORDS, form.LEAVES, form.BLOCKS, form.FINDINGS, form.GUIDE, form.VERIFIER)
_CODES = {
    **dict.fromkeys((*_BINARY, form.MANIFEST, form.SUMS), "evidence_file_changed"),
    form.TEXT: "evidence_signature",
    form.RAW_SIGNATURE: "evidence_signature",
    form.SSH_SIGNATURE: "evidence_signature",
    form.SIGNERS: "evidence_other_key",
}
_PROGRAM_ONLY = {form.SSH_SIGNATURE}
"""`ssh-keygen` checks it; verify.py does not know the form."""


def _of_each_file() -> list[Forgery]:
    found = []
    for name in form.NAMES:
        code = _CODES.get(name, "")  # of a key or a note, what a bit breaks depends on the bit
        seen = name not in _PROGRAM_ONLY
        found += [
            Forgery(f"a bit in {name}", flip(name), code, seen),
            Forgery(f"{name} truncated", truncate(name), code, seen),
            Forgery(f"{name} missing", remove(name), "evidence_file_missing"),
        ]
    return found


BY_ANYBODY = [
    *_of_each_file(),
    Forgery("a file too many", add("more.txt"), "evidence_file_extra"),
    Forgery("a hidden file too many", add(".more"), "evidence_file_extra"),
    Forgery("a directory too many", lambda d, _: (d / "sub").mkdir(), "evidence_file_extra"),
    Forgery("a link in place of a file", link(form.FINDINGS), "evidence_not_plain"),
    Forgery("a link in place of the checkpoint", link(form.CHECKPOINT), "evidence_not_plain"),
    Forgery("a pipe in place of a file", special(os.mkfifo), "evidence_not_plain"),
    Forgery("a directory in place of a file", special(Path.mkdir), "evidence_not_plain"),
    Forgery("rows swapped", edit_lines(swap), "evidence_file_changed"),
    Forgery("a row removed", edit_lines(lambda n: n[1:]), "evidence_file_changed"),
    Forgery("a row added", edit_lines(lambda n: [*n, n[-1]]), "evidence_file_changed"),
    Forgery("another holder", edit_lines(edit_record(did="x")), "evidence_file_changed"),
    Forgery("findings of another run", from_other(form.MANIFEST), "evidence_file_changed"),
    Forgery(
        "the checkpoint of another run",
        from_other(form.CHECKPOINT, form.TEXT, form.RAW_SIGNATURE, form.SSH_SIGNATURE),
        "evidence_file_changed",
    ),
    Forgery(
        "checkpoint and sums of another run",
        from_other(
            form.CHECKPOINT, form.TEXT, form.RAW_SIGNATURE, form.SSH_SIGNATURE, form.SUMS
        ),
        "evidence_file_changed",
    ),
    Forgery(
        "the signature of another run", from_other(form.RAW_SIGNATURE), "evidence_signature"
    ),
    Forgery(
        "the manifest calls itself complete",
        edit_manifest(lambda m: m["predicate"].update(complete=True, counts={})),
        "evidence_file_changed",
    ),
    Forgery(
        "the manifest names other evidence before it",
        edit_manifest(lambda m: m["predicate"].update(previous=None, run="x")),
        "evidence_file_changed",
    ),
    Forgery("a key that is none", write(form.KEY_PEM, b"\xff-----BEGIN"), "evidence_form"),
    Forgery("a checkpoint of bytes", write(form.CHECKPOINT, b"\xff\n\n"), "evidence_form"),
    Forgery("a signature of bytes", write(form.SSH_SIGNATURE, b"\xff"), "evidence_form", False),
    Forgery("sums of nothing", edit_text(form.SUMS, r"(?s).+", ""), "evidence_file_changed"),
    Forgery(
        "another number of records", edit_text(form.CHECKPOINT, r"\n\d+\n", "\n9\n"),
        "evidence_signature",
    ),
    Forgery(
        "another time", edit_text(form.CHECKPOINT, r"made \d{4}", "made 1999"),
        "evidence_signature",
    ),
    Forgery(
        "a number with a leading zero", edit_text(form.CHECKPOINT, r"\n(\d+)\n", r"\n0\1\n"),
        "evidence_form",
    ),
    Forgery(
        "a line too many in the checkpoint", edit_text(form.CHECKPOINT, "run ", "more x\nrun "),
        "evidence_form",
    ),
    Forgery(
        "a checkpoint without a signature", edit_text(form.CHECKPOINT, "— .*\n", ""), "",
    ),
    Forgery(
        "a signature under another name",
        edit_text(form.CHECKPOINT, "— rubix-token-sync", "— rubix-token-sink"),
        "evidence_other_key",
    ),
    Forgery("everything by another key", by_other_key, "evidence_other_key"),
    Forgery(
        "another holder, consistent, by another key",
        edit_lines(edit_record(did="somebody"), whole=True),
        "evidence_other_key",
    ),
]  # fmt: skip
"""What somebody without the key can do."""


def _manifest(work: Callable[[dict[str, Any]], None], *, seen: bool = True) -> Change:
    return signed_again(edit_manifest(work), manifest=False)


BY_THE_SIGNER = [
    Forgery("rows swapped", signed_again(edit_lines(swap)), "evidence_records_differ"),
    Forgery(
        "a row removed", signed_again(edit_lines(lambda n: n[:-1])), "evidence_tree"
    ),
    Forgery(
        "a row added", signed_again(edit_lines(lambda n: [*n, n[-1]])), "evidence_records_differ"
    ),
    *(
        Forgery(
            f"another {name} in the leaf than in the table",
            signed_again(edit_lines(edit_record(**{name: value})), tree=True),
            "evidence_records_differ",
            False,
        )
        for name, value in (
            ("did", "another holder"), ("node_name", "node9"), ("token_status", "9"),
            ("content_sha256", "0" * 64), ("verdict", "genuine!"), ("db_path", None),
            ("source_ip", "10.9.9.9"), ("token_id", "Qm"), ("ipfs_fetched", None),
        )
    ),
    *(
        Forgery(
            f"another {name} in the table than in the leaf",
            signed_again(edit_table(column(name, value))),
            "evidence_records_differ",
            False,
        )
        for name, value in (
            ("did", "another holder"), ("ipfs_data", "other content"), ("verdict", None),
            ("token_number", 5), ("row_digest", bytes(16)), ("content_sha256", None),
        )
    ),
    Forgery(
        "rows of the table in another order",
        signed_again(edit_table(lambda t: t.take(list(range(len(t)))[::-1]))),
        "evidence_order",
        False,
    ),
    Forgery(
        "fewer rows in the table",
        signed_again(edit_table(lambda t: t.slice(1))), "evidence_records_differ", False,
    ),
    Forgery(
        "a column too few in the table",
        signed_again(edit_table(lambda t: t.drop_columns(["did"]))), "evidence_form", False,
    ),
    Forgery(
        "a table that is none",
        signed_again(write(form.RECORDS, b"PAR1")),
        "evidence_form",
        False,
    ),
    Forgery("a table that expands", bomb_of_the_stated_size, "evidence_too_large", True),
    Forgery(
        "one record twice",
        signed_again(edit_lines(lambda n: [n[0], *n]), tree=True), "evidence_records_differ",
    ),
    Forgery(
        "a last line without an end",
        signed_again(truncate(form.LEAVES)),
        "evidence_form",
    ),
    Forgery(
        "blocks that begin elsewhere", signed_again(flip(form.BLOCKS)), "evidence_tree"
    ),
    Forgery(
        "a manifest that lists what was not read and calls itself complete",
        _manifest(
            lambda m: m["predicate"]["not_read"].update(databases=[{"db_path": "/x"}])
        ),
        "evidence_contradicts",
    ),
    Forgery(
        "a manifest that does not say whether it is complete",
        _manifest(lambda m: m["predicate"].update(complete="yes")), "evidence_form",
    ),
    Forgery(
        "a manifest of another run",
        _manifest(lambda m: m["predicate"].update(run="another")), "evidence_contradicts",
    ),
    Forgery(
        "a manifest with another root",
        _manifest(lambda m: m["predicate"]["tree"].update(root="x")), "evidence_contradicts",
    ),
    Forgery(
        "a path that leaves the directory, in the manifest",
        _manifest(lambda m: m["subject"][0].update(name="../../etc/passwd")),
        "evidence_contradicts",
    ),
    Forgery(
        "a path that leaves the directory, in the sums",
        sealed_sums(r"findings\.jsonl", "../findings.jsonl"), "evidence_file_changed",
    ),
    Forgery("a file less in the sums", sealed_sums(r".*findings.jsonl\n", ""), ""),
    Forgery(
        "a manifest that is something else",
        _manifest(lambda m: m.update(_type="x", subject=[])), "evidence_form",
    ),
    Forgery(
        "a manifest that is not JSON",
        signed_again(
            write(form.MANIFEST, b"[" * 100_000),
            manifest=False,
        ),
        "evidence_form",
    ),
]  # fmt: skip
"""What the holder of the key can do: contradict himself."""
