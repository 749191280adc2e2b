"""What becomes of findings: set-based, from what the rules of one audit gathered.

    (seen) ─▶ suspected ─▶ confirmed ─▶ acknowledged          open
                  │            │              │
                  └────────────┴──────────────┴─▶ resolved    not seen, and read again since
                                                     │
                                   (seen) reopened ◀─┘        open

A finding is known by its rule and its token.  Nothing is resolved that was not read since it
was seen last; what was never confirmed may come and go without a word.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Literal, get_args

import sqlalchemy as sa

from rubix_token_sync import failpoints
from rubix_token_sync.audit.rule import Rule, Severity
from rubix_token_sync.targets.sql.functions import same_database
from rubix_token_sync.targets.sql.tables import Tables

__all__ = ["CHANGES", "OPEN", "STATES", "Change", "Moment", "State", "bring_up_to_date"]

State = Literal["suspected", "confirmed", "acknowledged", "reopened", "resolved"]
STATES: Final[tuple[State, ...]] = get_args(State)
OPEN: Final[tuple[State, ...]] = ("suspected", "confirmed", "acknowledged", "reopened")
"""What is not resolved."""

Change = Literal["new", "confirmed", "worse", "reopened", "resolved"]
CHANGES: Final[tuple[Change, ...]] = get_args(Change)
"""What an audit can do to a finding; the last of them stands in the row."""


@dataclass(frozen=True)
class Moment:
    """One audit, as the findings note it."""

    number: int
    """Of its row in AuditRuns."""
    at: datetime
    """By the target's clock, before the first rule ran."""


def bring_up_to_date(
    conn: sa.Connection,
    tables: Tables,
    moment: Moment,
    *,
    ran: Sequence[Rule],
    off: Collection[str],
    known: Collection[str],
    severities: Mapping[str, Severity],
) -> None:
    """Make AuditFindings say what the evidence of this audit says.

    ``ran`` are the rules that ran to their end, ``off`` those that are switched off, ``known``
    every rule that this program has; the others were removed from it.
    """
    failpoints.point("audit.findings")
    life = _Life(tables, moment)
    life.note_worse(conn)
    life.confirm(conn)
    life.reopen(conn)
    life.refresh(conn)
    life.add_new(conn, [rule.code for rule in ran if rule.compares_nodes])
    life.resolve(conn, [rule.code for rule in ran])
    life.close(conn, "rule_removed", life.findings.c.rule.not_in(sorted(known)))
    life.close(conn, "rule_off", life.findings.c.rule.in_(sorted(off)))
    for severity in set(severities.values()):
        life.set_severity(
            conn, severity, sorted(c for c, given in severities.items() if given == severity)
        )
    failpoints.point("audit.evidence")
    life.forget_older_evidence(conn)


class _Life:
    """The statements; each looks at the finding's row as the ones before left it."""

    def __init__(self, tables: Tables, moment: Moment) -> None:
        self.findings = tables.audit.findings
        self._evidence = tables.audit.evidence
        self._databases = tables.databases
        self._now = moment

    def _changed(self, change: Change) -> dict[str, Any]:
        return {"change": change, "changed_run": self._now.number, "changed_at": self._now.at}

    def _of_finding(
        self, evidence: sa.FromClause, run: sa.ColumnElement[int] | int
    ) -> list[sa.ColumnElement[bool]]:
        return [
            evidence.c.rule == self.findings.c.rule,
            evidence.c.token_key == self.findings.c.token_key,
            evidence.c.run_number == run,
        ]

    def _seen(self) -> sa.ColumnElement[bool]:
        """The rules of this audit found it."""
        seen = self._evidence.alias("seen")
        return sa.exists().where(*self._of_finding(seen, self._now.number))

    def _weight(self) -> sa.ColumnElement[int]:
        """How bad it is now."""
        seen = self._evidence.alias("weighed")
        query = sa.select(sa.func.max(seen.c.weight))
        return query.where(*self._of_finding(seen, self._now.number)).scalar_subquery()

    def _unread_since(
        self, time: sa.ColumnElement[datetime], run: sa.ColumnElement[int] | int
    ) -> sa.ColumnElement[bool]:
        """Some database of the evidence was not read again after ``time``.

        A database that the target does not know any more was retired on purpose: nobody will
        read it again.
        """
        seen, database = self._evidence.alias("scope"), self._databases
        read = sa.func.coalesce(database.c.last_seen_at, database.c.last_processed)
        return sa.exists().where(
            *self._of_finding(seen, run),
            *same_database(database, seen),
            read <= time,
        )

    def note_worse(self, conn: sa.Connection) -> None:
        """What grew is nobody's accepted risk any more."""
        f = self.findings
        acknowledged = f.c.state == "acknowledged"
        conn.execute(
            sa.update(f)
            .where(f.c.state.in_(OPEN), self._seen(), self._weight() > f.c.weight)
            .values(
                **self._changed("worse"),
                state=sa.case((acknowledged, "confirmed"), else_=f.c.state),
                suppressed_until=None,
            )
        )

    def confirm(self, conn: sa.Connection) -> None:
        """Seen again, after every database of it was read again."""
        f = self.findings
        conn.execute(
            sa.update(f)
            .where(
                f.c.state == "suspected",
                self._seen(),
                sa.not_(self._unread_since(f.c.suspected_at, self._now.number)),
            )
            .values(**self._changed("confirmed"), state="confirmed", confirmed_at=self._now.at)
        )

    def reopen(self, conn: sa.Connection) -> None:
        """What was resolved is there again; what had never been confirmed begins anew."""
        f = self.findings
        back = {"resolved_at": None, "resolution": None}
        for state, change, condition, more in (
            ("suspected", "new", f.c.confirmed_at.is_(None), {"suspected_at": self._now.at}),
            ("reopened", "reopened", f.c.confirmed_at.is_not(None), {"reopened": f.c.reopened + 1}),
        ):
            conn.execute(
                sa.update(f)
                .where(f.c.state == "resolved", condition, self._seen())
                .values(**self._changed(change), state=state, **back, **more)  # type: ignore[arg-type]
            )

    def refresh(self, conn: sa.Connection) -> None:
        conn.execute(
            sa.update(self.findings)
            .where(self._seen())
            .values(
                last_seen_run=self._now.number, last_seen_at=self._now.at, weight=self._weight()
            )
        )

    def add_new(self, conn: sa.Connection, suspected_first: Sequence[str]) -> None:
        """Findings that were never seen before."""
        f, seen, now = self.findings, self._evidence.alias("seen"), self._now
        there = sa.exists().where(f.c.rule == seen.c.rule, f.c.token_key == seen.c.token_key)
        suspected = seen.c.rule.in_(suspected_first)
        number, at = (
            sa.literal(now.number, sa.BigInteger()),
            sa.literal(now.at, f.c.changed_at.type),
        )
        fresh = (
            sa.select(
                seen.c.rule,
                seen.c.token_key,
                sa.func.min(seen.c.token_kind).label("token_kind"),
                sa.func.min(seen.c.token_id).label("token_id"),
                sa.func.max(seen.c.weight).label("weight"),
                sa.func.max(sa.case((suspected, 1), else_=0)).label("unsure"),
            )
            .where(seen.c.run_number == now.number, sa.not_(there))
            .group_by(seen.c.rule, seen.c.token_key)
            .subquery("fresh")
        )
        unsure = fresh.c.unsure == 1
        columns: dict[str, sa.ColumnElement[Any]] = {
            **{name: fresh.c[name] for name in ("rule", "token_key", "token_kind", "token_id")},
            "weight": fresh.c.weight,
            "severity": sa.literal("error", sa.Unicode(10)),  # until `set_severity`
            "state": sa.case((unsure, "suspected"), else_="confirmed"),
            **dict.fromkeys(("first_seen_run", "last_seen_run", "changed_run"), number),
            **dict.fromkeys(("first_seen_at", "last_seen_at", "suspected_at", "changed_at"), at),
            "confirmed_at": sa.case((unsure, sa.null()), else_=at),
            "change": sa.literal("new", sa.Unicode(20)),
        }
        query = sa.select(*(value.label(name) for name, value in columns.items()))
        conn.execute(sa.insert(f).from_select(list(columns), query))

    def resolve(self, conn: sa.Connection, ran: Sequence[str]) -> None:
        """Not seen any more, and every database of it was read since it was seen last."""
        f = self.findings
        self.close(
            conn,
            "gone",
            sa.and_(
                f.c.rule.in_(ran),
                f.c.last_seen_run != self._now.number,
                sa.not_(self._unread_since(f.c.last_seen_at, f.c.last_seen_run)),
            ),
        )

    def close(
        self, conn: sa.Connection, resolution: str, condition: sa.ColumnElement[bool]
    ) -> None:
        f = self.findings
        conn.execute(
            sa.update(f)
            .where(f.c.state.in_(OPEN), condition)
            .values(
                **self._changed("resolved"),
                state="resolved",
                resolved_at=self._now.at,
                resolution=resolution,
            )
        )

    def set_severity(self, conn: sa.Connection, severity: Severity, rules: Sequence[str]) -> None:
        """As the settings of this audit have it."""
        f = self.findings
        conn.execute(
            sa.update(f)
            .where(f.c.rule.in_(rules), f.c.severity != severity)
            .values(severity=severity)
        )

    def forget_older_evidence(self, conn: sa.Connection) -> None:
        """What is seen now replaces what was seen before; the rest keeps its last sight."""
        f, evidence = self.findings, self._evidence
        seen_now = sa.exists().where(
            f.c.rule == evidence.c.rule,
            f.c.token_key == evidence.c.token_key,
            f.c.last_seen_run == self._now.number,
        )
        conn.execute(sa.delete(evidence).where(evidence.c.run_number < self._now.number, seen_now))
