"""How the page is served, and what is refused because it would be open to anybody."""

from __future__ import annotations

import ipaddress
import os
import re
import stat
from dataclasses import dataclass, field, replace
from typing import Final

import rubix_token_sync as rts
from rubix_token_sync.installation import extra_command

__all__ = ["ServeOptions", "extra_missing", "is_loopback", "network", "read_token"]

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

_SHORTEST_TOKEN: Final = 16
_LONGEST_TOKEN: Final = 512
_ROOT: Final = re.compile(r"(?:/[A-Za-z0-9._~-]+)*")
_HEADER: Final = re.compile(r"[A-Za-z][A-Za-z0-9-]{0,63}")
_NAME: Final = re.compile(r"[A-Za-z0-9.:\[\]_-]{1,255}")


@dataclass(frozen=True)
class ServeOptions:
    """Where the page is served, and to whom.

    Without a token and without trusted proxies it is open to every user of this machine, and is
    served on a loopback address only.
    """

    host: str = "127.0.0.1"
    port: int = 8765
    """0: any that is free."""
    token: str | None = field(default=None, repr=False)
    """What viewers log in with."""
    trusted_proxies: tuple[Network, ...] = ()
    """Addresses whose headers are believed: who the user is, and how they reached the proxy."""
    user_header: str = "X-Forwarded-User"
    """The header in which a trusted proxy names the user it has let in."""
    names: tuple[str, ...] = ()
    """Names by which the page may be called besides ``localhost`` and addresses of loopback."""
    root_path: str = ""
    """The path below which a proxy serves it, such as ``/tokens``."""
    evidence: tuple[str, ...] = ()
    """Directories of evidence, or of such directories."""
    reports: tuple[str, ...] = ()
    """Directories of reports of runs."""
    read_only: bool = False
    """Nothing can be decided about findings."""

    def with_reports(self, place: str) -> ServeOptions:
        """The same, with a directory of reports."""
        return replace(self, reports=(*self.reports, place))

    def check(self) -> None:
        """
        Raises:
            SettingsError: it would be open to anybody, or a value is not allowed.
        """
        if not self.token and not self.trusted_proxies and not is_loopback(self.host):
            raise rts.SettingsError(
                f"Serving on {self.host} would show every token to whoever can reach this machine.",
                code="web_exposed",
                remedy="Name a file with a login token by --token-file, or the address of a proxy "
                "that knows its users by --trusted-proxy; or serve on 127.0.0.1.",
            )
        if self.root_path and not _ROOT.fullmatch(self.root_path):
            raise _bad(f"{self.root_path!r} is not a path such as /tokens.", "--root-path")
        if not _HEADER.fullmatch(self.user_header):
            raise _bad(f"{self.user_header!r} is not the name of a header.", "--user-header")
        for name in self.names:
            if not _NAME.fullmatch(name):
                raise _bad(f"{name!r} is not the name of a host.", "--name")

    def check_directories(self) -> None:
        """
        Raises:
            SettingsError: one that was named cannot be read.
        """
        for option, places in (("--evidence", self.evidence), ("--reports", self.reports)):
            for place in places:
                try:
                    os.scandir(place).close()
                except OSError as error:
                    why = error.strerror or str(error)
                    raise _bad(f"The directory {place} cannot be read: {why}.", option) from error


def is_loopback(host: str) -> bool:
    """Only programs of this machine reach this address."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"


def network(text: str) -> Network:
    """An address or a network.

    Raises:
        SettingsError: it is neither, or it is everything.
    """
    try:
        found = ipaddress.ip_network(text, strict=False)
    except ValueError:
        raise _bad(f"{text!r} is not an address or a network.", "--trusted-proxy") from None
    if found.prefixlen == 0:
        raise _bad("Every address there is cannot be a trusted proxy.", "--trusted-proxy")
    return found


def read_token(path: str) -> str:
    """The login token that a file (mode 600) holds: its first line.

    Raises:
        SettingsError: it cannot be read, others can read it, or the token is too short.
    """
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise _token(f"{path} cannot be opened: {error.strerror}.", path) from None
    status = os.fstat(handle)
    if not stat.S_ISREG(status.st_mode):
        os.close(handle)
        raise rts.SettingsError(
            f"The token file {path} is not a regular file.",
            code="web_token_file",
            remedy="Name one by --token-file; docs/WEB.md says how to make it.",
        )
    with os.fdopen(handle, "rb") as file:
        if status.st_mode & 0o077:
            raise rts.SettingsError(
                f"The token file {path} can be read or changed by others than its owner.",
                code="web_token_file",
                remedy=f"Run: chmod 600 '{path}'",
            )
        line = file.read(_LONGEST_TOKEN + 2).partition(b"\n")[0].strip()
    if not _SHORTEST_TOKEN <= len(line) <= _LONGEST_TOKEN or not line.isascii():
        raise _token(
            f"The first line of {path} is not a token of 16 to 512 ASCII characters.", path
        )
    return line.decode("ascii")


def _token(sentence: str, path: str) -> rts.SettingsError:
    return rts.SettingsError(
        sentence,
        code="web_token_file",
        remedy=f"Make one: (umask 077; openssl rand -hex 24 > '{path}')",
    )


def _bad(sentence: str, option: str) -> rts.SettingsError:
    return rts.SettingsError(
        sentence, code="web_option", remedy=f"Correct {option}; docs/WEB.md has examples."
    )


def extra_missing() -> rts.SettingsError:
    """The error of a program without Starlette or uvicorn."""
    return rts.SettingsError(
        "The page needs the packages starlette and uvicorn.",
        code="extra_missing",
        remedy=f"Run: {extra_command('web')}",
    )
