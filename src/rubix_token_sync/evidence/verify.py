"""Is a directory of evidence what its signer signed?  Every file, every leaf, every record."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pyarrow as pa
import pyarrow.parquet as pq

from rubix_token_sync.errors import SettingsError
from rubix_token_sync.evidence import form
from rubix_token_sync.evidence.directory import EvidenceFiles, opened_directory, refused
from rubix_token_sync.evidence.hashing import hashing
from rubix_token_sync.evidence.keys import NAMESPACE, PublicKey, check_sshsig, parse_public_key
from rubix_token_sync.evidence.leaves import (
    CONTENT_DIGEST,
    LEAF_COLUMNS,
    ascending,
    content_digests,
    lines,
)
from rubix_token_sync.evidence.manifest import Previous
from rubix_token_sync.evidence.notes import Checkpoint, parse_note
from rubix_token_sync.evidence.prefetch import prefetched
from rubix_token_sync.evidence.stamps import Stamp, check_stamp, require_library
from rubix_token_sync.export.parquet import ROWS_IN_A_GROUP, in_utc
from rubix_token_sync.records.schema import RECORDS

if TYPE_CHECKING:
    from cryptography.x509 import Certificate

__all__ = ["Verified", "own_key", "previous_of", "verify"]

_MALFORMED: Final = (
    ValueError, KeyError, TypeError, AttributeError, RecursionError, pa.ArrowException,
)  # fmt: skip
"""What parsers and look-ups raise of a document that is not what it should be."""
_LARGEST_GROUP: Final = 2**31
_ROWS_AT_ONCE: Final = 8_192


@dataclass(frozen=True)
class Verified:
    """What was found to be as it was signed."""

    checkpoint: Checkpoint
    key: PublicKey
    key_named: bool
    """The caller named the key; else it is the one that came with the evidence."""
    predicate: dict[str, Any] = field(repr=False)
    """Of the manifest: run, scope, what was not read, counts, findings."""
    time_stamp: Stamp | None = None
    """Of an authority; None: the evidence has none."""
    stamp_expected: bool = False
    """The manifest says that an authority was asked, or the caller named certificates of one."""

    @property
    def complete(self) -> bool:
        """Every database had been read, and nothing was wrong with what was."""
        return bool(self.predicate["complete"])

    @property
    def one_moment(self) -> bool:
        """All of it is what the target held in one moment."""
        return bool(self.predicate["one_moment"])

    @property
    def stamp_ok(self) -> bool:
        """Nobody expects a time stamp, or it is there and was checked."""
        return not self.stamp_expected if self.time_stamp is None else self.time_stamp.trusted

    @property
    def exit_code(self) -> int:
        """0, or 1 where it is as signed and still something was not looked at."""
        return int(not (self.key_named and self.complete and self.one_moment and self.stamp_ok))


def verify(
    directory: Path,
    key: PublicKey | None,
    on_progress: Callable[[int, int], None] = lambda _done, _total: None,
    stamp_roots: Sequence[Certificate] = (),
) -> Verified:
    """Check everything; ``key`` is the signer's, None: the one in the directory is taken.

    ``stamp_roots``: the certificates below which a time-stamping authority is trusted; without
    them a stamp is read, and is not ``trusted``.

    Raises:
        SettingsError: there is no such directory, or it has a stamp and the extra
            ``timestamps`` is not installed.
        EvidenceRefused: it is not what was signed; the sentence says what differs.
    """
    with opened_directory(directory) as files:
        try:
            return _verify(files, key, on_progress, stamp_roots)
        except _MALFORMED as error:
            raise refused(
                "evidence_form", f"The evidence is malformed: {type(error).__name__}: {error}"
            ) from error


def _verify(
    files: EvidenceFiles,
    key: PublicKey | None,
    on_progress: Callable[[int, int], None],
    stamp_roots: Sequence[Certificate],
) -> Verified:
    files.check_names()
    signer, checkpoint = _checkpoint(files, key)
    digests = _digests(files, checkpoint)
    predicate = _predicate(files, checkpoint, digests)
    authority = predicate.get("time_stamp_from")  # the first edition had no stamps
    stamp = _time_stamp(files, checkpoint, authority, stamp_roots)
    _check_leaves(files, checkpoint, lambda n: on_progress(n, checkpoint.size))
    expected = authority is not None or bool(stamp_roots)
    return Verified(checkpoint, signer, key is not None, predicate, stamp, expected)


def _time_stamp(
    files: EvidenceFiles,
    checkpoint: Checkpoint,
    authority: str | None,
    roots: Sequence[Certificate],
) -> Stamp | None:
    """What an authority says of the checkpoint; None: it was not asked, or gave nothing."""
    if not files.has(form.STAMP):
        return None
    if authority is None:
        raise refused(
            "evidence_file_extra",
            f"{form.STAMP} does not belong to the evidence: its manifest names no authority.",
        )
    require_library()
    request, response = files.read(form.STAMP_REQUEST), files.read(form.STAMP)
    note = files.read(form.CHECKPOINT)
    return check_stamp(request, response, note, checkpoint.made_at, roots)


def own_key(files: EvidenceFiles) -> PublicKey:
    """The key that came with the evidence."""
    try:
        return parse_public_key(files.read(form.KEY_PEM), form.KEY_PEM)
    except SettingsError as error:
        raise refused("evidence_form", error.message) from error


def _checkpoint(files: EvidenceFiles, key: PublicKey | None) -> tuple[PublicKey, Checkpoint]:
    """The signed text, with each of its three signatures checked."""
    own = own_key(files)
    if key is not None and own != key:
        raise refused(
            "evidence_other_key",
            f"The evidence is signed by {own.fingerprint}, not by the key that you named, "
            f"{key.fingerprint}.",
        )
    checkpoint, signature = parse_note(files.read(form.CHECKPOINT), own)
    text = checkpoint.text.encode()
    if files.read(form.TEXT) != text:
        raise refused(
            "evidence_signature", f"{form.TEXT} is not the text that the checkpoint signs."
        )
    if files.read(form.RAW_SIGNATURE) != signature:
        raise refused(
            "evidence_signature", f"{form.RAW_SIGNATURE} is not the signature of the checkpoint."
        )
    if not check_sshsig(own, files.read(form.SSH_SIGNATURE).decode(), text):
        raise refused(
            "evidence_signature", f"{form.SSH_SIGNATURE} is not a signature of the checkpoint."
        )
    signers = f'{form.SIGNER_NAME} namespaces="{NAMESPACE}" {own.ssh_line}\n'
    if files.read(form.SIGNERS) != signers.encode():
        raise refused(
            "evidence_other_key", f"{form.SIGNERS} does not name the key of {form.KEY_PEM}."
        )
    return own, checkpoint


def _digests(files: EvidenceFiles, checkpoint: Checkpoint) -> dict[str, tuple[str, int]]:
    """Hash and size of every file, having seen that they are those that were signed."""
    sums = files.read(form.SUMS)
    with ThreadPoolExecutor() as threads:  # hashing much data leaves the interpreter to others
        digests = dict(zip(form.SIGNED, threads.map(files.digest, form.SIGNED), strict=True))
    found = form.sums_text({name: digest for name, (digest, _) in digests.items()}).encode()
    if form.digest(sums) != checkpoint.files_digest:
        raise refused("evidence_file_changed", f"{form.SUMS} is not the one that was signed.")
    if sums != found:
        for line, signed in zip(found.splitlines(), sums.splitlines(), strict=False):
            if line != signed:
                name = line.decode().partition("  ")[2]
                raise refused(
                    "evidence_file_changed",
                    f"{name} was changed: its SHA-256 is not the one that was signed.",
                )
        raise refused("evidence_form", f"{form.SUMS} does not list the files of evidence.")
    return digests


def _predicate(
    files: EvidenceFiles, checkpoint: Checkpoint, digests: dict[str, tuple[str, int]]
) -> dict[str, Any]:
    """What the manifest says, which agrees with the checkpoint and the files."""
    manifest = json.loads(files.read(form.MANIFEST))
    predicate: dict[str, Any] = manifest["predicate"]
    if (manifest["_type"], manifest["predicateType"]) != (
        form.STATEMENT_TYPE,
        form.PREDICATE_TYPE,
    ):
        raise refused("evidence_form", f"{form.MANIFEST} is not a statement about evidence.")
    subjects = {one["name"]: one["digest"] for one in manifest["subject"]}
    stated = {name: {"sha256": digests[name][0]} for name in form.CONTENTS}
    sizes = {name: digests[name][1] for name in form.CONTENTS}
    if subjects != stated or predicate["sizes"] != sizes:
        raise refused("evidence_contradicts", f"{form.MANIFEST} describes other files.")
    tree = predicate["tree"]
    said = (predicate["run"], predicate["made_at"], tree["leaves"], tree["root"])
    root = base64.b64encode(checkpoint.root).decode()
    if said != (checkpoint.run, checkpoint.made_at, checkpoint.size, root):
        raise refused("evidence_contradicts", f"{form.MANIFEST} is of another run.")
    for name in ("complete", "one_moment"):
        if not isinstance(predicate[name], bool):
            raise refused("evidence_form", f"{form.MANIFEST} does not say whether it is {name}.")
    if not isinstance(predicate.get("time_stamp_from"), str | None):
        raise refused("evidence_form", f"{form.MANIFEST} does not say who was to stamp it.")
    if predicate["complete"] and any(predicate["not_read"].values()):
        errors = [p for p in predicate["not_read"]["problems"] if p["severity"] == "error"]
        if errors or predicate["not_read"]["databases"]:
            raise refused(
                "evidence_contradicts",
                f"{form.MANIFEST} lists what was not read and calls itself complete.",
            )
    return predicate


def _check_leaves(
    files: EvidenceFiles, checkpoint: Checkpoint, on_done: Callable[[int], None]
) -> None:
    """The lines are the leaves of the signed tree, and the table says the same."""
    done = 0
    with files.open(form.LEAVES) as whole, files.open(form.LEAVES) as file, hashing(whole) as tree:
        for rows, wanted in prefetched(_table_lines(files, checkpoint.size)):
            found = file.read(len(wanted))
            if len(found) < len(wanted) and bytes(wanted).startswith(found):
                break  # too few lines: their number says so below
            if not pa.py_buffer(found).equals(pa.py_buffer(wanted)):
                raise _differs(done, found, bytes(wanted))
            done += rows
            on_done(done)
        more = file.read(1)
        hashed = tree.result()
    if more:
        raise refused("evidence_records_differ", f"{form.RECORDS} has fewer records than leaves.")
    if hashed.size != checkpoint.size:
        raise refused(
            "evidence_tree",
            f"{checkpoint.size:,} leaves were signed; {form.LEAVES} has {hashed.size:,}.",
        )
    if hashed.root() != checkpoint.root:
        raise refused("evidence_tree", "The leaves do not give the root that was signed.")
    if files.read(form.BLOCKS) != hashed.blocks:
        raise refused("evidence_tree", f"{form.BLOCKS} does not belong to these leaves.")


def _differs(index: int, found: bytes, wanted: bytes) -> Exception:
    """``found`` is what stands where the leaves of the table's rows from ``index`` on belong."""
    pairs = zip(found.split(b"\n"), wanted.split(b"\n"), strict=False)
    place = next((at for at, (line, row) in enumerate(pairs) if line != row), 0)
    return refused(
        "evidence_records_differ",
        f"Row {index + place + 1:,} of {form.RECORDS} says something else than its leaf.",
    )


def _table_lines(files: EvidenceFiles, size: int) -> Iterator[tuple[int, memoryview]]:
    """Rows of the table: how many, and their leaves as lines."""
    wanted = in_utc(RECORDS.schema.append(pa.field(CONTENT_DIGEST, pa.string())))
    with files.open(form.RECORDS) as file:
        parquet = pq.ParquetFile(file, pre_buffer=False)
        if not parquet.schema_arrow.equals(wanted):
            raise refused("evidence_form", f"{form.RECORDS} has other columns than evidence.")
        if parquet.metadata.num_rows != size:
            raise refused(
                "evidence_records_differ",
                f"{form.RECORDS} has {parquet.metadata.num_rows:,} rows; {size:,} were signed.",
            )
        for number in range(parquet.metadata.num_row_groups):
            group = parquet.metadata.row_group(number)
            if group.num_rows > ROWS_IN_A_GROUP or group.total_byte_size > _LARGEST_GROUP:
                raise refused("evidence_too_large", f"{form.RECORDS} has too large a row group.")
        columns = [*LEAF_COLUMNS, "ipfs_data"]
        last = b""
        for batch in parquet.iter_batches(_ROWS_AT_ONCE, columns=columns):
            if not batch.column(CONTENT_DIGEST).equals(content_digests(batch.column("ipfs_data"))):
                raise refused(
                    "evidence_records_differ", f"A content in {form.RECORDS} is not the one signed."
                )
            last = ascending(batch.column("record_key"), last)
            yield len(batch), lines(batch)


def previous_of(directory: Path, key: PublicKey) -> Previous:
    """What new evidence says of the evidence before it: its checkpoint, signed by the same key.

    Raises:
        SettingsError: there is no such directory.
        EvidenceRefused: its checkpoint is not signed by this key.
    """
    with opened_directory(directory) as files:
        found, _ = parse_note(files.read(form.CHECKPOINT), key)
    root = base64.b64encode(found.root).decode()
    return Previous(found.origin, found.size, root, found.run, found.made_at, found.files_digest)
