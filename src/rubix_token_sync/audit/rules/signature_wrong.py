"""A signed content whose signature is not its creator's; checks signatures, so many an audit."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from hashlib import blake2b
from typing import Any, Final

import sqlalchemy as sa

from rubix_token_sync import failpoints
from rubix_token_sync.audit.holders import tokens_with_verdict
from rubix_token_sync.audit.rule import StatementRule
from rubix_token_sync.ipfs.lite_did import lite_did_of
from rubix_token_sync.records.build import SIGNATURE_NOT_CHECKED
from rubix_token_sync.records.companions import DIDS
from rubix_token_sync.targets.base import Lease
from rubix_token_sync.targets.sql.tables import Tables
from rubix_token_sync.targets.sql.target import SqlTarget

__all__ = ["RULE", "SignatureRule"]

_CHUNK: Final = 1_000
_SLACK: Final = timedelta(hours=1)
"""A transaction that began before the audit may end after it."""


def _statement(tables: Tables) -> sa.Select[Any]:
    return tokens_with_verdict(tables, "signature_wrong")


@dataclass(frozen=True, kw_only=True)
class SignatureRule(StatementRule):
    """Checks signatures by the public keys that the target has, and stores the verdicts."""

    most: int = 100_000
    """Signatures that one audit checks: 0.08 to 0.4 ms each.  The next one goes on."""

    def prepare(self, store: SqlTarget, lease: Lease, note: str | None) -> str | None:
        """Check what can be checked and was not.

        Nothing is looked at twice as long as the keys stay the same: the note names the keys
        and the time.  It is None where signatures are left for the next audit.
        """
        began = store.server_time()
        keys = store.read(lambda conn: _keys(conn, store.tables))
        digest = blake2b(repr(sorted(keys)).encode(), digest_size=16).hexdigest()
        records = store.tables.records
        waiting = [
            records.c.verdict == SIGNATURE_NOT_CHECKED,
            records.c.ipfs_fetched == sa.true(),
            records.c.source_deleted_at.is_(None),
        ]
        time, _, known = (note or "").partition(" ")
        if known == digest:
            waiting.append(records.c.synced_at >= datetime.fromisoformat(time) - _SLACK)
        all_done = not keys or _check_all(store, lease, keys, waiting, self.most)
        return f"{began.isoformat()} {digest}" if all_done else None

    def blind_spots(self, conn: sa.Connection, tables: Tables) -> int:
        records = tables.records
        query = sa.select(sa.func.count()).where(
            records.c.verdict == SIGNATURE_NOT_CHECKED, records.c.source_deleted_at.is_(None)
        )
        return int(conn.execute(query).scalar_one())


def _keys(conn: sa.Connection, tables: Tables) -> dict[str, bytes]:
    """The public keys of DIDs, each proven by the DID: whoever wrote them into the target."""
    dids = tables.stored[DIDS.name].table
    query = (
        sa.select(dids.c.did, dids.c.public_key)
        .where(dids.c.public_key.is_not(None), dids.c.source_deleted_at.is_(None))
        .distinct()
    )
    found = {}
    for did, pem in conn.execute(query):
        key = pem.encode("ascii", "replace")
        if lite_did_of(key) == did:
            found[did] = key
    return found


def _check_all(
    store: SqlTarget,
    lease: Lease,
    keys: dict[str, bytes],
    waiting: list[sa.ColumnElement[bool]],
    most: int,
) -> bool:
    """Check at most ``most`` signatures of records that wait; whether none was left."""
    # What decodes contents is loaded by audits alone, not by everyone who lists rules.
    from rubix_token_sync.audit.stored import stored_content
    from rubix_token_sync.nodes.chain_signatures import parse_public_key
    from rubix_token_sync.records.rac import decode_rac

    records = store.tables.records
    verifiers = {did: parse_public_key(pem) for did, pem in keys.items()}
    changed = (
        sa.update(records)
        .where(records.c.id == sa.bindparam("row"), records.c.verdict == SIGNATURE_NOT_CHECKED)
        .values(verdict=sa.bindparam("new"))
    )
    last = checked = 0

    def verdict(content: bytes | None) -> str | None:
        rac = decode_rac(content) if content is not None else None
        verifier = verifiers.get(rac.creator_did) if rac is not None else None
        if rac is None or verifier is None:
            return None
        right = verifier.verify(rac.signed, rac.signature)
        return "signature_checked" if right else "signature_wrong"

    def work(conn: sa.Connection) -> tuple[int, int] | None:
        store.sessions.fence(conn, lease)
        failpoints.point("audit.signatures")
        query = sa.select(records.c.id, records.c.ipfs_data).where(*waiting, records.c.id > last)
        rows = conn.execute(query.order_by(records.c.id).limit(_CHUNK)).all()
        if not rows:
            return None
        judged = [(row.id, verdict(stored_content(row.ipfs_data))) for row in rows]
        changes = [{"row": row, "new": new} for row, new in judged if new is not None]
        if changes:
            conn.execute(changed, changes)
        return int(rows[-1].id), len(changes)

    while (done := store.transact(work)) is not None:
        last, checked = done[0], checked + done[1]
        if checked >= most:
            return False
    return True


RULE: Final = SignatureRule(
    code="signature_wrong",
    severity="error",
    says="the signature of the token's content is not its creator's",
    means="The content of a part, test or data token names its creator. An audit checks the "
    "signature in it against the creator's public key, where some node of the target has that "
    "DID as its own and keeps the key in the DID's directory; only keys are used from which the "
    "DID itself follows (lite DIDs). It does not fit: the creator has not signed this content. "
    "Of tokens whose creator's key is not at hand nothing is known, and the audit says how many "
    "there are. It checks 100,000 signatures at a time and leaves the rest to the next audit.",
    cause="the content was fabricated or changed",
    cure="Compare the content with another node's copy of it; then take the token up with whoever "
    "paid with it.",
    compares_nodes=False,
    blind_to="records whose signature is not checked: their creator's key is not in the target",
    statement=_statement,
)
