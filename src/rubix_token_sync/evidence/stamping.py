"""Ask a time-stamping authority for a stamp of evidence, and keep it there.

The authority is asked once, by HTTP as RFC 3161 has it, within a time and a size; what it
answers is checked before it is kept.  Evidence that was to be stamped says so in its manifest, so
that a stamp that could not be had, or was taken away, is missed by every check.
"""

from __future__ import annotations

import os
import re
import secrets
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from rubix_token_sync import failpoints, node_files, threads
from rubix_token_sync.errors import EvidenceRefused, EvidenceUnstamped, SettingsError
from rubix_token_sync.evidence import form
from rubix_token_sync.evidence.directory import opened_directory
from rubix_token_sync.evidence.listing import signed_predicate
from rubix_token_sync.evidence.notes import parse_note
from rubix_token_sync.evidence.stamps import (
    Stamp,
    certificates_in,
    check_stamp,
    request_for,
    require_library,
)
from rubix_token_sync.evidence.verify import own_key

if TYPE_CHECKING:
    from cryptography.x509 import Certificate

__all__ = ["Authority", "open_authority", "read_roots", "stamp"]

_SECONDS: Final = 30.0
"""The whole exchange takes no longer."""
_MOST_BYTES: Final = 262_144
"""Of an answer; a stamp with its certificates has some six thousand."""
_MOST_BYTES_OF_ROOTS: Final = 2**20
_HOST: Final = re.compile(r"[A-Za-z0-9._:-]{1,253}")
"""It is named in manifest and guide."""
_QUERY: Final = "application/timestamp-query"
_REPLY: Final = "application/timestamp-reply"
_AGAIN: Final = (
    "Ask again, or another authority: rubix-token-sync evidence stamp {directory} --timestamp URL "
    "--timestamp-ca FILE"
)


@dataclass(frozen=True)
class Authority:
    """Whom to ask, and by which certificates the answer is checked."""

    url: str = field(repr=False)
    host: str
    roots: Sequence[Certificate] = field(repr=False)


def open_authority(url: str, ca: Path) -> Authority:
    """The authority at an address, with its certificates from a file.

    Raises:
        SettingsError: the address or the file cannot be used, or the extra is not installed.
    """
    require_library()
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port  # a port that is none raises
    except ValueError:
        host = None
    usable = host is not None and _HOST.fullmatch(host) and parts.scheme in ("http", "https")
    if host is None or not usable or parts.username or parts.password:
        raise SettingsError(
            "The address of the time-stamping authority is not an http or https URL without "
            "a password.",
            code="timestamp_url",
            remedy="Name it as its operator does: https://HOST/PATH.",
        )
    return Authority(url, host, read_roots(ca))


def read_roots(path: Path) -> list[Certificate]:
    """The certificates in a file, in PEM: those below which an authority is trusted.

    Raises:
        SettingsError: it cannot be read, or does not hold certificates; or the extra is missing.
    """
    require_library()
    try:
        data, _ = node_files.read_file(node_files.from_argument(path), _MOST_BYTES_OF_ROOTS)
        return certificates_in(data)
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else "it holds no certificate in PEM"
        raise SettingsError(
            f"The certificates of the time-stamping authority in {path} cannot be used: {why}.",
            code="timestamp_ca",
            remedy="Name the file with the authority's root certificate, as it came from there.",
        ) from error


def stamp(directory: Path, authority: Authority, *, seconds: float = _SECONDS) -> Stamp:
    """Get a stamp for the evidence in ``directory``, and put it there.

    Raises:
        SettingsError: it has a stamp, was not to get one, or cannot be written.
        EvidenceRefused: its checkpoint or manifest is not what was signed.
        EvidenceUnstamped: the authority does not answer in time, refuses, or answers something
            that is not a stamp of this checkpoint by a trusted authority; nothing was changed.
    """
    with opened_directory(directory) as files:
        note = files.read(form.CHECKPOINT)
        checkpoint, _ = parse_note(note, own_key(files))
        if files.has(form.STAMP):
            raise SettingsError(
                f"{directory} has a time stamp already; it is never written over.",
                code="timestamp_exists",
                remedy="`rubix-token-sync evidence verify` shows it.",
            )
        if signed_predicate(files, checkpoint).get("time_stamp_from") is None:
            raise SettingsError(
                f"The evidence {directory} was not made to be stamped: its manifest names no "
                "authority, and its own guide does not say how a stamp is checked.",
                code="timestamp_unforeseen",
                remedy="Make evidence with --timestamp; or keep a stamp of its `checkpoint` "
                "elsewhere (`openssl ts -query -data checkpoint`).",
            )
    request = request_for(note)
    response = _answer(directory, authority, request, seconds)
    try:
        found = check_stamp(request, response, note, checkpoint.made_at, authority.roots)
    except EvidenceRefused as error:
        raise _unstamped(
            directory,
            f"{authority.host} answered with something else. {error.message}",
            code="timestamp_wrong",
        ) from error
    _keep(directory, {form.STAMP_REQUEST: request, form.STAMP: response})
    return found


def _answer(directory: Path, authority: Authority, request: bytes, seconds: float) -> bytes:
    """What the authority answers; a server that sends a byte a second is late, too."""
    done: list[bytes | str] = []
    thread = threads.daemon(
        lambda: done.append(_exchange(authority.url, request, seconds)), "rubix-timestamp"
    )
    thread.join(seconds)
    found = done[0] if done else f"did not answer within {seconds:g} s"
    if isinstance(found, str):
        raise _unstamped(directory, f"{authority.host} {found}", code="timestamp_unavailable")
    return found


def _exchange(url: str, request: bytes, seconds: float) -> bytes | str:
    """The body of the answer; text: what went wrong."""
    import httpx

    headers = {"Content-Type": _QUERY, "Accept": _REPLY, "Accept-Encoding": "identity"}
    try:
        failpoints.point("evidence.stamp")
        with httpx.stream("POST", url, content=request, headers=headers, timeout=seconds) as answer:
            if answer.status_code != httpx.codes.OK:
                return f"answered with the HTTP status {answer.status_code}"
            kind = answer.headers.get("content-type", "").partition(";")[0].strip().lower()
            if kind != _REPLY:
                return "answered with something that is not a time stamp (content type)"
            body = bytearray()
            for chunk in answer.iter_raw():
                body += chunk
                if len(body) > _MOST_BYTES:
                    return "answered with more than a time stamp has"
            return bytes(body)
    except (httpx.HTTPError, httpx.InvalidURL, OSError, ValueError) as error:
        return f"cannot be reached ({type(error).__name__})"  # its text may show the URL


def _unstamped(directory: Path, sentence: str, *, code: str) -> EvidenceUnstamped:
    return EvidenceUnstamped(
        f"The evidence {directory} is signed, but has no time stamp: {sentence.rstrip('.')}.",
        code=code,
        remedy=_AGAIN.format(directory=directory),
    )


def _keep(directory: Path, found: dict[str, bytes]) -> None:
    """Put the files there; the one that makes it stamped comes last."""
    place = directory.with_name(f".{directory.name}.{secrets.token_hex(4)}.partial")
    try:
        os.mkdir(place, 0o700)
        try:
            for name, data in found.items():
                file = form.HashedFile(place / name)
                try:
                    file.write(data)
                finally:
                    file.close()
            for name in found:
                os.rename(place / name, directory / name)
        finally:
            shutil.rmtree(place, ignore_errors=True)
    except OSError as error:
        raise form.unwritable(directory, error) from error
