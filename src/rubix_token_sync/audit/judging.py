"""A run's judge: its tables are built or found once, in the main process, and mapped by workers.

Loads nothing of size itself: a night in which nothing changed judges nothing.
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from rubix_token_sync.errors import TokenTableError

if TYPE_CHECKING:
    import pyarrow as pa

    from rubix_token_sync.audit.judge import Judge
    from rubix_token_sync.audit.token_numbers import Progress

__all__ = ["JudgeFiles", "JudgeOptions", "SyncJudge", "judge_for_sync", "prepare_judge"]

_LOG: Final = logging.getLogger(__name__)


@dataclass(frozen=True)
class JudgeOptions:
    """Where tables of token numbers are kept, and whose limits decide (None: all must agree)."""

    directory: str
    source: str | None = None


@dataclass(frozen=True)
class JudgeFiles:
    """The tables of a judge as files; crosses process borders."""

    numbers: str
    ids: str | None
    """Only contents are judged where it is None."""
    source: str | None

    def open_for_sync(self) -> SyncJudge:
        """A judge for a worker."""
        return SyncJudge(self)

    def discard(self) -> None:
        """Remove the files, so that the next run builds them anew."""
        for path in (self.numbers, self.ids):
            if path is not None:
                with contextlib.suppress(OSError):
                    os.unlink(path)

    def open(self) -> Judge:
        """A judge for this process.

        Raises:
            TokenTableError: a table is not what was written.
            OSError: it cannot be read.
        """
        from rubix_token_sync.audit.authenticity import Ruling
        from rubix_token_sync.audit.judge import Judge
        from rubix_token_sync.audit.limits import package_limits
        from rubix_token_sync.audit.token_numbers import TokenTable, ids_spec, numbers_spec

        limits = package_limits()
        ids = None if self.ids is None else TokenTable(self.ids, ids_spec(limits))
        numbers = TokenTable(self.numbers, numbers_spec(limits))
        return Judge(Ruling(limits, self.source), numbers, ids)


class SyncJudge:
    """The judge of a run that does without verdicts where a table turns out to be damaged."""

    def __init__(self, files: JudgeFiles) -> None:
        self._files = files
        self._judge: Judge | None = None
        self.given_up = False
        """A table is damaged, or memory for it ran out."""

    @property
    def decodes_ids(self) -> bool:
        """Tokens without content can be judged."""
        return self._files.ids is not None

    def judge(
        self, ids: Sequence[str | None], contents: Sequence[bytes | None], kinds: Sequence[str]
    ) -> pa.RecordBatch | None:
        """See `Judge.judge`; None once there is no table to judge by."""
        if self.given_up:
            return None
        try:
            if self._judge is None:
                self._judge = self._files.open()
            return self._judge.judge(ids, contents, kinds)
        except (TokenTableError, OSError) as error:
            _LOG.warning("Tokens are not judged any more; the next audit does it. %s", error)
            self.given_up, self._judge = True, None
            if isinstance(error, TokenTableError):  # not where there is only no memory for it
                self._files.discard()
            return None


def prepare_judge(
    options: JudgeOptions, *, ids: bool, build: bool = True, progress: Progress | None = None
) -> JudgeFiles:
    """The tables, built where they are not there yet.

    Args:
        options: where, and whose limits.
        ids: build the table of ids as well (12 s of a processor, once); else it is used where
            an audit has built it.
        build: build the table of numbers; else it has to be there.
        progress: told about a build.

    Raises:
        FileNotFoundError: it is not there, and is not to be built.
        TokenTableError: the directory or the disk refuses.
        ValueError: the source is not one of the limits'.
    """
    from rubix_token_sync.audit.authenticity import Ruling
    from rubix_token_sync.audit.limits import package_limits
    from rubix_token_sync.audit.table_files import open_or_build
    from rubix_token_sync.audit.token_numbers import TokenTable, ids_spec, numbers_spec

    limits = package_limits()
    Ruling(limits, options.source)
    there = os.path.join(options.directory, numbers_spec(limits).file_name)
    if not build and not os.path.exists(there):
        raise FileNotFoundError(there)
    numbers = open_or_build(
        options.directory, numbers_spec(limits), progress=progress, verify=False
    )
    spec = ids_spec(limits)
    if ids:
        found = open_or_build(options.directory, spec, progress=progress, verify=False)
        return JudgeFiles(numbers.path, found.path, options.source)
    there = os.path.join(options.directory, spec.file_name)
    try:
        TokenTable(there, spec)
    except (OSError, TokenTableError):
        return JudgeFiles(numbers.path, None, options.source)
    return JudgeFiles(numbers.path, there, options.source)


def judge_for_sync(options: JudgeOptions | None, *, build: bool = True) -> JudgeFiles | None:
    """`prepare_judge` for a run that does without verdicts where there are no tables.

    ``build``: make the table of numbers where it is not there yet (4 s of a processor, once);
    for a few tokens that is not worth it, and the next audit judges them.
    """
    if options is None:
        return None
    try:
        return prepare_judge(options, ids=False, build=build)
    except FileNotFoundError:
        return None
    except TokenTableError as error:
        _LOG.warning("Tokens are not judged in this run; the next audit does it. %s", error)
        return None
