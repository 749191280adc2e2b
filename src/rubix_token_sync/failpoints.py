"""Named points at which tests make side effects fail.

Every side effect of a run passes `point(name)` just before it happens (or,
for names ending in ``.after``, just after).  A point costs one global lookup
when nothing is armed.  Arm by environment so that worker processes see it:

    RUBIX_SYNC_FAULT="store.commit.before:3:kill"       the third time, SIGKILL
    RUBIX_SYNC_FAULT="source.open:1:error:forever"      from the first time on
    RUBIX_SYNC_FAULT="store.publish:2:stall"            sleeps until killed
    RUBIX_SYNC_FAULT_LOG=FILE                           appends every name passed

``error`` raises `FaultInjected` (an OSError with EIO).  Counting is per
process; ``RUBIX_SYNC_FAULT_ONCE=FILE`` makes a fault fire in one process only
(whoever creates FILE first).
"""

from __future__ import annotations

import errno
import os
import signal
import time
from typing import Final

__all__ = ["POINTS", "FaultInjected", "arm", "point"]

POINTS: Final = {
    "audit.decide": "write what a person decided about a finding",
    "audit.evidence": "remove the earlier evidence of findings",
    "audit.findings": "bring the findings up to date",
    "audit.judge": "judge some stored records",
    "audit.rule": "run one rule of an audit",
    "audit.signatures": "check signatures of some stored records",
    "chains.copy": "copy a directory of token chains to the scratch directory",
    "chains.read": "go on with the next chains of a copy",
    "content.open": "open a node's block store",
    "content.resolve": "fetch the contents of a batch of tokens",
    "content.tree": "prove a file or directory that a content names, or a large content",
    "discovery.scan": "read one directory below a root",
    "evidence.records": "put the next records into evidence",
    "evidence.rename": "give finished evidence its name",
    "evidence.sign": "sign evidence",
    "evidence.stamp": "ask an authority to stamp evidence",
    "migrate.begin": "record that a migration has begun",
    "migrate.chunk": "move a chunk of a database's records",
    "migrate.database": "begin to move a database",
    "migrate.done": "continue after a database was moved",
    "migrate.fetch": "read the next rows of the older system",
    "migrate.homeless": "move records without a database",
    "migrate.plan": "read what the older system holds",
    "migrate.read": "open the older system's rows",
    "migrate.status": "record the state of a migration",
    "migrate.verify": "read what was moved, to verify it",
    "report.fsync": "force a written report to the disk",
    "report.rename": "give a finished report its name",
    "report.write": "write a report",
    "source.connect": "open a node's database, or a copy of it, with SQLite",
    "source.copy": "copy a node's database (and its -wal or -journal) to the scratch directory",
    "source.open": "open a node's database file",
    "source.read": "read the next rows of a node's database",
    "store.analyze": "let the target gather statistics",
    "store.clean": "remove rows that dead runs left staged",
    "store.commit.after": "learn that a transaction is committed",
    "store.commit.before": "commit a transaction",
    "store.connect": "take a connection to the target, for one transaction",
    "store.content": "read contents that the target holds",
    "store.errors": "store errors",
    "history.prune": "remove some old versions (the lease is held)",
    "store.heartbeat": "record a sign of life in the target",
    "store.indexes.build": "build one secondary index",
    "store.indexes.drop": "drop the secondary indexes before a first load",
    "store.insert": "insert new records directly into a SQL Server's table (the lease is held)",
    "store.known": "read which records of a database the target holds",
    "store.lease.acquire": "take the source's lease",
    "store.lease.release": "release the lease",
    "store.mark": "mark a database as processed",
    "store.open": "open a connection to the target",
    "store.publish": "begin to publish a chunk (the lease is held)",
    "store.publish.rows": "turn staged rows into records",
    "store.records": "read a database's records from the target (verify)",
    "store.retire": "mark all records of a database that is gone",
    "store.seen": "record that databases were found unchanged",
    "store.session.finish": "write how a session ended",
    "store.session.recover": "close the sessions of dead runs",
    "store.session.start": "write the session's row",
    "store.source.adopt": "give a source to this machine",
    "store.stage": "send rows to the target",
    "store.states": "read the target's state of every database",
    "store.upgrade": "create or upgrade the target's tables",
    "store.vanish": "mark records that the node no longer has",
    "worker.emit": "report to the run from a worker process",
    "worker.job": "begin with one database",
}
"""Every point and what is about to happen there; a test holds it against the code."""


class FaultInjected(OSError):
    """The error that an armed point raises."""

    def __init__(self, name: str) -> None:
        super().__init__(errno.EIO, f"injected fault at {name}")


_armed: tuple[str, int, str, bool] | None = None
_log = ""
_passed = 0
_active = False


def arm(spec: str | None = None) -> None:
    """Arm ``spec``, as RUBIX_SYNC_FAULT has it; "" disarms.

    None: what the environment says (again, in a process that was forked with another one).
    """
    global _armed, _log, _passed, _active
    if spec is None:
        spec = os.environ.get("RUBIX_SYNC_FAULT", "")
    _armed = None
    if spec:
        name, nth, action, *rest = spec.split(":")
        _armed = name, int(nth), action, rest == ["forever"]
    _log = os.environ.get("RUBIX_SYNC_FAULT_LOG", "")
    _passed = 0
    _active = _armed is not None or bool(_log)


arm()


def point(name: str) -> None:
    """Pass the point ``name``; fails when a test armed it.

    Raises:
        FaultInjected: the armed action is ``error``.
    """
    if _active:
        _pass(name)


def _pass(name: str) -> None:
    global _passed
    if _log:
        fd = os.open(_log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        os.write(fd, f"{os.getpid()} {name}\n".encode())
        os.close(fd)
    if _armed is None or _armed[0] != name:
        return
    _, nth, action, forever = _armed
    _passed += 1
    if _passed != nth and not (forever and _passed > nth):
        return
    once = os.environ.get("RUBIX_SYNC_FAULT_ONCE", "")
    if once:
        try:
            os.close(os.open(once, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        except FileExistsError:
            return
    if action == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    elif action == "stall":
        time.sleep(3600)
    elif action == "error":
        raise FaultInjected(name)
    else:
        raise ValueError(f"unknown fault action {action!r}")
