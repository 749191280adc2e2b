"""``python -m benchmarks.judging``: what verdicts on tokens cost, without a sync around them.

Prints the time to build each table, and tokens judged per second of one processor's time (which
says the same on a loaded machine, or nearly): whole tokens with their content, ids alone, signed
contents with and without their keys.
"""

from __future__ import annotations

import random
import resource
import tempfile
import time
from collections.abc import Callable, Sequence
from hashlib import sha3_256, sha256

import cbor2
import click
import pyarrow as pa
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, utils

from rubix_token_sync.audit.authenticity import Ruling, WholeToken
from rubix_token_sync.audit.judge import Judge
from rubix_token_sync.audit.limits import Limits, package_limits
from rubix_token_sync.audit.table_files import open_or_build
from rubix_token_sync.audit.token_numbers import (
    DEFAULT_LEVELS,
    TableSpec,
    TokenTable,
    ids_spec,
    numbers_spec,
)
from rubix_token_sync.ipfs.cid import cid_v0
from rubix_token_sync.ipfs.lite_did import lite_did_of
from rubix_token_sync.ipfs.unixfs import encode_leaf


@click.command()
@click.option("--tokens", type=click.IntRange(min=1), default=1_000_000, show_default=True)
@click.option("--signed", type=click.IntRange(min=1), default=5_000, show_default=True)
@click.option("--rounds", type=click.IntRange(min=1), default=3, show_default=True)
@click.option(
    "--directory",
    type=click.Path(file_okay=False),
    help="Where the tables are kept; default: built anew in a temporary directory.",
)
def main(tokens: int, signed: int, rounds: int, directory: str | None) -> None:
    """Build the tables, then judge TOKENS whole tokens and SIGNED ones."""
    limits = package_limits()
    with tempfile.TemporaryDirectory(prefix="judging-") as scratch:
        place = directory or scratch
        numbers = _built(place, numbers_spec(limits))
        ids = _built(place, ids_spec(limits))
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
        click.echo(f"largest memory so far: {peak:,} MB (the mapped tables counted)")
        judge = Judge(Ruling(limits), numbers, ids)
        names, contents = _whole(limits, tokens)
        nothing = pa.nulls(tokens, pa.string())
        for size in (1_000, 5_000, 20_000, 100_000):
            _rate(f"whole tokens, batches of {size:,}", judge, (names, contents), size, rounds)
        _rate("ids alone, batches of 20,000", judge, (names, nothing), 20_000, rounds)
        names, contents, pem, did = _signed(signed)
        _rate("signed, no keys", judge, (names, contents), 5_000, rounds)
        keys = {did: pem}.get
        _rate("signed, secp256k1 checked", judge, (names, contents), 5_000, 1, key_of=keys)


def _built(directory: str, spec: TableSpec) -> TokenTable:
    cpu, wall = time.process_time(), time.perf_counter()
    table = open_or_build(directory, spec)
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    click.echo(
        f"{spec.kind}: {spec.entries:,} entries, {spec.size / 1e6:.0f} MB, "
        f"{cpu:.1f} s of a processor ({wall:.1f} s)"
    )
    return table


def _whole(limits: Limits, count: int) -> tuple[pa.Array, pa.Array]:
    """Ids and contents of tokens of levels 1 to 4, as many of each as there are of its level."""
    chance = random.Random(1)
    weights = [limits.highest(level) for level in DEFAULT_LEVELS]
    levels = chance.choices(DEFAULT_LEVELS, weights, k=count)
    some = [WholeToken(level, chance.randrange(limits.highest(level))) for level in levels]
    ids = pa.array([token.token_id() for token in some], pa.string())
    return ids, pa.array([token.content().decode() for token in some], pa.string())


def _signed(count: int) -> tuple[pa.Array, pa.Array, bytes, str]:
    """Ids and contents of test tokens, with their creator's key and DID."""
    key = ec.generate_private_key(ec.SECP256K1())
    pem = key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    did = lite_did_of(pem)
    algorithm = ec.ECDSA(utils.Prehashed(hashes.SHA256()))
    contents = []
    for number in range(count):
        inner = cbor2.dumps({"1": 0, "2": 1, "3": did, "4": number, "5": 1, "6": "2026-11-29"})
        signature = key.sign(sha3_256(inner).hexdigest()[:32].encode(), algorithm)
        contents.append(cbor2.dumps({"1": inner, "2": signature.hex()}).hex().encode())
    ids = [cid_v0(sha256(encode_leaf(content)).digest()) for content in contents]
    return pa.array(ids, pa.string()), pa.array(contents, pa.binary()), pem, did


def _rate(
    what: str,
    judge: Judge,
    columns: Sequence[pa.Array],
    size: int,
    rounds: int,
    key_of: Callable[[str], bytes | None] | None = None,
) -> None:
    count = len(columns[0])
    best = float("inf")
    for _ in range(rounds):
        started = time.process_time()
        for at in range(0, count, size):
            judge.judge(*(column[at : at + size] for column in columns), key_of=key_of)
        best = min(best, time.process_time() - started)
    click.echo(f"{what}: {count / best:,.0f} tokens/s, {best / count * 1e6:.2f} µs each")


if __name__ == "__main__":
    main(prog_name="python -m benchmarks.judging")
