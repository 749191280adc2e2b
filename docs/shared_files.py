"""What packages install below ``share/``: man pages and completion, made from the commands."""

from __future__ import annotations

import re

import click

NAME = "rubix-token-sync"
_COMPLETION = {
    "bash": f"share/bash-completion/completions/{NAME}",
    "zsh": f"share/zsh/site-functions/_{NAME}",
    "fish": f"share/fish/vendor_completions.d/{NAME}.fish",
}
_FILES = (
    ("./rubix-token-sync.toml, ~/.config/rubix-token-sync/settings.toml, "
     "/etc/rubix-token-sync/settings.toml", "Settings, the first that is there; "
     "`config show` names it."),
    ("azure_sql_connection.txt", "The target, where no option and no setting names one; mode 600."),
)  # fmt: skip


def shared_files() -> dict[str, str]:
    """Path from the root of the project → text."""
    from rubix_token_sync.cli import COMMANDS, command_line
    from rubix_token_sync.cli.completion import completion_script

    files = {path: completion_script(shell) for shell, path in _COMPLETION.items()}
    context = click.Context(command_line, info_name=NAME, terminal_width=96)
    files[f"share/man/man1/{NAME}.1"] = _top_page(context)
    for name in COMMANDS:
        command = command_line.get_command(context, name)
        if command is not None:
            files[f"share/man/man1/{NAME}-{name}.1"] = _page(command, name, context)
    return files


def _top_page(context: click.Context) -> str:
    from rubix_token_sync.cli import COMMANDS
    from rubix_token_sync.explanations import explanations

    parts = [_head(NAME, "one picture of every token of every Rubix node")]
    parts += [".SH SYNOPSIS", f".B {_quoted(NAME)}", "COMMAND [OPTION]... [ARGUMENT]..."]
    parts += [".SH DESCRIPTION", _prose(context.command.help or "")]
    parts += [".SH COMMANDS", "Each has a page of its own."]
    for name, (_, line) in COMMANDS.items():
        parts += [".TP", f".BR {_quoted(f'{NAME}-{name}')} (1)", _text(line)]
    parts += [".SH OPTIONS", *_options(context.command, context)]
    parts.append(".SH EXIT STATUS")
    for entry in explanations():
        if entry.area == "Exit codes":
            parts += [".TP", f".B {entry.code}", _text(entry.says)]
    parts += [".SH ENVIRONMENT", ".TP", ".B RUBIX_SYNC_CONFIG", "The settings file.", ".TP",
              ".BI RUBIX_SYNC_ NAME", "The setting of that name."]  # fmt: skip
    parts.append(".SH FILES")
    for file, meaning in _FILES:
        parts += [".TP", f".I {_quoted(_text(file))}", _text(meaning)]
    return "\n".join(parts) + "\n"


def _page(command: click.Command, name: str, parent: click.Context) -> str:
    from rubix_token_sync.cli import COMMANDS

    context = click.Context(command, info_name=name, parent=parent, terminal_width=96)
    parts = [_head(f"{NAME}-{name}", COMMANDS[name][1].rstrip("."))]
    parts += [".SH SYNOPSIS", *_synopsis(command, context)]
    parts += [".SH DESCRIPTION", _prose(command.help or "")]
    parts += [".SH OPTIONS", *_options(command, context)]
    if isinstance(command, click.Group):
        parts.append(".SH COMMANDS")
        for child in command.list_commands(context):
            found = command.get_command(context, child)
            if found is not None:
                inner = click.Context(found, info_name=child, parent=context, terminal_width=96)
                parts += [f".SS {_quoted(child)}", *_synopsis(found, inner), ".PP",
                          _prose(found.help or ""), *_options(found, inner)]  # fmt: skip
    parts += [".SH SEE ALSO", f".BR {_quoted(NAME)} (1)"]
    return "\n".join(parts) + "\n"


def _head(name: str, says: str) -> str:
    return (
        '.\\" Generated from the program by `python docs`; do not edit.\n'
        f'.TH {_quoted(name.upper())} 1 "" "Rubix Token Sync" "User commands"\n'
        f".SH NAME\n{_text(name)} \\- {_text(says)}"
    )


def _synopsis(command: click.Command, context: click.Context) -> list[str]:
    pieces = " ".join(command.collect_usage_pieces(context))
    return [f".B {_quoted(context.command_path)}", _text(pieces)]


def _options(command: click.Command, context: click.Context) -> list[str]:
    """Options in the order of ``--help``."""
    parts = []
    for parameter in command.get_params(context):
        record = parameter.get_help_record(context)
        if record is not None:
            parts += [".TP", f".B {_quoted(_text(record[0]))}", _text(record[1])]
    return parts


def _prose(text: str) -> str:
    """Paragraphs of a docstring; click's mark for text that keeps its lines is heeded."""
    parts = []
    for paragraph in text.split("\n\n"):
        if paragraph.startswith("\b\n"):
            parts.append(f".nf\n{_text(paragraph[2:])}\n.fi")
        else:
            parts.append(_text(" ".join(paragraph.split())))
    return "\n.PP\n".join(parts)


def _text(text: str) -> str:
    """Nothing of it is a request, an escape or a hyphen that cannot be copied."""
    escaped = text.replace("\\", "\\e").replace("-", "\\-")
    escaped = re.sub(r"[^\x00-\x7f]", lambda match: f"\\[u{ord(match[0]):04X}]", escaped)
    bold = re.sub(r"``?([^`]+)``?", r"\\fB\1\\fR", escaped)
    return re.sub(r"^([.\'])", r"\\&\1", bold, flags=re.MULTILINE)


def _quoted(text: str) -> str:
    plain = text if "\\-" in text else text.replace("-", "\\-")
    return f'"{plain.replace(chr(34), chr(34) * 2)}"' if " " in plain or '"' in plain else plain
