"""`demo`: the first minutes."""

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

from rubix_token_sync.cli.init import make_directory
from rubix_token_sync.errors import SettingsError
from rubix_token_sync.installation import program
from rubix_token_sync.text import counted

if TYPE_CHECKING:
    from rubix_token_sync.testing import FleetPlan

__all__ = ["demo"]

_EXAMPLE = "SELECT token_id, node_name, ipfs_data FROM TokenRecords LIMIT 5"


@click.command()
@click.argument("directory", default="rubix-demo", metavar="[DIR]", type=click.Path(path_type=Path))
@click.option("--nodes", default=5, show_default=True, metavar="N", help="Nodes to make.")
@click.option("--tokens", default=1_000, show_default=True, metavar="N", help="Tokens a node.")
@click.option("--serve", is_flag=True, help="Then audit it and serve the page over it.")
@click.option(
    "--port",
    type=click.IntRange(0, 65_535),
    default=8765,
    show_default=True,
    metavar="N",
    help="The page's port.",
)
@click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout.")
@click.pass_context
def demo(
    ctx: click.Context,
    directory: Path,
    nodes: int,
    tokens: int,
    serve: bool,
    port: int,
    as_json: bool,
) -> int:
    """Make a small fleet of nodes in DIR and sync it into an embedded store there."""
    from rubix_token_sync.cli.sync import sync
    from rubix_token_sync.nodes.keep_out import keep_out
    from rubix_token_sync.testing import make_fleet

    keep_out(directory / "fleet", "The demo")
    make_directory(directory)
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
    if serve:
        return _serve(store, directory, port)
    if not as_json:
        click.echo(
            "\nLook around:\n"
            f"  {shlex.join(_query(store))}\n"
            f"  {program()} {shlex.join(_page(store))}\n"
            f"  {program()} {shlex.join(_verify(fleet, store))}"
        )
    return int(code)


def _serve(store: Path, directory: Path, port: int) -> int:
    """The page over the demo, audited, on this machine only."""
    import rubix_token_sync as rts
    from rubix_token_sync.cli.serve import run_page
    from rubix_token_sync.web.options import ServeOptions

    configuration = rts.configure(target=_address(store), config=os.devnull)
    rts.audit_records(configuration=configuration)
    options = ServeOptions(port=port, reports=(str(directory / "reports"),))
    return run_page(configuration, options, quiet=False)


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


def _page(store: Path) -> list[str]:
    return ["serve", "--target", _address(store)]


def _verify(fleet: Path, store: Path) -> list[str]:
    return ["verify", str(fleet), "--target", _address(store), "--source-ip", "demo"]


def _address(store: Path) -> str:
    return f"sqlite:///{quote(str(store))}"
