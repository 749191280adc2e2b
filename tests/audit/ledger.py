"""A target whose nodes are changed and read by hand, and audited."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa

from rubix_token_sync.audit.questions import Finding, FindingFilters, list_findings
from rubix_token_sync.audit.rules import RULES
from rubix_token_sync.audit.run import AuditOptions, AuditOutcome, run_audit
from rubix_token_sync.records.companions import COMPANIONS
from rubix_token_sync.targets.sql.target import SqlTarget
from tests.audit.fleets import Row, insert, put_database

__all__ = ["Ledger"]


class Ledger:
    """What nodes have, as syncs and audits see it one after the other."""

    def __init__(self, store: SqlTarget) -> None:
        self.store = store

    def sync(self, *rows: Row, read: Sequence[str] | None = None) -> None:
        """The nodes have these rows; ``read`` were read now (default: all that there are)."""
        nodes = sorted({row.node for row in rows}) if read is None else read

        def work(conn: sa.Connection) -> None:
            tables, now = self.store.tables, self.store.database.time(conn)
            conn.execute(sa.delete(tables.records))
            for beside in COMPANIONS:
                conn.execute(sa.delete(tables.stored[beside.name].table))
            insert(conn, tables, rows)
            for node in nodes:
                put_database(conn, tables, node, now)

        self.store.transact(work)

    def retire(self, node: str) -> None:
        """The node's database was given up on purpose."""
        databases = self.store.tables.databases
        self.store.transact(
            lambda conn: conn.execute(sa.delete(databases).where(databases.c.node_name == node))
        )

    def audit(self, **options: Any) -> AuditOutcome:
        return run_audit(self.store, AuditOptions(**{"rules": RULES, **options}))

    def findings(self) -> list[Finding]:
        """All of them, with their evidence."""
        now = self.store.server_time()
        return self.store.read(
            lambda conn: list_findings(conn, self.store.tables, RULES, FindingFilters(), now)
        )

    def finding(self) -> Finding:
        """The only one."""
        (found,) = self.findings()
        return found

    def state(self) -> str:
        return self.finding().state

    def rows(self, table: sa.Table) -> list[dict[str, Any]]:
        query = sa.select(table).order_by(*table.primary_key)
        return self.store.read(lambda conn: [dict(row._mapping) for row in conn.execute(query)])
