"""What crosses the network: an order to a host, and what the host reports.

Plain values only (texts, numbers, lists, mappings), no secret, and never a record: an order
names settings that are not secret, a report is made of counts and sentences.  What arrives was
written by another machine and is checked here before anything uses it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Final, Literal, cast, get_args

from rubix_token_sync.monitor.problems import Problem, Severity
from rubix_token_sync.settings import Settings
from rubix_token_sync.settings.model import SECRETS

__all__ = [
    "FORWARDED",
    "TOPIC",
    "Command",
    "HostProgress",
    "HostReport",
    "Order",
    "event",
    "read_event",
]

Command = Literal["sync", "verify", "audit"]

TOPIC: Final = "rubix-token-sync"
"""Of Dask's events; one for all runs, so that the scheduler's memory of them is bounded."""

FORWARDED: Final = frozenset(
    {
        "num_ipfs_workers", "ipfs_timeout", "batch_size", "bulk_insert_size",
        "connection_pool_size", "retry_attempts", "ipfs_network", "content_ways", "chains",
        "max_missing_content", "strict", "audit_fail_on", "audit_rules_off",
    }
)  # fmt: skip
"""Settings that a coordinator may give to a host, for one run; all others are the host's own."""

_MOST_PROBLEMS: Final = 200
_LONGEST: Final = 4_000


@dataclass(frozen=True)
class Order:
    """What a host is to do."""

    run: str
    """A UUID of the fleet's run."""
    command: Command
    source: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Of `FORWARDED`."""
    force: bool = False
    allow_shrink: bool = False
    adopt_source: bool = False
    repair: bool = False

    def plain(self) -> dict[str, Any]:
        """For the way.

        Raises:
            ValueError: a setting is not to leave its machine.
        """
        kept_back = self.settings.keys() - FORWARDED
        if kept_back or FORWARDED & SECRETS:
            raise ValueError(f"not for another machine: {sorted(kept_back)}")
        return asdict(self)

    @classmethod
    def read(cls, given: object) -> Order:
        """As it arrived.

        Raises:
            ValueError: it is not an order, or names a setting that is the host's own.
        """
        if not isinstance(given, dict):
            raise ValueError("not an order")
        known = {f.name for f in fields(cls)}
        flags = ("force", "allow_shrink", "adopt_source", "repair")
        settings = given.get("settings")
        good = (
            given.keys() <= known
            and given.get("command") in get_args(Command)
            and all(isinstance(given.get(name), str) for name in ("run", "source"))
            and all(isinstance(given.get(name, False), bool) for name in flags)
            and isinstance(settings, dict)
            and settings.keys() <= FORWARDED
            and settings.keys() <= Settings.model_fields.keys()
        )
        if not good:
            raise ValueError("not an order of this version")
        return cls(**given)


@dataclass(frozen=True)
class HostProgress:
    """How far a host is."""

    share: float = 0.0
    """0 to 1."""
    records: int = 0
    contents: int = 0
    databases_done: int = 0
    databases_failed: int = 0
    databases: int = 0
    """Found."""
    seconds: float = 0.0
    waiting: bool = False
    """For an earlier order, which is still under way there."""


@dataclass(frozen=True)
class HostReport:
    """How an order ended on its host."""

    source: str
    command: str
    exit_code: int
    status: str
    """``COMPLETED``, ``INTERRUPTED``, ``FAILED``; of ``verify`` ``EQUAL`` or ``DIFFERENT``, too."""
    host: str = ""
    session_id: str | None = None
    seconds: float = 0.0
    databases: int = 0
    """Processed or, by `verify`, compared."""
    databases_unchanged: int = 0
    databases_failed: int = 0
    records: int = 0
    """Processed or compared."""
    inserted: int = 0
    updated: int = 0
    vanished: int = 0
    differences: int = 0
    code: str | None = None
    """Of the error that ended it."""
    message: str | None = None
    remedy: str | None = None
    report_file: str | None = None
    """On the host."""
    problems: Sequence[Problem] = ()
    """What is wrong and does not stand in the target."""
    document: Mapping[str, Any] = field(default_factory=dict)
    """Of `audit`: its answer, as `audit --json` prints it."""


def event(run: str, source: str, content: HostProgress | HostReport) -> dict[str, Any]:
    """A message of a host."""
    kind = "progress" if isinstance(content, HostProgress) else "ended"
    body = asdict(content)
    if isinstance(content, HostReport):
        body["problems"] = [asdict(problem) for problem in content.problems[:_MOST_PROBLEMS]]
        body["document"] = dict(content.document)
    return {"run": run, "source": source, "kind": kind, "body": body}


def read_event(given: object, run: str) -> tuple[str, HostProgress | HostReport] | None:
    """The source and what it says; None: of another run, or not ours.

    Raises:
        ValueError: it is of this run and not in its form.
    """
    if not isinstance(given, dict) or given.get("run") != run:
        return None
    source, body = given.get("source"), given.get("body")
    if not isinstance(source, str) or not isinstance(body, dict):
        raise ValueError("a message of a host is not in its form")
    if given.get("kind") == "progress":
        return source, cast("HostProgress", _filled(HostProgress, body))
    problems = body.pop("problems", ())
    if not isinstance(problems, list | tuple):
        raise ValueError("problems are not a list")
    document = body.pop("document", {})
    if not isinstance(document, dict):
        raise ValueError("the document is not one")
    filled = cast("HostReport", _filled(HostReport, body))
    held = tuple(cast("Problem", _filled(Problem, problem)) for problem in problems)
    return source, HostReport(
        **{**asdict(filled), "problems": held[:_MOST_PROBLEMS], "document": document}
    )


_KINDS: Final[Mapping[str, tuple[type, ...]]] = {
    "str": (str,),
    "str | None": (str, type(None)),
    "int": (int,),
    "float": (int, float),
    "bool": (bool,),
    "Severity": (str,),
}


def _filled(kind: type[Any], given: object) -> object:
    """A dataclass of plain values; nothing that is missing, unknown or of another type."""
    if not isinstance(given, dict):
        raise ValueError(f"{kind.__name__} is not a mapping")
    types = {f.name: str(f.type) for f in fields(kind)}
    for name, value in given.items():
        expected = _KINDS.get(types.get(name, ""))
        wrong = name == "severity" and value not in get_args(Severity)
        if expected is None or not isinstance(value, expected) or wrong:
            raise ValueError(f"{kind.__name__}.{name} is not as expected")
        if isinstance(value, str) and len(value) > _LONGEST:
            given = {**given, name: value[:_LONGEST] + "…"}
    try:
        return kind(**given)
    except TypeError as error:
        raise ValueError(str(error)) from error
