"""Moving one database, its records, what was set aside of it and what stands beside them."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from dataclasses import replace

from rubix_token_sync import failpoints
from rubix_token_sync.errors import ReportMismatch
from rubix_token_sync.log import log_event
from rubix_token_sync.migrate.parts import Part, batch_of, mark_of, parts_of
from rubix_token_sync.migrate.proof import NOWHERE, digest_aside, digest_held, digest_homeless
from rubix_token_sync.migrate.report import DatabaseOutcome
from rubix_token_sync.migrate.rows import Digest, Moved, Record
from rubix_token_sync.migrate.sessions import Sessions
from rubix_token_sync.migrate.source import PlannedDatabase, Source
from rubix_token_sync.migrate.state import Known, MigrationState
from rubix_token_sync.records.schema import RECORD_KEY_BYTES
from rubix_token_sync.targets.base import Chunk, Lease
from rubix_token_sync.targets.sql.target import SqlTarget

__all__ = ["Mover"]

_LOG = logging.getLogger(__name__)


class Mover:
    """Writes into a target what a source holds, a database at a time, under its lease."""

    def __init__(
        self, source: Source, target: SqlTarget, state: MigrationState, sessions: Sessions
    ) -> None:
        self._source = source
        self._target = target
        self._state = state
        self._sessions = sessions

    def move(
        self,
        database: PlannedDatabase,
        rows: Iterator[Moved],
        earlier: Known | None,
    ) -> DatabaseOutcome:
        """Move a database's rows and prove it; what was moved ``earlier`` is found unchanged.

        Raises:
            ReportMismatch: the target does not hold what was just written.
            TargetError: it cannot be reached, or refuses.
        """
        begun = time.monotonic()
        source, state = self._source, self._state
        lease = self._sessions.lease(database.source_ip)
        outcome = DatabaseOutcome(database.source_ip, database.db_path)
        if earlier is not None and earlier.version != database.version:
            self._target.remove_records(lease, database.key)  # other rows are there now

        failpoints.point("migrate.database")
        begin = replace(state.step(database, "LOADING", outcome), forget_aside=True)
        self._target.publish(lease, Chunk(rows=batch_of([]), migration=begin))
        read = Digest()
        last: Record | None = None
        for number, chunk in enumerate(parts_of(rows, read, outcome)):
            last = chunk.records[-1] if chunk.records else last
            self._publish(lease, database, number, chunk, outcome)
            self._sessions.check()
        outcome.digest = read.text()
        held = digest_held(source, state, database)
        found, outcome.rows_stored = held.digest, held.records
        outcome.target_digest = found.text()
        outcome.seconds = time.monotonic() - begun
        if found != read:
            raise ReportMismatch(
                f"{database.db_path}: the target does not hold what was moved "
                f"({read.count} rows went in, {found.count} are found).",
                code="migration_mismatch",
                remedy="Nothing counts as moved of this database; run it again, and report it if "
                "it stays.",
                context={"expected": read.text(), "found": found.text()},
            )
        beside = self._move_companions(lease, database)
        mark = mark_of(database, outcome, last, held.vanished)
        self._target.publish(
            lease,
            Chunk(
                rows=batch_of([]),
                mark=replace(mark, companions=beside),
                migration=state.step(database, "DONE", outcome),
            ),
        )
        failpoints.point("migrate.done")
        self._sessions.totals.total_databases_processed += 1
        return outcome

    def _move_companions(self, lease: Lease, database: PlannedDatabase) -> dict[str, int]:
        """Move what stands beside the records; live rows that the target must hold, by table."""
        live: dict[str, int] = {}
        for chunk in self._source.companions(database):
            published = self._target.publish(lease, chunk)
            refused = {one.record_key for one in published.rejected}
            gone = {
                chunk.vanished[i : i + RECORD_KEY_BYTES]
                for i in range(0, len(chunk.vanished), RECORD_KEY_BYTES)
            }
            count = chunk.rows.num_rows - len(refused | gone)
            live[chunk.table] = live.get(chunk.table, 0) + count
            for one in published.rejected:
                log_event(
                    _LOG, logging.WARNING, "row_refused",
                    f"{database.db_path}: a row of {chunk.table} is left out: {one.reason}",
                    db_path=database.db_path,
                )  # fmt: skip
            self._sessions.check()
        return live

    def _publish(
        self,
        lease: Lease,
        database: PlannedDatabase,
        number: int,
        chunk: Part,
        outcome: DatabaseOutcome,
    ) -> None:
        failpoints.point("migrate.chunk")
        source, state = self._source, self._state
        asides = chunk.asides
        published = self._target.publish(
            lease,
            Chunk(
                rows=batch_of(chunk.records),
                vanished=chunk.vanished,
                bulk=True,
                migration=state.part(database.key, number, asides),
            ),
        )
        if published.rejected:
            refused = {one.record_key: one.reason for one in published.rejected}
            left = [one for one in chunk.moved if one.record and one.record[0] in refused]
            # An entry for such a row says that a record holds it in another form; none does.
            asides = [
                one for one in asides if one.reason == "duplicate" or one.record_key not in refused
            ]
            asides += [source.form.refuse(one) for one in left]
            again = state.part(database.key, number, asides)
            self._target.publish(lease, Chunk(rows=batch_of([]), migration=again))
            outcome.rows_refused += len(left)
            outcome.rows_changed -= sum(one.aside is not None for one in left)
            for one in left:
                assert one.record is not None
                log_event(
                    _LOG, logging.WARNING, "row_refused",
                    f"{database.db_path}: a row is set aside: {refused[one.record[0]]}",
                    db_path=database.db_path,
                )  # fmt: skip
        self._sessions.totals.total_records_processed += len(chunk.moved)
        self._sessions.totals.total_sql_inserts += published.inserted

    def move_homeless(self) -> int:
        """Keep rows that name no source or database aside; how many there are."""
        source, state = self._source, self._state
        found = digest_homeless(source)
        if found == digest_aside(source, state):
            return found.count

        failpoints.point("migrate.homeless")
        self._target.record_step(replace(state.part(NOWHERE, None, []), forget_aside=True))
        outcome = DatabaseOutcome("", "")
        for number, part in enumerate(parts_of(source.homeless(), Digest(), outcome)):
            self._target.record_step(state.part(NOWHERE, number, part.asides))
        return found.count
