"""From options to settings, a target and what a run needs to know."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal, TypeAlias, TypedDict, Unpack, cast

from pydantic import SecretStr

from rubix_token_sync import log, node_files
from rubix_token_sync.audit.judging import JudgeOptions
from rubix_token_sync.errors import SettingsError, SourceError
from rubix_token_sync.ipfs.fetch import ContentOptions
from rubix_token_sync.nodes.keep_out import keep_out, node_around
from rubix_token_sync.runs.result import RunOptions
from rubix_token_sync.settings import Settings, load_settings, unknown_variables
from rubix_token_sync.settings.masking import masked
from rubix_token_sync.settings.model import LimitsSource, Profile
from rubix_token_sync.settings.search import TargetChoice, find_settings_file, find_target
from rubix_token_sync.targets.base import TargetOptions
from rubix_token_sync.targets.connection_file import read_target_file
from rubix_token_sync.targets.registry import TargetAddress, parse_target

if TYPE_CHECKING:
    from rubix_token_sync.audit.rule import Severity
    from rubix_token_sync.audit.run import AuditOptions
    from rubix_token_sync.runs.worker_pool import Executor

__all__ = [
    "CallSettings",
    "Configuration",
    "PathName",
    "SettingsOverrides",
    "configure",
    "configured",
    "settings_of",
]

PathName: TypeAlias = str | os.PathLike[str]
_Way = Literal["blockstore", "daemon", "gateway", "program"]
_AlertKind = Literal["problem", "recovery", "success"]

_ROOT_SECONDS: Final = 5.0
"""Without an answer by then, a root is left to discovery."""


class SettingsOverrides(TypedDict, total=False):
    """Every setting that a call can give; left out or None: environment, file, profile, default.

    Names, units and limits are those of docs/SETTINGS.md.
    """

    target: str | None
    target_file: PathName | None
    allow_insecure_target_file: bool | None
    source_ip: str | None
    num_ipfs_workers: int | None
    ipfs_timeout: float | None
    batch_size: int | None
    bulk_insert_size: int | None
    connection_pool_size: int | None
    retry_attempts: int | None
    ipfs_network: bool | None
    chains: bool | None
    gateways: Sequence[str] | None
    content_ways: Sequence[_Way] | str | None
    ipfs_program: PathName | None
    ipfs_api_token: str | None
    content_recheck_days: float | None
    max_missing_content: float | None
    strict: bool | None
    max_shrink: float | None
    max_shrink_rows: int | None
    heartbeat_seconds: float | None
    lease_seconds: float | None
    scratch: PathName | None
    report: PathName | None
    log_file: PathName | None
    log_format: Literal["text", "json"] | None
    audit_after_sync: bool | None
    audit_fail_on: Literal["info", "warning", "error"] | None
    audit_rules_off: Sequence[str] | str | None
    audit_severities: Sequence[str] | str | None
    alert_urls: Sequence[str] | str | None
    alert_urls_file: PathName | None
    alert_on: Sequence[_AlertKind] | str | None
    alert_content_below: float | None
    alert_records_drop: float | None
    alert_max_age_hours: float | None
    alert_repeat_hours: float | None
    heartbeat_url: str | None
    state_directory: PathName | None
    limits_source: LimitsSource | None
    metrics_port: int | None
    metrics_address: str | None
    metrics_file: PathName | None


@dataclass(frozen=True)
class Configuration:
    """Settings in force, and the target they name."""

    settings: Settings
    target: TargetAddress
    chosen: str = ""
    """Which settings file and which target are used, and why, in one line without secrets."""
    notes: tuple[str, ...] = ()
    """Sentences that a person should see, such as variables that are not settings."""

    @property
    def roots(self) -> tuple[str, ...]:
        """Directories below which nodes are looked for; by default the current one."""
        return tuple(self.settings.roots) or (os.getcwd(),)

    @property
    def report_directory(self) -> Path:
        """Where reports go."""
        return Path(self.settings.report or "reports")

    def target_options(self, *, read_only: bool = False) -> TargetOptions:
        """How the target is loaded."""
        settings = self.settings
        return TargetOptions(
            batch_size=settings.batch_size,
            bulk_insert_size=settings.bulk_insert_size,
            pool_size=settings.connection_pool_size,
            attempts=settings.retry_attempts,
            read_only=read_only,
        )

    def content_options(self) -> ContentOptions:
        """How content is fetched.

        Raises:
            SettingsError: only gateways may be asked, and none can be.
        """
        settings = self.settings
        asks_gateways = settings.ipfs_network and bool(settings.gateways)
        if set(settings.content_ways) == {"gateway"} and not asks_gateways:
            raise SettingsError(
                "content_ways names gateways only, but none can be asked: "
                + ("ipfs_network is off." if not settings.ipfs_network else "gateways is empty."),
                code="setting_invalid",
                remedy="Add --ipfs-network and --gateway URL, or name more ways of getting "
                "content.",
                context={"settings": ["content_ways", "gateways", "ipfs_network"]},
            )
        token = settings.ipfs_api_token
        return ContentOptions(
            workers=settings.num_ipfs_workers,
            timeout_s=settings.ipfs_timeout,
            attempts=settings.retry_attempts,
            network=settings.ipfs_network,
            ways=settings.content_ways,
            gateways=tuple(settings.gateways),
            program=settings.ipfs_program,
            daemon_authorization=SecretStr(token.get_secret_value()) if token else None,
        )

    def run_options(
        self,
        command: Literal["sync", "retry-failed", "verify"],
        *,
        nodes: Iterable[str] = (),
        force: bool = False,
        allow_shrink: bool = False,
        adopt_source: bool = False,
        dry_run: bool = False,
        executor: Executor | None = None,
    ) -> RunOptions:
        """What a run needs to know.

        Raises:
            SettingsError: a root is not a directory, or scratch space is inside a node.
        """
        settings = self.settings
        check_roots(self.roots)
        if settings.scratch is not None:
            keep_out(settings.scratch, "The scratch directory")
        return RunOptions(
            roots=self.roots,
            source=settings.source_ip,
            target=self.target,
            store=self.target_options(),
            content=self.content_options(),
            command=command,
            nodes=frozenset(nodes),
            force=force,
            only_failed=command == "retry-failed",
            dry_run=dry_run,
            adopt_source=adopt_source,
            max_shrink=None if allow_shrink else settings.max_shrink,
            max_shrink_rows=settings.max_shrink_rows,
            recheck=timedelta(days=settings.content_recheck_days),
            heartbeat_seconds=settings.heartbeat_seconds,
            lease_seconds=settings.lease_seconds,
            chains=settings.chains,
            scratch=settings.scratch,
            judge=self.judge_options(),
            executor=executor,
        )

    def audit_options(self) -> AuditOptions:
        """What an audit looks for.

        Raises:
            SettingsError: a rule that does not exist is named.
        """
        from rubix_token_sync.audit.rules import RULES
        from rubix_token_sync.audit.run import AuditOptions

        settings = self.settings
        named = (entry.partition("=") for entry in settings.audit_severities)
        options = AuditOptions(
            rules=RULES,
            off=frozenset(settings.audit_rules_off),
            severities={rule: cast("Severity", severity) for rule, _, severity in named},
            fail_on=settings.audit_fail_on,
            lease_seconds=settings.lease_seconds,
            judge=self.judge_options(),
        )
        options.check()
        return options

    def judge_options(self) -> JudgeOptions | None:
        """Where tables of token numbers are kept; None where this user has no place for them.

        Raises:
            SettingsError: the state directory is inside a node.
        """
        from rubix_token_sync.alerts.memory import default_state_directory

        settings = self.settings
        if settings.state_directory is not None:
            keep_out(settings.state_directory, "The state directory")
            directory = Path(settings.state_directory)
        else:
            try:
                directory = default_state_directory()
                keep_out(directory, "The state directory")
            except SettingsError:
                return None
        return JudgeOptions(str(directory / "tables"), settings.limits_source)


def check_roots(roots: Iterable[str], *, stall_s: float = _ROOT_SECONDS) -> None:
    """Raises SettingsError for a root that is not a directory.

    One that does not answer soon, or may not be looked at, is for discovery to name, which
    waits for it once: others go on.
    """
    for root in roots:
        if not _may_be_directory(root, stall_s):
            raise SettingsError(
                f"{root} is not a directory.",
                code="no_such_root",
                remedy="Give a directory below which the nodes are.",
            )


def _may_be_directory(root: str, stall_s: float) -> bool:
    place = node_files.from_argument(root)
    try:
        mode = node_files.bounded(lambda: node_files.stat(place), stall_s=stall_s).st_mode
    except (FileNotFoundError, NotADirectoryError):
        return False
    except (SourceError, OSError):
        return True
    return stat.S_ISDIR(mode)


def settings_of(
    *roots: PathName,
    config: PathName | None = None,
    profile: Profile | None = None,
    **overrides: Unpack[SettingsOverrides],
) -> Settings:
    """The settings in force: call > environment > settings file > profile > default.

    The settings file is the first of the documented search order (docs/SETTINGS.md).

    Raises:
        SettingsError: a value is not allowed, or the file cannot be used.
    """
    flags: dict[str, object] = {"roots": tuple(os.fspath(root) for root in roots), **overrides}
    named = None if config is None else os.fspath(config)
    found = find_settings_file(named, os.environ, node_around)
    settings = load_settings(flags, found.path, profile)
    settings.note_file(found)
    return settings


def configure(
    *roots: PathName,
    settings: Settings | None = None,
    config: PathName | None = None,
    profile: Profile | None = None,
    embedded: bool = True,
    needs_target: bool = True,
    **overrides: Unpack[SettingsOverrides],
) -> Configuration:
    """Settings and target for `sync` and the other jobs; each of them calls it where not given one.

    ``settings`` are those that `settings_of` gave; then none of their options may be given.
    ``embedded`` False: no target is taken where none is named; ``needs_target`` False: it
    will not be opened.

    Raises:
        SettingsError: a setting or the target's file is wrong.
    """
    if settings is None:
        settings = settings_of(*roots, config=config, profile=profile, **overrides)
    elif roots or config or profile or overrides:
        raise TypeError("configure() takes settings or options, not both")
    log.register_secrets(settings.secrets())
    found = settings.settings_file
    choice = find_target(settings, found.path, node_around, embedded=embedded)
    target, warnings = _target(settings, choice, needed=needs_target)
    notes = (*found.notes, *choice.notes, *mistyped_variables(), *warnings)
    return Configuration(settings, target, _chosen(settings, choice), notes)


class _FileSettings(SettingsOverrides, total=False):
    config: PathName | None
    profile: Profile | None


class CallSettings(_FileSettings, total=False):
    """What every call takes: a configuration, or file, profile and settings of its own."""

    configuration: Configuration | None


def configured(*roots: PathName, **given: Unpack[CallSettings]) -> Configuration:
    """The configuration that was given to a call, or the one that its settings make."""
    found = given.pop("configuration", None)
    if found is None:
        return configure(*roots, **cast("_FileSettings", given))
    if roots or any(value is not None for value in given.values()):
        raise TypeError("give a configuration or settings, not both")
    return found


def mistyped_variables() -> list[str]:
    """A sentence for each variable of the environment that looks like a setting and is not."""
    return [
        f"The environment variable {name} is not a setting of this program."
        + (f" Did you mean {near}?" if near else "")
        for name, near in unknown_variables().items()
    ]


def _target(
    settings: Settings, choice: TargetChoice, *, needed: bool
) -> tuple[TargetAddress, tuple[str, ...]]:
    """The target that was chosen, and what has to be said about its file."""
    if choice.kind == "none" and needed:
        raise no_target_named()
    warnings: tuple[str, ...] = ()
    text = settings.target.get_secret_value()
    if choice.kind == "file":
        file = read_target_file(choice.value, allow_insecure=settings.allow_insecure_target_file)
        text, warnings = file.text.get_secret_value(), file.warnings
    target = parse_target(text)
    log.register_secrets(target.secrets())
    return target, warnings


def no_target_named() -> SettingsError:
    """The error of a command that would have to guess where the records are."""
    return SettingsError(
        "No target is named: not on the command line, in the environment or in the settings "
        "file, and there is no connection file.",
        code="no_target_named",
        remedy="Set target_file or target in the settings file, put azure_sql_connection.txt "
        "beside it, or name the target by --target or --target-file.",
    )


def _chosen(settings: Settings, choice: TargetChoice) -> str:
    found = settings.settings_file
    file = f"{found.path} ({found.why})" if found.path is not None else "none"
    if choice.kind == "file":
        shown = f"as the connection file {choice.value} says"
    else:
        shown = masked(choice.value) if choice.kind == "address" else ""
        shown = "a connection string" if shown == "***" else shown
    where = f"{shown} ({choice.why})" if shown else choice.why
    return f"Settings file: {file}. Target: {where}."
