"""The files of a directory of evidence: their names, limits and forms."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import BinaryIO, Final

from rubix_token_sync.errors import SettingsError
from rubix_token_sync.evidence.tree import BLOCK

__all__ = [
    "NAMES",
    "HashedFile",
    "block_offsets",
    "blocks_file",
    "digest",
    "sums_text",
    "unwritable",
]

RECORDS: Final = "records.parquet"
"""The records as a table, for queries."""
LEAVES: Final = "leaves.jsonl"
"""The same records as the bytes that are hashed, one line each."""
BLOCKS: Final = "tree.blocks"
"""Of each `tree.BLOCK` leaves: where their lines begin (8 bytes, big-endian), and their hash."""
FINDINGS: Final = "findings.jsonl"
GUIDE: Final = "VERIFY.md"
VERIFIER: Final = "verify.py"
KEY_PEM: Final = "key.pem"
SIGNERS: Final = "allowed_signers"
MANIFEST: Final = "manifest.json"
SUMS: Final = "SHA256SUMS"
CHECKPOINT: Final = "checkpoint"
TEXT: Final = "checkpoint.txt"
RAW_SIGNATURE: Final = "checkpoint.sig"
SSH_SIGNATURE: Final = "checkpoint.sshsig"
STAMP_REQUEST: Final = "checkpoint.tsq"
STAMP: Final = "checkpoint.tsr"

CONTENTS: Final = (RECORDS, LEAVES, BLOCKS, FINDINGS, GUIDE, VERIFIER, KEY_PEM, SIGNERS)
"""What the manifest lists."""
SIGNED: Final = (*CONTENTS, MANIFEST)
"""What SHA256SUMS lists, whose hash the checkpoint holds."""
NAMES: Final = (*SIGNED, SUMS, CHECKPOINT, TEXT, RAW_SIGNATURE, SSH_SIGNATURE)
"""Every file: no other may be there, and none may lack."""
STAMPS: Final = (STAMP_REQUEST, STAMP)
"""Only these may be there or not: evidence is stamped after it was signed."""

LONGEST_LINE: Final = 64 * 2**20
"""Bytes; no leaf is as long as that."""
BLOCK_BYTES: Final = 40
"""Of one entry in tree.blocks."""
STATEMENT_TYPE: Final = "https://in-toto.io/Statement/v1"
PREDICATE_TYPE: Final = "urn:rubix-token-sync:evidence:1"
SIGNER_NAME: Final = "evidence"
"""Of the line in ``allowed_signers``."""


def sums_text(digests: dict[str, str]) -> str:
    """SHA256SUMS, as `sha256sum` writes it."""
    return "".join(f"{digests[name]}  {name}\n" for name in SIGNED)


def digest(data: bytes) -> str:
    """SHA-256 in hexadecimal digits."""
    return sha256(data).hexdigest()


def blocks_file(offsets: Sequence[int], hashes: Sequence[bytes]) -> bytes:
    """tree.blocks: where the lines of each block begin, and its hash."""
    entries = zip(offsets, hashes, strict=True)
    return b"".join(offset.to_bytes(8, "big") + found for offset, found in entries)


def block_offsets(lines: Sequence[bytes], index: int, offset: int) -> list[int]:
    """Where those lines begin that are the first of a block.

    ``index`` and ``offset`` are those of the first line.
    """
    found, done = [], 0
    for at in range(-index % BLOCK, len(lines), BLOCK):
        offset += sum(map(len, lines[done:at])) + at - done
        done = at
        found.append(offset)
    return found


class HashedFile:
    """A new file, hashed while it is written; what pyarrow wants of a file is there.

    Raises:
        SettingsError: it cannot be written.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._hash = sha256()
        self.size = 0
        with self._ours():
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
            self._file: BinaryIO = os.fdopen(os.open(path, flags, 0o600), "wb", 1 << 20)

    @contextmanager
    def _ours(self) -> Iterator[None]:
        """A full disk is not the fault of the target that is being read."""
        try:
            yield
        except OSError as error:
            raise unwritable(self._path.parent, error) from error

    def write(self, data: bytes | memoryview) -> int:
        """Add bytes."""
        self._hash.update(data)
        self.size += len(data)
        with self._ours():
            return self._file.write(data)

    def tell(self) -> int:
        """Where the next bytes go."""
        return self.size

    def flush(self) -> None:
        """Nothing need be visible before the end."""

    @property
    def closed(self) -> bool:
        """Whether it is."""
        return self._file.closed

    def close(self) -> str:
        """Bring it to the disk; returns its hash in hexadecimal digits."""
        if not self._file.closed:
            with self._ours(), self._file:
                self._file.flush()
                os.fsync(self._file.fileno())
        return self._hash.hexdigest()


def unwritable(place: Path, error: OSError) -> SettingsError:
    """The error of evidence that cannot be written."""
    return SettingsError(
        f"The evidence {place} cannot be written: {error.strerror or error}.",
        code="evidence_unwritable",
        remedy="Choose another place, with room for about a kilobyte a record.",
    )
