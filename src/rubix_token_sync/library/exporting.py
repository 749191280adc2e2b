"""Export: what a target holds, as files for other programs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import timedelta
from pathlib import Path
from typing import IO, Literal, Unpack

from rubix_token_sync.errors import SettingsError
from rubix_token_sync.export.run import FORMATS, Exported, Format, Partition
from rubix_token_sync.export.run import export as run_export
from rubix_token_sync.export.tables import PAST_RECORDS, TABLES, ExportFilters
from rubix_token_sync.history.moments import WhenText
from rubix_token_sync.library.configuration import CallSettings, PathName
from rubix_token_sync.library.reader import open_target
from rubix_token_sync.nodes.keep_out import keep_out

__all__ = ["export_table"]


def export_table(
    what: Literal["records", "transactions", "pledges", "chains", "findings", "history"],
    to: PathName | IO[bytes],
    *,
    form: Format | None = None,
    partition: Partition | None = None,
    sources: Sequence[str] = (),
    nodes: Sequence[str] = (),
    dids: Sequence[str] = (),
    kinds: Sequence[str] = (),
    since: timedelta | None = None,
    as_of: WhenText | None = None,
    on_progress: Callable[[int, int], None] = lambda _done, _total: None,
    **settings: Unpack[CallSettings],
) -> Exported:
    """Write a table of the target, as it is in one moment, to a file, a directory or a stream.

    ``form`` is ``parquet``, ``csv`` or ``jsonl``; by default what the file's name ends in
    (before ``.gz`` or ``.zst``, which compress the latter two).  ``partition`` makes ``to`` a
    directory, of Parquet by default, with one directory for each ``kind``, ``source`` or
    ``node``.  ``since`` is an age: rows that changed in the target within it.  ``as_of``:
    records as they were then (see `PastReader`).  Memory is bounded
    by some hundred megabytes, however large the target is.

    Raises:
        SettingsError: the form is not known, a filter has no meaning for this table, or ``to``
            cannot be written.
        TargetError: the target cannot be read.
    """
    place = Path(to).absolute() if not hasattr(to, "write") else None
    if form is None:
        form = "parquet" if partition is not None else _form_of(place)
    if place is not None:
        keep_out(place, "The export", "place" if partition is not None else "file")
    with open_target(**settings) as target:
        target.require_known(sources=sources, nodes=nodes)
        runs = None if as_of is None else target._moment(as_of)
        filters = ExportFilters(
            tuple(sources), tuple(nodes), tuple(dids), tuple(kinds), since, runs
        )
        return run_export(
            target._store,
            PAST_RECORDS if what == "records" and runs is not None else TABLES[what],
            place or to,  # type: ignore[arg-type] # one of the two
            form,
            filters=filters,
            partition=partition,
            on_progress=on_progress,
        )


def _form_of(place: Path | None) -> Format:
    name = place.name.lower() if place is not None else ""
    for ending in (".gz", ".zst"):
        name = name.removesuffix(ending)
    for form in FORMATS:
        if name.endswith(f".{form}"):
            return form
    raise SettingsError(
        "In which form the export is to be written is not known.",
        code="export_form",
        remedy="Name it by --format, or a file that ends in .parquet, .csv or .jsonl.",
    )
