"""`init` and `demo`: the first minutes."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import click

from rubix_token_sync.errors import SettingsError

__all__ = ["demo", "init"]

_EXAMPLE = "SELECT token_id, node_name, ipfs_data FROM TokenRecords LIMIT 5"
_SETTINGS_FILE = "rubix-token-sync.toml"
_CONNECTION_FILE = "azure_sql_connection.txt"


@click.command()
@click.argument("directory", default=".", metavar="[DIR]", type=click.Path(path_type=Path))
@click.option("--force", is_flag=True, help="Replace files that exist.")
def init(directory: Path, force: bool) -> int:
    """Write a commented settings file and the connection file's template (mode 600)."""
    from rubix_token_sync.nodes.keep_out import keep_out
    from rubix_token_sync.settings import commented_settings_file
    from rubix_token_sync.targets.connection_file import connection_template

    keep_out(directory / _SETTINGS_FILE, "The settings file")
    _make(directory)
    for name, text in (
        (_SETTINGS_FILE, commented_settings_file()),
        (_CONNECTION_FILE, connection_template()),
    ):
        path = directory / name
        flags = os.O_WRONLY | os.O_CREAT | (os.O_TRUNC if force else os.O_EXCL)
        try:
            fd = os.open(path, flags, 0o600)
        except FileExistsError:
            click.echo(f"{path} exists; left as it is (--force replaces it).")
            continue
        except OSError as error:
            raise SettingsError(
                f"{path} cannot be written: {error.strerror}.",
                code="directory_unwritable",
                remedy="Name another directory.",
            ) from error
        with os.fdopen(fd, "w", encoding="utf-8") as file:
            os.fchmod(fd, 0o600)  # a replaced file keeps its mode otherwise
            file.write(text)
        click.echo(f"Wrote {path} (mode 600).")
    click.echo(
        f"Edit {directory / _CONNECTION_FILE}, then run: rubix-token-sync check "
        f"--config {directory / _SETTINGS_FILE}"
    )
    return 0


def _make(directory: Path) -> None:
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SettingsError(
            f"{directory} cannot be made: {error.strerror}.",
            code="directory_unwritable",
            remedy="Name another directory.",
        ) from error


@click.command()
@click.argument("directory", default="rubix-demo", metavar="[DIR]", type=click.Path(path_type=Path))
@click.option("--nodes", default=5, show_default=True, metavar="N", help="Nodes to make.")
@click.option("--tokens", default=1_000, show_default=True, metavar="N", help="Tokens a node.")
@click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout.")
@click.pass_context
def demo(ctx: click.Context, directory: Path, nodes: int, tokens: int, as_json: bool) -> int:
    """Make a small fleet of nodes in DIR and sync it into an embedded store there."""
    from rubix_token_sync.cli.sync import sync
    from rubix_token_sync.nodes.keep_out import keep_out
    from rubix_token_sync.testing import FleetPlan, make_fleet

    keep_out(directory / "fleet", "The demo")
    _make(directory)
    fleet = directory / "fleet"
    if fleet.exists() and not (fleet / "demo.json").exists():
        raise SettingsError(
            f"{fleet} exists and was not made by this command.",
            code="demo_directory_in_use",
            remedy="Name another directory.",
        )
    if not fleet.exists():
        make_fleet(fleet, FleetPlan(nodes=nodes, tokens_per_node=tokens, absent=0.01))
        (fleet / "demo.json").write_text(json.dumps({"nodes": nodes, "tokens": tokens}))
        click.echo(f"Made {nodes} nodes with {nodes * tokens:,} tokens in {fleet}.", err=True)
    store = directory / "rubix-tokens.db"
    options: dict[str, Any] = {
        "roots": (str(fleet),),
        "target": f"sqlite:///{store}",
        "source_ip": "demo",
        "report": str(directory / "reports"),
        "as_json": as_json,
        "nodes": (),
        "gateways": (),
    }
    for parameter in sync.params:
        options.setdefault(str(parameter.name), None)
    code = ctx.invoke(sync, **options)
    if not as_json:
        click.echo(
            "\nLook around:\n"
            f"  sqlite3 {store} '{_EXAMPLE}'\n"
            f"  rubix-token-sync verify {fleet} --target sqlite:///{store} --source-ip demo"
        )
    return int(code)
