"""Every error this program raises on purpose, as one tree.

    SyncError
    ├── SettingsError            usage or settings                      exit 2
    ├── TargetError              the target database                    exit 3
    │   ├── TargetUnavailable    transient: try again later
    │   ├── TargetOverloaded     transient: slow down, then try again
    │   ├── TransactionTooLarge  transient: make the transaction smaller
    │   ├── TargetRefused        permanent: login, firewall, rights, quota
    │   ├── SchemaError          permanent: missing, older or newer schema
    │   ├── SourceTaken          another machine's source              exit 2
    │   ├── CommitAmbiguous      the COMMIT may or may not have happened
    │   └── RecordRefused        permanent: the target refuses these rows
    ├── LeaseHeld                another run works for this source      exit 4
    ├── LeaseLost                our lease was taken over: stop writing exit 1
    ├── SourceError              one node's database cannot be read     exit 1
    │   └── SourceUnsettled      transient: busy, or changed while it was read
    ├── WorkerCrashed            a worker process ended or raised       exit 1
    ├── EvidenceRefused          evidence is not as it was signed       exit 5
    ├── EvidenceUnstamped        signed, but no time stamp was had      exit 1
    ├── TokenTableError          the table of token numbers             exit 1
    └── ReportMismatch           counters and target disagree           exit 1

``kind`` decides about retries and is set where the outside world is
translated (one place per outside world); nothing else looks at messages.
``category`` is the guide's: ipfs, database, validation, system.
Failures of single tokens are values (`rubix_token_sync.ipfs.content.Failure`), not
exceptions.
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal

Category = Literal["ipfs", "database", "validation", "system"]
Kind = Literal["transient", "permanent", "ambiguous"]


class SyncError(Exception):
    """An error with a code, a sentence about what happened and one about what to do.

    ``message`` and ``remedy`` are shown to users and stored; they must not
    hold secrets.  ``context`` holds plain JSON values.
    """

    exit_code: ClassVar[int] = 1
    category: ClassVar[Category] = "system"
    kind: ClassVar[Kind] = "permanent"

    def __init__(
        self, message: str, *, code: str, remedy: str = "", context: dict[str, Any] | None = None
    ) -> None:
        super().__init__(message)
        self.message = message
        self.code = code
        self.remedy = remedy
        self.context: dict[str, Any] = context or {}

    def __str__(self) -> str:
        return f"{self.message} {self.remedy}".strip()

    def __reduce__(self) -> tuple[Any, ...]:
        # Exceptions cross process borders; keyword-only arguments need help.
        return (_rebuild, (type(self), self.message, self.code, self.remedy, self.context))


def _rebuild(
    cls: type[SyncError], message: str, code: str, remedy: str, context: dict[str, Any]
) -> SyncError:
    return cls(message, code=code, remedy=remedy, context=context)


class SettingsError(SyncError):
    exit_code = 2


class TargetError(SyncError):
    exit_code = 3
    category = "database"


class TargetUnavailable(TargetError):
    """Connection lost, server restarting, deadlock, time-out: reconnect and retry."""

    kind = "transient"


class TargetOverloaded(TargetUnavailable):
    """The server throttles: the whole run slows down, then retries."""


class TransactionTooLarge(TargetUnavailable):
    """The server refuses the size of the transaction: halve it, then retry."""


class TargetRefused(TargetError):
    """Login, firewall, rights, quota, wrong database: retrying cannot help."""


class SchemaError(TargetError):
    """The target's schema is missing, older or newer than this program."""


class SourceTaken(TargetError):
    """The source belongs to another machine: name another one, or take it over on purpose."""

    exit_code = 2


class CommitAmbiguous(TargetError):
    """The connection was lost while committing: only an idempotent replay is right."""

    kind = "ambiguous"


class RecordRefused(TargetError):
    """The target refuses the data itself (constraint, conversion, truncation)."""

    exit_code = 1


class LeaseHeld(SyncError):
    exit_code = 4


class LeaseLost(SyncError):
    """Another run holds the lease now; whatever this one has in hand must not be written."""


class SourceError(SyncError):
    """One node's database cannot be read; the run goes on with the others."""

    category = "database"


class SourceUnsettled(SourceError):
    """The database is busy or was changed while it was read: read it again."""

    kind = "transient"


class WorkerCrashed(SyncError):
    """A worker process was killed or raised something unforeseen."""


class EvidenceRefused(SyncError):
    """A directory of evidence or a proof is not what its maker signed."""

    exit_code = 5


class EvidenceUnstamped(SyncError):
    """Evidence is made and signed, but a time-stamping authority gave it no stamp: ask again."""

    kind = "transient"


class TokenTableError(SyncError):
    """The table of token numbers is damaged, or cannot be written where it should be."""


class ReportMismatch(SyncError):
    """The report's numbers and the target's do not agree (incident 17)."""
