"""`migrate`."""

from __future__ import annotations

import json
import logging
import sys
from typing import Any

import click

from rubix_token_sync.errors import SettingsError

_LOG = logging.getLogger(__name__)

_STATES = {
    "moved": "moved and proven",
    "unchanged": "moved by an earlier call, unchanged since",
    "verified": "equal",
    "different": "DIFFERENT",
    "kept": "left alone: the target had records of it already",
    "synced": "not compared: a sync has written to it since",
    "would_move": "would be moved",
}


@click.command()
@click.option("--from", "source", metavar="URL", help="The database to move from; only read.")
@click.option(
    "--from-file", "source_file", metavar="FILE", help="A file (mode 600) that holds that URL."
)
@click.option("--to", "target", metavar="URL", help="The target to move to.")
@click.option(
    "--to-file",
    "target_file",
    metavar="FILE",
    help="A file (mode 600) with the target's connection string or URL.",
)
@click.option(
    "--source-timezone",
    metavar="ZONE",
    help="What the source's times were written in, for example Europe/Berlin. Asked for once; "
    "default: UTC.",
)
@click.option(
    "--database",
    "only",
    multiple=True,
    metavar="PATTERN",
    help="Only databases whose path matches (shell pattern); repeat. For a first sample.",
)
@click.option("--dry-run", is_flag=True, help="Read all, write nothing, say what would happen.")
@click.option("--verify-only", is_flag=True, help="Compare both ends again; write nothing.")
@click.option("--start-over", is_flag=True, help="Give up an unfinished migration; begin anew.")
@click.option(
    "--allow-insecure-target-file",
    is_flag=True,
    default=None,
    help="Accept connection files that others can read.",
)
@click.option("--batch-size", type=int, metavar="N", help="Records written together.")
@click.option("--connection-pool-size", type=int, metavar="N", help="Connections at most.")
@click.option("--retry-attempts", type=int, metavar="N", help="Attempts at what may pass.")
@click.option("--config", metavar="FILE", help="Settings file (TOML); see init.")
@click.option("--log-file", metavar="FILE", help="Where the log goes as well.")
@click.option("--log-format", type=click.Choice(["text", "json"]), help="Form of the log.")
@click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout.")
@click.option("--quiet", "-q", is_flag=True, help="Warnings and errors only.")
@click.option("--verbose", "-v", is_flag=True, help="More detail; tracebacks of errors.")
def migrate(**options: Any) -> int:
    """Move all records of the older system's PostgreSQL, or of any target, to a target.

    The source is only read.  An interrupted migration goes on when called
    again; its state is in the target.  Every row is accounted for: stored,
    merged with its duplicates, or set aside in full; both ends are compared by
    digest.  See docs/MIGRATION.md.

    Exit codes: 0 done; 1 rows could not be stored (they are set aside);
    2 usage; 3 a database refuses us; 4 a sync is running; 5 both ends differ.
    """
    from rubix_token_sync.cli.options import load_common, store_options
    from rubix_token_sync.migrate import MigrateOptions
    from rubix_token_sync.migrate import migrate as run_migrate

    if options["dry_run"] and options["verify_only"]:
        raise SettingsError(
            "Both --dry-run and --verify-only were given.", code="two_modes", remedy="Give one."
        )
    if not options["target"] and not options["target_file"]:
        raise SettingsError(
            "Where to is missing.", code="no_target", remedy="Name the target by --to or --to-file."
        )
    common = load_common(options)
    for note in common.notes:
        _LOG.warning("%s", note)

    def tell(outcome: Any, number: int, count: int) -> None:
        _LOG.info(
            "Migration: %d of %d | %s %s | rows %s | %s",
            number, count, outcome.source_ip, outcome.db_path,
            f"{outcome.rows_read:,}", _STATES[outcome.state],
        )  # fmt: skip

    interactive = sys.stdin.isatty() and not common.as_json and not common.quiet
    report = run_migrate(
        MigrateOptions(
            source=_source(options),
            target=common.target,
            store=store_options(common.settings),
            source_timezone=options["source_timezone"],
            only=options["only"],
            dry_run=options["dry_run"],
            verify_only=options["verify_only"],
            start_over=options["start_over"],
            ask_timezone=_ask_timezone if interactive else None,
        ),
        tell,
    )
    if common.as_json:
        print(json.dumps(report.document(), indent=2, ensure_ascii=False))
    elif not common.quiet or report.exit_code:
        _tell(report)
    return report.exit_code


def _source(options: dict[str, Any]) -> Any:
    from rubix_token_sync import log
    from rubix_token_sync.targets.connection_file import read_target_file
    from rubix_token_sync.targets.registry import parse_target

    if bool(options["source"]) == bool(options["source_file"]):
        raise SettingsError(
            "Where from is missing, or given twice.",
            code="no_source",
            remedy="Name the source by --from or by --from-file.",
        )
    if options["source_file"]:
        file = read_target_file(
            options["source_file"], allow_insecure=bool(options["allow_insecure_target_file"])
        )
        for warning in file.warnings:
            _LOG.warning("%s", warning)
        source = parse_target(file.text.get_secret_value())
    else:
        source = parse_target(options["source"])
    log.register_secrets(source.secrets())
    return source


def _ask_timezone() -> str:
    answer: str = click.prompt(
        "The source's times have no time zone. In which one were they written?",
        default="UTC",
        err=True,
    )
    return answer


def _tell(report: Any) -> None:
    from rubix_token_sync.cli.tables import console, count, length, new_table, plain

    table = new_table(
        "source", "database", "rows", "stored", "content", "to fetch", "merged", "changed",
        "refused", "time", "state",
        right=("rows", "stored", "content", "to fetch", "merged", "changed", "refused", "time"),
    )  # fmt: skip
    for one in report.databases:
        table.add_row(
            plain(one.source_ip),
            plain(one.db_path),
            count(one.rows_read),
            count(one.rows_stored),
            count(one.contents_adopted),
            count(one.rows_stored - one.contents_adopted),
            count(one.duplicates_merged),
            count(one.rows_changed),
            count(one.rows_refused),
            length(one.seconds),
            plain(_STATES[one.state]),
        )
    out = console()
    out.print(table)
    out.print(
        f"{report.total('rows_read'):,} rows of {len(report.databases)} databases in "
        f"{report.seconds:.1f} s: {report.total('rows_stored'):,} records, "
        f"{report.total('contents_adopted'):,} with proven content, "
        f"{report.total('duplicates_merged'):,} duplicates merged, "
        f"{report.total('rows_changed'):,} stored in another form and set aside in full, "
        f"{report.total('rows_refused') + report.rows_without_database:,} not stored and set "
        "aside in full."
    )
    for path in report.databases_without_rows:
        out.print(plain(f"{path} was processed, but the source holds no record of it."))
    if report.mode == "migrate":
        out.print(
            "The migration is complete."
            if report.complete
            else "The migration goes on with the next call."
        )
