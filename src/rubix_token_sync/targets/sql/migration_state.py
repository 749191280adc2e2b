"""What a migration keeps in the target beside the records: its state, and rows set aside."""

from __future__ import annotations

import sqlalchemy as sa

from rubix_token_sync.targets.migration_step import MigrationStep
from rubix_token_sync.targets.sql.database import Database

__all__ = ["MigrationRows"]


class MigrationRows:
    """Writes `MigrationStep`; each may be written twice."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._tables = database.tables

    def write(self, conn: sa.Connection, step: MigrationStep) -> None:
        """In the caller's transaction."""
        aside = self._tables.set_aside
        its_own = (
            aside.c.migration_id == step.migration_id,
            aside.c.database_key == step.database_key,
        )
        if step.forget_aside:
            conn.execute(sa.delete(aside).where(*its_own))
        if step.part is not None:
            conn.execute(sa.delete(aside).where(*its_own, aside.c.part == step.part))
            values = [
                {
                    "migration_id": step.migration_id,
                    "database_key": step.database_key,
                    "part": step.part,
                    "record_key": row.record_key,
                    "original_id": row.original_id,
                    "reason": row.reason,
                    "changed_columns": ",".join(row.columns) or None,
                    "original_row": row.row,
                }
                for row in step.aside
            ]
            if values:
                conn.execute(sa.insert(aside), values)
        if step.state is not None:
            self._write_state(conn, step)

    def write_alone(self, step: MigrationStep) -> None:
        """In a transaction of its own."""
        self._database.transact(lambda conn: self.write(conn, step))

    def _write_state(self, conn: sa.Connection, step: MigrationStep) -> None:
        migrated = self._tables.migrated
        values = {**(step.state or {}), "changed_at": self._database.now}
        keys = {"migration_id": step.migration_id, "database_key": step.database_key}
        updated = conn.execute(
            sa.update(migrated)
            .where(*(migrated.c[name] == value for name, value in keys.items()))
            .values(values)
        )
        if updated.rowcount == 0:
            conn.execute(sa.insert(migrated).values({**keys, **values}))
