"""Settings in words: what is allowed, what is in force, a file to start from."""

from __future__ import annotations

import json
from collections.abc import Mapping
from textwrap import wrap
from typing import Any, Final, NamedTuple, get_args

from pydantic import SecretStr

from rubix_token_sync.settings.masking import masked
from rubix_token_sync.settings.model import GUIDE_NAMES, SECRETS, Settings


def shown_name(name: str) -> str:
    """A setting's name for people: the guide writes its own in capitals."""
    return name.upper() if name in GUIDE_NAMES else name


def allowed(name: str) -> str:
    """What the setting ``name`` may be, in words."""
    if name == "gateways":
        return "a list of http:// or https:// URLs"
    if name == "roots":
        return "a list of directories"
    if name == "alert_urls":
        return "a list of Apprise URLs"
    if name == "audit_severities":
        return "a list of RULE=info, RULE=warning or RULE=error"
    if name == "audit_rules_off":
        return "a list of names of rules"
    if name == "alert_on":
        return "a list of problem, recovery, success"
    if name == "heartbeat_url":
        return "an http:// or https:// URL"
    field = Settings.model_fields[name]
    low = next((m.ge for m in field.metadata if hasattr(m, "ge")), None)
    high = next((m.le for m in field.metadata if hasattr(m, "le")), None)
    longest = next((m.max_length for m in field.metadata if hasattr(m, "max_length")), None)
    kinds = {field.annotation, *get_args(field.annotation)}
    if low is not None:
        kind = "a whole number" if int in kinds else "a number"
        return f"{kind} from {low:,} to {high:,}"
    if bool in kinds:
        return "true or false"
    for kind in kinds:
        words = [word for word in get_args(kind) or get_args(field.annotation) if str(word) == word]
        if words:
            return "one of " + ", ".join(words)
    return f"printable text of 1 to {longest} characters" if longest else "printable text"


class Described(NamedTuple):
    """One setting as `check` shows it."""

    name: str
    value: str
    origin: str


def describe(settings: Settings) -> list[Described]:
    """Every setting with its value and origin; secrets are masked."""
    rows = []
    for name in Settings.model_fields:
        value: Any = getattr(settings, name)
        if name == "target":
            text = masked(value.get_secret_value())
        elif name in ("ipfs_api_token", "heartbeat_url", "alert_urls"):
            text = "***" if value else ""
        elif isinstance(value, tuple):
            text = " ".join(masked(item) if name in SECRETS else item for item in value)
        elif isinstance(value, bool):
            text = str(value).lower()
        elif isinstance(value, float):
            text = f"{value:g}"
        else:
            text = "" if value is None else str(value)
        if name == "target" and settings.target_file is not None:
            text = "as target_file says"
        rows.append(Described(shown_name(name), text, settings.origin(name)))
    return rows


def commented_settings_file(values: Mapping[str, object] | None = None) -> str:
    """A settings file with every setting, its meaning and its default, commented out but for
    those in ``values``.
    """
    values = values or {}
    lines = [
        "# Settings of rubix-token-sync (TOML).  Use it with --config FILE or the environment",
        "# variable RUBIX_SYNC_CONFIG.  Stronger than this file: command line, environment.",
        "# Passwords belong in target_file; a file that holds one must have mode 600.",
    ]
    for name, field in Settings.model_fields.items():
        variables = [f"RUBIX_SYNC_{name.upper()}", *([name.upper()] if name in GUIDE_NAMES else [])]
        lines.append("")
        lines += wrap(str(field.description), 96, initial_indent="# ", subsequent_indent="# ")
        lines.append(f"# It is {allowed(name)}; in the environment: {', '.join(variables)}.")
        lines.append(
            f"{name} = {_toml(values[name])}"
            if name in values
            else f"#{name} = {_toml(_example(name))}"
        )
    return "\n".join(lines) + "\n"


_EXAMPLES: Final[dict[str, object]] = {
    "target_file": "azure_sql_connection.txt",
    "source_ip": "10.0.0.4",
    "profile": "high-performance",
    "num_ipfs_workers": 8,
    "ipfs_program": "/usr/local/bin/ipfs",
    "ipfs_api_token": "bearer:…",
    "scratch": "/mnt/fast",
    "alert_urls_file": "alert_urls.txt",
    "alert_content_below": 95,
    "alert_records_drop": 10,
    "alert_max_age_hours": 26,
    "heartbeat_url": "https://monitor.example.com/ping",
    "state_directory": "/var/lib/rubix-token-sync",
    "limits_source": "node-2024-08",
    "metrics_port": 9469,
    "metrics_file": "/var/lib/node_exporter/rubix_token_sync.prom",
    "report": "reports",
    "log_file": "rubix-token-sync.log",
}
"""What the file shows where the default is nothing or depends on the machine."""


def shown_default(name: str) -> str:
    """A default as a settings file has it; empty where it is nothing or the machine's."""
    field = Settings.model_fields[name]
    if field.default_factory is not None or field.default is None:
        return ""
    secret = isinstance(field.default, SecretStr)
    return _toml(field.default.get_secret_value() if secret else field.default)


def _example(name: str) -> object:
    default = Settings.model_fields[name].get_default()
    if isinstance(default, SecretStr):
        return default.get_secret_value()
    return _EXAMPLES.get(name, default)


def _toml(value: object) -> str:
    if isinstance(value, tuple):
        return f"[{', '.join(_toml(item) for item in value)}]"
    # JSON's texts, numbers, true and false are TOML's as well.
    return json.dumps(value, ensure_ascii=False)
