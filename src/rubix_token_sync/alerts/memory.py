"""What was sent before, in a small file of this machine."""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import re
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rubix_token_sync.alerts.rules import Alert
from rubix_token_sync.errors import SettingsError
from rubix_token_sync.log import log_event

__all__ = [
    "Changes",
    "Memory",
    "default_state_directory",
    "load_memory",
    "memory_file",
    "save_memory",
]

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Sent:
    """An alert that was sent: when first, when last (Unix seconds), and what."""

    first: float
    last: float
    message: str
    weight: int = 0


@dataclass
class Changes:
    """What is to be sent now."""

    new: list[Alert] = field(default_factory=list)
    again: list[Alert] = field(default_factory=list)
    """Sent before, not over, and ``repeat`` seconds have passed."""
    over: list[str] = field(default_factory=list)
    """Messages of what was sent before and is resolved."""

    def __bool__(self) -> bool:
        return bool(self.new or self.again or self.over)


@dataclass
class Memory:
    """Everything sent so far for one source and target."""

    sent: dict[str, Sent] = field(default_factory=dict)
    records: int | None = None

    def compare(
        self, alerts: Sequence[Alert], now: float, repeat: float, *, about: str = ""
    ) -> tuple[Changes, Memory]:
        """What of ``alerts`` is to be sent, and the memory once that has happened.

        ``alerts`` is everything that is wrong now among keys that begin with ``about``;
        the others were not examined.  What was sent and is not among them is over: every
        alert ends with a message.
        """
        changes, sent = Changes(), {}
        for alert in {alert.key: alert for alert in alerts}.values():
            before = self.sent.get(alert.key)
            if alert.quiet:
                if before is not None:
                    sent[alert.key] = before
            elif before is None or alert.weight > before.weight:
                changes.new.append(alert)
                sent[alert.key] = Sent(now, now, alert.message, alert.weight)
            elif now - before.last >= repeat or now < before.last:
                changes.again.append(alert)
                sent[alert.key] = Sent(before.first, now, alert.message, alert.weight)
            else:
                sent[alert.key] = before
        for key, before in self.sent.items():
            if key in sent:
                continue
            if key.startswith(about):
                changes.over.append(before.message)
            else:
                sent[key] = before
        return changes, Memory(sent, self.records)


def default_state_directory(environ: Mapping[str, str] = os.environ) -> Path:
    """systemd's directory for this service, else the user's directory for state.

    Raises:
        SettingsError: this user has no home directory.
    """
    given = environ.get("STATE_DIRECTORY", "").split(":")[0]
    if given:
        return Path(given)
    home = environ.get("XDG_STATE_HOME") or os.path.expanduser("~/.local/state")
    if not os.path.isabs(home):
        raise SettingsError(
            "Which alerts were sent cannot be remembered: this user has no home directory.",
            code="no_state_directory",
            remedy="Set state_directory to a directory of this user.",
        )
    return Path(home) / "rubix-token-sync"


def memory_file(directory: Path, scope: str, target: str) -> Path:
    """One file for each source (or the monitor) and target; ``target`` without secrets."""
    digest = hashlib.sha256(f"{scope}\0{target}".encode()).hexdigest()[:12]
    name = re.sub(r"[^A-Za-z0-9.-]", "_", scope)[:60]
    return directory / f"alerts-{name}-{digest}.json"


def load_memory(path: Path) -> Memory:
    """What the file says.  An unreadable one is logged: something may be sent twice."""
    try:
        document: Any = json.loads(path.read_text(encoding="utf-8"))
        sent = {
            str(key): Sent(
                float(entry["first"]),
                float(entry["last"]),
                str(entry["message"]),
                int(entry.get("weight", 0)),
            )
            for key, entry in document["told"].items()
        }
        records = document["records"]
        return Memory(sent, None if records is None else int(records))
    except FileNotFoundError:
        return Memory()
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        log_event(
            _LOG,
            logging.WARNING,
            "alert_memory_unreadable",
            f"{path} cannot be used; what was sent before may be sent again: {error}",
        )
        return Memory()


def save_memory(path: Path, memory: Memory) -> None:
    """Write the file atomically, for its owner only.

    Raises:
        OSError: it cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    document = {
        "records": memory.records,
        "told": {
            # Earlier versions of this program read "lasting".
            key: {"first": t.first, "last": t.last, "message": t.message, "lasting": True}
            | ({"weight": t.weight} if t.weight else {})
            for key, t in sorted(memory.sent.items())
        },
    }
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=path.name, suffix=".tmp")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            json.dump(document, file, indent=2)
        Path(temporary).replace(path)
    except OSError:
        with contextlib.suppress(OSError):
            Path(temporary).unlink()
        raise
