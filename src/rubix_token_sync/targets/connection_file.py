"""Files that hold a target's connection string: the way to keep passwords off command lines.

Such a file may hold any target (a URL, an ADO.NET or an ODBC string).  Lines
that start with ``#`` are comments; a string may be spread over several lines.
"""

from __future__ import annotations

import errno
import os
import re
import stat
from dataclasses import dataclass
from importlib import resources
from typing import Final

from pydantic import SecretStr

from rubix_token_sync.errors import SettingsError

__all__ = [
    "TargetFile",
    "connection_template",
    "read_target_file",
]

_MAX_BYTES: Final = 65_536


@dataclass(frozen=True, slots=True)
class TargetFile:
    """What a target file says.  ``warnings`` are sentences to be shown loudly."""

    path: str
    text: SecretStr
    warnings: tuple[str, ...] = ()


def connection_template() -> str:
    """The guide's template of a connection file, with comments."""
    template = resources.files("rubix_token_sync.targets") / "azure_sql_connection_template.txt"
    return template.read_text("utf-8")


def read_target_file(path: str | os.PathLike[str], *, allow_insecure: bool = False) -> TargetFile:
    """Read a file with a connection string.

    A file that anybody but its owner may read or write is refused on POSIX
    systems, unless ``allow_insecure``, which turns the refusal into a warning.

    Raises:
        SettingsError: code ``target_file_missing``, ``target_file_unreadable``,
            ``target_file_insecure`` or ``target_file_content``.
    """
    name = os.fspath(path)
    data, status = _read(name)
    warnings: tuple[str, ...] = ()
    exposed = status.st_mode & 0o077 if os.name == "posix" else 0
    if exposed:
        sentence = (
            f"The connection file {name} can be read or changed by others than its owner "
            f"(its mode is {stat.S_IMODE(status.st_mode):o})."
        )
        if not allow_insecure:
            raise SettingsError(
                sentence, code="target_file_insecure", remedy=f"Run: chmod 600 '{name}'"
            )
        warnings = (sentence + " It is used all the same, as asked for.",)
    text = _joined(_decoded(data, name))
    if not text:
        raise SettingsError(
            f"The connection file {name} holds no connection string.",
            code="target_file_content",
            remedy="Put the connection string of your database into it, on one line.",
        )
    return TargetFile(name, SecretStr(text), warnings)


def _read(name: str) -> tuple[bytes, os.stat_result]:
    try:
        # O_NONBLOCK: a FIFO put in the file's place must not hang us.
        fd = os.open(name, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    except OSError as error:
        missing = error.errno in (errno.ENOENT, errno.ENOTDIR)
        raise SettingsError(
            f"The connection file {name} "
            + ("does not exist." if missing else f"cannot be opened: {error.strerror}."),
            code="target_file_missing" if missing else "target_file_unreadable",
            remedy="'rubix-token-sync init' writes a template of it."
            if missing
            else "Run as the user that owns it, or make it readable for this one.",
        ) from None
    try:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            raise SettingsError(
                f"The connection file {name} is not a regular file.",
                code="target_file_unreadable",
                remedy="Name a file that holds the connection string.",
            )
        try:
            data = os.read(fd, _MAX_BYTES + 1)
        except OSError as error:
            raise SettingsError(
                f"The connection file {name} cannot be read: {error.strerror}.",
                code="target_file_unreadable",
                remedy="Check the disk that it lies on.",
            ) from None
    finally:
        os.close(fd)
    return data, status


def _decoded(data: bytes, name: str) -> str:
    if len(data) <= _MAX_BYTES:
        encoding = "utf-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
        try:
            return data.decode(encoding)
        except UnicodeDecodeError:
            pass  # reported below, without the bytes, which can be a password's
    raise SettingsError(
        f"The connection file {name} is not a text file with a connection string.",
        code="target_file_content",
        remedy="Save it as UTF-8 text that holds nothing but the connection string.",
    )


def _joined(text: str) -> str:
    """The lines that say something, as one line."""
    lines = [line.strip() for line in re.split(r"[\r\n]+", text)]
    lines = [line for line in lines if line and not line.startswith("#")]
    return "".join(
        line if line.endswith(";") or number == len(lines) else line + ";"
        for number, line in enumerate(lines, 1)
    )
