"""Moving records between databases: from the older system, from any target to any other.

`migrate` is all of it.  The source is only read, from one consistent view; the
target keeps the state, so that an interrupted migration goes on; every row is
accounted for and proven by digests at both ends.
"""

from __future__ import annotations

from rubix_token_sync.migrate.report import DatabaseOutcome, MigrationReport
from rubix_token_sync.migrate.run import MigrateOptions, migrate

__all__ = ["DatabaseOutcome", "MigrateOptions", "MigrationReport", "migrate"]
