"""What the target holds, as digests: computed from nothing but the target."""

from __future__ import annotations

from typing import Final, NamedTuple

import sqlalchemy as sa

from rubix_token_sync import failpoints
from rubix_token_sync.migrate.own import stored_rows
from rubix_token_sync.migrate.rows import Digest
from rubix_token_sync.migrate.source import PlannedDatabase, Source
from rubix_token_sync.migrate.state import MigrationState

__all__ = ["NOWHERE", "Held", "digest_aside", "digest_held", "digest_homeless"]

NOWHERE: Final = bytes(8)
"""Stands for the database of rows that name none."""

_READ_BYTES: Final = 6_000_000
_READ_ROWS: Final = 1_000


class Held(NamedTuple):
    """What the target holds of a database: its rows' digest, records, and vanished ones of them."""

    digest: Digest
    records: int
    vanished: int


def digest_held(source: Source, state: MigrationState, database: PlannedDatabase) -> Held:
    """The digest of the rows that records and rows set aside say the source had."""
    form, store = source.form, state.store
    fetch = max(1, min(_READ_ROWS, _READ_BYTES // max(1, database.widest)))

    def work(conn: sa.Connection) -> Held:
        failpoints.point("migrate.verify")
        digest, records, gone = Digest(), 0, 0
        for record, vanished in stored_rows(store, conn, database.key, fetch):
            digest.add(form.stored_hash(record, vanished=vanished))
            records += 1
            gone += vanished
        for aside in state.aside(conn, database.key):
            own, replaced = form.aside_hashes(aside)
            digest.add(own)
            if replaced is not None:
                digest.remove(replaced)
        return Held(digest, records, gone)

    return store.read(work)


def digest_homeless(source: Source) -> Digest:
    """The digest of the source's rows that belong to no database."""
    digest = Digest()
    for moved in source.homeless():
        digest.add(moved.row_hash)
    return digest


def digest_aside(source: Source, state: MigrationState) -> Digest:
    """The same, of what the target holds of them."""

    def work(conn: sa.Connection) -> Digest:
        digest = Digest()
        for aside in state.aside(conn, NOWHERE):
            digest.add(source.form.aside_hashes(aside)[0])
        return digest

    return state.store.read(work)
