"""What has changed since evidence was signed: its leaves against records that were read anew."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

import pyarrow as pa

from rubix_token_sync.evidence import form
from rubix_token_sync.evidence.directory import EvidenceFiles, opened_directory, refused
from rubix_token_sync.evidence.leaves import CONTENT_DIGEST, content_digests, leaves
from rubix_token_sync.records.schema import database_key
from rubix_token_sync.targets.sql.target import SqlTarget

__all__ = ["Change", "Comparison", "compare"]

_EXAMPLES: Final = 20
_CHUNK: Final = 4 * 2**20
_VERDICT: Final = ("verdict", "verdict_source", "token_level", "token_number")
"""Not compared where the records that were read anew were not judged."""

_KEY: Final = b',"record_key":"'
_DIGITS: Final = 48
_OF_DATABASE: Final = 16


@dataclass(frozen=True)
class Change:
    """One record that is not as it was signed."""

    kind: Literal["new", "changed", "vanished"]
    source_ip: str
    node_name: str
    db_path: str
    token_id: str | None
    columns: list[str]
    """Those that differ, of a changed one."""


@dataclass
class Comparison:
    """What the nodes say now of what was signed."""

    same: int = 0
    changed: int = 0
    new: int = 0
    vanished: int = 0
    not_compared: dict[str, int] = field(default_factory=dict)
    """Databases of the evidence that were not read this time, with their signed records."""
    examples: list[Change] = field(default_factory=list)
    """At most twenty."""

    @property
    def differences(self) -> int:
        """Records that are not as they were signed."""
        return self.changed + self.new + self.vanished

    def note(self, change: Change) -> None:
        """Count a difference."""
        setattr(self, change.kind, getattr(self, change.kind) + 1)
        if len(self.examples) < _EXAMPLES:
            self.examples.append(change)


def compare(
    directory: Path, store: SqlTarget, source: str, db_paths: Collection[str]
) -> Comparison:
    """Compare the leaves with the records of ``store``, which holds ``source`` as it is now.

    ``db_paths`` are the databases that were read this time; the others are not compared.  The
    evidence has been verified.

    Raises:
        TargetError: the store cannot be read.
    """
    wanted = {database_key(source, path).hex() for path in db_paths}
    found = Comparison()
    others: Counter[str] = Counter()
    with opened_directory(directory) as files, store.moment() as (conn, _):
        now = ((_key_of(leaf), leaf) for block in _stored(store, conn) for leaf in block)
        fresh = next(now, None)
        for lines in _lines_of(files):
            for leaf in lines:
                key = _key_of(leaf)
                while fresh is not None and fresh[0] < key:
                    found.note(_change("new", fresh[1]))
                    fresh = next(now, None)
                if key[:_OF_DATABASE] not in wanted:
                    others[json.loads(leaf)["db_path"]] += 1
                elif fresh is None or fresh[0] != key:
                    found.note(_change("vanished", leaf))
                else:
                    columns = [] if fresh[1] == leaf else _differing(leaf, fresh[1])
                    if columns:
                        found.note(_change("changed", fresh[1], columns))
                    else:
                        found.same += 1
                    fresh = next(now, None)
        while fresh is not None:
            found.note(_change("new", fresh[1]))
            fresh = next(now, None)
    found.not_compared = dict(sorted(others.items()))
    return found


def _lines_of(files: EvidenceFiles) -> Iterator[list[bytes]]:
    """The leaves, by the chunk.

    Raises:
        EvidenceRefused: a line is longer than any leaf, or the last one does not end.
    """
    rest = b""
    with files.open(form.LEAVES) as file:
        while chunk := file.read(_CHUNK):
            lines = (rest + chunk).split(b"\n")
            rest = lines.pop()
            if len(rest) > form.LONGEST_LINE:
                raise refused("evidence_too_large", f"{form.LEAVES} has a line without an end.")
            if lines:
                yield lines
    if rest:
        raise refused("evidence_form", f"{form.LEAVES} ends in the middle of a line.")


def _stored(store: SqlTarget, conn: Any) -> Iterator[list[bytes]]:
    for batch in store.all_records(conn):
        digests = content_digests(batch.column("ipfs_data"))
        batch = batch.append_column(CONTENT_DIGEST, digests)
        yield leaves(batch).cast(pa.binary()).to_pylist()


def _key_of(leaf: bytes) -> str:
    """The record's key: what leaves are sorted by."""
    at = leaf.index(_KEY) + len(_KEY)
    return leaf[at : at + _DIGITS].decode()


def _differing(signed: bytes, now: bytes) -> list[str]:
    """Columns in which two leaves of one record differ."""
    before, after = json.loads(signed), json.loads(now)
    names = (before.keys() | after.keys()) - (set() if "verdict" in after else set(_VERDICT))
    return sorted(name for name in names if before.get(name) != after.get(name))


def _change(
    kind: Literal["new", "changed", "vanished"], leaf: bytes, columns: list[str] | None = None
) -> Change:
    record = json.loads(leaf)
    return Change(
        kind,
        record["source_ip"],
        record["node_name"],
        record["db_path"],
        record.get("token_id"),
        columns or [],
    )
