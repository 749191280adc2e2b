"""`verify`."""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import click

import rubix_token_sync as rts
from rubix_token_sync.cli import events
from rubix_token_sync.cli.options import (
    Loading,
    common_options,
    events_option,
    judging_options,
    loading_options,
    node_option,
    root_arguments,
    takes,
)
from rubix_token_sync.cli.output import answer, say
from rubix_token_sync.cli.terminal import interruptible, print_problems, showing

if TYPE_CHECKING:
    from rubix_token_sync import Difference, Observer, RunOptions, VerifyResult

__all__ = ["show_verify", "verify"]

_LOG = logging.getLogger(__name__)
_RECORDS = "TokenRecords"
_LETTERS = {
    "+": "only the node has it",
    "-": "only the target has it",
    "*": "columns differ",
    "c": "content differs",
}


@dataclass(frozen=True, kw_only=True)
class VerifyArguments(Loading):
    """Options of `verify`."""

    nodes: tuple[str, ...]
    no_progress: bool
    events: bool
    combined: str | None
    repair: bool


@click.command()
@root_arguments
@common_options
@judging_options
@loading_options
@node_option
@click.option("--no-progress", is_flag=True, help="No live bar on a terminal.")
@events_option
@click.option(
    "--combined",
    metavar="FILE",
    help="Write every difference there: a letter, the database, the token, the columns, and "
    "the table where it is not TokenRecords.",
)
@click.option(
    "--repair", is_flag=True, help="Make equal again what differs; needs the right to write."
)
@takes(VerifyArguments)
def verify(arguments: VerifyArguments) -> int:
    """Compare nodes and target record by record, content included.

    Letters: + only the node has it; - only the target has it; * columns
    differ; c content differs.  Exit codes: 0 everything was compared and is equal
    (with --repair: now); 5 different; 1 something could not be compared; 2 usage;
    3 the target refuses us.
    """
    configuration = arguments.configured()
    written: list[Observer] = [_DifferenceFile(arguments.combined)] if arguments.combined else []
    if arguments.events:
        events.started("verify", configuration, as_json=arguments.as_json)
        written.append(events.EventObserver())
    with (
        interruptible() as stop,
        showing("Verifying", quiet=arguments.quiet, no_progress=arguments.no_progress) as bar,
    ):
        result = rts.verify(
            nodes=arguments.nodes,
            repair=arguments.repair,
            observers=[*written, *bar],
            stop=stop,
            configuration=configuration,
        )
    if arguments.events:
        _log_failures(result)
        return events.ended_verify(result)
    return show_verify(result, as_json=arguments.as_json, quiet=arguments.quiet)


def _log_failures(result: VerifyResult) -> None:
    for path, error in [*result.failed, *result.unreadable]:
        rts.log_event(
            _LOG, logging.WARNING, "database_failed", f"{path}: {error}",
            db_path=path, category=error.category, code=error.code,
        )  # fmt: skip


def show_verify(result: VerifyResult, *, as_json: bool, quiet: bool) -> int:
    """Print what a comparison found; its exit code."""
    _log_failures(result)
    answer(
        as_json=as_json,
        quiet=quiet and not result.exit_code,
        document=_document(result),
        table=lambda: _summary(result),
    )
    return result.exit_code


class _DifferenceFile(rts.Observer):
    """Writes each difference into a file."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._file: IO[str] | None = None

    def on_start(self, options: RunOptions) -> None:  # noqa: ARG002 - the observer's form
        rts.keep_out(self._path, "The list of differences", "stream")
        try:
            self._file = Path(self._path).open("w", encoding="utf-8")  # noqa: SIM115 - closed below
        except OSError as error:
            raise rts.SettingsError(
                f"{self._path} cannot be written: {error.strerror}.",
                code="combined_unwritable",
                remedy="Name another file by --combined.",
            ) from error

    def on_difference(self, difference: Difference) -> None:
        if self._file is not None:
            self._file.write(_line(difference) + "\n")

    def close(self) -> None:
        if self._file is not None:
            self._file.close()


def _line(difference: Difference) -> str:
    token = json.dumps(difference.token_id, ensure_ascii=False)  # quoted: ids are hostile
    columns = f" {','.join(difference.columns)}" if difference.columns else ""
    beside = f" {difference.table}" if difference.table != _RECORDS else ""
    return rts.shown(f"{difference.letter} {difference.db_path} {token}{columns}{beside}")


def _document(result: VerifyResult) -> dict[str, Any]:
    return {
        "equal": result.exit_code == 0,
        "repaired": result.repaired,
        "exit_code": result.exit_code,
        "target": result.place,
        "duration_seconds": round(result.seconds, 3),
        "databases": result.databases,
        "records": result.records,
        "differences": {
            "new": result.differences["+"],
            "vanished": result.differences["-"],
            "changed": result.differences["*"],
            "content": result.differences["c"],
        },
        "unverified_content": result.unverified,
        "chains_unread": result.chains_unread,
        "missing_databases": [state.db_path for state in result.missing],
        "failed_databases": [
            {"db_path": path, "code": error.code, "message": str(error)}
            for path, error in result.failed
        ],
        "unreadable_databases": [
            {"db_path": path, "code": error.code, "message": str(error)}
            for path, error in result.unreadable
        ],
        "unread_directories": result.unread,
        "problems": result.problems,
        "examples": [
            {
                "letter": d.letter,
                "db_path": d.db_path,
                "token_id": d.token_id,
                "table": d.table,
                "columns": list(d.columns),
            }
            for d in result.examples
        ],
    }


def _verdict(result: VerifyResult) -> str:
    if result.missing or (result.differences and not result.repaired):
        return "different"
    if result.rejected:
        return "the target refused what differs"
    if result.exit_code:
        return "not everything could be compared"
    return "equal again" if result.differences else "equal"


def _summary(result: VerifyResult) -> None:
    for difference in result.examples:
        say(_line(difference))
    total = sum(result.differences.values())
    if total > len(result.examples):
        say(f"… and {total - len(result.examples):,} more; --combined FILE writes them all.")
    for gone in result.missing:
        held = rts.counted(gone.record_count, "record")
        say(f"- {gone.db_path} is gone; the target holds {held}.")
    for letter, meaning in _LETTERS.items():
        if result.differences[letter]:
            say(f"{rts.counted(result.differences[letter], 'record')}: {meaning}.")
    say(
        f"{rts.counted(result.records, 'record')} of {rts.counted(result.databases, 'database')} "
        f"compared in {result.seconds:.1f} s: {_verdict(result)}."
    )
    if result.unverified:
        say(
            f"{rts.counted(result.unverified, 'content')} of several blocks "
            f"{'is' if result.unverified == 1 else 'are'} in the target only and cannot be "
            "proven from it; it was proven when it was stored."
        )
    print_problems(result.problems)
