"""Evidence: make it, check it, prove single records, compare it with the nodes."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Unpack

from rubix_token_sync import __version__, node_files
from rubix_token_sync.errors import SettingsError
from rubix_token_sync.evidence import keys
from rubix_token_sync.evidence.against import Comparison
from rubix_token_sync.evidence.against import compare as compare_leaves
from rubix_token_sync.evidence.create import Created, Request, create
from rubix_token_sync.evidence.listing import EvidenceGlance, glances
from rubix_token_sync.evidence.proofs import Proof, Proven, check_proof, prove
from rubix_token_sync.evidence.stamping import open_authority, read_roots, stamp
from rubix_token_sync.evidence.stamps import Stamp
from rubix_token_sync.evidence.verify import Verified, previous_of, verify
from rubix_token_sync.library.configuration import CallSettings, PathName, configured
from rubix_token_sync.library.reader import open_target
from rubix_token_sync.library.work import rules_of, sync
from rubix_token_sync.nodes.keep_out import keep_out
from rubix_token_sync.scratch import Scratch

if TYPE_CHECKING:
    from rubix_token_sync.library.observers import Observer
    from rubix_token_sync.runs.cancel import CancelToken

__all__ = [
    "EvidenceKey",
    "compare_evidence",
    "create_evidence",
    "list_evidence",
    "make_evidence_key",
    "prove_token",
    "stamp_evidence",
    "verify_evidence",
    "verify_proof",
]


@dataclass(frozen=True)
class EvidenceKey:
    """The public half of a key that signs evidence, in the forms that others read."""

    file: str
    public_file: str
    fingerprint: str
    """As `ssh-keygen -l` shows it."""
    pem: str
    openssh: str
    verifier_key: str
    """Of C2SP signed notes."""


def make_evidence_key(file: PathName) -> EvidenceKey:
    """Make an Ed25519 key: ``file`` (mode 600) and ``file``.pub, neither of which exists.

    Raises:
        SettingsError: one of them exists or cannot be written.
    """
    keep_out(file, "The key")
    path = Path(file)
    public = keys.make_key(path)
    return EvidenceKey(
        str(path),
        f"{path}.pub",
        public.fingerprint,
        public.pem,
        public.ssh_line,
        public.verifier_key,
    )


def create_evidence(
    directory: PathName,
    *,
    key: PathName,
    previous: PathName | None = None,
    max_age: timedelta | None = None,
    timestamp: str | None = None,
    timestamp_ca: PathName | None = None,
    on_progress: Callable[[int, int], None] = lambda _done, _total: None,
    **settings: Unpack[CallSettings],
) -> Created:
    """Write what the target holds in one moment into ``directory``, signed.

    ``key`` is the file of a private key, or of a public one whose private half an ssh-agent
    holds; ``previous`` a directory of evidence that the new one names; ``max_age``: databases
    read longer ago are overdue.  ``timestamp`` is the address of an authority (RFC 3161) that
    is then asked to stamp the checkpoint, ``timestamp_ca`` the file of its root certificates (PEM).
    ``on_progress`` gets the records done and all.

    Raises:
        SettingsError: the directory exists, or a file cannot be used.
        EvidenceRefused: ``previous`` is not signed by this key.
        EvidenceUnstamped: the evidence is there, but the authority gave it no stamp:
            `stamp_evidence` asks again.
        TargetError: the target cannot be read.
    """
    from rubix_token_sync.audit.limits import package_limits
    from rubix_token_sync.audit.rules import RULES

    configuration = configured(**settings)
    keep_out(directory, "The evidence")
    authority = None
    if timestamp is not None:
        authority = open_authority(timestamp, Path(_named(timestamp_ca)))
    signer = keys.open_signer(Path(key))
    hours = configuration.settings.alert_max_age_hours
    if max_age is None and hours is not None:
        max_age = timedelta(hours=hours)
    request = Request(
        Path(directory).absolute(),
        signer,
        rules_of(configuration.settings, max_age=max_age),
        tuple(RULES),
        __version__,
        package_limits().version,
        previous_of(Path(previous), signer.public) if previous is not None else None,
        None if authority is None else authority.host,
    )
    with open_target(configuration=configuration) as target:
        made = create(target._store, request, on_progress)
    if authority is None:
        return made
    return replace(made, time_stamp=stamp(request.directory, authority))


def _named(timestamp_ca: PathName | None) -> PathName:
    """
    Raises:
        SettingsError: it is None.
    """
    if timestamp_ca is None:
        raise SettingsError(
            "The certificates of the time-stamping authority are not named: its answer could "
            "not be checked.",
            code="timestamp_ca",
            remedy="Name the file with the authority's root certificate (--timestamp-ca FILE).",
        )
    return timestamp_ca


def stamp_evidence(directory: PathName, *, timestamp: str, timestamp_ca: PathName) -> Stamp:
    """Ask an authority to stamp evidence that was made to be stamped, and has no stamp yet.

    Raises:
        SettingsError: the evidence, the address or the file of certificates cannot be used.
        EvidenceRefused: the evidence is not what was signed.
        EvidenceUnstamped: the authority gave no stamp; nothing was changed.
    """
    keep_out(directory, "The time stamp")
    authority = open_authority(timestamp, Path(timestamp_ca))
    return stamp(Path(os.path.abspath(directory)), authority)


def verify_evidence(
    directory: PathName,
    *,
    key: PathName | None = None,
    timestamp_ca: PathName | None = None,
    on_progress: Callable[[int, int], None] = lambda _done, _total: None,
) -> Verified:
    """Check every file, leaf and record of a directory of evidence.

    ``key`` is the file of the signer's public key, as it came to you by another way; without
    it ``exit_code`` is never 0.  ``timestamp_ca`` is the file of the root certificates (PEM) of
    the time-stamping authority; without it ``exit_code`` is not 0 for evidence with a stamp.

    Raises:
        SettingsError: the directory, the key or the certificates cannot be read.
        EvidenceRefused: it is not what was signed.
    """
    public = None if key is None else keys.read_public_key(Path(key))
    roots = () if timestamp_ca is None else read_roots(Path(timestamp_ca))
    return verify(Path(directory), public, on_progress, roots)


def list_evidence(*places: PathName) -> list[EvidenceGlance]:
    """Directories of evidence, or those in these directories, at a glance; the newest first.

    What cannot be read is in the list, with the reason.
    """
    return glances(Path(place) for place in places)


def prove_token(token: str, *, evidence: PathName, nodes: Sequence[str] = ()) -> list[Proof]:
    """A proof for each record of a token; ``token`` is its id or a record's key.

    Raises:
        SettingsError: the evidence cannot be read, or has no such record.
        EvidenceRefused: its leaves are not those that were signed.
    """
    return prove(Path(evidence), token, nodes=tuple(nodes))


def verify_proof(file: PathName, *, key: PathName) -> Proven:
    """What a proof proves, if the holder of ``key`` (a public key's file) signed it.

    Raises:
        SettingsError: a file cannot be read.
        EvidenceRefused: the proof is wrong.
    """
    public = keys.read_public_key(Path(key))
    try:
        data, _ = node_files.read_file(node_files.from_argument(file), 64 * 2**20 + 1)
    except OSError as error:
        raise SettingsError(
            f"The proof {file} cannot be read: {error.strerror or error}.",
            code="proof_unreadable",
            remedy="Check the path; `rubix-token-sync evidence prove` writes proofs.",
        ) from error
    return check_proof(data, public)


def compare_evidence(
    directory: PathName,
    *roots: PathName,
    verified: Verified,
    observers: Sequence[Observer] = (),
    stop: CancelToken | None = None,
    **settings: Unpack[CallSettings],
) -> Comparison:
    """Read the nodes below ``roots`` again and compare with evidence that was ``verified``.

    They are synced into a target of their own in scratch space, as the machine (``source_ip``)
    that the evidence knows them by.  Databases that cannot be read are not compared.

    Raises:
        SettingsError: the evidence does not know this machine.
        SyncError: the nodes cannot be read.
    """
    from rubix_token_sync.targets.base import TargetOptions
    from rubix_token_sync.targets.registry import open_target as open_store
    from rubix_token_sync.targets.registry import parse_target

    found = configured(*roots, **settings)
    known = sorted({row["source_ip"] for row in verified.predicate["scope"]["databases"]})
    source = found.settings.source_ip
    if source not in known:
        given = "source_ip" in found.settings.model_fields_set
        if given or len(known) != 1:
            raise SettingsError(
                f"The evidence has no records of the machine {source}.",
                code="evidence_other_source",
                remedy=f"Name one of its machines by --source-ip: {', '.join(known) or 'none'}.",
            )
        source = known[0]
    place = Scratch(found.settings.scratch, found.roots).choose()
    with tempfile.TemporaryDirectory(prefix="rubix-evidence-", dir=place) as name:
        target = parse_target(f"sqlite:///{name}/nodes.db")
        run = replace(
            found,
            settings=found.settings.model_copy(update={"source_ip": source}),
            target=target,
        )
        done = sync(configuration=run, audit=False, observers=observers, stop=stop)
        read = [one.db_path for one in done.databases if one.status == "processed"]
        store = open_store(target, TargetOptions(read_only=True))
        try:
            return compare_leaves(Path(directory), store, source, read)
        finally:
            store.close()
