"""The log and the errors of a program that uses the library, as the command line does."""

from __future__ import annotations

import traceback
from dataclasses import dataclass
from typing import Literal, TextIO

from rubix_token_sync import log
from rubix_token_sync.errors import Category, SyncError
from rubix_token_sync.installation import NAME, runnable
from rubix_token_sync.nodes.keep_out import keep_out
from rubix_token_sync.os_errors import refusal
from rubix_token_sync.settings import Settings
from rubix_token_sync.text import shown

__all__ = ["Failure", "explain_failure", "start_log"]


@dataclass(frozen=True)
class Failure:
    """What went wrong: code, sentence, cure; no secrets, no control characters."""

    exit_code: int
    code: str
    category: Category
    message: str
    remedy: str
    trace: str
    """For a person who looks for a fault of the program."""


def start_log(
    settings: Settings,
    *,
    verbosity: Literal["quiet", "normal", "verbose"] = "normal",
    stream: TextIO | None = None,
) -> None:
    """Send the log to ``stream`` (stderr) and to the file that the settings name.

    A program with a log of its own does not call this: loggers below
    ``rubix_token_sync`` are `logging`'s.

    Raises:
        SettingsError: the file cannot be written, or would be inside a node's directory.
    """
    if settings.log_file is not None:
        keep_out(settings.log_file, "The log", "stream")
    log.set_up(
        verbosity=verbosity,
        log_file=settings.log_file,
        log_format=settings.log_format,
        secrets=settings.secrets(),
        stream=stream,
    )


def explain_failure(error: Exception) -> Failure:
    """An error for people, also written to the log's file."""
    known = error if isinstance(error, SyncError) else refusal(error)
    if known is None:
        known = SyncError(
            f"Unexpected: {type(error).__name__}: {error}",
            code="unexpected",
            remedy="This is a bug; please report it with the output of --verbose.",
        )
    log.log_to_file(
        "command_failed",
        str(known),
        exc_info=error if known.code == "unexpected" else None,
        code=known.code,
        category=known.category,
        exit_code=known.exit_code,
    )
    cure = known.remedy or f"`{NAME} explain {known.code}` says more."  # always the three
    trace = "".join(traceback.format_exception(error))
    return Failure(
        exit_code=known.exit_code,
        code=known.code,
        category=known.category,
        message=shown(log.redact(known.message)),
        remedy=shown(log.redact(runnable(cure))),
        trace="\n".join(shown(line) for line in log.redact(trace).splitlines()),
    )
