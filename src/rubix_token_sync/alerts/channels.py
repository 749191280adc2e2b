"""How messages leave this machine: Apprise for people, one URL for dead-man monitors."""

from __future__ import annotations

import logging
import os
import stat
import warnings
from typing import Any, Final, Literal

from pydantic import SecretStr

from rubix_token_sync import node_files, threads
from rubix_token_sync.errors import SettingsError
from rubix_token_sync.installation import extra_command
from rubix_token_sync.log import log_event, redact

__all__ = ["Channels", "beat", "read_urls_file"]

_LOG = logging.getLogger(__name__)
_SEND_SECONDS: Final = 30.0
"""All channels together take no longer: a run does not wait for a dead mail server."""
_BEAT_SECONDS: Final = 10.0
_BEATS: Final = 3
_MOST_BYTES: Final = 2**20
"""Of the file of alert URLs."""

Level = Literal["failure", "success", "info"]


def read_urls_file(path: str, *, allow_insecure: bool = False) -> tuple[SecretStr, ...]:
    """One Apprise URL a line; ``#`` begins a comment.

    Raises:
        SettingsError: it cannot be read, or others may read it.
    """
    try:
        data, status = node_files.read_file(node_files.from_argument(path), _MOST_BYTES)
        mode, text = stat.S_IMODE(status.st_mode), data.decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not valid UTF-8"
        raise SettingsError(
            f"The file of alert URLs {path} cannot be read: {reason}.",
            code="alert_urls_unreadable",
            remedy="Check the path, or run as the user that owns the file.",
            context={"path": path},
        ) from None
    if mode & 0o077 and not allow_insecure and os.name == "posix":
        raise SettingsError(
            f"Others may read the file of alert URLs {path} (mode {mode:o}).",
            code="alert_urls_insecure",
            remedy=f"Run: chmod 600 {path}",
            context={"path": path},
        )
    lines = (line.strip() for line in text.splitlines())
    return tuple(SecretStr(line) for line in lines if line and not line.startswith("#"))


class Channels:
    """Every place that messages go to."""

    def __init__(self, urls: tuple[SecretStr, ...]) -> None:
        """
        Raises:
            SettingsError: the extra ``alerts`` is missing, or Apprise cannot use a URL.
        """
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # its own, of Python versions to come
                import apprise
        except ImportError as error:
            raise SettingsError(
                "Alerts need the package Apprise.",
                code="extra_missing",
                remedy=f"Run: {extra_command('alerts')}",
            ) from error
        logging.getLogger("apprise").setLevel(logging.WARNING)
        self._apprise: Any = apprise.Apprise()
        for number, url in enumerate(urls, 1):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # plug-ins load here
                added = self._apprise.add(url.get_secret_value())
            if not added:
                scheme = url.get_secret_value().partition("://")[0][:20]
                raise SettingsError(
                    f"Alert URL {number} ({scheme}://…) is not one that Apprise can use.",
                    code="alert_url_invalid",
                    remedy="Compare it with Apprise's documentation of the service.",
                )

    def send(self, title: str, body: str, level: Level) -> bool:
        """Tell all of them; False, and a line in the log, where one failed.  Never raises."""
        done: list[bool] = []
        thread = threads.daemon(
            lambda: done.append(self._notify(title, body, level)), "rubix-alerts"
        )
        thread.join(_SEND_SECONDS)
        sent = done == [True]
        if not sent:
            how = "failed" if done else f"took longer than {_SEND_SECONDS:g} s"
            log_event(
                _LOG, logging.WARNING, "alert_failed",
                f"An alert could not be delivered everywhere: a channel {how}.",
            )  # fmt: skip
        return sent

    def _notify(self, title: str, body: str, level: Level) -> bool:
        try:
            return bool(self._apprise.notify(title=title, body=body, notify_type=level))
        except Exception as error:  # noqa: BLE001 - plugins of others must not end a run
            log_event(
                _LOG, logging.WARNING, "alert_failed",
                f"A channel raised {type(error).__name__}: {redact(str(error))}",
            )  # fmt: skip
            return False


def beat(url: SecretStr) -> bool:
    """Ask for the URL; False, and a line in the log, where that fails.  Never raises."""
    import httpx

    reason = ""
    for _ in range(_BEATS):
        try:
            answer = httpx.get(url.get_secret_value(), timeout=_BEAT_SECONDS, follow_redirects=True)
        except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
            reason = type(error).__name__  # its text would show the URL
            continue
        if answer.is_success:
            return True
        reason = f"status {answer.status_code}"
    log_event(
        _LOG, logging.WARNING, "heartbeat_url_failed",
        f"The heartbeat URL could not be reached: {reason}.",
    )  # fmt: skip
    return False
