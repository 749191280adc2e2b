"""What a rule is, and the words that rules are made of."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Literal, get_args

import sqlalchemy as sa

from rubix_token_sync.records.companions import CHAINS, DIDS
from rubix_token_sync.records.schema import DATABASE_KEY_BYTES
from rubix_token_sync.targets.base import Lease
from rubix_token_sync.targets.sql.audit_tables import (
    CHAIN_EVIDENCE,
    RECORD_EVIDENCE,
    TOKEN_KEY_BYTES,
)
from rubix_token_sync.targets.sql.functions import exactly, same_database
from rubix_token_sync.targets.sql.tables import Tables
from rubix_token_sync.targets.sql.target import SqlTarget

__all__ = [
    "BURNT",
    "FLAGGED",
    "OWNING",
    "SEVERITIES",
    "Rule",
    "Severity",
    "StatementRule",
    "dids_of_node",
    "finding_in",
    "held_by_nodes",
    "own_did",
    "token_key",
]

Severity = Literal["info", "warning", "error"]
SEVERITIES: Final[tuple[Severity, ...]] = get_args(Severity)
"""From the least to the most severe."""

OWNING: Final = ("0", "1", "2", "3", "5")
"""Free, Locked, Pledged, UnPledged, Committed: whoever's row says so can spend the token, at
once or once it is given back."""
BURNT: Final = ("9", "16")
"""Burnt (split into parts) and BurntForFT: nobody can spend it any more."""
FLAGGED: Final = ("11", "12", "13", "14")
"""Orphaned, ChainSyncIssue, PledgeIssue, BeingDoubleSpent: the node's own verdict."""

_NOT_OWNED: Final = ("contract",)
"""Kinds whose ``did`` deployed or ran the thing: several may, honestly."""


@dataclass(frozen=True, kw_only=True)
class Rule(ABC):
    """One thing that can be wrong with a token."""

    code: str
    """Its name for ever: a finding is known by it."""
    severity: Severity
    says: str
    """What was found, in one sentence."""
    means: str
    """How to read it: what it proves, and what not."""
    cause: str
    """What honest and dishonest causes it has."""
    cure: str
    compares_nodes: bool
    """It puts rows of several databases together, which were read at different times: a finding
    is suspected until each of them was read again."""
    blind_to: str = ""
    """What `blind_spots` counts, in the plural."""

    def prepare(self, store: SqlTarget, lease: Lease, note: str | None) -> str | None:  # noqa: ARG002
        """Do what takes long, in transactions of its own, before that of the audit begins.

        ``note`` is what this gave in the audit before; None where that one is not known.

        Raises:
            LeaseLost: another audit has taken over.
            SyncError: the rule cannot run in this audit.
        """
        return None

    def blind_spots(self, conn: sa.Connection, tables: Tables) -> int:  # noqa: ARG002
        """How many things it ought to look at and cannot; of those it says nothing."""
        return 0

    @abstractmethod
    def gather(self, conn: sa.Connection, tables: Tables, run_number: int) -> None:
        """Write a row of AuditEvidence for each record that a finding is seen in."""


@dataclass(frozen=True, kw_only=True)
class StatementRule(Rule):
    """A rule that is one statement."""

    statement: Callable[[Tables], sa.Select[Any] | sa.CompoundSelect[Any]]
    """Gives the columns of `finding_in`, one row for each record of a finding."""
    blind: Callable[[sa.Connection, Tables], int] | None = None
    """Gives `blind_spots`; None: it looks at everything."""

    def blind_spots(self, conn: sa.Connection, tables: Tables) -> int:
        return self.blind(conn, tables) if self.blind is not None else 0

    def gather(self, conn: sa.Connection, tables: Tables, run_number: int) -> None:
        conn.execute(self.insertion(tables, run_number))

    def insertion(self, tables: Tables, run_number: int) -> sa.Insert:
        """The statement, with each record's values as they are now."""
        found = self.statement(tables).subquery("found")
        records, databases, evidence = tables.records, tables.databases, tables.audit.evidence
        chains = tables.stored[CHAINS.name].table
        columns: dict[str, sa.ColumnElement[Any]] = {
            "run_number": sa.literal(run_number, sa.BigInteger()),
            "rule": sa.literal(self.code, sa.Unicode(50)),
            **{name: found.c[name] for name in ("token_key", "token_kind", "token_id")},
            **{name: found.c[name] for name in ("weight", "role")},
            "record_token_id": records.c.token_id,
            **{name: records.c[name] for name in RECORD_EVIDENCE},
            **{name: chains.c[name] for name in CHAIN_EVIDENCE},
            "did_of": _did_of(records, tables.stored[DIDS.name].table),
            "read_at": sa.func.coalesce(databases.c.last_seen_at, databases.c.last_processed),
        }
        chosen = [value.label(name) for name, value in columns.items()]
        its_database = sa.and_(*same_database(databases, records))
        its_chain = sa.and_(
            *same_database(chains, records),
            exactly(chains.c.token_id, records.c.token_id),
            chains.c.token_kind == records.c.token_kind,
            chains.c.source_deleted_at.is_(None),
        )
        query = (
            sa.select(*chosen)
            .join_from(found, records, records.c.id == found.c.record_id)
            .outerjoin(databases, its_database)
            .outerjoin(chains, its_chain)
        )
        return sa.insert(evidence).from_select(list(columns), query)


def own_did(records: sa.FromClause, dids: sa.FromClause) -> list[sa.ColumnElement[bool]]:
    """Where a row of NodeDids says that a record's DID is one of its own node's."""
    return [*dids_of_node(records, dids), exactly(dids.c.did, records.c.did)]


def dids_of_node(records: sa.FromClause, dids: sa.FromClause) -> list[sa.ColumnElement[bool]]:
    """Where a row of NodeDids is of a record's own node (or of a row of ProcessedDatabases)."""
    return [*same_database(dids, records), dids.c.source_deleted_at.is_(None)]


def _did_of(records: sa.FromClause, dids: sa.Table) -> sa.ColumnElement[Any]:
    own, other, some = (dids.alias(name) for name in ("own", "elsewhere", "node_dids"))
    anywhere = (exactly(other.c.did, records.c.did), other.c.source_deleted_at.is_(None))
    return sa.case(
        (sa.exists().where(*own_did(records, own)), "this_node"),
        (sa.exists().where(*anywhere), "another_node"),
        (
            sa.and_(records.c.did != "", sa.exists().where(*dids_of_node(records, some))),
            "no_node",
        ),
        else_=sa.null(),
    )


def token_key(records: sa.FromClause) -> sa.ColumnElement[bytes]:
    """The same bytes for one token (its id with its type, its kind) in every database.

    They are the digest at the end of a record's key: exact where a collation ignores case, and
    where an id was cut to fit its column.  The numbers are literals, so that a database sees
    one expression wherever it stands.
    """
    start: sa.ColumnElement[int] = sa.literal_column(str(DATABASE_KEY_BYTES + 1))
    size: sa.ColumnElement[int] = sa.literal_column(str(TOKEN_KEY_BYTES))
    return sa.func.substring(records.c.record_key, start, size, type_=sa.LargeBinary())


def held_by_nodes(records: sa.FromClause) -> list[sa.ColumnElement[bool]]:
    """Records of tokens that a node has now, of kinds that somebody owns."""
    return [
        records.c.source_deleted_at.is_(None),
        records.c.token_id.is_not(None),
        records.c.token_kind.not_in(_NOT_OWNED),
    ]


def finding_in(
    found: sa.FromClause, records: sa.FromClause, role: str = "holder"
) -> list[sa.ColumnElement[Any]]:
    """The columns of a rule's statement.

    ``found`` names the token (``token_key``, ``token_kind``, ``token_id``, ``weight``),
    ``records`` the record that it is seen in; ``role`` says which part that one plays.
    """
    return [
        found.c.token_key,
        found.c.token_kind,
        found.c.token_id,
        sa.cast(found.c.weight, sa.BigInteger()).label("weight"),
        records.c.id.label("record_id"),
        sa.literal(role, sa.Unicode(20)).label("role"),
    ]
