"""Make a directory of evidence: read once, in one moment, hash, sign, and then appear."""

from __future__ import annotations

import base64
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
from itertools import chain
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
from rubix_token_sync.evidence.keys import NAMESPACE, Signer, sshsig
from rubix_token_sync.evidence.leaves import CONTENT_DIGEST, canonical, content_digests, leaves
from rubix_token_sync.evidence.manifest import Counts, Origin, Previous, statement, time_text
from rubix_token_sync.evidence.notes import Checkpoint, sign_note
from rubix_token_sync.evidence.tree import BlockTree
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
    with _directory(request.directory) as place, store.moment() as (conn, frozen):
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
        _write(place, form.GUIDE, guide_text(key).encode(), written)
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
) -> BlockTree:
    """Table, leaves and blocks of the tree, in one pass."""
    tree, last, offset = BlockTree(), b"", 0
    table = form.HashedFile(place / form.RECORDS)
    lines = form.HashedFile(place / form.LEAVES)
    offsets: list[int] = []
    try:
        schema = RECORDS.schema.append(pa.field(CONTENT_DIGEST, pa.string()))
        with (
            ParquetFile(table, schema, {"evidence": form.PREDICATE_TYPE}) as parquet,
            ThreadPoolExecutor(1) as beside,
        ):
            # Arrow makes the leaves of a batch, and those before go to the disk, meanwhile.
            waiting: Future[pa.Array] | None = None
            writing: Future[int] | None = None
            for batch in chain(store.all_records(conn), [None]):
                if batch is not None:
                    failpoints.point("evidence.records")
                    last = form.ascending(batch.column("record_key").to_pylist(), last)
                    digests = content_digests(batch.column("ipfs_data"))
                    batch = batch.append_column(schema.field(CONTENT_DIGEST), digests)
                    parquet.write(batch)
                    _count(counts, batch)
                made, waiting = waiting, None if batch is None else beside.submit(leaves, batch)
                if made is None:
                    continue
                some = made.result().cast(pa.binary()).to_pylist()
                data = b"\n".join(some) + b"\n"
                offsets += form.block_offsets(some, tree.size, offset)
                offset += len(data)
                if writing is not None:
                    writing.result()
                writing = beside.submit(lines.write, data)
                tree.extend(some)
                on_done(tree.size)
            if writing is not None:
                writing.result()
    finally:
        written[form.LEAVES] = (lines.close(), lines.size)
        written[form.RECORDS] = (table.close(), table.size)
    _write(place, form.BLOCKS, form.blocks_file(offsets, tree.all_blocks()), written)
    return tree


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
