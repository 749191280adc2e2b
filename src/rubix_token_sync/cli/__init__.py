"""The command line: parse, call, print.

Commands load when they are called, so that ``--help`` answers at once.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import io
import os
import sys
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final, TextIO, cast

import click

import rubix_token_sync as rts
from rubix_token_sync.cli.suggest import unknown_word
from rubix_token_sync.surroundings import LIBRARIES, Tolerant, prepare

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

__all__ = ["COMMANDS", "command_line", "main"]

_READER_LEFT: Final = 141  # 128 + SIGPIPE, as other tools end
_IN_DETAIL: Final = "rubix_token_sync.in_detail"

COMMANDS: Final = {
    "sync": ("sync", "Bring the target up to date with every node below ROOT."),
    "discover": ("discover", "Show what sync would read, and what it skips and why."),
    "check": ("check", "Test everything a run needs, through the run's own code."),
    "verify": ("verify", "Compare nodes and target record by record; exit 5 on differences."),
    "retry-failed": ("sync", "Ask again for content that failed, and only for that."),
    "status": ("status", "Show the runs under way on all machines, and stuck ones."),
    "sessions": ("sessions", "Show past runs with their rates."),
    "databases": ("databases", "Show every database: records, content, age."),
    "errors": ("errors", "Show what failed, by category and reason."),
    "audit": ("audit", "Run the rules over the target: is each token genuine, and held once?"),
    "rules": ("audit", "Show the rules of the audit."),
    "findings": ("findings", "Show what audits found, with the evidence; decide about it."),
    "token": ("token", "Show everything that the target knows of one token."),
    "export": ("export", "Write records, transactions or findings for other programs."),
    "evidence": ("evidence", "Sign what the target holds; check it; prove single records."),
    "history": ("history", "Show who held a token when, and what each run did to a node."),
    "changes": ("changes", "Show what runs changed, from any moment on; a feed for programs."),
    "serve": ("serve", "Serve a page of all of this, for people who keep it open."),
    "schema": ("schema", "Show the tables' DDL, or apply it."),
    "migrate": ("migrate", "Move the older system's records to another target."),
    "cluster": ("cluster", "Sync, verify and audit many hosts by one command, on Dask."),
    "config": ("config", "Show every setting with its origin; test a settings file."),
    "explain": ("explain", "Explain an error code: its cause and its cure."),
    "init": ("init", "Write a commented settings file and a connection file."),
    "install-service": ("service", "Write units that run the sync on time."),
    "demo": ("start", "Make a small fleet and sync it into an embedded store."),
    "backup": ("backup", "Copy an embedded target into one file, while a run writes, too."),
    "restore": ("backup", "Put a backup where the embedded target is, or was."),
    "completion": ("completion", "Print a script that completes commands in bash, zsh or fish."),
}
"""Command → module of this package, and its line in ``--help``."""


@contextlib.contextmanager
def _reader_may_leave() -> Iterator[None]:
    """Whoever reads our output may stop, as `| head` does."""
    try:
        yield
    except BrokenPipeError as error:
        _drop_output()
        raise click.exceptions.Exit(_READER_LEFT) from error


class _LazyGroup(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(f"{__name__}.{COMMANDS[cmd_name][0]}")
        command = getattr(module, cmd_name.replace("-", "_"))
        if not isinstance(command, click.Command):
            raise TypeError(f"{cmd_name} is not a command")
        return command

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        # As click has it, without loading each command for its line of help.
        from click.shell_completion import CompletionItem

        return [
            CompletionItem(name, help=line)
            for name, (_, line) in COMMANDS.items()
            if name.startswith(incomplete)
        ] or click.Command.shell_complete(self, ctx, incomplete)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if "--version" in args and set(args) <= {"--version", "--verbose", "-v"}:
            ctx.meta[_IN_DETAIL] = len(args) > 1
            args = ["--version"]
        return super().parse_args(ctx, args)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            raise click.UsageError(unknown_word("command", args[0], COMMANDS), ctx)
        return super().resolve_command(ctx, args)

    def make_context(self, *args: Any, **kwargs: Any) -> click.Context:
        with _reader_may_leave():  # the help is shown here
            try:
                return super().make_context(*args, **kwargs)
            except BrokenPipeError:
                raise
            except OSError as error:
                from rubix_token_sync.cli.output import unwritable

                raise unwritable(error) from error

    def invoke(self, ctx: click.Context) -> Any:
        with _reader_may_leave():
            return super().invoke(ctx)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, line) in COMMANDS.items()])


def _show_version(ctx: click.Context, _param: click.Parameter, wanted: bool) -> None:
    if not wanted or ctx.resilient_parsing:
        return
    click.echo(f"rubix-token-sync, version {rts.__version__}")
    if ctx.meta.get(_IN_DETAIL):
        from rubix_token_sync.installation import versions

        for name, value in versions():
            click.echo(f"{name}: {value}")
    ctx.exit()


@click.group(cls=_LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_show_version,
    help="Show the version and exit; with --verbose what a report of a fault needs.",
)
def command_line() -> None:
    """One true, current, queryable picture of every token of every Rubix node."""


def main(arguments: list[str] | None = None) -> None:
    """Run a command and exit with its code (see ``docs/CLI.md``)."""
    if arguments is None:
        prepare()
    for name, value in LIBRARIES.items():
        os.environ.setdefault(name, value)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # names of files may not be text at all
            stream.reconfigure(errors="backslashreplace")
    sys.stderr = cast("TextIO", Tolerant(sys.stderr))
    threading.excepthook = _thread_failed
    code = _run(sys.argv[1:] if arguments is None else arguments)
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        _drop_output()
        code = code or _READER_LEFT
    except OSError as error:
        _drop_output()
        from rubix_token_sync.cli.output import unwritable

        code = code or _fail(unwritable(error), [])
    gc.freeze()  # the interpreter need not look for cycles in what ends with the process
    sys.exit(code)


def _thread_failed(failure: threading.ExceptHookArgs) -> None:
    """One line instead of a raw traceback; whoever needs the thread notices that it is gone."""
    import logging

    logging.getLogger(__name__).error(
        "A thread failed: %s: %s", failure.exc_type.__name__, failure.exc_value
    )
    logging.getLogger(__name__).debug("", exc_info=failure.exc_value)


def _drop_output() -> None:
    """What is still buffered for a reader that has gone must not fail at the exit."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)


def _run(arguments: list[str]) -> int:
    try:
        result: Any = command_line.main(
            arguments, prog_name="rubix-token-sync", standalone_mode=False
        )
    except click.exceptions.Exit as leave:
        return leave.exit_code
    except click.ClickException as error:
        _show_usage(error)
        if "--json" in arguments:
            _print_failure(error.exit_code, "usage", "system", _in_one_line(error), "")
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        click.echo("Interrupted.", err=True)
        return 130
    except rts.Interrupted as interrupt:  # before there was anything to report
        if "--events" in arguments:
            from rubix_token_sync.cli.events import interrupted

            interrupted(128 + interrupt.signal_number)
        return 128 + interrupt.signal_number
    except Exception as error:  # noqa: BLE001 - the last resort: nobody sees a raw traceback
        if isinstance(error, OSError) and {"--help", "-h"} & set(arguments):
            from rubix_token_sync.cli.output import unwritable

            error = unwritable(error)  # a help text is written, and nothing else is done
        return _fail(error, arguments)
    return result if isinstance(result, int) else 0


def _show_usage(error: click.ClickException) -> None:
    """As click has it, with the code that `explain` knows."""
    context = error.ctx if isinstance(error, click.UsageError) else None
    if context is not None:
        click.echo(context.get_usage(), err=True)
        click.echo(f"Try '{context.command_path} --help' for help.\n", err=True)
    click.echo(rts.shown(f"Error: {_in_one_line(error)} [usage]"), err=True)


def _in_one_line(error: click.ClickException) -> str:
    """Its sentence; click puts choices in lines of their own."""
    return " ".join(error.format_message().split())


def _fail(error: Exception, arguments: list[str]) -> int:
    """Print one error: code, sentence, cure (as JSON on stdout, too); returns the exit code."""
    failure = rts.explain_failure(error)
    if {"--verbose", "-v"} & set(arguments):
        print(failure.trace, file=sys.stderr)
    print(f"Error: {failure.message} [{failure.code}]", file=sys.stderr)
    if failure.remedy:
        print(failure.remedy, file=sys.stderr)
    if "--events" in arguments and "--json" not in arguments:
        if failure.code != "output_unwritable":
            from rubix_token_sync.cli.events import failed

            failed(failure)
    elif "--json" in arguments and failure.code != "output_unwritable":
        _print_failure(
            failure.exit_code, failure.code, failure.category, failure.message, failure.remedy
        )
    return failure.exit_code


def _print_failure(exit_code: int, code: str, category: str, message: str, remedy: str) -> None:
    """The document that ``--json`` puts on stdout when a command fails."""
    from rubix_token_sync.cli.output import print_json

    print_json(
        {
            "ok": False,
            "exit_code": exit_code,
            "error": {
                "code": code,
                "category": category,
                "message": rts.redact(message),
                "remedy": rts.redact(remedy),
            },
        }
    )
