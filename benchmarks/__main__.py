"""``python -m benchmarks``: see the package's docstring."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import click

from benchmarks.fleets import cached_fleet
from benchmarks.machine import describe
from benchmarks.outcome import Outcome, summary
from benchmarks.picture import draw
from benchmarks.scenarios import MISSING, SCENARIOS, Bench
from benchmarks.targets import opened

_CACHE = Path(os.environ.get("RUBIX_BENCH_CACHE") or Path(__file__).resolve().parent / ".cache")
_TARGETS = ("sqlite", "postgresql", "mssql")
_FOR_ALL_TARGETS = ("life", "peers")

cache_option = click.option(
    "--cache",
    type=click.Path(path_type=Path),
    default=_CACHE,
    help="Where fleets are kept (RUBIX_BENCH_CACHE); default: benchmarks/.cache.",
)


@click.group()
def main() -> None:
    """Measure the program on fleets of any size."""


@main.command()
@click.argument("scenarios", nargs=-1, type=click.Choice(list(SCENARIOS)))
@click.option(
    "--target",
    "targets",
    multiple=True,
    type=click.Choice(_TARGETS),
    help="Default: all for life and peers, sqlite for the others.",
)
@click.option(
    "--scale",
    type=click.FloatRange(min=0.0001),
    default=1.0,
    show_default=True,
    help="Shrinks every fleet.",
)
@click.option(
    "--node-tokens", type=click.IntRange(min=1), help="Tokens of each node, whatever the scenario."
)
@click.option("--runs", type=click.IntRange(min=1), default=5, show_default=True)
@click.option("--warmups", type=click.IntRange(min=0), default=1, show_default=True)
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    default=None,
    help="Directory for result.json, result.md and result.svg.",
)
@cache_option
def run(
    scenarios: tuple[str, ...],
    targets: tuple[str, ...],
    scale: float,
    node_tokens: int | None,
    runs: int,
    warmups: int,
    out: Path | None,
    cache: Path,
) -> None:
    """Run SCENARIOS (default: all of them) and print the table."""
    cache.mkdir(parents=True, exist_ok=True)
    options = {
        "scale": scale,
        "node_tokens": node_tokens,
        "runs": runs,
        "warmups": warmups,
        "scenarios": list(scenarios),
    }
    outcome = Outcome(describe(), options)
    for name in scenarios or SCENARIOS:
        for kind in targets or (_TARGETS if name in _FOR_ALL_TARGETS else _TARGETS[:1]):
            with (
                tempfile.TemporaryDirectory(dir=cache, prefix="run-") as scratch,
                opened(kind, Path(scratch)) as target,
            ):
                bench = Bench(
                    cache, Path(scratch), outcome, scale, warmups, runs, node_tokens, _say
                )
                if target is None:
                    bench.skip(MISSING[kind])
                    continue
                _say(f"{name}, {kind}: {(SCENARIOS[name].__doc__ or '').strip()}")
                SCENARIOS[name](bench, target)
            if out is not None:  # kept after each scenario: a long run may be interrupted
                _write(outcome, out)
    click.echo(summary(outcome.rows))


@main.command()
@click.argument("nodes", type=click.IntRange(min=1))
@click.argument("tokens", type=click.IntRange(min=0))
@cache_option
def fleet(nodes: int, tokens: int, cache: Path) -> None:
    """Make a fleet of NODES with TOKENS each in the cache, and say where it is."""
    cache.mkdir(parents=True, exist_ok=True)
    click.echo(str(cached_fleet(cache, nodes, tokens).directory))


@main.command()
@click.argument("result", type=click.Path(path_type=Path, exists=True))
def render(result: Path) -> None:
    """Write table and picture of an earlier RESULT beside it, and print the table."""
    outcome = Outcome.load(result)
    _write(outcome, result.parent)
    click.echo(summary(outcome.rows))


def _say(text: str) -> None:
    click.echo(text, err=True)


def _write(outcome: Outcome, directory: Path) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "result.json").write_text(outcome.to_json() + "\n", encoding="utf-8")
    (directory / "result.md").write_text(summary(outcome.rows) + "\n", encoding="utf-8")
    if not draw(outcome, directory / "result.svg"):
        _say("no picture: no rates, or matplotlib is not installed (dependency group bench)")


if __name__ == "__main__":
    main(prog_name="python -m benchmarks")
