"""`init` and `demo`: the first minutes."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import click

from rubix_token_sync.errors import SettingsError
from rubix_token_sync.installation import program
from rubix_token_sync.text import counted

if TYPE_CHECKING:
    from rubix_token_sync.testing import FleetPlan

__all__ = ["demo", "init"]

_EXAMPLE = "SELECT token_id, node_name, ipfs_data FROM TokenRecords LIMIT 5"


@click.command()
@click.argument("directory", default=".", metavar="[DIR]", type=click.Path(path_type=Path))
@click.option("--force", is_flag=True, help="Replace files that exist.")
def init(directory: Path, force: bool) -> int:
    """Write a commented settings file and the connection file's template (mode 600)."""
    from rubix_token_sync.nodes.keep_out import keep_out
    from rubix_token_sync.settings import commented_settings_file
    from rubix_token_sync.settings.search import CONNECTION_FILE, SETTINGS_FILE
    from rubix_token_sync.targets.connection_file import connection_template

    keep_out(directory / SETTINGS_FILE, "The settings file")
    _make(directory)
    for name, text in (
        (SETTINGS_FILE, commented_settings_file()),
        (CONNECTION_FILE, connection_template()),
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
    click.echo(_next_step(directory / SETTINGS_FILE))
    return 0


def _next_step(file: Path) -> str:
    """What to edit and what to run then; a settings file that was there may name its own target."""
    from rubix_token_sync.nodes.keep_out import node_around
    from rubix_token_sync.settings.load import check_settings_file
    from rubix_token_sync.settings.search import find_target

    check = f"{program()} check --config {shlex.quote(str(file))}"
    settings, problems = check_settings_file(file)
    if settings is None:
        return f"{file} cannot be used as it is: {problems[0]} Correct it, then run: {check}"
    choice = find_target(settings, str(file), node_around, embedded=False)
    if choice.kind == "address":
        return f"{file} names its target itself. Test it: {check}"
    return f"Edit {choice.value}, then run: {check}"


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
    from rubix_token_sync.testing import make_fleet

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
        made = make_fleet(fleet, _demo_plan(nodes, tokens))
        (fleet / "demo.json").write_text(json.dumps({"nodes": nodes, "tokens": tokens}))
        click.echo(
            f"Made {counted(nodes, 'node')} with {counted(made.tokens, 'token')} in {fleet}.",
            err=True,
        )
    store = directory / "rubix-tokens.db"
    options: dict[str, Any] = {
        "roots": (str(fleet),),
        "target": _address(store),
        "source_ip": "demo",
        "report": str(directory / "reports"),
        "as_json": as_json,
        "config": os.devnull,  # nothing of this machine's settings is for a demo
        "nodes": (),
        "gateways": (),
    }
    for parameter in sync.params:
        options.setdefault(str(parameter.name), None)
    code = ctx.invoke(sync, **options)
    if not as_json:
        click.echo(
            "\nLook around:\n"
            f"  {shlex.join(_query(store))}\n"
            f"  {program()} {shlex.join(_verify(fleet, store))}"
        )
    return int(code)


def _demo_plan(nodes: int, tokens: int) -> FleetPlan:
    """Every kind of token, both networks, and nothing that an audit would call wrong."""
    from rubix_token_sync.testing import FleetPlan

    return FleetPlan(
        nodes=nodes,
        tokens_per_node=tokens,
        absent=0.01,
        fungible_tokens=0.0,
        ft_rows=50,
        nft_rows=2,
        data_rows=2,
        contract_rows=1,
        test_rows=10,
        did_count=20,
    )


def _query(store: Path) -> list[str]:
    """A question to the store, for what this machine has: sqlite3, else Python's own."""
    if shutil.which("sqlite3"):
        return ["sqlite3", str(store), _EXAMPLE]
    code = (
        f"import sqlite3; print(*sqlite3.connect({str(store)!r}).execute({_EXAMPLE!r}), sep='\\n')"
    )
    return [sys.executable, "-c", code]


def _verify(fleet: Path, store: Path) -> list[str]:
    return ["verify", str(fleet), "--target", _address(store), "--source-ip", "demo"]


def _address(store: Path) -> str:
    return f"sqlite:///{quote(str(store))}"
