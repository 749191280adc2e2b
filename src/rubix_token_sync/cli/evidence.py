"""`evidence`: make it, check it, prove single records."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

import click

import rubix_token_sync as rts
from rubix_token_sync.cli.options import (
    Common,
    Plain,
    common_options,
    max_age_option,
    plain_options,
    takes,
)
from rubix_token_sync.cli.output import answer, say
from rubix_token_sync.cli.proofs import prove, verify_proof
from rubix_token_sync.cli.terminal import counting, interruptible, print_problems

if TYPE_CHECKING:
    from rubix_token_sync import (
        EvidenceComparison,
        EvidenceCreated,
        EvidenceStamp,
        EvidenceVerified,
    )

__all__ = ["evidence"]

_LETTERS: Final = {"new": "+", "vanished": "-", "changed": "*"}
_MANY: Final = 20

_CA_HELP: Final = "The authority's root certificates (PEM), as you got them from the authority."


@click.group()
def evidence() -> None:
    """Sign what the target holds, check what was signed, prove single records.

    docs/EVIDENCE.md says what evidence proves, and how a third party checks it without
    this program.
    """


evidence.add_command(prove)
evidence.add_command(verify_proof)


# --- a key --------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class KeyArguments(Plain):
    """Options of `evidence key`."""

    file: str


@evidence.command()
@click.argument("file", metavar="FILE")
@plain_options
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
    timestamp: str | None
    timestamp_ca: str | None
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
@click.option(
    "--timestamp",
    metavar="URL",
    help="Ask this authority (RFC 3161) to stamp what was signed; needs --timestamp-ca.",
)
@click.option("--timestamp-ca", metavar="FILE", help=_CA_HELP)
@max_age_option
@common_options
@takes(CreateArguments)
def create(arguments: CreateArguments) -> int:
    """Write what the target holds now into DIR, signed; DIR must not exist.

    All of it is what one snapshot of the target held. Exit codes: 0; 1 it is made, but
    not everything had been read or the target knows no snapshots (the manifest says
    so), or an authority gave no time stamp; 2 usage; 3 the target cannot be reached.
    """
    configuration = arguments.configured()
    with counting("Writing", quiet=arguments.quiet) as on_progress:
        done = rts.create_evidence(
            arguments.directory,
            key=arguments.key,
            previous=arguments.previous,
            max_age=arguments.max_age,
            timestamp=arguments.timestamp,
            timestamp_ca=arguments.timestamp_ca,
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
            "time_stamp": _stamp(done.time_stamp),
            "problems": done.status.problems,
        },
        table=lambda: _show_created(done),
    )
    return code


def _checkpoint(done: EvidenceCreated | EvidenceVerified) -> dict[str, Any]:
    return {**vars(done.checkpoint), "root": done.checkpoint.root.hex()}


def _stamp(found: EvidenceStamp | None) -> dict[str, Any] | None:
    return None if found is None else vars(found)


def _show_created(done: EvidenceCreated) -> None:
    print_problems(done.status.problems)
    say(
        f"{done.directory}: {rts.counted(done.checkpoint.size, 'record')}, root "
        f"{done.checkpoint.root.hex()}."
    )
    if done.time_stamp is not None:
        _show_stamp(done.time_stamp)
    if not done.complete:
        say("Not everything had been read: the manifest says so, and so will every check.", "33")
    if not done.one_moment:
        say("The target allows no snapshots: it was not read in one moment.", "33")


@dataclass(frozen=True, kw_only=True)
class StampArguments(Plain):
    """Options of `evidence stamp`."""

    directory: str
    timestamp: str
    timestamp_ca: str


@evidence.command()
@click.argument("directory", metavar="DIR")
@click.option(
    "--timestamp", required=True, metavar="URL", help="The authority that is asked (RFC 3161)."
)
@click.option("--timestamp-ca", required=True, metavar="FILE", help=_CA_HELP)
@plain_options
@takes(StampArguments)
def stamp(arguments: StampArguments) -> int:
    """Get the time stamp that `evidence create --timestamp` could not get.

    What an authority answers is checked before it is kept. Exit codes: 0; 1 it gave no
    stamp, and nothing was changed; 2 usage; 5 the evidence is not as it was signed.
    """
    found = rts.stamp_evidence(
        arguments.directory, timestamp=arguments.timestamp, timestamp_ca=arguments.timestamp_ca
    )
    answer(
        as_json=arguments.as_json,
        quiet=arguments.quiet,
        document={
            "ok": True,
            "exit_code": 0,
            "directory": arguments.directory,
            "time_stamp": _stamp(found),
        },
        table=lambda: _show_stamp(found),
    )
    return 0


def _show_stamp(found: EvidenceStamp) -> None:
    say(f"Stamped at {found.at} by {found.authority or 'an authority without a name'}.")


# --- checking -------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class VerifyArguments(Common):
    """Options of `evidence verify`."""

    directory: str
    key: str | None
    timestamp_ca: str | None
    roots: tuple[str, ...] = ()


@evidence.command()
@click.argument("directory", metavar="DIR")
@click.option(
    "--key",
    metavar="PUB",
    help="The signer's public key, as you got it by another way: PEM, OpenSSH or C2SP.",
)
@click.option("--timestamp-ca", metavar="FILE", help=_CA_HELP)
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
    is not known by whom, or not everything had been read or could be compared, or the time
    stamp is missing or (without --timestamp-ca) could not be checked; 2 usage.
    """
    with counting("Checking", quiet=arguments.quiet) as on_progress:
        done = rts.verify_evidence(
            arguments.directory,
            key=arguments.key,
            timestamp_ca=arguments.timestamp_ca,
            on_progress=on_progress,
        )
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
            "time_stamp": _stamp(done.time_stamp),
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
    if done.time_stamp is not None:
        _show_stamp(done.time_stamp)
    if not done.stamp_ok:
        say(
            "It has no time stamp, and should have one."
            if done.time_stamp is None
            else "Whether that authority stamped it was not checked: name its root certificates "
            "by --timestamp-ca.",
            "33",
        )
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
