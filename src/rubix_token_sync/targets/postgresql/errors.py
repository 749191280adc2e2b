"""PostgreSQL's errors as ours, by SQLSTATE.

Codes: https://www.postgresql.org/docs/current/errcodes-appendix.html.  Errors
while connecting have no code in libpq, only text; the server's share of it is
in the server's language, so what is not recognised there counts as transient
(it is tried a few times, then reported as it is).
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

import psycopg
import sqlalchemy as sa

from rubix_token_sync.errors import (
    CommitAmbiguous,
    RecordRefused,
    SyncError,
    TargetError,
    TargetOverloaded,
    TargetRefused,
    TargetUnavailable,
)

__all__ = ["DRIVER_ERRORS", "translate_error"]

DRIVER_ERRORS: Final = (psycopg.Error, OSError, UnicodeError, OverflowError)


class _Meaning(NamedTuple):
    error: type[TargetError]
    code: str
    sentence: str
    remedy: str


_LATER: Final = "It is tried again; if this lasts, ask who runs the server."
_RIGHTS: Final = (
    "Let the database's owner run `rubix-token-sync schema upgrade`, or grant what is missing "
    "(SELECT, INSERT, UPDATE, DELETE on the tables, USAGE on their sequences, TEMPORARY on the "
    "database)."
)

_BY_STATE: Final[dict[str, _Meaning]] = {
    "28P01": _Meaning(
        TargetRefused, "login_failed", "The login failed.", "Check user and password."
    ),
    "28000": _Meaning(
        TargetRefused,
        "login_refused",
        "The server does not let this user in from here.",
        "Check the user's name and the server's pg_hba.conf (address, database, TLS).",
    ),
    "3D000": _Meaning(
        TargetRefused,
        "wrong_database",
        "The database does not exist.",
        "Check the database's name in the address, or create it.",
    ),
    "42501": _Meaning(TargetRefused, "no_rights", "The user may not do this.", _RIGHTS),
    "25006": _Meaning(
        TargetRefused,
        "read_only",
        "The server takes no changes: a standby, or set to read only.",
        "Name the primary server, for example with target_session_attrs=read-write.",
    ),
    "42P01": _Meaning(
        TargetRefused,
        "no_table",
        "A table is missing.",
        "Run `rubix-token-sync schema upgrade`.",
    ),
    "42703": _Meaning(
        TargetRefused,
        "no_column",
        "A column is missing.",
        "Run `rubix-token-sync schema upgrade`.",
    ),
    "3F000": _Meaning(
        TargetRefused,
        "no_schema",
        "The search_path of this user names no existing schema.",
        "Have it corrected (ALTER ROLE … SET search_path = public), or create the schema.",
    ),
    "25P03": _Meaning(
        TargetUnavailable, "timed_out", "The server ended a transaction that idled.", _LATER
    ),
    "25P04": _Meaning(
        TargetUnavailable,
        "timed_out",
        "The server ended a transaction at its transaction_timeout.",
        "It is tried again; if this lasts, have the user's transaction_timeout raised.",
    ),
    "53100": _Meaning(
        TargetRefused,
        "disk_full",
        "The server's disk is full.",
        "Free space there and run again; nothing stored is lost.",
    ),
    "54000": _Meaning(RecordRefused, "refused", "A value is too large for the server.", ""),
    "40P01": _Meaning(TargetUnavailable, "deadlock", "The server broke a deadlock.", _LATER),
    "40001": _Meaning(TargetUnavailable, "serialization", "Two writers collided.", _LATER),
    "55P03": _Meaning(TargetUnavailable, "locked", "A lock could not be obtained in time.", _LATER),
    "57014": _Meaning(
        TargetUnavailable,
        "timed_out",
        "The server cancelled a statement that took too long.",
        "It is tried again; if this lasts, look for locks or load on the server.",
    ),
    "57P03": _Meaning(TargetUnavailable, "starting", "The server is starting or stopping.", _LATER),
    "53300": _Meaning(
        TargetOverloaded,
        "too_many_connections",
        "The server gives no more connections.",
        "Lower CONNECTION_POOL_SIZE, or have the limit raised: the server's max_connections, or "
        "the CONNECTION LIMIT of the database or role.",
    ),
}

_BY_CLASS: Final[dict[str, _Meaning]] = {
    "08": _Meaning(TargetUnavailable, "connection_lost", "The connection was lost.", _LATER),
    "57": _Meaning(TargetUnavailable, "interrupted", "The server ended the connection.", _LATER),
    "58": _Meaning(
        TargetUnavailable,
        "server_trouble",
        "The server could not read or write its own files.",
        _LATER,
    ),
    "53": _Meaning(TargetOverloaded, "overloaded", "The server is short of resources.", _LATER),
    "40": _Meaning(TargetUnavailable, "rolled_back", "The server gave up a transaction.", _LATER),
    "28": _Meaning(
        TargetRefused, "login_refused", "The login failed.", "Check user, password and pg_hba.conf."
    ),
    "22": _Meaning(RecordRefused, "refused", "The server refuses a value.", ""),
    "23": _Meaning(RecordRefused, "refused", "The server refuses a record.", ""),
}

_LOST: Final = _BY_CLASS["08"]
_NOT_MADE: Final = _Meaning(
    TargetUnavailable,
    "connection_failed",
    "The connection could not be made.",
    "The message in parentheses is the server's or the system's own.",
)
_CONNECTING: Final = re.compile(r"connection (?:failed|is bad): ")
"""How psycopg introduces an error before there is a connection; it has no SQLSTATE then."""
_POOL_EMPTY: Final = _Meaning(
    TargetUnavailable,
    "pool_exhausted",
    "All connections of the pool were busy for too long.",
    "Raise CONNECTION_POOL_SIZE, or look for what holds the database up.",
)

_WHILE_CONNECTING: Final[tuple[tuple[str, _Meaning], ...]] = (
    ("password authentication failed", _BY_STATE["28P01"]),
    ("no password supplied", _BY_STATE["28P01"]),
    ("authentication failed", _BY_STATE["28P01"]),
    ("no pg_hba\\.conf entry", _BY_STATE["28000"]),
    ("rejects connection", _BY_STATE["28000"]),
    ('role ".*" does not exist', _BY_STATE["28P01"]),
    ("permission denied for database", _BY_STATE["42501"]),
    ('database ".*" does not exist', _BY_STATE["3D000"]),
    ("session is read-only", _BY_STATE["25006"]),
    ("starting up", _BY_STATE["57P03"]),
    ("shutting down", _BY_STATE["57P03"]),
    ("in recovery mode", _BY_STATE["57P03"]),
    ("too many", _BY_STATE["53300"]),
    ("connection slots", _BY_STATE["53300"]),
    (
        "does not support SSL",
        _Meaning(
            TargetRefused,
            "no_tls",
            "The server offers no TLS.",
            "Turn TLS on there, or, in a network you trust, add sslmode=disable to the address.",
        ),
    ),
    (
        "certificate verify failed",
        _Meaning(
            TargetRefused,
            "bad_certificate",
            "The server's certificate is not trusted.",
            "Name the authority's certificate by sslrootcert=FILE in the address.",
        ),
    ),
    (
        "does not match host name",
        _Meaning(
            TargetRefused,
            "bad_certificate",
            "The server's certificate is for another host.",
            "Use the name that the certificate has.",
        ),
    ),
    (
        "certificate",
        _Meaning(
            TargetRefused,
            "bad_certificate",
            "The TLS certificates do not match.",
            "Check sslrootcert, sslcert and sslkey in the address.",
        ),
    ),
    (
        "Connection refused",
        _Meaning(
            TargetUnavailable,
            "port_closed",
            "Nothing listens at the address.",
            "Check host and port, and that the server runs.",
        ),
    ),
    (
        "No such file or directory",
        _Meaning(
            TargetUnavailable,
            "port_closed",
            "No server has a socket at the address.",
            "Check host and port, and that the server runs.",
        ),
    ),
    (
        "resolve host",
        _Meaning(
            TargetUnavailable,
            "unknown_host",
            "The server's name cannot be resolved.",
            "Check the host in the address, and the name service.",
        ),
    ),
    (
        "translate host name",
        _Meaning(
            TargetUnavailable,
            "unknown_host",
            "The server's name cannot be resolved.",
            "Check the host in the address, and the name service.",
        ),
    ),
    (
        "timeout",
        _Meaning(
            TargetUnavailable,
            "connect_timeout",
            "The server did not answer in time.",
            "Check host, port and firewalls.",
        ),
    ),
)


def translate_error(error: BaseException, place: str, *, committing: bool) -> SyncError:
    """An error of psycopg as one of ours.

    ``place`` names the server.  The server's own text is shown only where it
    says more than the code does, and never where it could hold a secret.
    """
    state = getattr(error, "sqlstate", None)
    text = str(error)
    context = {"sqlstate": state} if state else {}
    meaning = _meaning(error, state, text)
    if committing and _outcome_unknown(state, meaning):
        return CommitAmbiguous(
            f"{place}: the connection was lost while committing.",
            code="commit_unknown",
            remedy="The same data is sent again, which changes nothing if it was stored.",
            context=context,
        )
    if meaning.error is RecordRefused:
        return RecordRefused(f"{_first_line(error)}", code=meaning.code, context=context)
    # Where no words are known, in another language for example, the server's own are shown.
    quoted = bool(state) or meaning is _NOT_MADE
    said = _CONNECTING.sub("", _first_line(error), count=1)
    detail = f" ({said})" if quoted else ""
    return meaning.error(
        f"{place}: {meaning.sentence}{detail}",
        code=meaning.code,
        remedy=meaning.remedy,
        context=context,
    )


def _outcome_unknown(state: str | None, meaning: _Meaning) -> bool:
    """No word from the server, or its last word before it went down."""
    if state is None:
        return meaning.error is TargetUnavailable
    return state.startswith(("08", "57P"))


def _meaning(error: BaseException, state: str | None, text: str) -> _Meaning:
    if state:
        found = _BY_STATE.get(state) or _BY_CLASS.get(state[:2])
        if found is not None:
            return found
        return _Meaning(TargetRefused, "target_failed", "The server refuses a statement.", "")
    if isinstance(error, sa.exc.TimeoutError):
        return _POOL_EMPTY
    if isinstance(error, (psycopg.DataError, UnicodeError, OverflowError)):
        return _BY_CLASS["22"]
    for words, meaning in _WHILE_CONNECTING:
        if re.search(words, text):
            return meaning
    if isinstance(error, psycopg.OperationalError) and _CONNECTING.search(text):
        return _NOT_MADE
    if isinstance(error, (psycopg.OperationalError, psycopg.InterfaceError, OSError)):
        return _LOST
    return _Meaning(TargetRefused, "target_failed", "The driver refuses a statement.", "")


def _first_line(error: BaseException) -> str:
    """The server's primary message: no statement, no detail (which quotes values)."""
    diag = getattr(error, "diag", None)
    primary = getattr(diag, "message_primary", None)
    return primary or str(error).partition("\n")[0]
