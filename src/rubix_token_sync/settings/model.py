"""The settings: names, defaults, limits, meanings."""

from __future__ import annotations

import os
import socket
from typing import Annotated, Final, Literal, get_args
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PrivateAttr,
    SecretStr,
)

from rubix_token_sync.settings.masking import secrets_in, secrets_of_service
from rubix_token_sync.settings.search import SettingsFile

GUIDE_NAMES: Final = frozenset(
    {
        "num_ipfs_workers",
        "ipfs_timeout",
        "batch_size",
        "bulk_insert_size",
        "connection_pool_size",
        "retry_attempts",
    }
)
"""The guide's settings; in the environment they go without the prefix, too."""

Profile = Literal["high-performance", "resource-constrained"]
PROFILES: Final[tuple[Profile, ...]] = get_args(Profile)


def usable_cpus() -> int:
    """The processors this process may run on (not all that the machine has)."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def primary_address() -> str:
    """This machine's address on its way out, else its host name.

    Connecting a datagram socket only asks the routing table; nothing is sent.
    The addresses are reserved for documentation (RFC 5737, RFC 3849).
    """
    for family, address in (
        (socket.AF_INET, "192.0.2.1"),
        (socket.AF_INET6, "2001:db8::1"),
    ):
        try:
            with socket.socket(family, socket.SOCK_DGRAM) as probe:
                probe.connect((address, 9))
                own: str = probe.getsockname()[0]
        except OSError:  # no route of this family: the next one, or the name
            continue
        if own not in ("0.0.0.0", "::"):  # noqa: S104 - compared, not bound
            return own
    return socket.gethostname()[:45]


# --- types of values -----------------------------------------------------------


def _no_bool(value: object) -> object:
    if isinstance(value, bool):
        raise ValueError("true and false are not numbers")
    return value


def _listed(separators: str) -> BeforeValidator:
    """A list may be given as one text, as environment variables are."""

    def split(value: object) -> object:
        if not isinstance(value, str):
            return value
        for separator in separators[1:]:
            value = value.replace(separator, separators[0])
        return tuple(part.strip() for part in value.split(separators[0]) if part.strip())

    return BeforeValidator(split)


def _urls(values: tuple[str, ...]) -> tuple[str, ...]:
    for value in values:
        url = urlsplit(value)
        if url.scheme not in ("http", "https") or not url.hostname:
            raise ValueError("not an http(s) URL")
    return values


def _printable(value: str) -> str:
    if not value.strip() or not value.isprintable():
        raise ValueError("empty or not printable")
    return value.strip()


def _as_text(value: object) -> object:
    return os.fspath(value) if isinstance(value, os.PathLike) else value


def _nameable(value: str) -> str:
    if not value or "\0" in value:
        raise ValueError("empty or with a NUL character")
    return value


def _web(value: SecretStr) -> SecretStr:
    _urls((value.get_secret_value(),))
    return value


def _rule_and_severity(values: tuple[str, ...]) -> tuple[str, ...]:
    for value in values:
        if value.partition("=")[2] not in ("info", "warning", "error"):
            raise ValueError("not RULE=info, RULE=warning or RULE=error")
    return values


def _not_empty(value: SecretStr) -> SecretStr:
    if not value.get_secret_value().strip():
        raise ValueError("empty")
    return value


LimitsSource = Literal[
    "node-2023-02", "node-2024-08", "token-hash-generator", "rubix-token-hash-generator",
    "node-2026",
]  # fmt: skip
"""The sources of limits that the program knows: see ``audit/limits.json``."""

_Count = Annotated[int, BeforeValidator(_no_bool)]
_Number = Annotated[float, BeforeValidator(_no_bool)]
_Path = Annotated[str, BeforeValidator(_as_text), AfterValidator(_nameable)]
_Secret = Annotated[SecretStr, AfterValidator(_not_empty)]

SECRETS: Final = frozenset({"target", "ipfs_api_token", "gateways", "alert_urls", "heartbeat_url"})
"""Settings that can hold a secret: `describe` shows them masked, errors not at all."""


class Settings(BaseModel):
    """Every setting of a run.  Immutable; crosses process borders.

    ``target_file`` set means that the target is described in that file and that
    ``target`` does not count.
    """

    model_config = ConfigDict(
        frozen=True, extra="forbid", hide_input_in_errors=True, allow_inf_nan=False
    )

    roots: Annotated[tuple[_Path, ...], _listed(os.pathsep)] = Field(
        (), description="Directories that are searched for nodes; default: the current one."
    )
    target: _Secret = Field(
        SecretStr("sqlite:///rubix-tokens.db"),
        description="Where records go: sqlite:///FILE, postgresql://… or mssql://… "
        "A password belongs in target_file, not here.",
    )
    target_file: _Path | None = Field(
        None,
        description="File (mode 600) with a connection string or URL; used instead of target.",
    )
    allow_insecure_target_file: bool = Field(
        False, description="Accept files with secrets that other users may read."
    )
    source_ip: Annotated[str, AfterValidator(_printable)] = Field(
        default_factory=primary_address,
        min_length=1,
        max_length=45,
        description="What this machine calls itself in source_ip; default: its primary address.",
    )
    profile: Profile | None = Field(
        None, description="A set of defaults, from the guide; empty: the standard ones."
    )
    num_ipfs_workers: _Count = Field(
        default_factory=lambda: usable_cpus() * 2,
        ge=1,
        le=1024,
        description="Token contents fetched at once; default: processors × 2.",
    )
    ipfs_timeout: _Number = Field(
        30.0, ge=0.1, le=3600, description="Seconds after which a fetch of content is abandoned."
    )
    batch_size: _Count = Field(
        2000, ge=1, le=20_000, description="Records read, checked and written together."
    )
    bulk_insert_size: _Count = Field(
        10_000, ge=1, le=10_000_000, description="Bulk load is used for this many records or more."
    )
    connection_pool_size: _Count = Field(
        10,
        ge=2,
        le=100,
        description="Simultaneous connections to the target, at most; a run needs two, and each "
        "worker one more, on SQL Server two.",
    )
    retry_attempts: _Count = Field(
        3, ge=1, le=20, description="Attempts at anything that fails for a transient reason."
    )
    ipfs_network: bool = Field(
        False, description="Let a node's IPFS daemon ask its peers for content it does not hold."
    )
    gateways: Annotated[tuple[str, ...], _listed(", \t\n"), AfterValidator(_urls)] = Field(
        (), description="Trustless IPFS gateways (URLs) to ask for content that no node holds."
    )
    content_ways: Annotated[
        tuple[Literal["blockstore", "daemon", "gateway", "program"], ...], _listed(", ")
    ] = Field(
        ("blockstore", "daemon", "gateway", "program"),
        min_length=1,
        description="Ways of getting content that are switched on; always tried in this order.",
    )
    ipfs_program: _Path | None = Field(
        None, description="Path of an ipfs program, as the last way of getting content."
    )
    ipfs_api_token: _Secret | None = Field(
        None, description="Authorization for the daemons' API, where it demands one."
    )
    chains: bool = Field(
        False,
        description="Read the tokens' chains too, where they changed (needs the extra chains).",
    )
    content_recheck_days: _Number = Field(
        7.0, ge=0, le=36_500, description="Absent content is looked for again after this many days."
    )
    max_missing_content: _Number = Field(
        0.1,
        ge=0,
        le=1,
        description="An error (exit code 1) when more than this share of a database's records "
        "lack content that a cure would bring; below it a warning.",
    )
    strict: bool = Field(False, description="Every warning is an error (exit code 1).")
    max_shrink: _Number = Field(
        0.5,
        ge=0,
        le=1,
        description="Stop for a database that lost more than this share of its rows.",
    )
    max_shrink_rows: _Count = Field(
        20, ge=0, le=1_000_000_000, description="… unless it lost fewer rows than this."
    )
    heartbeat_seconds: _Number = Field(
        10.0,
        ge=0.1,
        le=3600,
        description="Seconds between two signs of life of a run in the target.",
    )
    lease_seconds: _Number = Field(
        60.0, ge=1, le=86_400, description="A run silent for this many seconds is considered dead."
    )
    scratch: _Path | None = Field(
        None, description="Directory for private copies of databases; default: the system's."
    )
    report: _Path | None = Field(None, description="Directory for the JSON report of each run.")
    log_file: _Path | None = Field(None, description="File that the log goes to as well.")
    log_format: Literal["text", "json"] = Field("text", description="Form of the log's lines.")

    audit_after_sync: bool = Field(
        False, description="Audit the target after each sync that completed."
    )
    audit_fail_on: Literal["info", "warning", "error"] = Field(
        "error",
        description="Open findings of this severity or a worse one end an audit with exit code 6.",
    )
    audit_rules_off: Annotated[tuple[str, ...], _listed(", ")] = Field(
        (), description="Rules of the audit that do not run; `rubix-token-sync rules` lists them."
    )
    audit_severities: Annotated[
        tuple[str, ...], _listed(", "), AfterValidator(_rule_and_severity)
    ] = Field((), description="Other severities of rules, as RULE=info, RULE=warning, RULE=error.")

    alert_urls: Annotated[tuple[_Secret, ...], _listed(" \t\n")] = Field(
        (), description="Where alerts go: Apprise URLs (tgram://…, mailto://…, slack://… and more)."
    )
    alert_urls_file: _Path | None = Field(
        None, description="File (mode 600) with more of them, one a line."
    )
    alert_on: Annotated[tuple[Literal["problem", "recovery", "success"], ...], _listed(", ")] = (
        Field(
            ("problem", "recovery"),
            description="What is reported: problem, recovery, success (of runs).",
        )
    )
    alert_content_below: _Number | None = Field(
        None,
        ge=0,
        le=100,
        description="A problem when less than this percentage of records has content.",
    )
    alert_records_drop: _Number | None = Field(
        None,
        ge=0,
        le=100,
        description="A problem when the number of records fell by more than this percentage.",
    )
    alert_max_age_hours: _Number | None = Field(
        None,
        ge=0.01,
        le=87_600,
        description="A problem when a node was not synced for this many hours.",
    )
    alert_repeat_hours: _Number = Field(
        24.0,
        ge=0,
        le=87_600,
        description="A problem that lasts is reported again after this many hours.",
    )
    heartbeat_url: Annotated[_Secret, AfterValidator(_web)] | None = Field(
        None, description="URL that is requested after each completed run, for dead-man monitors."
    )
    state_directory: _Path | None = Field(
        None,
        description="Where alerts that were sent and tables of token numbers are kept; "
        "default: the user's.",
    )
    limits_source: LimitsSource | None = Field(
        None,
        description="Whose limits of token numbers decide what is genuine; default: all sources "
        "that are known must agree.",
    )
    metrics_port: _Count | None = Field(
        None,
        ge=1,
        le=65_535,
        description="Port on which Prometheus can scrape metrics during a run.",
    )
    metrics_address: Annotated[str, AfterValidator(_printable)] = Field(
        "127.0.0.1", description="Address of that port."
    )
    metrics_file: _Path | None = Field(
        None, description="File for node_exporter's textfile collector, written after each run."
    )

    _origins: dict[str, str] = PrivateAttr(default_factory=dict)
    _found: SettingsFile = PrivateAttr(default=SettingsFile(None, "none looked for"))

    def note_file(self, found: SettingsFile) -> None:
        """Remember which file they come from."""
        self._found = found

    @property
    def settings_file(self) -> SettingsFile:
        """The file that they come from, as `rubix_token_sync.settings.search` found it."""
        return self._found

    def origin(self, name: str) -> str:
        """Where the value of the setting ``name`` comes from, in words."""
        return self._origins.get(name, "default")

    def secrets(self) -> set[str]:
        """Every text in these settings that must not appear anywhere (see `logs`)."""
        found = secrets_in(self.target.get_secret_value())
        for gateway in self.gateways:
            found |= secrets_in(gateway)
        if self.ipfs_api_token is not None:
            token = self.ipfs_api_token.get_secret_value()
            # `bearer:TOKEN` and `basic:USER:PASSWORD`, as Kubo's own option has it.
            found |= {token, token.partition(":")[2] or token}
        urls = [*self.alert_urls, *([self.heartbeat_url] if self.heartbeat_url else [])]
        for url in urls:
            found |= secrets_of_service(url.get_secret_value())
        return found
