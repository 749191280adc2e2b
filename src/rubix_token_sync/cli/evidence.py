"""`evidence`: make it, check it, prove single records."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

import click

import rubix_token_sync as rts
from rubix_token_sync.cli.options import Common, common_options, max_age_option, stack, takes
from rubix_token_sync.cli.output import answer, say
from rubix_token_sync.cli.terminal import counting, interruptible, print_problems

if TYPE_CHECKING:
    from rubix_token_sync import (
        EvidenceComparison,
        EvidenceCreated,
        EvidenceProof,
        EvidenceVerified,
    )

__all__ = ["evidence"]

_LETTERS: Final = {"new": "+", "vanished": "-", "changed": "*"}
_MANY: Final = 20

_plain_options = stack(
    click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout."),
    click.option("--quiet", "-q", is_flag=True, help="Warnings and errors only."),
    click.option("--verbose", "-v", is_flag=True, help="Tracebacks of errors."),
)
_public_key_option = click.option(
    "--key",
    metavar="PUB",
    help="The signer's public key, as you got it by another way: PEM, OpenSSH or C2SP.",
)


@dataclass(frozen=True, kw_only=True)
class Plain:
    """What commands have that need no target."""

    as_json: bool
    quiet: bool
    verbose: bool


@click.group()
def evidence() -> None:
    """Sign what the target holds, check what was signed, prove single records.

    docs/EVIDENCE.md says what evidence proves, and how a third party checks it without
    this program.
    """


# --- a key --------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class KeyArguments(Plain):
    """Options of `evidence key`."""

    file: str


@evidence.command()
@click.argument("file", metavar="FILE")
@_plain_options
@takes(KeyArguments)
def key(arguments: KeyArguments) -> int:
    """Make an Ed25519 key: FILE (mode 600) and FILE.pub; print the public part.

    Give FILE.pub to everybody who will check evidence, by a way that you trust.
    Files that exist are never written over.
    """
    made = rts.make_evidence_key(arguments.file)

    def table() -> None:
        say(f"The key is in {made.file}; whoever has it can sign in your name.")
        say(f"Its public part is in {made.public_file}, in the forms of others:")
        for form in (made.fingerprint, made.openssh, made.verifier_key):
            say(form, indent="  ")
        for line in made.pem.splitlines():
            say(line, indent="  ")

    answer(as_json=arguments.as_json, quiet=arguments.quiet, document=vars(made), table=table)
    return 0


# --- making ---------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class CreateArguments(Common):
    """Options of `evidence create`."""

    directory: str
    key: str
    previous: str | None
    max_age: timedelta | None


@evidence.command()
@click.argument("directory", metavar="DIR")
@click.option(
    "--key",
    required=True,
    metavar="FILE",
    help="The private key; or a public one, whose private half your ssh-agent holds.",
)
@click.option(
    "--previous", metavar="DIR", help="The evidence before this one; the new one names its root."
)
@max_age_option
@common_options
@takes(CreateArguments)
def create(arguments: CreateArguments) -> int:
    """Write what the target holds now into DIR, signed; DIR must not exist.

    All of it is what one snapshot of the target held. Exit codes: 0; 1 it is made, but
    not everything had been read or the target knows no snapshots (the manifest says
    so); 2 usage; 3 the target cannot be reached.
    """
    configuration = arguments.configured()
    with counting("Writing", quiet=arguments.quiet) as on_progress:
        done = rts.create_evidence(
            arguments.directory,
            key=arguments.key,
            previous=arguments.previous,
            max_age=arguments.max_age,
            on_progress=on_progress,
            configuration=configuration,
        )
    code = 0 if done.complete and done.one_moment else 1
    answer(
        as_json=arguments.as_json,
        quiet=arguments.quiet,
        document={
            "ok": code == 0,
            "exit_code": code,
            "directory": done.directory,
            "checkpoint": _checkpoint(done),
            "complete": done.complete,
            "one_moment": done.one_moment,
            "counts": done.counts,
            "findings": done.findings,
            "problems": done.status.problems,
        },
        table=lambda: _show_created(done),
    )
    return code


def _checkpoint(done: EvidenceCreated | EvidenceVerified) -> dict[str, Any]:
    return {**vars(done.checkpoint), "root": done.checkpoint.root.hex()}


def _show_created(done: EvidenceCreated) -> None:
    print_problems(done.status.problems)
    say(
        f"{done.directory}: {rts.counted(done.checkpoint.size, 'record')}, root "
        f"{done.checkpoint.root.hex()}."
    )
    if not done.complete:
        say("Not everything had been read: the manifest says so, and so will every check.", "33")
    if not done.one_moment:
        say("The target allows no snapshots: it was not read in one moment.", "33")


# --- checking -------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class VerifyArguments(Common):
    """Options of `evidence verify`."""

    directory: str
    key: str | None
    roots: tuple[str, ...] = ()


@evidence.command()
@click.argument("directory", metavar="DIR")
@_public_key_option
@click.option(
    "--roots",
    multiple=True,
    metavar="DIR",
    help="Read the nodes below it again, and say what has changed since; repeat.",
)
@common_options
@takes(VerifyArguments)
def verify(arguments: VerifyArguments) -> int:
    """Check every file, leaf and record of DIR; no target is asked.

    Exit codes: 0 as it was signed, and everything had been read; 5 not as it was signed,
    or (--roots) the nodes have changed since; 1 as it was signed, but without --key it
    is not known by whom, or not everything had been read or could be compared; 2 usage.
    """
    with counting("Checking", quiet=arguments.quiet) as on_progress:
        done = rts.verify_evidence(arguments.directory, key=arguments.key, on_progress=on_progress)
    compared = _compared(arguments, done) if arguments.roots else None
    code = done.exit_code
    if compared is not None:
        code = 5 if compared.differences else 1 if compared.not_compared else code
    answer(
        as_json=arguments.as_json,
        quiet=arguments.quiet,
        document={
            "ok": code == 0,
            "exit_code": code,
            "directory": arguments.directory,
            "checkpoint": _checkpoint(done),
            "key": done.key.fingerprint,
            "key_named": done.key_named,
            "complete": done.complete,
            "one_moment": done.one_moment,
            "manifest": done.predicate,
            "compared": None if compared is None else vars(compared),
        },
        table=lambda: _show_verified(done, compared),
    )
    return code


def _compared(arguments: VerifyArguments, done: EvidenceVerified) -> EvidenceComparison:
    configuration = arguments.configured(needs_target=False)
    with interruptible() as stop:
        return rts.compare_evidence(
            arguments.directory, verified=done, stop=stop, configuration=configuration
        )


def _show_verified(done: EvidenceVerified, compared: EvidenceComparison | None) -> None:
    say(
        f"As it was signed at {done.checkpoint.made_at}: "
        f"{rts.counted(done.checkpoint.size, 'record')}, run {done.checkpoint.run}."
    )
    if not done.key_named:
        say("Who signed it is not known: name the signer's key by --key. It is signed by", "33")
        say(f"{done.key.fingerprint}.", indent="  ")
    unread = done.predicate["not_read"]
    if not done.complete:
        say("It says itself that not everything had been read:", "33")
        for one in unread["databases"][:_MANY]:
            say(f"{one['node_name']}, {one['db_path']}: {one['state']}", indent="  ")
        for run in done.predicate["scope"]["runs_under_way"][:_MANY]:
            say(f"the run {run} was under way", indent="  ")
        for one in unread["problems"][:_MANY]:
            say(f"{one['message']} [{one['code']}]", indent="  ")
    if not done.one_moment:
        say("It was not read in one moment: its target allowed no snapshots.", "33")
    if compared is None:
        return
    for change in compared.examples:
        columns = f" {', '.join(change.columns)}" if change.columns else ""
        say(f"{_LETTERS[change.kind]} {change.db_path} {change.token_id}{columns}")
    say(
        f"{rts.counted(compared.same, 'record')} as signed; {compared.changed:,} changed, "
        f"{compared.new:,} new, {compared.vanished:,} vanished since."
    )
    for path, records in list(compared.not_compared.items())[:_MANY]:
        say(f"Not compared: {path} ({rts.counted(records, 'record')})", "33")


# --- proofs ---------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class ProveArguments(Plain):
    """Options of `evidence prove`."""

    token: str
    directory: str
    to: str
    nodes: tuple[str, ...]


@evidence.command()
@click.argument("token", metavar="TOKEN")
@click.option(
    "--from", "directory", required=True, metavar="DIR", help="The evidence that it is in."
)
@click.option(
    "--to", default=".", show_default=True, metavar="DIR", help="Where the proofs are written."
)
@click.option("--node", "nodes", multiple=True, metavar="NAME", help="Only this node; repeat.")
@_plain_options
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
    rts.keep_out(file, "The proof")
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


@evidence.command()
@click.argument("file", metavar="FILE")
@click.option(
    "--key",
    required=True,
    metavar="PUB",
    help="The signer's public key, as you got it by another way: PEM, OpenSSH or C2SP.",
)
@_plain_options
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
