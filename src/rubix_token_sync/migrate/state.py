"""A migration's state, kept in the target: what is done stays done, whoever asks again."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import sqlalchemy as sa

from rubix_token_sync import __version__, failpoints
from rubix_token_sync.errors import SettingsError
from rubix_token_sync.migrate.report import COUNTERS, DatabaseOutcome
from rubix_token_sync.migrate.rows import Aside
from rubix_token_sync.migrate.source import PlannedDatabase
from rubix_token_sync.targets.migration_step import MigrationStep
from rubix_token_sync.targets.sql.target import SqlTarget

__all__ = ["Known", "MigrationState"]


@dataclass(frozen=True)
class Known:
    """What an earlier call noted of a database: ``LOADING`` or ``DONE``, and its rows' version."""

    state: str
    version: str
    outcome: DatabaseOutcome


class MigrationState:
    """The rows of SyncMigrations and its two tables that belong to one migration."""

    def __init__(self, store: SqlTarget, migration_id: str, timezone: str) -> None:
        self.store = store
        self.migration_id = migration_id
        self.timezone = timezone

    @classmethod
    def open(
        cls, store: SqlTarget, identity: str, timezone: str | None, *, start_over: bool = False
    ) -> MigrationState | None:
        """The unfinished migration of this source, or the last finished one; None for none.

        Raises:
            SettingsError: an unfinished migration in this target is another one.
        """
        migrations = store.tables.migrations
        query = sa.select(migrations).order_by(migrations.c.started_at.desc())
        rows = store.read(lambda conn: conn.execute(query).all())
        unfinished = [row for row in rows if row.status == "RUNNING"]
        if start_over:
            ids = [row.migration_id for row in unfinished]
            store.transact(
                lambda conn: conn.execute(
                    sa.update(migrations)
                    .where(migrations.c.migration_id.in_(ids))
                    .values(status="ABANDONED", finished_at=store.now)
                )
            )
            return None
        for row in unfinished:
            if row.source_identity != identity:
                raise SettingsError(
                    f"A migration into this target from {row.source_place} is unfinished, and "
                    "this is another source.",
                    code="another_source",
                    remedy="Finish it with the same --from, or give it up with --start-over.",
                )
            if row.target_place != store.place:
                raise SettingsError(
                    f"The unfinished migration in this target was begun as {row.target_place}; "
                    f"this is {store.place}.",
                    code="another_target",
                    remedy="Go on with the target it was begun with, or give it up with "
                    "--start-over.",
                )
        for row in rows:
            if row.source_identity == identity and row.status in ("RUNNING", "COMPLETED"):
                if timezone is not None and timezone != row.source_timezone:
                    raise SettingsError(
                        f"This migration took the source's times as {row.source_timezone}, not "
                        f"{timezone}.",
                        code="another_timezone",
                        remedy="Leave out --source-timezone, or begin anew with --start-over.",
                    )
                return cls(store, str(row.migration_id), row.source_timezone)
        return None

    @classmethod
    def begin(cls, store: SqlTarget, identity: str, place: str, timezone: str) -> MigrationState:
        """Note that a migration begins."""
        made = cls(store, str(uuid.uuid4()), timezone)
        migrations = store.tables.migrations

        def work(conn: sa.Connection) -> None:
            failpoints.point("migrate.begin")
            there = sa.select(migrations.c.migration_id).where(
                migrations.c.migration_id == made.migration_id
            )
            if conn.execute(there).first() is None:
                conn.execute(
                    sa.insert(migrations).values(
                        migration_id=made.migration_id,
                        started_at=store.now,
                        status="RUNNING",
                        source_identity=identity,
                        source_place=place[:500],
                        target_place=store.place[:500],
                        source_timezone=timezone,
                        program_version=__version__,
                    )
                )

        store.transact(work)
        return made

    def set_status(self, status: str) -> None:
        """``RUNNING`` or ``COMPLETED``."""
        migrations = self.store.tables.migrations
        values = {
            "status": status,
            "finished_at": self.store.now if status == "COMPLETED" else None,
        }

        def work(conn: sa.Connection) -> None:
            failpoints.point("migrate.status")
            conn.execute(
                sa.update(migrations)
                .where(migrations.c.migration_id == self.migration_id)
                .values(values)
            )

        self.store.transact(work)

    # ---------------------------------------------------------------- databases

    def known(self) -> dict[bytes, Known]:
        """Every database that this migration has begun."""
        migrated = self.store.tables.migrated
        query = sa.select(migrated).where(migrated.c.migration_id == self.migration_id)
        return {
            bytes(row.database_key): Known(
                row.state,
                row.source_version,
                DatabaseOutcome(
                    row.source_ip,
                    row.db_path,
                    "unchanged",
                    **{name: getattr(row, name) for name in COUNTERS},
                    digest=row.digest,
                    target_digest=row.digest,
                ),
            )
            for row in self.store.read(lambda conn: conn.execute(query).all())
        }

    def step(
        self, database: PlannedDatabase, state: str, outcome: DatabaseOutcome
    ) -> MigrationStep:
        """A database's state, to be written with a chunk."""
        return MigrationStep(
            self.migration_id,
            database.key,
            state={
                "source_ip": database.source_ip[:45],
                "db_path": database.db_path[:500],
                "state": state,
                "source_version": database.version[:200],
                **{name: getattr(outcome, name) for name in COUNTERS},
                "digest": outcome.digest,
                "seconds": outcome.seconds,
            },
        )

    # ---------------------------------------------------------------- rows set aside

    def part(self, key: bytes, part: int | None, rows: Iterable[Aside]) -> MigrationStep:
        """Rows to be kept in full, in place of what the same part held."""
        return MigrationStep(self.migration_id, key, part=part, aside=tuple(rows))

    def aside(self, conn: sa.Connection, key: bytes) -> Iterator[Aside]:
        """What was set aside of a database, a bounded number at a time."""
        aside = self.store.tables.set_aside
        query = (
            sa.select(aside)
            .where(aside.c.migration_id == self.migration_id, aside.c.database_key == key)
            .order_by(aside.c.id)
        )
        for row in conn.execution_options(yield_per=50).execute(query):
            columns = tuple(row.changed_columns.split(",")) if row.changed_columns else ()
            yield Aside(row.reason, columns, row.original_id, row.record_key, row.original_row)
