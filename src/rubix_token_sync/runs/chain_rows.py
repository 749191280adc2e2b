"""The token chains beside a database: read after its rows, brought into their own table.

What cannot be read costs itself only: the tokens are published, the directory is recorded as
an error and in the database's mark, and nothing of it counts as vanished.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from rubix_token_sync.errors import SourceError
from rubix_token_sync.nodes.chain_verdict import UNREAD
from rubix_token_sync.nodes.chains import STORAGES, Chains, chains_fingerprint, read_chains
from rubix_token_sync.nodes.did_keys import Network, NodeKeys
from rubix_token_sync.records.companions import CHAINS, chains_of
from rubix_token_sync.records.schema import SourceRow
from rubix_token_sync.records.values import cut
from rubix_token_sync.runs.companions import CompanionRows, CompanionTables
from rubix_token_sync.runs.jobs import Job
from rubix_token_sync.scratch import Scratch
from rubix_token_sync.targets.base import ChainsMark, ErrorEntry
from rubix_token_sync.text import counted

__all__ = ["ChainsOutcome", "bring_chains"]

_ERROR_UNITS = 1_000


@dataclass
class ChainsOutcome:
    """What became of one database's chains.

    Attributes:
        counts: live rows that the target must hold, by table; empty: nothing was read.
        mark: what the target is to say of them; None: as before.
        unread: directories that could not be read, or not all of a token's chain there.
    """

    counts: dict[str, int | None] = field(default_factory=dict)
    mark: ChainsMark | None = None
    errors: list[ErrorEntry] = field(default_factory=list)
    unread: int = 0


def bring_chains(
    job: Job,
    network: Network,
    scratch: Scratch | None,
    into: CompanionTables,
    moved: Callable[[], None],
) -> ChainsOutcome:
    """Read the chains where they changed, and publish those of tokens whose chain did.

    ``moved`` is called as often as there are some more.

    Raises:
        SourceError: a comparison cannot be made, for some cannot be read.
        TargetError: the target cannot be asked, or takes nothing.
    """
    path = job.node.db_path
    failures: dict[str, SourceError] = {}
    fingerprint: str | None = None
    wrong: Counter[str] = Counter()
    unread: Counter[str] = Counter()
    try:
        # Taken before reading: what changes meanwhile is a change for the next run.
        fingerprint = chains_fingerprint(path, network)
        if job.task == "sync" and fingerprint == job.chains_held:
            return ChainsOutcome()
        chains = read_chains(path, network, scratch, NodeKeys(path, network))
        _take(chains, into, moved, wrong, unread)
        failures = chains.failures
    except SourceError as error:
        failures["all"] = error
    if failures and job.task == "compare":
        raise next(iter(failures.values()))
    into.end(complete=not failures)
    if not failures:
        errors = [_unread_entry(job, kind, count) for kind, count in unread.items()]
        told = _told(wrong.total(), unread.total())
        return ChainsOutcome(dict(into.counts), ChainsMark(fingerprint, told), errors, len(unread))
    errors = [_entry(job, directory, error) for directory, error in failures.items()]
    told = cut(f"{errors[0].code}: {errors[0].message}", _ERROR_UNITS)
    return ChainsOutcome({CHAINS.name: None}, ChainsMark(None, told), errors, len(failures))


def _told(wrong: int, unread: int) -> str | None:
    """What the mark says of chains that were read, until they are read again."""
    if unread:
        said = f"not all of {counted(unread, 'chain')} could be looked at"
        return (
            f"chain_blocks_unread: {said}; {wrong} more are wrong"
            if wrong
            else (f"chain_blocks_unread: {said}")
        )
    return f"chains_wrong: {counted(wrong, 'chain')} with an error" if wrong else None


def _take(
    chains: Chains,
    into: CompanionTables,
    moved: Callable[[], None],
    wrong: Counter[str],
    unread: Counter[str],
) -> None:
    """Bring them; counts by kind those that are wrong and those that were not read whole."""
    readers: dict[str, CompanionRows] = {}
    try:
        for batch in chains:
            kind = batch.column("token_kind")[0].as_py()
            if kind not in readers:
                readers[kind] = into.reader(chains_of(kind), unique=True)
            into.take(readers[kind], _rows(batch))
            for error in batch.column("error").drop_null().to_pylist():
                (unread if error.partition(":")[0] in UNREAD else wrong)[kind] += 1
            moved()
    finally:
        chains.close()


def _rows(batch: pa.RecordBatch) -> list[SourceRow]:
    """Rows of `CHAINS`, times as text: so they are digested and judged as any other row."""
    columns: list[list[Any]] = []
    for name in CHAINS.source:
        column = batch.column(name)
        if pa.types.is_timestamp(column.type):
            column = column.cast(pa.string())
        columns.append(column.to_pylist())
    return list(zip(*columns, strict=True))


def _unread_entry(job: Job, kind: str, count: int) -> ErrorEntry:
    return ErrorEntry(
        category="database",
        code="chain_blocks_unread",
        message=f"Not all of {counted(count, 'chain')} of kind {kind} could be looked at; "
        "TokenChains.error says why.",
        node_name=job.node.name,
        db_path=job.node.db_path,
        occurrences=count,
        context={"kind": kind},
    )


def _entry(job: Job, directory: str, error: SourceError) -> ErrorEntry:
    what = f"{directory} ({STORAGES[directory]})" if directory in STORAGES else "the directories"
    return ErrorEntry(
        category=error.category,
        code=error.code,
        message=f"Token chains of {what} could not be read: {error}",
        node_name=job.node.name,
        db_path=job.node.db_path,
        context={**error.context, "directory": directory},
    )
