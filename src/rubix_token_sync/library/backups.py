"""A copy of an embedded target, made while others read and write it."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Unpack

from rubix_token_sync.errors import SettingsError, SyncError
from rubix_token_sync.library.configuration import CallSettings, PathName
from rubix_token_sync.library.reader import open_target
from rubix_token_sync.nodes.keep_out import keep_out

__all__ = ["BackupResult", "back_up"]


@dataclass(frozen=True)
class BackupResult:
    """What `back_up` made."""

    file: Path
    bytes: int
    records: int
    """Rows of TokenRecords in the copy, vanished ones included; counted in the copy."""


def back_up(
    file: PathName, /, *, replace: bool = False, **settings: Unpack[CallSettings]
) -> BackupResult:
    """Copy an embedded target, as of one moment, into ``file`` (mode 600), and check the copy.

    A run may write meanwhile: it does not wait, and what it commits later is not in the
    copy.  ``file`` appears when it is whole; to restore, put it where the target was, while
    nothing runs.

    Raises:
        SettingsError: ``file`` exists and ``replace`` is False (``backup_exists``), it would
            lie in a node's directory or replace a target (``backup_over_target``), or its
            directory cannot be written.
        TargetError: the target cannot be read, or it is not one file (``not_one_file``).
        SyncError: the copy is damaged (``backup_damaged``).
    """
    path = Path(file).absolute()
    keep_out(path, "The backup")
    if path.exists() and not replace:
        raise SettingsError(
            f"{path} exists.",
            code="backup_exists",
            remedy="Name another file, or replace it by --force.",
        )
    with open_target(**settings) as reader:
        if reader.identity() == f"sqlite:///{path.resolve()}" or Path(f"{path}-wal").exists():
            raise SettingsError(
                f"{path} is a target that is in use.",
                code="backup_over_target",
                remedy="Name another file: a backup never replaces what a run writes into.",
            )
        try:
            fd, name = tempfile.mkstemp(prefix=f".{path.name}-", dir=path.parent)  # mode 600
        except OSError as error:
            raise SettingsError(
                f"{path} cannot be written: {error.strerror}.",
                code="directory_unwritable",
                remedy="Name another directory.",
            ) from error
        partial = Path(name)
        try:
            reader.copy_into(partial)
            records = _checked(partial)
            os.fsync(fd)
            size = partial.stat().st_size
            partial.replace(path)
        finally:
            os.close(fd)
            partial.unlink(missing_ok=True)
    return BackupResult(path, size, records)


def _checked(copy: Path) -> int:
    """The number of records in a copy whose every page was looked at."""
    try:
        with contextlib.closing(sqlite3.connect(f"{copy.as_uri()}?mode=ro", uri=True)) as conn:
            (found,) = conn.execute("PRAGMA quick_check(1)").fetchone()
            (records,) = conn.execute("SELECT count(*) FROM TokenRecords").fetchone()
    except sqlite3.Error as error:
        found, records = str(error), 0
    if found != "ok":
        raise SyncError(
            f"The copy is damaged, and was removed: {found}",
            code="backup_damaged",
            remedy="The target itself is damaged, or the disk is: run `PRAGMA integrity_check` "
            "on the target, and restore an older backup if it finds faults.",
        )
    return int(records)
