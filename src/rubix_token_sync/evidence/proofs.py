"""Proof of one record: the leaf, its path to the root, and the checkpoint (C2SP tlog-proof)."""

from __future__ import annotations

import base64
import json
import re
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from rubix_token_sync.errors import EvidenceRefused, SettingsError
from rubix_token_sync.evidence import form
from rubix_token_sync.evidence.directory import EvidenceFiles, opened_directory, refused
from rubix_token_sync.evidence.keys import PublicKey
from rubix_token_sync.evidence.leaves import LEAF_TYPE, canonical
from rubix_token_sync.evidence.notes import Checkpoint, parse_note
from rubix_token_sync.evidence.tree import (
    BLOCK,
    HASH_BYTES,
    inclusion_path,
    leaf_hash,
    root_from_path,
    root_of,
)
from rubix_token_sync.evidence.verify import own_key

__all__ = ["Proof", "Proven", "check_proof", "prove"]

_HEAD: Final = "c2sp.org/tlog-proof@v1"
_RECORD_KEY: Final = re.compile(r"[0-9a-f]{48}")
_INDEX: Final = re.compile(r"index (0|[1-9][0-9]{0,17})")
_MOST_BYTES: Final = 64 * 2**20
_LONGEST_PATH: Final = 63
_CHUNK: Final = 4 * 2**20


@dataclass(frozen=True)
class Proof:
    """A proof as it was made."""

    index: int
    record: dict[str, Any]
    text: str
    """The file."""


@dataclass(frozen=True)
class Proven:
    """What a proof proves: the record is a leaf of the tree that the checkpoint names."""

    checkpoint: Checkpoint
    index: int
    record: dict[str, Any]
    leaf: bytes


def prove(directory: Path, token: str, *, nodes: tuple[str, ...] = ()) -> list[Proof]:
    """A proof for each record of the token (its id, or a record's key), of these nodes if any.

    Each is checked against the checkpoint before it is given; the rest of the directory is not
    looked at.

    Raises:
        SettingsError: there is no such directory, or no such record in it.
        EvidenceRefused: the leaves are not those that were signed.
    """
    with opened_directory(directory) as files:
        key = own_key(files)
        note = files.read(form.CHECKPOINT)
        checkpoint, _ = parse_note(note, key)
        starts, hashes = _blocks(files, checkpoint)
        proofs = []
        for offset in _found(files, token):
            proof = _prove(files, starts, hashes, offset, note, key)
            if not nodes or proof.record.get("node_name") in nodes:
                proofs.append(proof)
    if not proofs:
        raise SettingsError(
            "The evidence has no record of this token.",
            code="no_such_leaf",
            remedy="Ids are compared letter by letter; manifest.json says what was read, and "
            "what was not.",
        )
    return proofs


def _blocks(files: EvidenceFiles, checkpoint: Checkpoint) -> tuple[list[int], list[bytes]]:
    """Offsets and hashes of the blocks, which give the root that was signed."""
    data = files.read(form.BLOCKS)
    entries = [data[at : at + form.BLOCK_BYTES] for at in range(0, len(data), form.BLOCK_BYTES)]
    hashes = [entry[8:] for entry in entries]
    if root_of(hashes) != checkpoint.root or len(hashes) != -(-checkpoint.size // BLOCK):
        raise refused("evidence_tree", f"{form.BLOCKS} does not give the root that was signed.")
    return [int.from_bytes(entry[:8], "big") for entry in entries], hashes


def _found(files: EvidenceFiles, token: str) -> Iterator[int]:
    """Where in the file of leaves the token's id, or the record's key, stands."""
    column = b"record_key" if _RECORD_KEY.fullmatch(token) else b"token_id"
    mark = b',"' + column + b'":' + canonical(token) + b","
    with files.open(form.LEAVES) as file:
        rest, begin = b"", 0
        while chunk := file.read(_CHUNK):
            data = rest + chunk
            at = data.find(mark)
            while at >= 0:
                yield begin + at
                at = data.find(mark, at + 1)
            rest = data[-(len(mark) - 1) :]
            begin += len(data) - len(rest)


def _prove(
    files: EvidenceFiles,
    starts: list[int],
    hashes: list[bytes],
    offset: int,
    note: bytes,
    key: PublicKey,
) -> Proof:
    """The proof of the leaf around ``offset``."""
    number = bisect_right(starts, offset) - 1
    with files.open(form.LEAVES) as file:
        file.seek(starts[number])
        end = starts[number + 1] if number + 1 < len(starts) else None
        data = _read(file, None if end is None else end - starts[number])
    lines = data.split(b"\n")[:-1]
    place = data.count(b"\n", 0, offset - starts[number])
    within = [leaf_hash(line) for line in lines]
    if len(within) > BLOCK or place >= len(within) or root_of(within) != hashes[number]:
        raise refused("evidence_tree", "The leaves around this record are not those signed.")
    path = [*inclusion_path(within, place), *inclusion_path(hashes, number)]
    index = number * BLOCK + place
    encoded = [base64.b64encode(one).decode() for one in path]
    extra = base64.b64encode(lines[place]).decode()
    head = "\n".join([_HEAD, f"extra {extra}", f"index {index}", *encoded, "", ""])
    text = head + note.decode()
    return Proof(index, check_proof(text.encode(), key).record, text)


def _read(file: Any, size: int | None) -> bytes:
    data = bytearray()
    while size is None or len(data) < size:
        more = file.read(_CHUNK if size is None else size - len(data))
        if not more:
            break
        data += more
        if len(data) > _MOST_BYTES:
            raise refused("evidence_too_large", f"{form.LEAVES} has a block without an end.")
    return bytes(data)


def check_proof(data: bytes, key: PublicKey) -> Proven:
    """What the proof proves, if the holder of ``key`` signed its checkpoint.

    Raises:
        EvidenceRefused: its form, its signature or its path is wrong.
    """
    if len(data) > _MOST_BYTES:
        raise _malformed("it is too long")
    head, _, note = data.partition(b"\n\n")
    try:
        lines = head.decode("ascii").split("\n")
        index = _INDEX.fullmatch(lines[2]) if len(lines) > 2 else None
        if lines[0] != _HEAD or not lines[1].startswith("extra ") or index is None:
            raise _malformed("its first lines are not those of a proof")
        leaf = _decoded(lines[1].removeprefix("extra "))
        path = [_decoded(line) for line in lines[3:]]
    except (UnicodeDecodeError, IndexError):
        raise _malformed("its first lines are not those of a proof") from None
    if len(path) > _LONGEST_PATH or any(len(one) != HASH_BYTES for one in path):
        raise _malformed("a line is not a hash")
    record = _record(leaf)
    checkpoint, _ = parse_note(note, key)
    root = root_from_path(int(index[1]), checkpoint.size, leaf_hash(leaf), path)
    if root != checkpoint.root:
        raise EvidenceRefused(
            "The record is not at this place of the tree that was signed.",
            code="proof_wrong",
            remedy="Ask for the proof again, from the evidence of the same run.",
        )
    return Proven(checkpoint, int(index[1]), record, leaf)


def _decoded(text: str) -> bytes:
    """Base64 in its one form."""
    try:
        data = base64.b64decode(text, validate=True)
    except ValueError:
        raise _malformed("a line is not base64") from None
    if base64.b64encode(data).decode() != text:
        raise _malformed("a line is not base64 in its usual form")
    return data


def _record(leaf: bytes) -> dict[str, Any]:
    """The leaf as an object: one that could have been signed."""
    try:
        record = json.loads(leaf)
        if record["@type"] != LEAF_TYPE or canonical(record) != leaf:
            raise _malformed("its record is not in the form of a leaf")
    except (ValueError, TypeError, KeyError, RecursionError):
        raise _malformed("its record is not in the form of a leaf") from None
    found: dict[str, Any] = record
    return found


def _malformed(why: str) -> EvidenceRefused:
    return EvidenceRefused(
        f"The proof is malformed: {why}.",
        code="proof_form",
        remedy="Ask for the proof again; it may have been changed on its way.",
    )
