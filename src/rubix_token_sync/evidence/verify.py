"""Is a directory of evidence what its signer signed?  Every file, every leaf, every record."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq

from rubix_token_sync.errors import SettingsError
from rubix_token_sync.evidence import form
from rubix_token_sync.evidence.directory import EvidenceFiles, opened_directory, refused
from rubix_token_sync.evidence.keys import NAMESPACE, PublicKey, check_sshsig, parse_public_key
from rubix_token_sync.evidence.leaves import CONTENT_DIGEST, LEAF_COLUMNS, content_digests, leaves
from rubix_token_sync.evidence.manifest import Previous
from rubix_token_sync.evidence.notes import Checkpoint, parse_note
from rubix_token_sync.evidence.prefetch import prefetched
from rubix_token_sync.evidence.tree import BlockTree
from rubix_token_sync.export.parquet import ROWS_IN_A_GROUP, in_utc
from rubix_token_sync.records.schema import RECORDS

__all__ = ["Verified", "lines_of", "own_key", "previous_of", "verify"]

_MALFORMED: Final = (
    ValueError, KeyError, TypeError, AttributeError, RecursionError, pa.ArrowException,
)  # fmt: skip
"""What parsers and look-ups raise of a document that is not what it should be."""
_CHUNK: Final = 4 * 2**20
_LONGEST_LINE: Final = 64 * 2**20
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

    @property
    def complete(self) -> bool:
        """Every database had been read, and nothing was wrong with what was."""
        return bool(self.predicate["complete"])

    @property
    def one_moment(self) -> bool:
        """All of it is what the target held in one moment."""
        return bool(self.predicate["one_moment"])

    @property
    def exit_code(self) -> int:
        """0, or 1 where it is as signed and still something was not looked at."""
        return 0 if self.key_named and self.complete and self.one_moment else 1


def verify(
    directory: Path,
    key: PublicKey | None,
    on_progress: Callable[[int, int], None] = lambda _done, _total: None,
) -> Verified:
    """Check everything; ``key`` is the signer's, None: the one in the directory is taken.

    Raises:
        SettingsError: there is no such directory.
        EvidenceRefused: it is not what was signed; the sentence says what differs.
    """
    with opened_directory(directory) as files:
        try:
            return _verify(files, key, on_progress)
        except _MALFORMED as error:
            raise refused(
                "evidence_form", f"The evidence is malformed: {type(error).__name__}: {error}"
            ) from error


def _verify(
    files: EvidenceFiles, key: PublicKey | None, on_progress: Callable[[int, int], None]
) -> Verified:
    files.check_names()
    signer, checkpoint = _checkpoint(files, key)
    digests = _digests(files, checkpoint)
    predicate = _predicate(files, checkpoint, digests)
    _check_leaves(files, checkpoint, lambda n: on_progress(n, checkpoint.size))
    return Verified(checkpoint, signer, key is not None, predicate)


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
    if predicate["complete"] and any(predicate["not_read"].values()):
        errors = [p for p in predicate["not_read"]["problems"] if p["severity"] == "error"]
        if errors or predicate["not_read"]["databases"]:
            raise refused(
                "evidence_contradicts",
                f"{form.MANIFEST} lists what was not read and calls itself complete.",
            )
    return predicate


def lines_of(files: EvidenceFiles) -> Iterator[list[bytes]]:
    """The leaves, by the chunk.

    Raises:
        EvidenceRefused: a line is longer than any leaf, or the last one does not end.
    """
    rest = b""
    with files.open(form.LEAVES) as file:
        while chunk := file.read(_CHUNK):
            lines = (rest + chunk).split(b"\n")
            rest = lines.pop()
            if len(rest) > _LONGEST_LINE:
                raise refused("evidence_too_large", f"{form.LEAVES} has a line without an end.")
            if lines:
                yield lines
    if rest:
        raise refused("evidence_form", f"{form.LEAVES} ends in the middle of a line.")


def _check_leaves(
    files: EvidenceFiles, checkpoint: Checkpoint, on_done: Callable[[int], None]
) -> None:
    """The lines are the leaves of the signed tree, and the table says the same."""
    tree, offset = BlockTree(), 0
    offsets: list[int] = []
    table = prefetched(_table_leaves(files, checkpoint.size))
    ready: list[bytes] = []
    for lines in lines_of(files):
        offsets += form.block_offsets(lines, tree.size, offset)
        offset += sum(map(len, lines)) + len(lines)
        tree.extend(lines)
        while len(ready) < len(lines) and (more := next(table, None)) is not None:
            ready += more
        if ready[: len(lines)] != lines:
            raise _differs(tree.size - len(lines), lines, ready)
        del ready[: len(lines)]
        on_done(tree.size)
    if tree.size != checkpoint.size:
        raise refused(
            "evidence_tree",
            f"{checkpoint.size:,} leaves were signed; {form.LEAVES} has {tree.size:,}.",
        )
    if tree.root() != checkpoint.root:
        raise refused("evidence_tree", "The leaves do not give the root that was signed.")
    if ready or next(table, None) is not None:
        raise refused("evidence_records_differ", f"{form.RECORDS} has more records than leaves.")
    if files.read(form.BLOCKS) != form.blocks_file(offsets, tree.all_blocks()):
        raise refused("evidence_tree", f"{form.BLOCKS} does not belong to these leaves.")


def _differs(index: int, lines: list[bytes], table: list[bytes]) -> Exception:
    for place, (line, row) in enumerate(zip(lines, table, strict=False)):
        if line != row:
            return refused(
                "evidence_records_differ",
                f"Row {index + place + 1:,} of {form.RECORDS} says something else than its leaf.",
            )
    return refused("evidence_records_differ", f"{form.RECORDS} has fewer records than leaves.")


def _table_leaves(files: EvidenceFiles, size: int) -> Iterator[list[bytes]]:
    """The leaves that the rows of the table would have."""
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
            last = form.ascending(batch.column("record_key").to_pylist(), last)
            yield leaves(batch).cast(pa.binary()).to_pylist()


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
