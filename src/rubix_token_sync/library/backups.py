"""A copy of an embedded target, made while others read and write it, and the way back."""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Unpack

from rubix_token_sync.errors import LeaseHeld, SettingsError, SyncError, TargetError, TargetRefused
from rubix_token_sync.library.configuration import CallSettings, PathName, configured
from rubix_token_sync.library.reader import open_target
from rubix_token_sync.nodes.keep_out import keep_out

__all__ = ["BackupResult", "RestoreResult", "back_up", "restore"]

_BESIDE: Final = ("", "-wal", "-shm", "-journal")
"""A database and what SQLite keeps beside it, by the ends of their names."""


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
    copy.  ``file`` appears when it is whole.  `restore` is the way back.

    Raises:
        SettingsError: ``file`` exists and ``replace`` is False (``backup_exists``), it would
            lie in a node's directory or replace a target (``backup_over_target``), or its
            directory cannot be written.
        TargetError: the target cannot be read, or it is not one file (``not_one_file``).
        SyncError: the copy is damaged (``backup_damaged``).
    """
    path = Path(file).absolute()
    keep_out(path, "The backup")
    if os.path.exists(path) and not replace:
        raise SettingsError(
            f"{path} exists.",
            code="backup_exists",
            remedy="Name another file, or replace it by --force.",
        )
    with open_target(**settings) as reader:
        if reader.identity() == f"sqlite:///{path.resolve()}" or os.path.exists(f"{path}-wal"):
            raise SettingsError(
                f"{path} is a target that is in use.",
                code="backup_over_target",
                remedy="Name another file: a backup never replaces what a run writes into.",
            )
        if os.path.exists(path) and not os.path.isfile(path):
            raise SettingsError(
                f"{path} is not a file: a backup cannot replace it.",
                code="place_taken",
                remedy="Choose another name.",
            )
        try:
            # Not named after `path`, whose name may be as long as it can be.  Mode 600.
            fd, name = tempfile.mkstemp(prefix=".backup-", dir=path.parent)
        except OSError as error:
            raise _unwritable(path, error) from error
        partial = Path(name)
        try:
            reader.copy_into(partial)
            records = _checked(
                partial,
                "The copy is damaged, and was removed",
                "The target itself is damaged, or the disk is: run `PRAGMA integrity_check` "
                "on the target, and restore an older backup if it finds faults.",
            )
            os.fsync(fd)
            size = partial.stat().st_size
            try:
                partial.replace(path)
            except OSError as error:
                raise _unwritable(path, error) from error
        finally:
            os.close(fd)
            partial.unlink(missing_ok=True)
    return BackupResult(path, size, records)


@dataclass(frozen=True)
class RestoreResult:
    """What `restore` did."""

    file: Path
    """The target."""
    records: int
    """Rows of TokenRecords, vanished ones included."""
    kept: Path | None
    """Where the target's file of before is now; None: there was none."""


def restore(file: PathName, /, **settings: Unpack[CallSettings]) -> RestoreResult:
    """Put a copy of the backup ``file`` where the embedded target is, or was.

    What is there is not removed: it is renamed, with what SQLite keeps beside it (an old
    write-ahead log beside a restored database would damage it).  The next `sync` of each
    machine brings in what changed since the backup.

    Raises:
        SettingsError: ``file`` is the target itself (``backup_over_target``).
        LeaseHeld: a run writes into the target (``restore_while_running``).
        TargetError: the target is not one file (``not_one_file``).
        SyncError: the backup is not a whole target (``backup_damaged``), or the target's
            directory cannot be written.
    """
    configuration = configured(**settings)
    if configuration.target.file is None:
        raise TargetRefused(
            "The target is a server, which restores backups of its own.",
            code="not_one_file",
            remedy="Restore it with the server's own tools.",
        )
    backup, target = Path(file).absolute(), Path(configuration.target.file).resolve()
    keep_out(target, "The target")
    if backup.resolve() == target:
        raise SettingsError(
            f"{backup} is the target itself.",
            code="backup_over_target",
            remedy="Name the backup to restore.",
        )
    records = _checked(
        backup, f"{backup} is not a whole backup", "Restore another one; nothing was changed."
    )
    if target.exists():
        _refuse_while_running(**settings)
    kept = None
    try:
        fd, name = tempfile.mkstemp(prefix=f".{target.name}-", dir=target.parent)  # mode 600
        os.close(fd)
        partial = Path(name)
        try:
            shutil.copyfile(backup, partial)
            with partial.open("rb") as written:
                os.fsync(written.fileno())
            kept = _moved_away(target)
            partial.replace(target)
        finally:
            partial.unlink(missing_ok=True)
    except OSError as error:
        raise SettingsError(
            f"{target} cannot be restored: {error.strerror}.",
            code="directory_unwritable",
            remedy="Run as the user that owns the target, with room for a second copy of it.",
        ) from error
    return RestoreResult(target, records, kept)


def _refuse_while_running(**settings: Unpack[CallSettings]) -> None:
    try:
        with open_target(**settings) as reader:
            running = [run for run in reader.status().running if not run.stuck]
    except TargetError:  # damaged: that is what a backup is for
        return
    if running:
        raise LeaseHeld(
            f"A run of {running[0].source_ip} writes into the target.",
            code="restore_while_running",
            remedy="Stop it, or wait for its end; a dead run loses its lease by itself.",
        )


def _moved_away(target: Path) -> Path | None:
    """Give the files of a target another name, which is free."""
    if not any(target.with_name(f"{target.name}{end}").exists() for end in _BESIDE):
        return None
    number = 1
    while any(target.with_name(f"{target.name}.before-{number}{end}").exists() for end in _BESIDE):
        number += 1
    kept = target.with_name(f"{target.name}.before-{number}")
    for end in _BESIDE:
        with contextlib.suppress(FileNotFoundError):
            target.with_name(f"{target.name}{end}").rename(f"{kept}{end}")
    return kept


def _unwritable(path: Path, error: OSError) -> SettingsError:
    return SettingsError(
        f"{path} cannot be written: {error.strerror}.",
        code="directory_unwritable",
        remedy="Name another directory.",
    )


def _checked(copy: Path, says: str, remedy: str) -> int:
    """The number of records in a copy whose every page was looked at."""
    try:
        with contextlib.closing(sqlite3.connect(f"{copy.as_uri()}?mode=ro", uri=True)) as conn:
            (found,) = conn.execute("PRAGMA quick_check(1)").fetchone()
            (records,) = conn.execute("SELECT count(*) FROM TokenRecords").fetchone()
    except sqlite3.Error as error:
        found, records = str(error), 0
    if found != "ok":
        raise SyncError(f"{says}: {found}", code="backup_damaged", remedy=remedy)
    return int(records)
