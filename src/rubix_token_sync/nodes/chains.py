"""The token chains of one node and network, a record a token, in batches.

    for batch in read_chains("/mnt/a/node1/Rubix/rubix.db", "test", Scratch(), keys):
        ...

A node keeps them in five LevelDB directories.  Each is copied to the scratch space
(`chain_copy`), read from there (`chain_store`) and given back before the next one, so that
the room needed is that of the largest.  A directory that cannot be read costs what is in
that directory, and is in `Chains.failures`.

Whoever compares chains with rows reads the rows first: a node writes the chain first, so
that each row that was seen has its chain.
"""

from __future__ import annotations

import os
import time
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from hashlib import blake2b
from itertools import groupby, islice
from typing import Final, NamedTuple

import pyarrow as pa

from rubix_token_sync import failpoints, node_files
from rubix_token_sync.errors import SourceError, SourceUnsettled
from rubix_token_sync.node_files import STALL_SECONDS, BoundedCalls
from rubix_token_sync.node_places import STORAGES
from rubix_token_sync.nodes.chain_blocks import (
    REFERENCE,
    TRANSACTION_TYPES,
    UndecodableError,
    decode_block,
    parse_reference,
)
from rubix_token_sync.nodes.chain_copy import ChainCopy, directory_state
from rubix_token_sync.nodes.chain_signatures import PublicKey, SignatureChecks
from rubix_token_sync.nodes.chain_store import ChainStore, Entry, require_leveldb
from rubix_token_sync.nodes.chain_verdict import (
    Chain,
    SeenBlock,
    judge,
    seen_block,
    unreadable_block,
)
from rubix_token_sync.nodes.database_errors import from_os_error
from rubix_token_sync.nodes.did_keys import Network
from rubix_token_sync.scratch import Scratch

__all__ = [
    "CHAIN_SCHEMA",
    "STORAGES",
    "ChainLimits",
    "Chains",
    "Network",
    "chains_fingerprint",
    "read_chains",
]

CHAIN_SCHEMA: Final = pa.schema(
    [
        pa.field("token_id", pa.string(), nullable=False),
        pa.field("token_kind", pa.string(), nullable=False),  # a value of STORAGES
        pa.field("chain_kind", pa.string(), nullable=False),  # of its keys; several: dt+wt
        pa.field("network", pa.string(), nullable=False),
        pa.field("block_count", pa.int64(), nullable=False),
        pa.field("latest_block_number", pa.int64(), nullable=False),
        pa.field("latest_block_type", pa.string()),  # a key of TRANSACTION_TYPES, usually
        pa.field("latest_block_type_name", pa.string()),
        pa.field("latest_block_owner", pa.string()),
        pa.field("latest_block_hash", pa.string(), nullable=False),  # SHA3-256, hexadecimal
        pa.field("latest_block_time", pa.timestamp("us")),  # UTC; most types have none
        pa.field("hashes_valid", pa.bool_(), nullable=False),
        pa.field("links_valid", pa.bool_(), nullable=False),
        pa.field("signatures_checked", pa.int64(), nullable=False),  # the wrong ones included
        pa.field("signatures_wrong", pa.int64(), nullable=False),
        pa.field("signatures_unchecked", pa.int64(), nullable=False),
        pa.field("error", pa.string()),  # "code: sentence"; the codes are PROBLEMS
    ]
)
"""One row a token; (token_kind, token_id) is unique, and rows of a kind are in order of id."""

_NETS: Final = {"main": b"MainNet", "test": b"TestNet"}
_ATTEMPTS: Final = 5
_PAUSE_SECONDS: Final = 0.05


@dataclass(frozen=True)
class ChainLimits:
    """Bounds of what is read; the defaults are far beyond what real nodes have.

    Attributes:
        batch_rows: of each batch.
        value_bytes: a larger block is not decoded.
        chain_blocks: of a longer chain the first so many and the last one are looked at.
        file_bytes: of each file of LevelDB, which reads them in parts of any size.
        copy_bytes: of a private copy; None: as large as there is room.
    """

    batch_rows: int = 5_000
    value_bytes: int = 16 * 2**20
    chain_blocks: int = 100_000
    file_bytes: int = 64 * 2**20
    copy_bytes: int | None = None


class Chains(Iterator[pa.RecordBatch]):
    """Batches of `CHAIN_SCHEMA`; made by `read_chains`.

    Attributes:
        failures: by directory (a key of `STORAGES`), why it was not read to its end; complete
            when the last batch was taken.  Batches of its beginning may have been given.
        stray_keys: by directory, how many keys of unknown form were left out.
    """

    def __init__(self, batches: _Reading) -> None:
        self.failures = batches.failures
        self.stray_keys = batches.stray_keys
        self._batches = batches.batches()

    def __next__(self) -> pa.RecordBatch:
        return next(self._batches)

    def close(self) -> None:
        """Leave the rest unread and remove the private copy; needed only before the end."""
        self._batches.close()


def read_chains(
    db_path: str,
    network: Network,
    scratch: Scratch | str | None,
    public_key: PublicKey,
    *,
    limits: ChainLimits | None = None,
    stall_s: float = STALL_SECONDS,
) -> Chains:
    """The chains beside the database at ``db_path``, one row a token.

    Args:
        db_path: ``<node>/Rubix/rubix.db``, as text (see `rubix_token_sync.node_files`).
        network: whose chains.
        scratch: where private copies may go; a path is the only such place.
        public_key: gives a DID's ``pubKey.pem`` or None, such as
            `rubix_token_sync.nodes.did_keys.NodeKeys`; asked once for each DID.
        limits: bounds of what is read.
        stall_s: a file system that gives no answer for this many seconds is given up.

    Raises:
        SettingsError: ``extra_missing``, the package that reads LevelDB is not installed.
    """
    require_leveldb()
    place = scratch if isinstance(scratch, Scratch) else Scratch(scratch)
    checks = SignatureChecks(public_key)
    base = _base(db_path, network)
    return Chains(_Reading(base, network, place, checks, limits or ChainLimits(), stall_s))


def chains_fingerprint(db_path: str, network: Network, *, stall_s: float = STALL_SECONDS) -> str:
    """A text that changes whenever the chains beside a database may have changed.

    Compare for equality only: a node that is merely started changes it, too.

    Raises:
        SourceError: the directories cannot be looked at.
    """
    base = _base(db_path, network)
    digest = blake2b(digest_size=16, person=b"rubix-chains-v1")
    try:
        for storage in STORAGES:
            path = os.path.join(base, storage.encode())
            state = node_files.bounded(lambda path=path: directory_state(path), stall_s=stall_s)  # type: ignore[misc]
            digest.update(repr((storage, state)).encode())
    except OSError as error:
        raise from_os_error(error, "look at the token chains") from error
    return f"1:{digest.hexdigest()}"


def _base(db_path: str, network: Network) -> bytes:
    return os.path.join(os.path.dirname(node_files.bytes_of(db_path)), _NETS[network])


class _Reading:
    def __init__(
        self,
        base: bytes,
        network: Network,
        scratch: Scratch,
        checks: SignatureChecks,
        limits: ChainLimits,
        stall_s: float,
    ) -> None:
        self._base = base
        self._network = network
        self._scratch = scratch
        self._checks = checks
        self._limits = limits
        self._calls = BoundedCalls(stall_s)
        self.failures: dict[str, SourceError] = {}
        self.stray_keys: dict[str, int] = {}

    def batches(self) -> Generator[pa.RecordBatch, None, None]:
        try:
            for storage, kind in STORAGES.items():
                try:
                    yield from self._storage(storage, kind)
                except SourceError as error:
                    self._note(storage, error)
                except OSError as error:
                    self._note(storage, from_os_error(error, "read the token chains"))
        finally:
            self._calls.close()

    def _note(self, storage: str, error: SourceError) -> None:
        error.context["directory"] = storage
        self.failures[storage] = error

    def _storage(self, storage: str, kind: str) -> Iterator[pa.RecordBatch]:
        copy = self._copy(os.path.join(self._base, storage.encode()))
        if copy is None:
            return
        try:
            store = self._open(copy)
            try:
                rows = self._rows(store, kind)
                while batch := list(islice(rows, self._limits.batch_rows)):
                    failpoints.point("chains.read")
                    yield _batch(batch)
                if store.stray_keys:
                    self.stray_keys[storage] = store.stray_keys
            finally:
                store.close()
        finally:
            copy.remove()

    def _copy(self, source: bytes) -> ChainCopy | None:
        """A copy of the directory at one moment; None where no chain was ever written."""

        def make() -> ChainCopy:
            return ChainCopy(
                source,
                self._scratch,
                file_bytes=self._limits.file_bytes,
                copy_bytes=self._limits.copy_bytes,
                progress=self._calls.progress,
            )

        try:
            copy = self._calls.call(make, if_late=ChainCopy.remove)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise from_os_error(error, "look at the token chains") from error
        try:
            self._refresh(copy)
        except BaseException:
            if self._calls.gave_up:
                self._calls.close(copy.remove)  # when the call that is left behind has ended
            else:
                copy.remove()
            raise
        return copy

    def _refresh(self, copy: ChainCopy) -> None:
        failpoints.point("chains.copy")
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                self._calls.call(copy.refresh)
                return
            except SourceUnsettled:
                if attempt == _ATTEMPTS:
                    raise
            time.sleep(_PAUSE_SECONDS * attempt)

    def _open(self, copy: ChainCopy) -> ChainStore:
        try:
            return ChainStore(copy.path, copy.work, self._checks, self._limits.value_bytes)
        except SourceError as error:
            if error.code != "chains_damaged":
                raise
        # On a file system whose times and lengths lag behind, the copy may be at fault.
        copy.forget()
        self._refresh(copy)
        return ChainStore(copy.path, copy.work, self._checks, self._limits.value_bytes)

    def _rows(self, store: ChainStore, kind: str) -> Iterator[_Row]:
        most = self._limits.chain_blocks
        for token, entries in groupby(store.entries(), key=lambda entry: entry.key.token):
            seen = [self._seen(store, entry) for entry in islice(entries, most)]
            last: Entry | None = None
            left_out = -1
            for entry in entries:
                last = entry
                left_out += 1
            if last is not None:
                seen.append(self._seen(store, last))
            yield _row(token, kind, self._network, judge(seen, max(0, left_out)))

    def _seen(self, store: ChainStore, entry: Entry) -> SeenBlock:
        key, value = entry
        if value.startswith(REFERENCE):
            names = parse_reference(value)
            if names is None:
                return unreadable_block(key, "block_undecodable")
            shared = store.shared(value, key.token)
            if isinstance(shared, str):
                return unreadable_block(key, shared)
            expected = shared.block.hash if shared.whole_right else ""
            return seen_block(key, shared.block, shared.signatures, expected)
        if len(value) > self._limits.value_bytes:
            return unreadable_block(key, "block_too_large")
        try:
            block = decode_block(value)
        except UndecodableError:
            return unreadable_block(key, "block_undecodable")
        counts = self._checks.count(block.signatures, block.uncheckable)
        return seen_block(key, block, counts, block.hash)


class _Row(NamedTuple):
    """The columns of `CHAIN_SCHEMA`, in their order."""

    token_id: str
    token_kind: str
    chain_kind: str
    network: str
    block_count: int
    latest_block_number: int
    latest_block_type: str | None
    latest_block_type_name: str | None
    latest_block_owner: str | None
    latest_block_hash: str
    latest_block_time: int | None
    hashes_valid: bool
    links_valid: bool
    signatures_checked: int
    signatures_wrong: int
    signatures_unchecked: int
    error: str | None


def _row(token: str, kind: str, network: Network, chain: Chain) -> _Row:
    latest = chain.latest
    return _Row(
        token,
        kind,
        chain.kinds,
        network,
        chain.block_count,
        latest.number,
        latest.type,
        TRANSACTION_TYPES.get(latest.type) if latest.type is not None else None,
        latest.owner,
        latest.hash,
        latest.epoch * 1_000_000 if latest.epoch is not None else None,
        chain.hashes_valid,
        chain.links_valid,
        *chain.signatures,
        chain.error,
    )


def _batch(rows: list[_Row]) -> pa.RecordBatch:
    columns = zip(*rows, strict=True)
    return pa.record_batch(
        [pa.array(column, field.type) for column, field in zip(columns, CHAIN_SCHEMA, strict=True)],
        schema=CHAIN_SCHEMA,
    )
