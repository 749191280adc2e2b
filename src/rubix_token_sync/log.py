"""The log: lines for people or JSON objects, to stderr and, if asked, to a file.

A line for people is ``2025-01-15 10:30:00,123 INFO message``; times are UTC.  With
``json`` every line is an object: ``time`` (RFC 3339, UTC), ``level``, ``event``,
``message``, then what was bound (`bind`: session …) and what the event brought
(node, category …).  ``event`` is a stable word, ``message`` is for people.

`redact` replaces registered secrets in every line.  That is a second line of
defence: the first is that secrets are never logged.

Values from databases and file names may hold anything; control characters are
written as escapes, so that nobody can forge a line.
"""

from __future__ import annotations

import contextlib
import json
import logging
import re
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from logging.handlers import RotatingFileHandler
from typing import Any, Final, Literal, TextIO
from urllib.parse import quote, quote_plus

from rubix_token_sync.errors import SettingsError
from rubix_token_sync.text import shown

__all__ = [
    "LOGGER",
    "ProgressPace",
    "bind",
    "log_event",
    "log_to_file",
    "progress_line",
    "redact",
    "register_secrets",
    "set_up",
    "tear_down",
    "through",
]

LOGGER: Final = logging.getLogger("rubix_token_sync")
"""The root of this program's loggers; modules use children of it by their names."""

FILE_BYTES: Final = 50_000_000
FILES_KEPT: Final = 5
"""The log file is rotated at this size; so many old ones are kept."""

SHORTEST_SECRET: Final = 4
"""Shorter texts are not redacted: they would be found in every other word."""

_secrets: re.Pattern[str] | None = None
_known_secrets: set[str] = set()
_bound: dict[str, Any] = {}


# --- secrets -------------------------------------------------------------------


def register_secrets(secrets: Iterable[str]) -> None:
    """From now on these texts, and their usual encodings, appear as ``***`` in the log."""
    global _secrets
    for secret in secrets:
        if len(secret) >= SHORTEST_SECRET:
            _known_secrets.update(
                (
                    secret,
                    quote(secret),
                    quote(secret, safe=""),
                    quote_plus(secret),
                    json.dumps(secret)[1:-1],
                    json.dumps(secret, ensure_ascii=False)[1:-1],
                    repr(secret)[1:-1],
                    secret.replace("}", "}}"),  # inside {…} of connection strings
                )
            )
    # The longest first, so that no rest of it is left by a shorter one.
    ordered = sorted(_known_secrets, key=lambda text: (-len(text), text))
    _secrets = re.compile("|".join(map(re.escape, ordered))) if ordered else None


def redact(text: str) -> str:
    """``text`` with every registered secret replaced by ``***``."""
    return _secrets.sub("***", text) if _secrets else text


# --- events --------------------------------------------------------------------


def bind(**fields: Any) -> None:
    """Fields that every later line in JSON has; None takes one away."""
    for name, value in fields.items():
        if value is None:
            _bound.pop(name, None)
        else:
            _bound[name] = value


def log_event(
    logger: logging.Logger,
    level: int,
    event: str,
    message: str,
    /,
    *,
    exc_info: BaseException | None = None,
    **fields: Any,
) -> None:
    """Log ``message`` as ``event``, with ``fields`` of plain JSON values.

    Lines for people show the message only, so it must say what matters.
    """
    logger.log(
        level,
        "%s",
        message,
        exc_info=exc_info,
        stacklevel=2,
        extra={"rubix_event": event, "rubix_fields": fields},
    )


def log_to_file(
    event: str, message: str, /, *, exc_info: BaseException | None = None, **fields: Any
) -> None:
    """An error for the log file alone, where the console shows it in another form."""
    trace = (type(exc_info), exc_info, exc_info.__traceback__) if exc_info is not None else None
    record = LOGGER.makeRecord(
        LOGGER.name, logging.ERROR, "", 0, "%s", (message,), trace,
        extra={"rubix_event": event, "rubix_fields": fields},
    )  # fmt: skip
    for handler in _handlers:
        if isinstance(handler, _LogFile):
            handler.handle(record)


# --- forms ---------------------------------------------------------------------


class _TextFormatter(logging.Formatter):
    converter = staticmethod(time.gmtime)

    def format(self, record: logging.LogRecord) -> str:
        line = f"{self.formatTime(record)} {record.levelname} {shown(redact(record.getMessage()))}"
        code = getattr(record, "rubix_fields", {}).get("code")
        if code and record.levelno >= logging.WARNING:
            line += f" [{shown(code)}]"
        if record.exc_info:
            # Set apart, so that no line of it can look like one of ours.
            trace = redact(self.formatException(record.exc_info))
            line += "".join(f"\n  | {shown(part)}" for part in trace.splitlines())
        return line


class _JsonFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        entry: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC)
            .isoformat(timespec="milliseconds")
            .replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            "event": getattr(record, "rubix_event", "log"),
            "message": record.getMessage(),
        }
        fields: Mapping[str, Any] = getattr(record, "rubix_fields", {})
        for name, value in [*_bound.items(), *fields.items()]:
            entry.setdefault(name, value)
        entry["logger"] = record.name
        if record.exc_info:
            entry["exception"] = self.formatException(record.exc_info)
        # Redacted before JSON escapes anything; ASCII, so nothing can break a line.
        return json.dumps(_redacted(entry), default=str)


def _redacted(value: Any) -> Any:
    if isinstance(value, str):
        return redact(value)
    if isinstance(value, Mapping):
        return {redact(str(name)): _redacted(item) for name, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_redacted(item) for item in value]
    if value is None or isinstance(value, bool | int | float):
        return value
    return redact(str(value))


class _LogFile(RotatingFileHandler):
    """The log file.  A full disk costs lines of it, not the run, and is reported once."""

    _told = False

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - logging's name
        error = sys.exc_info()[1]
        if not isinstance(error, OSError):
            super().handleError(record)
        elif not self._told:
            self._told = True
            LOGGER.error(
                "The log file %s cannot be written: %s. Lines are missing in it.",
                self.baseFilename,
                error.strerror or error,
            )


# --- set-up --------------------------------------------------------------------

_handlers: list[logging.Handler] = []


def set_up(
    *,
    verbosity: Literal["quiet", "normal", "verbose"] = "normal",
    log_file: str | None = None,
    log_format: Literal["text", "json"] = "text",
    secrets: Iterable[str] = (),
    stream: TextIO | None = None,
) -> None:
    """Send the log to ``stream`` (stderr) and, rotated, to ``log_file``.

    ``quiet`` shows warnings and errors only, ``verbose`` debug lines as well; the
    file gets what ``normal`` shows, at least.  Other packages' warnings are shown,
    their chatter is not.  Calling it again replaces the former set-up.

    Raises:
        SettingsError: ``log_file`` cannot be written.
    """
    tear_down()
    register_secrets(secrets)
    formatter = _JsonFormatter() if log_format == "json" else _TextFormatter()
    level = {"quiet": logging.WARNING, "normal": logging.INFO, "verbose": logging.DEBUG}[verbosity]
    console: logging.Handler = logging.StreamHandler(stream or sys.stderr)
    console.setLevel(level)
    new = [console]
    if log_file is not None:
        try:
            file = _LogFile(log_file, maxBytes=FILE_BYTES, backupCount=FILES_KEPT, encoding="utf-8")
        except OSError as error:
            raise SettingsError(
                f"The log file {log_file} cannot be written: {error.strerror}.",
                code="log_file_unwritable",
                remedy="Choose another file by --log-file.",
                context={"path": log_file},
            ) from None
        file.setLevel(min(level, logging.INFO))
        new.append(file)
    root = logging.getLogger()
    for handler in new:
        handler.setFormatter(formatter)
        handler.addFilter(_worth_telling)
        root.addHandler(handler)
        _handlers.append(handler)
    LOGGER.setLevel(min(level, logging.INFO))
    logging.captureWarnings(True)


def _worth_telling(record: logging.LogRecord) -> bool:
    """False for what a pool tells, with a traceback, of a connection that it gives up.

    Whoever used the connection gets the error itself.
    """
    return not record.name.startswith("sqlalchemy.pool")


@contextlib.contextmanager
def through(stream: TextIO) -> Iterator[None]:
    """Meanwhile warnings and errors only are shown, on ``stream``: something draws there.

    The file of the log goes on as before.
    """
    consoles = [h for h in _handlers if type(h) is logging.StreamHandler]
    before = [(handler.setStream(stream), handler.level) for handler in consoles]
    for handler in consoles:
        handler.setLevel(max(handler.level, logging.WARNING))
    try:
        yield
    finally:
        for handler, (old, level) in zip(consoles, before, strict=True):
            handler.setLevel(level)
            if old is not None:
                handler.setStream(old)


def tear_down() -> None:
    """Undo `set_up`: close the file, detach from stderr, forget bound fields and secrets."""
    global _secrets
    root = logging.getLogger()
    for handler in _handlers:
        root.removeHandler(handler)
        handler.close()
    _handlers.clear()
    _bound.clear()
    _known_secrets.clear()
    _secrets = None
    LOGGER.setLevel(logging.NOTSET)
    logging.captureWarnings(False)


# --- progress ------------------------------------------------------------------


def progress_line(
    share: float, records: int, rate: float, ipfs_success: int, sql_errors: int
) -> str:
    """The guide's progress line; ``share`` is 0 to 1, ``rate`` records a second."""
    return (
        f"Progress: {share * 100:.1f}% | Records: {records:,} | Rate: {rate:,.1f}/sec"
        f" | IPFS Success: {ipfs_success:,} | SQL Errors: {sql_errors:,}"
    )


class ProgressPace:
    """Decides when a progress line is due: every 100 records, at most once a second.

    The first one is due at once.  Times are seconds of a monotonic clock.
    """

    def __init__(self, *, records: int = 100, seconds: float = 1.0) -> None:
        self._records = records
        self._seconds = seconds
        self._last: tuple[int, float] | None = None

    def due(self, records: int, now: float) -> bool:
        """Whether to write a line at ``records`` records and time ``now``."""
        if self._last is not None:
            last_records, last_time = self._last
            if records - last_records < self._records or now - last_time < self._seconds:
                return False
        self._last = (records, now)
        return True
