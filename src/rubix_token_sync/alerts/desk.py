"""From what is wrong to a message, sent once."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pydantic import SecretStr

from rubix_token_sync import log
from rubix_token_sync.alerts.channels import Channels, beat, read_urls_file
from rubix_token_sync.alerts.memory import (
    Changes,
    Memory,
    default_state_directory,
    load_memory,
    memory_file,
    save_memory,
)
from rubix_token_sync.alerts.rules import Alert
from rubix_token_sync.log import log_event
from rubix_token_sync.settings import Settings
from rubix_token_sync.settings.masking import secrets_of_service
from rubix_token_sync.text import counted, shown

__all__ = ["AlertDesk", "AlertOptions"]

_LOG = logging.getLogger(__name__)
_MOST_LINES: Final = 20
_LONGEST_LINE: Final = 400


@dataclass(frozen=True)
class AlertOptions:
    """What is sent, to whom; see the settings of the same names."""

    urls: tuple[SecretStr, ...] = ()
    on: frozenset[str] = frozenset({"problem", "recovery"})
    repeat_seconds: float = 86_400.0
    heartbeat_url: SecretStr | None = None
    state_directory: Path | None = None

    @classmethod
    def of(cls, settings: Settings) -> AlertOptions:
        """From the settings.

        Raises:
            SettingsError: the file of URLs cannot be used.
        """
        urls = settings.alert_urls
        if settings.alert_urls_file is not None:
            urls += read_urls_file(
                settings.alert_urls_file, allow_insecure=settings.allow_insecure_target_file
            )
        for url in urls:
            log.register_secrets(secrets_of_service(url.get_secret_value()))
        return cls(
            urls=urls,
            on=frozenset(settings.alert_on),
            repeat_seconds=settings.alert_repeat_hours * 3600,
            heartbeat_url=settings.heartbeat_url,
            state_directory=Path(settings.state_directory) if settings.state_directory else None,
        )


class AlertDesk:
    """Sends what is new for one scope: a source, or the monitor of all of them."""

    def __init__(self, options: AlertOptions, scope: str, target: str) -> None:
        """``target`` tells targets apart and holds no secrets.

        Raises:
            SettingsError: Apprise cannot use a URL.
        """
        self.options = options
        self._scope = scope
        self._channels = Channels(options.urls) if options.urls else None
        directory = options.state_directory or default_state_directory()
        self._file = memory_file(directory, scope, target)

    @property
    def active(self) -> bool:
        """Whether there is anybody to send to."""
        return self._channels is not None

    def remembered_records(self) -> int | None:
        """How many records the source had after the run before."""
        return load_memory(self._file).records

    def send(
        self, alerts: Sequence[Alert], *, records: int | None = None, about: str = ""
    ) -> Changes:
        """Send what is new of everything that is wrong now.  Never raises.

        ``about`` is what was looked at (`Memory.compare`).
        """
        memory = load_memory(self._file)
        changes, after = memory.compare(
            alerts, time.time(), self.options.repeat_seconds, about=about
        )
        if records is not None:
            after.records = records
        if self._channels is None:
            return changes
        arrived = True
        if "problem" in self.options.on and (changes.new or changes.again):
            arrived = self._channels.send(*_problem_text(self._scope, changes), "failure")
        if "recovery" in self.options.on and changes.over:
            resolved = _recovery_text(self._scope, changes)
            arrived = self._channels.send(*resolved, "success") and arrived
        # What did not arrive is sent by the next run.
        self._remember(after if arrived else Memory(memory.sent, after.records))
        return changes

    def send_failure(self, alert: Alert) -> Changes:
        """Send that a run failed; nothing else was examined."""
        return self.send([alert], about="run/")

    def send_success(self, title: str, body: str) -> None:
        """Send that a run completed, if that is wanted."""
        if self._channels is not None and "success" in self.options.on:
            self._channels.send(title, body, "success")

    def beat(self) -> None:
        """A sign of life for dead-man monitors."""
        if self.options.heartbeat_url is not None:
            beat(self.options.heartbeat_url)

    def _remember(self, memory: Memory) -> None:
        try:
            save_memory(self._file, memory)
        except OSError as error:
            log_event(
                _LOG,
                logging.WARNING,
                "alert_memory_unwritable",
                f"{self._file} cannot be written; alerts will be sent again: {error.strerror}",
            )


def _lines(messages: Sequence[str]) -> str:
    lines = [
        f"• {message[:_LONGEST_LINE]}{'…' if len(message) > _LONGEST_LINE else ''}"
        for message in messages[:_MOST_LINES]
    ]
    if len(messages) > _MOST_LINES:
        lines.append(f"… and {len(messages) - _MOST_LINES} more: see `rubix-token-sync status`.")
    return "\n".join(shown(log.redact(line)) for line in lines)


def _problem_text(scope: str, changes: Changes) -> tuple[str, str]:
    count = len(changes.new) + len(changes.again)
    parts = [_lines([alert.message for alert in changes.new])] if changes.new else []
    if changes.again:
        parts.append("Still:\n" + _lines([alert.message for alert in changes.again]))
    return f"Rubix sync, {scope}: {counted(count, 'problem')}", "\n\n".join(parts)


def _recovery_text(scope: str, changes: Changes) -> tuple[str, str]:
    return f"Rubix sync, {scope}: resolved", "Resolved:\n" + _lines(changes.over)
