"""Records by what is looked for, a page at a time, however many there are.

Two ways, neither of which reads more than it must.  What an index knows (a token's id, a DID,
missing content) is one statement in the order of ``id``.  Everything else is a walk along
``record_key``, in which a database is a range: block by block, until the page is full or time is
up; the answer says so, and its cursor goes on from there.
"""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import sqlalchemy as sa

from rubix_token_sync.audit.authenticity import WholeToken
from rubix_token_sync.audit.limits import Form, package_limits
from rubix_token_sync.errors import SettingsError
from rubix_token_sync.ipfs import cid as cids
from rubix_token_sync.monitor.codes import code_of
from rubix_token_sync.monitor.failure_counts import validation_code
from rubix_token_sync.records.schema import DATABASE_KEY_BYTES, RECORD_KEY_BYTES
from rubix_token_sync.records.validate import Code
from rubix_token_sync.targets.sql.functions import beginning, cased, exactly, last_of, sorted_late
from rubix_token_sync.targets.sql.tables import Tables

__all__ = ["TokenFilters", "TokenPage", "TokenRow", "find_tokens"]

_BLOCK: Final = 5_000
_SELECTIVE: Final = 10
"""Characters of a beginning that few ids share; all begin alike (``Qm``, ``bafybmi``)."""
_CURSOR: Final = re.compile(r"i(\d{1,18})|k([0-9a-f]{48})")


@dataclass(frozen=True)
class TokenFilters:
    """Empty means: everything that nodes have now."""

    token: str | None = None
    """An id; with ``*`` at its end the beginning of ids."""
    did: str | None = None
    """Likewise."""
    sources: tuple[str, ...] = ()
    nodes: tuple[str, ...] = ()
    databases: tuple[str, ...] = ()
    """Paths."""
    kinds: tuple[str, ...] = ()
    statuses: tuple[str, ...] = ()
    verdicts: tuple[str, ...] = ()
    """``none``: nobody has judged."""
    level: int | None = None
    number: int | None = None
    """Of whole tokens: their ids follow from level and number, judged or not."""
    content: str | None = None
    """``yes``, ``no``, or the code of a reason why there is none."""
    invalid: str | None = None
    """``yes``, or the code of a validation error."""
    gone: bool | None = False
    """True: what vanished from its node; None: both."""

    @property
    def named(self) -> bool:
        """Single tokens, or those of single DIDs, are looked for."""
        return bool(self.token or self.did) or self.number is not None


@dataclass(frozen=True)
class TokenRow:
    """One record, as lists have it; `TargetReader.token` has everything."""

    token_id: str | None
    token_kind: str
    network: str | None
    source_ip: str
    node_name: str
    db_path: str
    did: str | None
    token_status: str | None
    token_value: str | None
    verdict: str | None
    token_level: int | None
    token_number: int | None
    ipfs_fetched: bool
    ipfs_error: str | None
    validation_errors: str | None
    synced_at: datetime | None
    source_deleted_at: datetime | None


@dataclass(frozen=True)
class TokenPage:
    """Some of the records that were looked for."""

    tokens: list[TokenRow]
    next: str | None
    """Where the next page begins; None: this was the last one."""
    in_time: bool
    """False: the page is not full because time was up; ``next`` goes on looking."""


def find_tokens(
    conn: sa.Connection,
    tables: Tables,
    filters: TokenFilters,
    *,
    after: str | None = None,
    limit: int = 50,
    seconds: float = 0.15,
) -> TokenPage:
    """One page; ``after`` is the ``next`` of the page before, ``seconds`` how long a walk looks.

    Raises:
        SettingsError: ``after`` is not such a cursor.
    """
    start_id, start_key = _start(after)
    records = tables.records
    conditions = _conditions(records, filters)
    pointed = _pointed(conn, records, filters)
    if pointed:
        wanted = [*pointed, *conditions, *_places(records, filters)]
        query = (
            _rows(records)
            .where(records.c.id > start_id, *wanted)
            .order_by(sorted_late(records.c.id) if filters.named else records.c.id)
            .limit(limit + 1)
        )
        rows = conn.execute(query).all()
        cursor = f"i{rows[limit - 1].id}" if len(rows) > limit else None
        return TokenPage([_row(row) for row in rows[:limit]], cursor, True)
    conditions += _beginnings(records, filters)
    until = time.monotonic() + seconds
    found: list[sa.Row[Any]] = []
    ranges = _ranges(conn, tables, filters, start_key)
    for place, (low, high) in enumerate(ranges, 1):
        end = low
        while end < high:
            end, rows = _block(conn, records, conditions, (end, high), limit + 1 - len(found))
            found += rows
            if len(found) > limit:
                cursor = f"k{bytes(found[limit - 1].record_key).hex()}"
                return TokenPage([_row(row) for row in found[:limit]], cursor, True)
            if time.monotonic() > until and (end < high or place < len(ranges)):
                return TokenPage([_row(row) for row in found], f"k{end.hex()}", False)
    return TokenPage([_row(row) for row in found], None, True)


def _start(after: str | None) -> tuple[int, bytes]:
    match = _CURSOR.fullmatch(after or "i0")
    if match is None:
        raise SettingsError(
            "This is not a cursor of a list of tokens.",
            code="bad_cursor",
            remedy="Take `next` of the page before as it is, or begin without one.",
        )
    return int(match[1] or 0), bytes.fromhex(match[2] or "")


def _rows(records: sa.FromClause) -> sa.Select[Any]:
    names = ["id", "record_key", *TokenRow.__dataclass_fields__]
    return sa.select(*(records.c[name] for name in names))


def _row(row: sa.Row[Any]) -> TokenRow:
    values = {name: row._mapping[name] for name in TokenRow.__dataclass_fields__}
    return TokenRow(**{**values, "ipfs_fetched": bool(row.ipfs_fetched)})


# --- conditions --------------------------------------------------------------------------


def _conditions(records: sa.FromClause, filters: TokenFilters) -> list[sa.ColumnElement[bool]]:
    """Those that no index answers."""
    c = records.c
    found: list[sa.ColumnElement[bool]] = []
    if filters.gone is not None:
        gone = c.source_deleted_at
        found.append(gone.is_not(None) if filters.gone else gone.is_(None))
    if filters.kinds:
        found.append(c.token_kind.in_(filters.kinds))
    if filters.statuses:
        found.append(c.token_status.in_(filters.statuses))
    if filters.verdicts:
        either: list[sa.ColumnElement[bool]] = [c.verdict.in_(filters.verdicts)]
        if "none" in filters.verdicts:
            either.append(c.verdict.is_(None))
        found.append(sa.or_(*either))
    if filters.level is not None and filters.number is None:
        found.append(c.token_level == filters.level)
    if filters.content == "yes":
        found.append(c.ipfs_fetched == sa.true())
    elif filters.content is not None:
        found.append(c.ipfs_fetched == sa.false())
        if filters.content != "no":
            found.append(code_of(c.ipfs_error) == filters.content)
    if filters.invalid is not None:
        found.append(c.validation_errors.is_not(None))
        known = {code.value: code for code in Code}
        if filters.invalid in known:
            found.append(validation_code(known[filters.invalid], c.validation_errors))
        elif filters.invalid != "yes":
            found.append(
                sa.not_(sa.or_(*(validation_code(code, c.validation_errors) for code in Code)))
            )
    return found


def _places(records: sa.FromClause, filters: TokenFilters) -> list[sa.ColumnElement[bool]]:
    named = (
        (records.c.source_ip, filters.sources),
        (records.c.node_name, filters.nodes),
        (records.c.db_path, tuple(path[:500] for path in filters.databases)),
    )
    return [column.in_(values) for column, values in named if values]


def _beginnings(records: sa.FromClause, filters: TokenFilters) -> list[sa.ColumnElement[bool]]:
    """Of ids that are too short to be looked up in an index."""
    named = ((records.c.token_id, filters.token), (records.c.did, filters.did))
    return [_begins(column, text[:-1]) for column, text in named if text]


def _begins(column: sa.ColumnElement[str], start: str) -> sa.ColumnElement[bool]:
    if not start:
        return sa.true()
    return cased(beginning(column, sa.literal(len(start)))) == cased(sa.literal(start))


def _pointed(
    conn: sa.Connection, records: sa.FromClause, filters: TokenFilters
) -> list[sa.ColumnElement[bool]]:
    """Conditions of which at least one is answered from an index; empty: there is none."""
    found: list[sa.ColumnElement[bool]] = []
    waiting: list[sa.ColumnElement[bool]] = []
    for column, text in ((records.c.token_id, filters.token), (records.c.did, filters.did)):
        if not text:
            continue
        if not text.endswith("*"):
            found.append(exactly(column, sa.literal(text)))
        elif len(text) > _SELECTIVE:
            start = text[:-1]
            found += [column.between(start, last_of(conn, start)), _begins(column, start)]
        else:
            waiting.append(_begins(column, text[:-1]))
    if filters.number is not None:
        found.append(records.c.token_id.in_(_ids_of(filters.level, filters.number)))
    everywhere = not (filters.sources or filters.nodes or filters.databases)
    if not found and everywhere and filters.content not in (None, "yes"):
        found.append(records.c.ipfs_fetched == sa.false())
    return [*found, *waiting] if found else []


def _ids_of(level: int | None, number: int) -> list[str]:
    """Every id that a whole token of this number can have, of one level or of any."""
    levels = package_limits().levels if level is None else (level,)
    digests = [
        WholeToken(one, number, form).digest()
        for one in levels
        for form in Form
        if form.digits == 3 or one == 1
    ]
    return [
        text
        for digest in digests
        for text in (cids.cid_v0(digest), cids.cid_v1(cids.DAG_PB, cids.sha256_multihash(digest)))
    ]


# --- the walk ----------------------------------------------------------------------------


def _ranges(
    conn: sa.Connection, tables: Tables, filters: TokenFilters, after: bytes
) -> list[tuple[bytes, bytes]]:
    """Ranges of keys in their order, from behind ``after``: all of them, or those of databases."""
    lowest, highest = b"\x00" * RECORD_KEY_BYTES, b"\xff" * RECORD_KEY_BYTES
    databases = tables.databases
    wanted = [
        column.in_(values)
        for column, values in (
            (databases.c.source_ip, filters.sources),
            (databases.c.node_name, filters.nodes),
            (databases.c.db_path, tuple(path[:500] for path in filters.databases)),
        )
        if values
    ]
    if not wanted:
        return [(max(lowest, after), highest)]
    query = sa.select(databases.c.database_key).where(*wanted)
    rest = RECORD_KEY_BYTES - DATABASE_KEY_BYTES
    keys = sorted(bytes(row[0]) for row in conn.execute(query))
    ranges = [(key + b"\x00" * rest, key + b"\xff" * rest) for key in keys]
    return [(max(low, after), high) for low, high in ranges if high > after]


def _block(
    conn: sa.Connection,
    records: sa.FromClause,
    conditions: Sequence[sa.ColumnElement[bool]],
    span: tuple[bytes, bytes],
    limit: int,
) -> tuple[bytes, Sequence[sa.Row[Any]]]:
    """The last key of the next block of the range, and the block's first rows that match."""
    key = records.c.record_key
    low, high = span
    last = conn.execute(
        sa.select(key).where(key > low, key <= high).order_by(key).offset(_BLOCK - 1).limit(1)
    ).scalar()
    end = high if last is None else bytes(last)
    query = _rows(records).where(key > low, key <= end, *conditions).order_by(key).limit(limit)
    return end, conn.execute(query).all()
