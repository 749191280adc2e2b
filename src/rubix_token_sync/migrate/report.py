"""What a migration did, for people and as JSON (the keys are a contract)."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, Literal

__all__ = ["COUNTERS", "DatabaseOutcome", "MigrationReport"]

State = Literal["moved", "verified", "unchanged", "kept", "different", "would_move", "synced"]


@dataclass
class DatabaseOutcome:
    """One database.

    ``state``: ``moved`` and proven; ``unchanged`` since an earlier call moved it;
    ``verified`` or ``different`` (``--verify-only``); ``kept``: the target had
    records of it already, nothing was written; ``synced``: a sync has written to
    it since, there is nothing to compare; ``would_move`` (``--dry-run``).
    """

    source_ip: str
    db_path: str
    state: State = "moved"
    rows_read: int = 0
    rows_stored: int = 0
    contents_adopted: int = 0
    contents_refused: int = 0
    duplicates_merged: int = 0
    rows_changed: int = 0
    """Stored, but not in the same form: the original is set aside in full."""
    rows_refused: int = 0
    """Not stored, but set aside in full."""
    digest: str = ""
    target_digest: str = ""
    seconds: float = 0.0


COUNTERS = (
    "rows_read",
    "rows_stored",
    "contents_adopted",
    "contents_refused",
    "duplicates_merged",
    "rows_changed",
    "rows_refused",
)


@dataclass
class MigrationReport:
    """All of it."""

    migration_id: str
    mode: Literal["migrate", "dry_run", "verify"]
    source: str
    target: str
    source_timezone: str
    databases: list[DatabaseOutcome] = field(default_factory=list)
    rows_without_database: int = 0
    """Rows without a source or a path: set aside in full, they belong nowhere."""
    databases_without_rows: list[str] = field(default_factory=list)
    """Processed by the older system, but it holds no record of them: nothing to move."""
    complete: bool = False
    """Every database of the source is moved (or kept): the migration is at its end."""
    seconds: float = 0.0

    def total(self, name: str) -> int:
        """A counter of `DatabaseOutcome`, over all databases."""
        return sum(getattr(one, name) for one in self.databases)

    @property
    def different(self) -> int:
        """Databases of which the target does not hold what the source does."""
        return sum(one.state == "different" for one in self.databases)

    @property
    def exit_code(self) -> int:
        """0 done; 1 rows could not be stored (they are set aside); 5 differences."""
        if self.different:
            return 5
        if self.mode == "verify":
            return 0
        return 1 if self.total("rows_refused") or self.rows_without_database else 0

    def document(self) -> dict[str, Any]:
        """The JSON form."""
        return {
            "migration_id": self.migration_id,
            "mode": self.mode,
            "source": self.source,
            "target": self.target,
            "source_timezone": self.source_timezone,
            "complete": self.complete,
            "exit_code": self.exit_code,
            "duration_seconds": round(self.seconds, 3),
            "totals": {name: self.total(name) for name in COUNTERS},
            "databases_different": self.different,
            "rows_without_database": self.rows_without_database,
            "databases_without_rows": self.databases_without_rows,
            "databases": [
                {**asdict(one), "seconds": round(one.seconds, 3)} for one in self.databases
            ],
        }
