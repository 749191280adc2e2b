"""Token chains: how many tokens a second are read, and in how much memory.

    python -m benchmarks.chains --tokens 50000 --processes 2

Makes one node for each process, with FT as real nodes have them: each with the block that
generated it, and one in a hundred transferred, ten by a block. Reads every chain and checks
every hash, link and signature. Each process is one database, as in a sync.
"""

from __future__ import annotations

import argparse
import os
import resource
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

from rubix_token_sync.nodes.chains import read_chains
from rubix_token_sync.nodes.did_keys import NodeKeys
from rubix_token_sync.testing import (
    block_id,
    generated_block,
    make_identity,
    transferred_block,
    write_chains,
    write_public_keys,
)
from rubix_token_sync.testing.chains import FT

_TOGETHER = 10
_TRANSFERRED = 100
_SEED = 18


def _blocks(node: int, tokens: int) -> Iterator[bytes]:
    owner, buyer = make_identity(_SEED, node), make_identity(_SEED, 1_000_000 + node)
    quorum = [make_identity(_SEED, 2_000_000 + number) for number in range(5)]
    sold: dict[str, str] = {}
    for number in range(tokens):
        token = f"Qm{node:04}{number * 2_654_435_761 % 2**64:040}"
        block = generated_block(
            owner, token, FT, value=0.001, number=number, parent=f"Qm{node:044}",
            comment="FT generated at : 2026-11-29 16:13:53.405797864 +0000 UTC for FT Name : BIG",
        )  # fmt: skip
        yield block
        if number % _TRANSFERRED < 1:
            sold[token] = block_id(block, token)
        if len(sold) == _TOGETHER:
            yield transferred_block(owner, buyer.did, sold, FT, quorum, value=0.001, epoch=1)
            sold = {}


def make(directory: Path, node: int, tokens: int) -> str:
    """Make a node; gives the path of its database."""
    rubix = directory / f"node{node}" / "Rubix"
    write_chains(rubix, "test", _blocks(node, tokens))
    people = [node, 1_000_000 + node, *(2_000_000 + number for number in range(5))]
    write_public_keys(rubix, "test", [make_identity(_SEED, number) for number in people])
    return str(rubix / "rubix.db")


def read(database: str, scratch: str) -> tuple[int, int, float, float]:
    """Tokens, signatures checked, processor seconds, and the process's largest memory in MB."""
    started = time.process_time()
    tokens = signatures = 0
    chains = read_chains(database, "test", scratch, NodeKeys(database, "test"))
    for batch in chains:
        tokens += batch.num_rows
        signatures += sum(batch["signatures_checked"].to_pylist())
        if set(batch["error"].to_pylist()) != {None}:
            raise RuntimeError("a chain is not right")
    if chains.failures:
        raise RuntimeError(f"not read: {chains.failures}")
    seconds = time.process_time() - started
    largest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return tokens, signatures, seconds, largest


def main() -> None:
    """Print the rate of each round."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tokens", type=int, default=50_000, help="of each node")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    context = get_context("spawn")  # so that each process's memory is its own
    with tempfile.TemporaryDirectory() as where:
        scratch = Path(where) / "scratch"
        scratch.mkdir()
        numbers = range(options.processes)
        with ProcessPoolExecutor(options.processes, context) as pool:
            many = [options.tokens] * options.processes
            databases = list(pool.map(make, [Path(where)] * options.processes, numbers, many))
        for _ in range(options.rounds):
            with ProcessPoolExecutor(options.processes, context) as pool:
                list(pool.map(abs, numbers))  # the processes are there
                started = time.perf_counter()
                done = list(pool.map(read, databases, [str(scratch)] * options.processes))
                seconds = time.perf_counter() - started
            tokens, signatures = sum(one[0] for one in done), sum(one[1] for one in done)
            of_processor = tokens / sum(one[2] for one in done)
            memory = max(one[3] for one in done)
            print(
                f"{tokens:,} tokens, {signatures:,} signatures in {seconds:.1f} s: "
                f"{tokens / seconds:,.0f} tokens/s in {options.processes} processes, "
                f"{of_processor:,.0f} tokens a second of processor, {memory:,.0f} MB each at most"
            )


if __name__ == "__main__":
    main()
