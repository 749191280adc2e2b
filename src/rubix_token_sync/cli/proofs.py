"""`evidence prove` and `evidence verify-proof`: single records."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

import click

import rubix_token_sync as rts
from rubix_token_sync.cli.options import Plain, plain_options, takes
from rubix_token_sync.cli.output import answer, say

if TYPE_CHECKING:
    from rubix_token_sync import EvidenceProof

__all__ = ["prove", "verify_proof"]


@dataclass(frozen=True, kw_only=True)
class ProveArguments(Plain):
    """Options of `evidence prove`."""

    token: str
    directory: str
    to: str
    nodes: tuple[str, ...]


@click.command()
@click.argument("token", metavar="TOKEN")
@click.option(
    "--from", "directory", required=True, metavar="DIR", help="The evidence that it is in."
)
@click.option(
    "--to", default=".", show_default=True, metavar="DIR", help="Where the proofs are written."
)
@click.option("--node", "nodes", multiple=True, metavar="NAME", help="Only this node; repeat.")
@plain_options
@takes(ProveArguments)
def prove(arguments: ProveArguments) -> int:
    """Write one small file a record of TOKEN: it proves holder, status, content and verdict.

    TOKEN is a token's id, or a record's key. Each file is checked by `evidence
    verify-proof`, by verify.py of the evidence, or by hand (VERIFY.md).
    """
    proofs = rts.prove_token(arguments.token, evidence=arguments.directory, nodes=arguments.nodes)
    written = [_written(arguments.to, proof) for proof in proofs]

    def table() -> None:
        for file in written:
            say(file)

    answer(
        as_json=arguments.as_json,
        quiet=arguments.quiet,
        document={
            "proofs": [
                {"file": file, "index": proof.index, "record": proof.record}
                for file, proof in zip(written, proofs, strict=True)
            ]
        },
        table=table,
    )
    return 0


def _written(directory: str, proof: EvidenceProof) -> str:
    """The proof's file, named after node and token."""
    node = re.sub(r"[^A-Za-z0-9]+", "-", str(proof.record["node_name"]))[:40]
    file = os.path.join(directory, f"{node}-{proof.record['record_key'][:48]}.tlog-proof")
    rts.keep_out(file, "The proof", "file")
    try:
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW
        with os.fdopen(os.open(file, flags, 0o600), "w", encoding="utf-8") as opened:
            opened.write(proof.text)
    except OSError as error:
        raise rts.SettingsError(
            f"{file} cannot be written: {error.strerror or error}.",
            code="proof_unwritable",
            remedy="Choose another directory by --to.",
        ) from error
    return file


@dataclass(frozen=True, kw_only=True)
class VerifyProofArguments(Plain):
    """Options of `evidence verify-proof`."""

    file: str
    key: str


@click.command("verify-proof")
@click.argument("file", metavar="FILE")
@click.option(
    "--key",
    required=True,
    metavar="PUB",
    help="The signer's public key, as you got it by another way: PEM, OpenSSH or C2SP.",
)
@plain_options
@takes(VerifyProofArguments)
def verify_proof(arguments: VerifyProofArguments) -> int:
    """Check a proof and show the record that it proves; exit 5: it proves nothing."""
    found = rts.verify_proof(arguments.file, key=arguments.key)

    def table() -> None:
        for name, value in found.record.items():
            say(f"{name + ':':<18}{value}", indent="  ")
        say(
            f"This record was number {found.index + 1:,} of {found.checkpoint.size:,} that were "
            f"signed at {found.checkpoint.made_at}, run {found.checkpoint.run}."
        )

    answer(
        as_json=arguments.as_json,
        quiet=arguments.quiet,
        document={
            "ok": True,
            "exit_code": 0,
            "record": found.record,
            "index": found.index,
            "records": found.checkpoint.size,
            "made_at": found.checkpoint.made_at,
            "run": found.checkpoint.run,
            "root": found.checkpoint.root.hex(),
        },
        table=table,
    )
    return 0
