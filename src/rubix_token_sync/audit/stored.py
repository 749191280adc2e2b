"""Verdicts for records that are stored already: without one, or by limits of another version.

Nothing is read from nodes.  Works in chunks, each in a transaction of its own under the
audit's lease: what was judged stays judged, whatever ends the work.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

import sqlalchemy as sa

from rubix_token_sync import failpoints
from rubix_token_sync.audit.judging import JudgeOptions, prepare_judge
from rubix_token_sync.errors import TokenTableError
from rubix_token_sync.records.build import (
    SIGNATURE_NOT_CHECKED,
    SIGNATURE_VERDICTS,
    VERDICT_COLUMNS,
)
from rubix_token_sync.records.content_text import decode_content
from rubix_token_sync.records.schema import RECORDS
from rubix_token_sync.targets.base import Lease
from rubix_token_sync.targets.sql.history import keeping, later_run
from rubix_token_sync.targets.sql.questions import parts
from rubix_token_sync.targets.sql.target import SqlTarget

if TYPE_CHECKING:
    from rubix_token_sync.audit.judge import Judge

__all__ = ["judge_stored", "stored_content"]

_LOG: Final = logging.getLogger(__name__)
_CHUNK: Final = 5_000


def judge_stored(store: SqlTarget, lease: Lease, options: JudgeOptions | None) -> str | None:
    """Judge what needs it; gives the version of the limits that every verdict now rests on.

    None where there is no place for tables of token numbers: verdicts stay as they are.

    Raises:
        LeaseLost: another audit has taken over.
        TargetError: the target cannot be used.
        ValueError: the options name limits that do not exist.
    """
    if options is None:
        return None
    from rubix_token_sync.audit.authenticity import Ruling
    from rubix_token_sync.audit.limits import package_limits

    version = Ruling(package_limits(), options.source).version
    runs, records = store.tables.audit.runs, store.tables.records
    known = sa.select(runs.c.limits_version).where(runs.c.limits_version.is_not(None))
    latest = known.order_by(runs.c.number.desc()).limit(1)
    before = store.read(lambda conn: conn.execute(latest).scalar())
    stale: sa.ColumnElement[bool] = records.c.verdict.is_(None)
    if before is not None and before != version:
        stale = sa.true()
    waiting = sa.select(records.c.id, records.c.ipfs_fetched).where(stale).limit(1)
    if store.read(lambda conn: conn.execute(waiting).first()) is None:
        return version
    bare = sa.select(records.c.id).where(stale, records.c.ipfs_fetched == sa.false()).limit(1)
    ids = store.read(lambda conn: conn.execute(bare).first()) is not None
    try:
        judge = prepare_judge(options, ids=ids).open()
        _judge_all(store, lease, judge, stale)
    except (TokenTableError, OSError) as error:
        _LOG.warning("Stored tokens are not judged in this audit. %s", error)
        return None
    return version


def _judge_all(store: SqlTarget, lease: Lease, judge: Judge, stale: sa.ColumnElement[bool]) -> None:
    records = store.tables.records
    columns = [records.c[name] for name in ("id", "token_id", "ipfs_data", "token_kind")]
    held = tuple(records.c[name] for name in VERDICT_COLUMNS)
    changed = (
        sa.update(records)
        .where(records.c.id == sa.bindparam("row"))
        .values({name: sa.bindparam(name) for name in VERDICT_COLUMNS})
    )
    last = 0

    def work(conn: sa.Connection) -> int | None:
        run = store.sessions.fence(conn, lease)
        failpoints.point("audit.judge")
        query = sa.select(*columns, *held).where(stale, records.c.id > last)
        rows = conn.execute(query.order_by(records.c.id).limit(_CHUNK)).all()
        if not rows:
            return None
        verdicts = judge.judge(
            [row.token_id for row in rows],
            [stored_content(row.ipfs_data) for row in rows],
            [row.token_kind for row in rows],
        ).to_pylist()
        judged = [
            (row, new)
            for row, new in zip(rows, verdicts, strict=True)
            # What was checked stays so: it does not rest on limits.
            if not (new["verdict"] == SIGNATURE_NOT_CHECKED and row.verdict in SIGNATURE_VERDICTS)
        ]
        if judged:
            _keep(conn, store, run, judged)
            conn.execute(changed, [{"row": row.id, **new} for row, new in judged])
        return int(rows[-1].id)

    while (done := store.transact(work)) is not None:
        last = done


def _keep(
    conn: sa.Connection,
    store: SqlTarget,
    run: int,
    judged: Sequence[tuple[sa.Row[Any], dict[str, Any]]],
) -> None:
    """Keep what is judged anew and differently.

    A record's first verdict is not a change of it, nor is the first check of its signature.
    """
    records = store.tables.records
    revised: defaultdict[str, list[int]] = defaultdict(list)
    for row, new in judged:
        differing = [name for name in VERDICT_COLUMNS if row._mapping[name] != new[name]]
        if row.verdict is not None and differing:
            revised[",".join(differing)].append(row.id)
    statements: list[sa.Executable] = []
    for names, ids in revised.items():
        for part in parts(ids):
            chosen = records.c.id.in_(part)
            statements += keeping(store.tables.stored[RECORDS.name], run, names, chosen)
            since = later_run(records, run)
            statements.append(sa.update(records).where(chosen).values(since_run=since))
    if statements:
        store.backend.together(conn, statements)


def stored_content(text: str | None) -> bytes | None:
    """The bytes of a token from its ``ipfs_data``; None where it holds none."""
    if text is None:
        return None
    try:
        return decode_content(text)
    except ValueError:  # not what a sync has stored: `verify` finds it
        return None
