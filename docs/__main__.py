"""``python docs``: write what of the documentation is generated from the program.

Pages or parts of pages (`generated` has the list), and what packages install beside the
program: man pages and completion.  A test fails when they are not current.
"""

from __future__ import annotations

import json
import os
import re
from importlib.resources import files
from pathlib import Path

import click
from floors import floors, picture
from library_reference import library_reference
from licences import PAGE as LICENCES
from licences import direct, installed, licences_page, rows
from shared_files import shared_files

__all__ = ["direct", "floors", "generated", "installed", "licences_page", "rows"]

HERE = Path(__file__).parent
_RULES_HEAD = """\
# Rules of the audit

Generated from the program by `python docs`; do not edit. [AUDIT](AUDIT.md) says what a finding
proves; `rubix-token-sync rules` prints the same, with the severities that the settings give.
"""
_CLI_HEAD = """\
# Commands

Generated from the program by `python docs`; do not edit.

[SETTINGS](SETTINGS.md) says where settings and target come from,
[TROUBLESHOOTING](TROUBLESHOOTING.md#exit-codes) what an exit code means.
"""
_SETTINGS_HEAD = """\
# Settings

Generated from the program by `python docs`; do not edit. `init` writes a file with all of them,
`config show` prints those in force with their origins, `config check` tests a file.

A setting is taken from the first of these that has it: option, environment
(`RUBIX_SYNC_BATCH_SIZE=…`, the guide's six also bare: `BATCH_SIZE=…`), settings file, profile,
default.

## Settings file and target

The settings file is the first of these that is there:

1. `--config FILE`
2. `RUBIX_SYNC_CONFIG`
3. `./rubix-token-sync.toml`
4. `~/.config/rubix-token-sync/settings.toml` (`$XDG_CONFIG_HOME`)
5. `/etc/rubix-token-sync/settings.toml`

(In the last two directories also under the name `rubix-token-sync.toml`, which `init` writes.)
The target is the first that is given: `--target` or `--target-file`, their environment
variables, `target` or `target_file` in the settings file, `azure_sql_connection.txt` beside the
settings file, the same in the current directory, `/datadrive/Rubix/azure_sql_connection.txt`.
Only where there is neither a settings file nor a connection file, `sqlite:///rubix-tokens.db` is
used; `--no-default-target` (and `sync_distributed_tokens.py --test-connection`) forbids that.
Every command says in its first line, on stderr and not with `--quiet`, which file and which
target it uses and why; `rubix-token-sync config show` shows every setting with its origin,
`rubix-token-sync config check` tests a file.

A file that was merely found in the current directory stops the command (`config_untrusted`)
where another user owns it or may write it, or where it lies inside a node's directory: a node
must not be able to configure this program. Name it by `--config` if it is meant.

`target_file` and `alert_urls_file` are relative to the settings file that names them.
"""


def cli() -> str:
    """CLI.md."""
    from rubix_token_sync.cli import COMMANDS, command_line

    parts = [_CLI_HEAD]
    context = command_line.make_context(
        "rubix-token-sync", [], resilient_parsing=True, terminal_width=96
    )

    def describe(command: click.Command, name: str, parent: click.Context, level: int) -> None:
        inner = click.Context(command, info_name=name, parent=parent, terminal_width=96)
        shown = f"{inner.command_path}"
        parts.append(f"{'#' * level} {shown}\n\n```text\n{command.get_help(inner).strip()}\n```\n")
        if isinstance(command, click.Group):
            for child in command.list_commands(inner):
                found = command.get_command(inner, child)
                if found is not None:
                    describe(found, child, inner, level + 1)

    for name in COMMANDS:
        command = command_line.get_command(context, name)
        if command is not None:
            describe(command, name, context, 2)
    return "\n".join(parts)


def settings_page() -> str:
    """SETTINGS.md."""
    from rubix_token_sync.settings import Settings
    from rubix_token_sync.settings.load import profile_values
    from rubix_token_sync.settings.model import GUIDE_NAMES, PROFILES
    from rubix_token_sync.settings.show import allowed, shown_default

    parts = [_SETTINGS_HEAD, "## All settings\n", "| setting | default | may be | meaning |"]
    parts.append("|---|---|---|---|")
    for name, field in Settings.model_fields.items():
        shown = f"`{name}`" + (f", `{name.upper()}`" if name in GUIDE_NAMES else "")
        default = shown_default(name)
        parts.append(
            f"| {shown} | {default and f'`{default}`'} | {allowed(name)} | {field.description} |"
        )
    parts.append("\n## Profiles\n\nA `profile` is a set of other defaults.\n")
    parts.append(f"| setting | {' | '.join(PROFILES)} |\n|---|{'---|' * len(PROFILES)}")
    of_eight = {profile: profile_values(profile, 8) for profile in PROFILES}
    for name in of_eight[PROFILES[0]]:
        values = " | ".join(
            _workers(values[name]) if name == "num_ipfs_workers" else f"{values[name]:,}"
            for values in of_eight.values()
        )
        parts.append(f"| `{name}` | {values} |")
    return "\n".join(parts) + "\n"


def _workers(of_eight: int) -> str:
    """So many on a machine with eight processors, for a machine with any number of them."""
    return f"processors × {of_eight // 8}" if of_eight >= 8 else f"processors ÷ {8 // of_eight}"


def report_tables() -> str:
    """The keys of the report, as tables."""
    schema = json.loads(
        files("rubix_token_sync.reports").joinpath("report.schema.json").read_text("utf-8")
    )
    parts = []

    def table(title: str, properties: dict[str, dict[str, object]]) -> None:
        parts.append(f"### {title}\n\n| key | type | meaning |\n|---|---|---|")
        parts.extend(
            f"| `{name}` | {_type(node)} | {node['description']} |"
            for name, node in properties.items()
        )
        parts.append("")

    table("The report", schema["properties"])
    for name, node in schema["properties"].items():
        if node.get("type") == "array":
            table(f"Each of `{name}`", node["items"]["properties"])
    return "\n".join(parts)


def events_tables() -> str:
    """The lines of `--events`."""
    text = files("rubix_token_sync.reports").joinpath("events.schema.json").read_text("utf-8")
    parts = []
    for event in json.loads(text)["oneOf"]:
        parts.append(f"### Event `{event['title']}`\n\n{event['description']}\n")
        parts.append("| key | type | meaning |\n|---|---|---|")
        parts += [
            f"| `{name}` | {_type(node)} | {node['description']} |"
            for name, node in event["properties"].items()
            if name not in ("event", "time")
        ]
        parts.append("")
    return "\n".join(parts)


def _type(node: dict[str, object]) -> str:
    if "const" in node:
        return json.dumps(node["const"])
    if "enum" in node:
        return ", ".join(str(value) for value in node["enum"])  # type: ignore[attr-defined]
    kind = node["type"]
    return " or ".join(kind) if isinstance(kind, list) else str(kind)


def metrics_tables() -> str:
    """Names and meanings of the metrics."""
    from datetime import datetime

    from rubix_token_sync.audit.questions import OpenFindings
    from rubix_token_sync.metrics.families import outcome_families, progress_families
    from rubix_token_sync.nodes.discovery import Discovery
    from rubix_token_sync.runs.progress import Counters
    from rubix_token_sync.runs.result import RunOptions, RunResult
    from rubix_token_sync.targets.registry import parse_target

    outcome = RunResult(
        options=RunOptions(("/",), "vm1", parse_target("sqlite:///x")),
        session_id=None,
        started_at=datetime(2026, 1, 1),
        seconds=1.0,
        status="COMPLETED",
        counters=Counters(),
        discovery=Discovery([], [], 0),
        databases=[],
        errors=[],
    )
    audited = OpenFindings(datetime(2026, 1, 1), 1, True, 0, 0, 0)
    parts = []
    for title, families in (
        ("During a run (`--metrics-port`)", progress_families("vm1", None)),
        (
            "After a run (`--metrics-file`)",
            outcome_families("vm1", 1.0, 1.0, 0, outcome, (), audited, {}),
        ),
    ):
        parts.append(f"### {title}\n\n| metric | type | meaning |\n|---|---|---|")
        for family in families:
            name = family.name + ("_total" if family.type == "counter" else "")
            parts.append(f"| `{name}` | {family.type} | {family.documentation} |")
        parts.append("")
    return "\n".join(parts)


def rules_pages() -> str:
    """RULES.md: every rule, as an auditor reads it."""
    from rubix_token_sync.audit.rules import RULES

    parts = [_RULES_HEAD, "| rule | severity | what it finds |", "|---|---|---|"]
    parts += [f"| `{r.code}` | {r.severity} | {r.says} |" for r in RULES]
    for rule in RULES:
        first = (
            "Suspected until every database of its evidence was read again"
            if rule.compares_nodes
            else "Confirmed immediately: it does not depend on when a node was read"
        )
        parts.append(
            f"\n## {rule.code}\n\n{_sentence(rule.says)} Severity: {rule.severity}. {first}.\n\n"
            f"* **How to read it:** {rule.means}\n"
            f"* **Causes:** {rule.cause}.\n"
            f"* **What to do:** {rule.cure}"
        )
    return "\n".join(parts) + "\n"


def findings_table() -> str:
    """The rules as entries of TROUBLESHOOTING.md, which `explain` reads."""
    from rubix_token_sync.audit.rules import RULES

    rows = ["| code | what it says | cause | cure |", "|---|---|---|---|"]
    rows += [f"| `{r.code}` | {r.says} | {r.cause} | {r.cure} |" for r in RULES]
    return "\n".join(rows) + "\n"


def export_tables() -> str:
    """The columns of every table that `export` writes."""
    from rubix_token_sync.export.tables import TABLES

    parts = []
    for table in TABLES.values():
        parts.append(f"### {table.name}\n\n{_sentence(table.says)}\n")
        parts.append("| column | type | may be empty |\n|---|---|---|")
        parts += [
            f"| `{f.name}` | {f.type} | {'yes' if f.nullable else 'no'} |" for f in table.schema
        ]
        filters = ", ".join(f"`--{name.removesuffix('s')}`" if name != "since" else "`--since`"
                            for name in sorted(table.filters))  # fmt: skip
        parts.append(f"\nFilters: {filters}.\n")
    return "\n".join(parts)


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:] + "."


def filled(text: str, generated: str) -> str:
    """``text`` with what stands between the two marks replaced."""
    pattern = re.compile(r"(<!-- generated -->\n).*(<!-- /generated -->)", re.DOTALL)
    if not pattern.search(text):
        raise ValueError("the marks of what is generated are missing")
    return pattern.sub(lambda match: f"{match[1]}\n{generated}\n{match[2]}", text)


def generated() -> dict[str, str]:
    """Every generated file, as a path from the root of the project, with its current text."""

    def in_page(name: str, text: str) -> str:
        return filled((HERE / name).read_text("utf-8"), text)

    pages = {
        "CLI.md": cli(),
        "SETTINGS.md": settings_page(),
        "LIBRARY.md": library_reference(),
        "REPORT.md": in_page("REPORT.md", report_tables()),
        "METRICS.md": in_page("METRICS.md", metrics_tables()),
        "JSON.md": in_page("JSON.md", events_tables()),
        "RULES.md": rules_pages(),
        "EXPORT.md": in_page("EXPORT.md", export_tables()),
        "TROUBLESHOOTING.md": in_page("TROUBLESHOOTING.md", findings_table()),
    }
    architecture = (HERE.parent / "ARCHITECTURE.md").read_text("utf-8")
    return {
        "ARCHITECTURE.md": filled(architecture, picture()),
        **{f"docs/{name}": text for name, text in pages.items()},
        **shared_files(),
    }


if __name__ == "__main__":
    os.environ["COLUMNS"] = "96"
    for name, text in generated().items():
        (HERE.parent / name).parent.mkdir(parents=True, exist_ok=True)
        (HERE.parent / name).write_text(text, encoding="utf-8")
    LICENCES.write_text(licences_page(), encoding="utf-8")
