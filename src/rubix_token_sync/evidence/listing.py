"""Directories of evidence at a glance: signature and manifest, not every record."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from rubix_token_sync.errors import SyncError
from rubix_token_sync.evidence import form
from rubix_token_sync.evidence.directory import EvidenceFiles, opened_directory, refused
from rubix_token_sync.evidence.notes import Checkpoint, parse_note
from rubix_token_sync.evidence.verify import own_key

__all__ = ["EvidenceGlance", "glance", "glances", "signed_predicate"]

_MOST: Final = 200


@dataclass(frozen=True)
class EvidenceGlance:
    """What a directory of evidence says of itself, by the key that came with it.

    The signature of its checkpoint was checked, and that the manifest is the signed one; its
    records were not: `verify_evidence` does that.
    """

    directory: str
    checkpoint: Checkpoint | None = None
    """None: it could not be read; ``problem`` says why."""
    key: str | None = None
    """The fingerprint of the key that came with it."""
    complete: bool | None = None
    one_moment: bool | None = None
    counts: dict[str, Any] = field(default_factory=dict)
    findings: dict[str, int] = field(default_factory=dict)
    """By state."""
    time_stamp_from: str | None = None
    """The authority that was asked for a time stamp."""
    stamped: bool = False
    """A time stamp is there; it was not checked."""
    problem: str | None = None
    code: str | None = None


def glances(places: Iterable[Path]) -> list[EvidenceGlance]:
    """Of each of these directories, or of those in it; the newest first, at most two hundred."""
    found: list[Path] = []
    for place in places:
        if (place / form.CHECKPOINT).is_file():
            found.append(place)
            continue
        try:
            inside = sorted(entry.path for entry in os.scandir(place) if entry.is_dir())
        except OSError:
            found.append(place)  # says why it cannot be read
            continue
        found += [Path(path) for path in inside if (Path(path) / form.CHECKPOINT).exists()]
    rows = [glance(path) for path in found[-_MOST:]]
    return sorted(
        rows, key=lambda row: row.checkpoint.made_at if row.checkpoint else "", reverse=True
    )


def glance(directory: Path) -> EvidenceGlance:
    """One directory; what is wrong with it stands in ``problem``."""
    try:
        with opened_directory(directory) as files:
            key = own_key(files)
            checkpoint, _ = parse_note(files.read(form.CHECKPOINT), key)
            told = signed_predicate(files, checkpoint)
            return EvidenceGlance(
                str(directory),
                checkpoint,
                key.fingerprint,
                bool(told["complete"]),
                bool(told["one_moment"]),
                dict(told["counts"]),
                {str(state): int(number) for state, number in told["findings"].items()},
                told.get("time_stamp_from"),
                files.has(form.STAMP),
            )
    except SyncError as error:
        return EvidenceGlance(str(directory), problem=error.message, code=error.code)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return EvidenceGlance(
            str(directory), problem="Its manifest is malformed.", code="evidence_form"
        )


def signed_predicate(files: EvidenceFiles, checkpoint: Checkpoint) -> dict[str, Any]:
    """What the manifest says, which is the one that the checkpoint signs.

    Raises:
        EvidenceRefused: it was changed, or is not a manifest.
    """
    sums = files.read(form.SUMS)
    if form.digest(sums) != checkpoint.files_digest:
        raise refused("evidence_file_changed", f"{form.SUMS} is not what was signed.")
    manifest = files.read(form.MANIFEST)
    if f"{form.digest(manifest)}  {form.MANIFEST}\n".encode() not in sums:
        raise refused("evidence_file_changed", f"{form.MANIFEST} is not what was signed.")
    try:
        return dict(json.loads(manifest)["predicate"])
    except (ValueError, KeyError, TypeError, RecursionError):
        raise refused("evidence_form", "Its manifest is malformed.") from None
