"""`verify`."""

from __future__ import annotations

import json
import logging
from dataclasses import replace
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import click

from rubix_token_sync.cli.options import (
    common_options,
    load_common,
    loading_options,
    root_arguments,
)
from rubix_token_sync.cli.sync import interruptible, run_options_of, showing
from rubix_token_sync.errors import SettingsError

if TYPE_CHECKING:
    from rubix_token_sync.runs.jobs import Difference
    from rubix_token_sync.runs.verify import Verification

_LOG = logging.getLogger(__name__)
_LETTERS = {
    "+": "only the node has it",
    "-": "only the target has it",
    "*": "columns differ",
    "c": "content differs",
}
_SHOWN = 20


@click.command()
@root_arguments
@common_options
@loading_options
@click.option("--node", "nodes", multiple=True, metavar="NAME", help="Only this node; repeat.")
@click.option("--no-progress", is_flag=True, help="No live bar on a terminal.")
@click.option(
    "--combined",
    metavar="FILE",
    help="Write every difference there: a letter, the database, the token, the columns.",
)
@click.option(
    "--repair", is_flag=True, help="Make equal again what differs; needs the right to write."
)
def verify(**options: Any) -> int:
    """Compare nodes and target record by record, content included.

    Letters: + only the node has it; - only the target has it; * columns
    differ; c content differs.  Exit codes: 0 equal; 5 different; 1 something
    could not be compared; 2 usage; 3 the target refuses us.
    """
    from rubix_token_sync.log import log_event
    from rubix_token_sync.runs.verify import repair
    from rubix_token_sync.runs.verify import verify as compare

    common = load_common(options)
    for note in common.notes:
        _LOG.warning("%s", note)
    run_options = replace(run_options_of("verify", common, options), force=True)
    listed: list[Difference] = []
    combined: IO[str] | None = None
    if options["combined"]:
        combined = _opened(options["combined"])
    try:

        def note_difference(difference: Difference) -> None:
            if combined is not None:
                combined.write(_line(difference) + "\n")
            if len(listed) < _SHOWN:
                listed.append(difference)

        with interruptible() as stop, showing(common, options) as show:
            result = (repair if options["repair"] else compare)(
                run_options, on_difference=note_difference, on_progress=show, stop=stop
            )
    finally:
        if combined is not None:
            combined.close()
    for path, error in [*result.failed, *result.unreadable]:
        log_event(
            _LOG, logging.WARNING, "database_failed", f"{path}: {error}",
            db_path=path, category=error.category, code=error.code,
        )  # fmt: skip
    if common.as_json:
        print(json.dumps(_document(result, listed), indent=2, ensure_ascii=False))
    elif not common.quiet or result.exit_code:
        _tell(result, listed)
    return result.exit_code


def _opened(path: str) -> IO[str]:
    from rubix_token_sync.nodes.keep_out import keep_out

    keep_out(path, "The list of differences")
    try:
        return Path(path).open("w", encoding="utf-8")
    except OSError as error:
        raise SettingsError(
            f"{path} cannot be written: {error.strerror}.",
            code="combined_unwritable",
            remedy="Name another file by --combined.",
        ) from error


def _line(difference: Difference) -> str:
    token = json.dumps(difference.token_id, ensure_ascii=False)  # quoted: ids are hostile
    columns = f" {','.join(difference.columns)}" if difference.columns else ""
    return f"{difference.letter} {difference.db_path} {token}{columns}"


def _document(result: Verification, listed: list[Difference]) -> dict[str, Any]:
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
        "missing_databases": [state.db_path for state in result.missing],
        "failed_databases": [
            {"db_path": path, "code": error.code, "message": str(error)}
            for path, error in result.failed
        ],
        "unreadable_databases": [
            {"db_path": path, "code": error.code, "message": str(error)}
            for path, error in result.unreadable
        ],
        "examples": [
            {
                "letter": d.letter,
                "db_path": d.db_path,
                "token_id": d.token_id,
                "columns": list(d.columns),
            }
            for d in listed
        ],
    }


def _verdict(result: Verification) -> str:
    if result.missing or (result.differences and not result.repaired):
        return "different"
    if result.exit_code:
        return "not everything could be compared"
    return "equal again" if result.differences else "equal"


def _tell(result: Verification, listed: list[Difference]) -> None:
    for difference in listed:
        click.echo(_line(difference))
    total = sum(result.differences.values())
    if total > len(listed):
        click.echo(f"… and {total - len(listed):,} more; --combined FILE writes them all.")
    for state in result.missing:
        click.echo(f"- {state.db_path} is gone; the target holds {state.record_count:,} records.")
    for letter, meaning in _LETTERS.items():
        if result.differences[letter]:
            click.echo(f"{result.differences[letter]:,} records: {meaning}.")
    click.echo(
        f"{result.records:,} records of {result.databases} databases compared in "
        f"{result.seconds:.1f} s: {_verdict(result)}."
    )
    if result.unverified:
        click.echo(
            f"{result.unverified:,} contents are only in the target and span several blocks; "
            "they were proven when they were stored."
        )
    if result.unreadable:
        click.echo(
            f"{len(result.unreadable)} databases cannot be read; the target holds nothing of them."
        )
    if result.unread:
        click.echo(f"{result.unread} directories could not be read and may hide nodes (see above).")
    if result.failed:
        click.echo(f"{len(result.failed)} databases could not be compared (see above).")
