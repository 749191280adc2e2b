"""What crosses the network where hosts share the databases of one source.

A share of the work, its jobs, and what becomes of them: plain values, without records and
without the target's address or password.  What arrives is checked against the same dataclasses
that the worker processes of a plain sync get, before anything uses it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

from pydantic import TypeAdapter, ValidationError

from rubix_token_sync import errors
from rubix_token_sync.cluster.messages import FORWARDED
from rubix_token_sync.errors import SyncError
from rubix_token_sync.runs.jobs import ChunkPublished, Job, JobDone, JobFailed, Report, RowsRead
from rubix_token_sync.settings.model import SECRETS
from rubix_token_sync.targets.base import Lease

__all__ = [
    "SHARE_TOPIC",
    "Begun",
    "Ended",
    "Place",
    "Share",
    "ShareEvent",
    "SharedJob",
    "read_job",
    "read_share",
    "read_share_event",
    "share_event",
    "to_plain",
]

SHARE_TOPIC: Final = "rubix-token-sync-share"
"""Of Dask's events."""

T = TypeVar("T")


@dataclass(frozen=True)
class Place:
    """A file or directory, and how to tell it from another one of that path."""

    path: str
    inode: int | None
    """The same on every host that sees this file; None: not known."""


@dataclass(frozen=True)
class Share:
    """A host's part in a run: it takes jobs as long as there are any."""

    run: str
    """A UUID of the coordinator's run."""
    name: str
    """A UUID: a host that comes back gets another one."""
    source: str
    lease: Lease | None
    """Held by the coordinator; None: nothing is published."""
    roots: tuple[Place, ...]
    databases: int
    """Of the whole run, and their bytes: whether worker processes pay."""
    size: int
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Of `FORWARDED`."""


@dataclass(frozen=True)
class SharedJob:
    """A job, and which file it is about."""

    job: Job
    database: Place


@dataclass(frozen=True)
class Begun:
    """A host has taken a job."""

    job: int


@dataclass(frozen=True)
class Ended:
    """A host has done its share: there was nothing left to take, or it had to stop."""

    error: SyncError | None = None
    interrupted: int | None = None
    """The signal that asked the host to end."""


ShareEvent = Report | Begun | Ended

_KINDS: Final[Mapping[str, type[Any]]] = {
    kind.__name__: kind for kind in (RowsRead, ChunkPublished, JobDone, Begun)
}


_ADAPTERS: Final[Mapping[type[Any], TypeAdapter[Any]]] = {
    kind: TypeAdapter(kind) for kind in (Share, SharedJob, *_KINDS.values())
}


def to_plain(value: Share | SharedJob) -> dict[str, Any]:
    """For the way.

    Raises:
        ValueError: a setting is not to leave its machine.
    """
    if isinstance(value, Share):
        kept_back = value.settings.keys() - FORWARDED
        if kept_back or FORWARDED & SECRETS:
            raise ValueError(f"not for another machine: {sorted(kept_back)}")
    plain: dict[str, Any] = _ADAPTERS[type(value)].dump_python(value)
    return plain


def read_share(given: object) -> Share:
    """As it arrived.

    Raises:
        ValueError: it is not a share, or names a setting that is the host's own.
    """
    share = _read(Share, given)
    if not share.settings.keys() <= FORWARDED:
        raise ValueError("not a share of this version")
    return share


def read_job(given: object) -> SharedJob:
    """As it arrived.

    Raises:
        ValueError: it is not a job.
    """
    return _read(SharedJob, given)


def _read(kind: type[T], given: object) -> T:
    try:
        found: T = _ADAPTERS[kind].validate_python(given)
    except ValidationError as error:
        said = f"{kind.__name__} is not in its form: {error.error_count()} errors"
        raise ValueError(said) from error
    return found


def share_event(share: Share, content: ShareEvent) -> dict[str, Any]:
    """A message of a host."""
    if isinstance(content, JobFailed):
        body = {"job": content.job, "error": _error(content.error)}
    elif isinstance(content, Ended):
        error = None if content.error is None else _error(content.error)
        body = {"error": error, "interrupted": content.interrupted}
    else:
        body = _ADAPTERS[type(content)].dump_python(content, mode="json")
    return {"run": share.run, "share": share.name, "kind": type(content).__name__, "body": body}


def read_share_event(given: object, run: str) -> tuple[str, ShareEvent] | None:
    """The name of the share and what its host says; None: of another run.

    Raises:
        ValueError: it is of this run and not in its form.
    """
    if not isinstance(given, dict) or given.get("run") != run:
        return None
    name, kind, body = given.get("share"), given.get("kind"), given.get("body")
    if not isinstance(name, str) or not isinstance(body, dict):
        raise ValueError("a message of a host is not in its form")
    if kind == "JobFailed":
        job, error = body.get("job"), _read_error(body.get("error"))
        if not isinstance(job, int) or error is None:
            raise ValueError("JobFailed is not in its form")
        return name, JobFailed(job, error)
    if kind == "Ended":
        number = body.get("interrupted")
        return name, Ended(
            _read_error(body.get("error")), number if isinstance(number, int) else None
        )
    known = _KINDS.get(str(kind))
    if known is None:
        raise ValueError(f"not a message of this version: {str(kind)[:40]}")
    found: ShareEvent = _read(known, body)
    return name, found


def _error(error: SyncError) -> dict[str, Any]:
    return {
        "class": type(error).__name__,
        "message": error.message,
        "code": error.code,
        "remedy": error.remedy,
        "context": {name: str(value) for name, value in error.context.items()},
    }


def _read_error(given: object) -> SyncError | None:
    if given is None:
        return None
    if not isinstance(given, dict):
        raise ValueError("an error is not in its form")
    kind = getattr(errors, str(given.get("class")), None)
    if not (isinstance(kind, type) and issubclass(kind, SyncError)):
        kind = SyncError
    context, code = given.get("context"), str(given.get("code"))
    return kind(
        str(given.get("message")),
        code=code,
        remedy=str(given.get("remedy", "")),
        context=dict(context) if isinstance(context, dict) else {},
    )
