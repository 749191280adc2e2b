"""What a migration from the older system notes in a target beside the records it moves."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

__all__ = ["MigrationStep", "SetAside"]


class SetAside(NamedTuple):
    """A row of a migration's source, kept in full because the record does not hold all of it.

    ``reason`` is ``duplicate`` or ``refused`` (no record holds it), ``changed``
    (the record holds another form of ``columns``) or ``healed`` (its content
    comes from a duplicate).
    """

    reason: str
    columns: tuple[str, ...]
    original_id: int | None
    record_key: bytes | None
    row: str
    """JSON: the row as the source has it."""


@dataclass(frozen=True)
class MigrationStep:
    """What a migration notes of a database; done in this order.

    ``forget_aside`` removes what was set aside of it; ``part`` and ``aside`` replace what the
    transaction of that number set aside; ``state`` is its row of SyncMigratedDatabases.
    """

    migration_id: str
    database_key: bytes
    forget_aside: bool = False
    part: int | None = None
    aside: tuple[SetAside, ...] = ()
    state: Mapping[str, Any] | None = None
