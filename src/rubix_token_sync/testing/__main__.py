"""``python -m rubix_token_sync.testing DIR --nodes N --tokens M``: write a fleet."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Literal

import click

from rubix_token_sync.testing.fleet import FleetPlan, make_fleet


@click.command()
@click.argument("directory", type=click.Path(path_type=Path))
@click.option("--nodes", type=click.IntRange(min=1), default=3, show_default=True)
@click.option(
    "--tokens", type=click.IntRange(min=0), default=100, show_default=True, help="Tokens a node."
)
@click.option("--seed", type=int, default=1, show_default=True)
@click.option(
    "--shared",
    type=click.FloatRange(0, 1),
    default=0.0,
    show_default=True,
    help="Share of tokens that the previous node has, too.",
)
@click.option(
    "--absent",
    type=click.FloatRange(0, 1),
    default=0.0,
    show_default=True,
    help="Share of tokens whose block is missing.",
)
@click.option("--part-tokens", type=click.FloatRange(0, 1), default=0.1, show_default=True)
@click.option("--fungible-tokens", type=click.FloatRange(0, 1), default=0.05, show_default=True)
@click.option("--nft-tokens", type=click.FloatRange(0, 1), default=0.0, show_default=True)
@click.option("--ft-rows", type=click.IntRange(min=0), default=0, show_default=True)
@click.option("--nft-rows", type=click.IntRange(min=0), default=0, show_default=True)
@click.option("--data-rows", type=click.IntRange(min=0), default=0, show_default=True)
@click.option(
    "--contract-rows",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    help="Rows a node in the table of this kind.",
)
@click.option(
    "--test-rows",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    help="Tokens a node of the test network.",
)
@click.option("--chains", is_flag=True, help="Write the token chains, too.")
@click.option(
    "--journal-mode", type=click.Choice(["delete", "wal"]), default="delete", show_default=True
)
@click.option("--jobs", type=click.IntRange(min=1), help="Processes; default: one a core.")
@click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout.")
def main(
    directory: Path,
    nodes: int,
    tokens: int,
    seed: int,
    shared: float,
    absent: float,
    part_tokens: float,
    fungible_tokens: float,
    nft_tokens: float,
    ft_rows: int,
    nft_rows: int,
    data_rows: int,
    contract_rows: int,
    test_rows: int,
    chains: bool,
    journal_mode: Literal["delete", "wal"],
    jobs: int | None,
    as_json: bool,
) -> None:
    """Write a fleet of Rubix nodes below DIRECTORY, which must be absent or empty."""
    began = time.perf_counter()
    try:
        plan = FleetPlan(
            nodes=nodes,
            tokens_per_node=tokens,
            seed=seed,
            shared=shared,
            absent=absent,
            part_tokens=part_tokens,
            fungible_tokens=fungible_tokens,
            nft_tokens=nft_tokens,
            ft_rows=ft_rows,
            nft_rows=nft_rows,
            data_rows=data_rows,
            contract_rows=contract_rows,
            test_rows=test_rows,
            chains=chains,
            journal_mode=journal_mode,
        )
        fleet = make_fleet(directory, plan, jobs=jobs)
    except (ValueError, OSError) as error:
        raise click.UsageError(str(error)) from error
    seconds = time.perf_counter() - began
    if as_json:
        document = {
            "directory": str(fleet.directory),
            "nodes": len(fleet.nodes),
            "tokens": fleet.tokens,
            "blocks": fleet.blocks,
            "absent": fleet.absent,
            "seconds": round(seconds, 3),
        }
        click.echo(json.dumps(document))
    else:
        click.echo(
            f"{len(fleet.nodes)} nodes, {fleet.tokens:,} tokens, {fleet.blocks:,} blocks,"
            f" {fleet.absent:,} absent in {fleet.directory} ({seconds:.1f} s)"
        )


if __name__ == "__main__":
    main(prog_name="python -m rubix_token_sync.testing")
