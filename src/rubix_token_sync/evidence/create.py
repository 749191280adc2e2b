"""Make a directory of evidence: read once, in one moment, hash, sign, and then appear."""

from __future__ import annotations

import base64
import gc
import os
import secrets
import shutil
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from importlib.resources import files
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import sqlalchemy as sa

from rubix_token_sync import failpoints
from rubix_token_sync.audit.questions import AuditRow, FindingFilters, list_audits
from rubix_token_sync.audit.rule import Rule
from rubix_token_sync.errors import SettingsError
from rubix_token_sync.evidence import form
from rubix_token_sync.evidence.guide import guide_text
from rubix_token_sync.evidence.hashing import HashedLeaves, hashing
from rubix_token_sync.evidence.keys import NAMESPACE, Signer, sshsig
from rubix_token_sync.evidence.leaves import (
    CONTENT_DIGEST,
    ascending,
    canonical,
    content_digests,
    lines,
)
from rubix_token_sync.evidence.manifest import Counts, Origin, Previous, statement, time_text
from rubix_token_sync.evidence.notes import Checkpoint, sign_note
from rubix_token_sync.evidence.stamps import Stamp
from rubix_token_sync.export.findings import all_findings, plain
from rubix_token_sync.export.parquet import ParquetFile
from rubix_token_sync.monitor.answers import OneMoment
from rubix_token_sync.monitor.filters import Filters
from rubix_token_sync.monitor.health import Status, read_status
from rubix_token_sync.monitor.problems import Rules
from rubix_token_sync.records.schema import RECORDS
from rubix_token_sync.targets.sql.target import SqlTarget

__all__ = ["Created", "Request", "create"]


@dataclass(frozen=True)
class Request:
    """What evidence is made of."""

    directory: Path
    signer: Signer
    judging: Rules
    """What counts as wrong: as for `status`."""
    audit_rules: tuple[Rule, ...]
    program_version: str
    limits_version: str
    previous: Previous | None = None
    time_stamp_from: str | None = None
    """The host of the authority that will be asked to stamp it, `stamping.stamp`."""


@dataclass(frozen=True)
class Created:
    """What was made."""

    directory: str
    checkpoint: Checkpoint
    counts: Counts
    status: Status
    one_moment: bool
    complete: bool
    """Every database was read, nothing is wrong with what was, and no run was under way."""
    findings: dict[str, int]
    time_stamp: Stamp | None = None


def create(
    store: SqlTarget,
    request: Request,
    on_progress: Callable[[int, int], None] = lambda _done, _total: None,
) -> Created:
    """Write ``request.directory``; it appears when it is complete.

    ``on_progress`` gets the number of records done and of all.

    Raises:
        SettingsError: the directory exists, or cannot be written.
        EvidenceRefused: the target's records do not come in the order of their keys.
        TargetError: the target cannot be read.
    """
    with (
        _directory(request.directory) as place,
        store.moment() as (conn, frozen),
        _seldom_collected(),
    ):
        asked = OneMoment(store, conn)
        now = store.database.time(conn)
        status = read_status(asked, Filters(), now, rules=request.judging)
        audits = list_audits(conn, store.tables, 1)
        origin = Origin(
            store.kind,
            store.place,
            now,
            frozen,
            str(uuid.uuid4()),
            request.program_version,
            request.limits_version,
        )
        counts = Counts()
        written: dict[str, tuple[str, int]] = {}
        total = sum(row.record_count for row in status.databases)
        tree = _write_records(store, conn, place, written, counts, lambda n: on_progress(n, total))
        counts.vanished = _stored(conn, store.tables.records) - counts.records
        found = _write_findings(store, conn, place, written, request.audit_rules, now)
        failpoints.point("evidence.sign")
        key = request.signer.public
        _write(place, form.KEY_PEM, key.pem.encode(), written)
        signers = f'{form.SIGNER_NAME} namespaces="{NAMESPACE}" {key.ssh_line}\n'
        _write(place, form.SIGNERS, signers.encode(), written)
        _write(place, form.GUIDE, guide_text(key, request.time_stamp_from).encode(), written)
        verifier = files("rubix_token_sync.evidence").joinpath("standalone.py").read_bytes()
        _write(place, form.VERIFIER, verifier, written)
        audit = audits[0] if audits else None
        document = statement(
            files=written,
            origin=origin,
            size=tree.size,
            root=base64.b64encode(tree.root()).decode(),
            status=status,
            audit=audit,
            audit_limits=_limits_of(conn, store.tables.audit.runs, audit),
            counts=counts,
            findings=found,
            previous=request.previous,
            time_stamp_from=request.time_stamp_from,
        )
        _write(place, form.MANIFEST, canonical(document) + b"\n", written)
        sums = form.sums_text({name: digest for name, (digest, _) in written.items()})
        digest = _write(place, form.SUMS, sums.encode(), written)
        made = time_text(now)
        assert made is not None
        checkpoint = Checkpoint(key.origin, tree.size, tree.root(), made, origin.run, digest)
        _sign(place, checkpoint, request.signer, written)
    return Created(
        str(request.directory),
        checkpoint,
        counts,
        status,
        frozen,
        document["predicate"]["complete"],
        found,
    )


@contextmanager
def _seldom_collected() -> Iterator[None]:
    """A batch makes thousands of objects and hardly a cycle: as in worker processes."""
    before = gc.get_threshold()
    gc.set_threshold(50_000, 10, 10)
    try:
        yield
    finally:
        gc.set_threshold(*before)


@contextmanager
def _directory(wanted: Path) -> Iterator[Path]:
    """A new directory beside ``wanted``, which gets its name when all went well."""
    if os.path.lexists(wanted):
        raise SettingsError(
            f"{wanted} exists already; evidence is never written over.",
            code="evidence_exists",
            remedy="Name a directory that does not exist.",
        )
    place = wanted.with_name(f".{wanted.name}.{secrets.token_hex(4)}.partial")
    try:
        os.mkdir(place, 0o700)
        try:
            yield place
            handle = os.open(place, os.O_RDONLY | os.O_DIRECTORY)
            try:
                os.fsync(handle)
            finally:
                os.close(handle)
            failpoints.point("evidence.rename")
            os.rename(place, wanted)
        except BaseException:
            shutil.rmtree(place, ignore_errors=True)
            raise
    except OSError as error:
        raise form.unwritable(wanted, error) from error


def _write(place: Path, name: str, data: bytes, written: dict[str, tuple[str, int]]) -> str:
    file = form.HashedFile(place / name)
    try:
        file.write(data)
    finally:
        digest = file.close()
    written[name] = (digest, len(data))
    return digest


def _stored(conn: sa.Connection, records: sa.Table) -> int:
    """Records in the target, vanished ones too."""
    query = sa.select(sa.func.count()).select_from(records)
    return int(conn.execute(query).scalar_one())


def _limits_of(conn: sa.Connection, runs: sa.Table, audit: AuditRow | None) -> str | None:
    if audit is None:
        return None
    query = sa.select(runs.c.limits_version).where(runs.c.number == audit.number)
    found: str | None = conn.execute(query).scalar()
    return found


def _write_records(
    store: SqlTarget,
    conn: sa.Connection,
    place: Path,
    written: dict[str, tuple[str, int]],
    counts: Counts,
    on_done: Callable[[int], None],
) -> HashedLeaves:
    """Table, leaves and blocks of the tree, in one pass."""
    table = form.HashedFile(place / form.RECORDS)
    leaves = form.HashedFile(place / form.LEAVES)
    schema = RECORDS.schema.append(pa.field(CONTENT_DIGEST, pa.string()))
    last = b""
    try:
        with (
            hashing() as tree,
            ParquetFile(table, schema, {"evidence": form.PREDICATE_TYPE}) as parquet,
            ThreadPoolExecutor(1) as beside,
        ):

            def put(batch: pa.RecordBatch) -> None:
                made = lines(batch)
                leaves.write(made)
                tree.feed(made)

            # A batch becomes leaves while the next one is read.
            putting: Future[None] | None = None
            for batch in store.all_records(conn):
                failpoints.point("evidence.records")
                last = ascending(batch.column("record_key"), last)
                digests = content_digests(batch.column("ipfs_data"))
                whole = batch.append_column(schema.field(CONTENT_DIGEST), digests)
                if putting is not None:
                    putting.result()
                putting = beside.submit(put, whole)
                parquet.write(whole)
                _count(counts, whole)
                on_done(counts.records)
            if putting is not None:
                putting.result()
            hashed = tree.result()
    finally:
        written[form.LEAVES] = (leaves.close(), leaves.size)
        written[form.RECORDS] = (table.close(), table.size)
    _write(place, form.BLOCKS, hashed.blocks, written)
    return hashed


def _count(counts: Counts, batch: pa.RecordBatch) -> None:
    counts.records += len(batch)
    counts.with_content += batch.column("ipfs_fetched").true_count
    for found, name in ((counts.kinds, "token_kind"), (counts.verdicts, "verdict")):
        for value in pc.value_counts(batch.column(name)):
            word = value["values"].as_py() or "none"
            found[word] = found.get(word, 0) + value["counts"].as_py()


def _write_findings(
    store: SqlTarget,
    conn: sa.Connection,
    place: Path,
    written: dict[str, tuple[str, int]],
    rules: tuple[Rule, ...],
    now: datetime,
) -> dict[str, int]:
    """Every finding of every state; how many there are of each."""
    states: Counter[str] = Counter()
    file = form.HashedFile(place / form.FINDINGS)
    try:
        for block in all_findings(conn, store.tables, rules, FindingFilters(), now):
            states.update(one.state for one in block)
            rows: list[Any] = [plain(one) for one in block]
            file.write(b"".join(canonical(row) + b"\n" for row in rows))
    finally:
        written[form.FINDINGS] = (file.close(), file.size)
    return dict(sorted(states.items()))


def _sign(
    place: Path, checkpoint: Checkpoint, signer: Signer, written: dict[str, tuple[str, int]]
) -> None:
    text = checkpoint.text.encode()
    note, signature = sign_note(checkpoint, signer)
    _write(place, form.CHECKPOINT, note.encode(), written)
    _write(place, form.TEXT, text, written)
    _write(place, form.RAW_SIGNATURE, signature, written)
    _write(place, form.SSH_SIGNATURE, sshsig(signer, text).encode(), written)
