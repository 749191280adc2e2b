"""What the errors of SQL Server and Azure SQL mean: one table, by number.

Sources: Microsoft's lists of transient connection errors, of resource
governance errors and of database engine events and errors (Microsoft Learn).

The driver (mssql-python 1.16) raises exceptions without the server's number.
It is found, in this order, in

1. the diagnostic records that our cursor keeps with an exception (``execute``
   and ``executemany``; see `rubix_token_sync.targets.mssql.driver`),
2. the text of a bulk copy's error (``Sql Error: N: Class C: State S``),
3. the documented words of the message (logins, commits), and where there is no
   number, in
4. the driver's name for the SQLSTATE.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

import sqlalchemy as sa

from rubix_token_sync.errors import (
    CommitAmbiguous,
    RecordRefused,
    SchemaError,
    SyncError,
    TargetError,
    TargetOverloaded,
    TargetRefused,
    TargetUnavailable,
    TransactionTooLarge,
)
from rubix_token_sync.targets.mssql.address import MssqlTarget

__all__ = ["RULES", "DriverError", "Rule", "read_driver_error", "rule_for", "translate_error"]


@dataclass(frozen=True, slots=True)
class Rule:
    """What to do about an error, and what to say to the user."""

    error: type[TargetError]
    code: str
    sentence: str
    remedy: str


@dataclass(frozen=True, slots=True)
class DriverError:
    """What could be read out of a driver's exception."""

    number: int | None
    sqlstate: str | None
    text: str


_AGAIN = "Nothing is lost: run again, it continues where it stopped."
_BUSY = Rule(
    TargetOverloaded,
    "throttled",
    "The database's service tier has no room for more work right now.",
    "The run slowed down by itself; if this persists, choose a larger service tier or run "
    "at a quieter time.",
)
_RESTARTING = Rule(
    TargetUnavailable,
    "reconfiguring",
    "The service moved or restarted the database.",
    "Azure does this from time to time and it takes less than a minute. " + _AGAIN,
)
_PAUSED = Rule(
    TargetUnavailable,
    "not_available_yet",
    "The database is not available right now: it is paused and wakes up, or is being moved.",
    "A paused serverless database needs about a minute. Run again.",
)
_NETWORK = Rule(
    TargetUnavailable,
    "connection_lost",
    "The connection to the server was lost.",
    "Check the network between this machine and the server. " + _AGAIN,
)
_TOO_LARGE = Rule(
    TransactionTooLarge,
    "transaction_too_large",
    "The server ended a transaction that had grown too large for it.",
    "Use a smaller BULK_INSERT_SIZE.",
)
_FIREWALL = Rule(
    TargetRefused,
    "firewall",
    "The server's firewall does not let this machine in.",
    "Add this machine's public address under 'Networking' of the server in the Azure portal; "
    "it takes up to five minutes to come into effect.",
)
_RIGHTS = Rule(
    TargetRefused,
    "no_rights",
    "The database user lacks a right that this run needs.",
    "Grant SELECT, INSERT, UPDATE and DELETE on the tables; `rubix-token-sync schema show` "
    "prints the tables and the grants for a DBA.",
)
_TRUNCATED = Rule(
    RecordRefused,
    "too_long",
    "A value is longer than its column.",
    "The record is left out and reported; the column may have been made smaller by hand.",
)
_DUPLICATE = Rule(
    RecordRefused,
    "duplicate_key",
    "A record with the same key exists already.",
    "Run again; if it stays, `rubix-token-sync verify` shows the record.",
)
_CONVERSION = Rule(
    RecordRefused,
    "conversion",
    "A value does not fit its column's type.",
    "The record is left out and reported; the column may have been changed by hand.",
)
_UNREACHABLE = Rule(
    TargetUnavailable,
    "unreachable",
    "The server cannot be reached.",
    "Check the server's name and port, and that nothing between here and there blocks "
    "port 1433 (for Azure also 11000 to 11999).",
)
_PORT = Rule(
    TargetUnavailable,
    "port_closed",
    "The server's machine answers, but nothing listens on that port.",
    "Check the port in the connection string (Azure SQL's is 1433) and that the server runs.",
)
_NAME = Rule(
    TargetUnavailable,
    "name_not_resolved",
    "The server's name cannot be resolved to an address.",
    "Check its spelling (such as NAME.database.windows.net) and this machine's DNS.",
)
_TIMED_OUT = Rule(
    TargetUnavailable,
    "timed_out",
    "The server did not answer in time.",
    "Look for locks or load on the database, or use a smaller BATCH_SIZE. " + _AGAIN,
)
_LOGIN_TIMED_OUT = Rule(
    TargetUnavailable,
    "login_timed_out",
    "The server did not answer the login in time.",
    "A firewall that swallows packets looks like this, and so does a paused database that "
    "wakes up: run again, then check the network path to port 1433.",
)
_TLS = Rule(
    TargetRefused,
    "tls_refused",
    "The encrypted connection (TLS) was refused: the server's certificate could not be checked, "
    "or the server offers no encryption.",
    "Use the server's full name as in its certificate, and keep this machine's CA certificates "
    "up to date; for a test server only: TrustServerCertificate=True.",
)
_DEADLOCK = Rule(
    TargetUnavailable, "deadlock", "Another session's locks ended the transaction.", _AGAIN
)

RULES: Final[dict[int, Rule]] = {
    # connection or server: reconnect, then retry
    926: _RESTARTING,
    4060: Rule(
        TargetUnavailable,
        "no_such_database",
        "The database cannot be opened: it does not exist, is not ready, or this user may not "
        "use it.",
        "Check 'Initial Catalog' (the database's name) and that the user exists in that database.",
    ),
    4221: _RESTARTING,
    615: _RESTARTING,
    40143: _RESTARTING,
    40197: _RESTARTING,
    40540: _RESTARTING,
    40613: _PAUSED,
    42108: _PAUSED,
    42109: _PAUSED,
    20: _NETWORK,
    64: _NETWORK,
    121: _NETWORK,
    233: _NETWORK,
    10053: _NETWORK,
    10054: _NETWORK,
    10060: _UNREACHABLE,
    11001: _NAME,
    1204: _DEADLOCK,
    1205: _DEADLOCK,
    1222: _DEADLOCK,
    # resource governance: slow the whole run down, then retry
    40501: _BUSY,
    10928: _BUSY,
    10929: _BUSY,
    10936: _BUSY,
    49918: _BUSY,
    49919: _BUSY,
    49920: _BUSY,
    49983: _BUSY,
    # make the transaction smaller, then retry
    40549: _TOO_LARGE,
    40550: _TOO_LARGE,
    40551: _TOO_LARGE,
    40552: _TOO_LARGE,
    40553: _TOO_LARGE,
    # permanent
    18456: Rule(
        TargetRefused,
        "login_failed",
        "The server refused the login: the user name or the password is wrong.",
        "Check 'User ID' and 'Password' in the connection string; for an Entra identity, that "
        "it is a user of this database.",
    ),
    40615: _FIREWALL,
    40914: _FIREWALL,
    40544: Rule(
        TargetRefused,
        "quota_full",
        "The database has reached its size limit.",
        "Raise the database's maximum size or delete data, then run again; nothing stored is lost.",
    ),
    229: _RIGHTS,
    230: _RIGHTS,
    262: _RIGHTS,
    297: _RIGHTS,
    300: _RIGHTS,
    916: _RIGHTS,
    1088: _RIGHTS,
    4834: _RIGHTS,
    208: Rule(
        SchemaError,
        "no_such_table",
        "A table that this program needs does not exist, or this user may not see it.",
        "Run `rubix-token-sync schema upgrade`, or have a DBA run `rubix-token-sync schema show`.",
    ),
    207: Rule(
        SchemaError,
        "no_such_column",
        "A table lacks a column that this program needs.",
        "Run `rubix-token-sync schema upgrade`.",
    ),
    2628: _TRUNCATED,
    8152: _TRUNCATED,
    2601: _DUPLICATE,
    2627: _DUPLICATE,
    515: Rule(
        RecordRefused,
        "null",
        "A column that must not be empty has no value.",
        "The record is left out and reported.",
    ),
    547: _CONVERSION,
    8115: _CONVERSION,
    8114: _CONVERSION,
    242: _CONVERSION,
    241: _CONVERSION,
    245: _CONVERSION,
    1946: Rule(
        RecordRefused,
        "index_key_too_long",
        "A value is too long for an index of the table.",
        "The record is left out and reported; an index on that column was added by hand.",
    ),
}
"""Server error number → rule.  Whatever is not here is judged by its SQLSTATE."""

# Messages of logins and commits come without a number; these are their documented words.
_WORDS: Final = tuple(
    (number, re.compile(words, re.IGNORECASE))
    for number, words in (
        (18456, r"\bLogin failed for user\b"),
        (4060, r"Cannot open database .* requested by the login"),
        (40615, r"Client with IP address .* is not allowed to access the server"),
        (40914, r"Cannot open server .* Client is not allowed to access the server"),
        (40613, r"Database .* on server .* is not currently available"),
        (40501, r"The service is currently busy"),
        (40197, r"The service has encountered an error processing your request"),
        (10928, r"The (?:request|session|login)s? limit for the database is \d+ and has been"),
        (10929, r"server is currently too busy to support requests greater than"),
        (10936, r"The (?:request|session|login)s? limit for the elastic pool is \d+ and has been"),
        (49918, r"Not enough resources to process request"),
        (49919, r"Too many create or update operations in progress"),
        (49920, r"Too many operations in progress for subscription"),
        (49983, r"could not be processed, please retry"),
        (42108, r"SQL pool since it is paused"),
        (42109, r"SQL pool is warming up"),
        (926, r"marked SUSPECT by recovery"),
        (4221, r"Login to read-secondary failed due to long wait"),
        (615, r"Could not find database ID"),
        (40549, r"Session is terminated because you have a long-running transaction"),
        (40550, r"it has acquired too many locks"),
        (40551, r"terminated because of excessive TEMPDB usage"),
        (40552, r"terminated because of excessive transaction log space usage"),
        (40553, r"terminated because of excessive memory usage"),
        (40544, r"database has reached its size quota"),
        (1204, r"cannot obtain a LOCK resource at this time"),
        (1205, r"was deadlocked on|deadlock detected"),
        (1222, r"Lock request time ?out period exceeded|canceling statement due to lock timeout"),
        (262, r"permission denied in database"),
        (229, r"permission was denied on the object|permission denied for (?:table|schema)"),
        (208, r"Invalid object name|relation \S+ does not exist"),
        (2628, r"would be truncated in table"),
        (8152, r"String or binary data would be truncated|value too long for type"),
        (2601, r"Cannot insert duplicate key row in object"),
        (2627, r"Violation of (?:PRIMARY|UNIQUE) KEY constraint|duplicate key value violates"),
        (515, r"Cannot insert the value NULL into column|violates not-null constraint"),
        (8115, r"Arithmetic overflow error"),
        (242, r"resulted in an out-of-range value"),
        (1946, r"exceeds the maximum length of \d+ bytes for (?:non)?clustered ind"),
        (10054, r"0x2746\b|forcibly closed by the remote host|Broken pipe|Connection reset"),
        (10053, r"0x2745\b|aborted by the software in your host"),
        (10060, r"0x274C\b|0x2749\b|0x274D\b|connected party did not properly respond"),
        (11001, r"0x2AF9\b|No such host is known|failed to lookup address"),
        (121, r"The semaphore timeout period has expired"),
        (64, r"The specified network name is no longer available"),
        (233, r"No process is on the other end of the pipe"),
        (20, r"does not support encryption"),
    )
)

_TLS_WORDS: Final = re.compile(
    r"SSL Provider|certificate verify failed|Encryption not supported|"
    r"SSL Security error|invalid peer certificate|UnknownIssuer|TLS (?:error|handshake)",
    re.IGNORECASE,
)

# mssql_python's names for the SQLSTATEs that matter here (its exceptions have no state).
_STATES: Final = {
    "Client unable to establish connection": "08001",
    "Connection not open": "08003",
    "Server rejected the connection": "08004",
    "Connection failure during transaction": "08007",
    "Communication link failure": "08S01",
    "Disconnect error": "01002",
    "Timeout expired": "HYT00",
    "Connection timeout expired": "HYT01",
    "Serialization failure": "40001",
    "Statement completion unknown": "40003",
    "Invalid authorization specification": "28000",
    "Integrity constraint violation": "23000",
    "String data, right truncated": "22001",
    "Numeric value out of range": "22003",
    "Invalid datetime format": "22007",
    "Datetime field overflow": "22008",
    "Invalid character value for cast specification": "22018",
    "Base table or view not found": "42S02",
    "Column not found": "42S22",
    "Syntax error or access violation": "42000",
    "Function sequence error": "HY010",
    "Operation canceled": "HY008",
}

_BY_STATE: Final = {
    "08001": _UNREACHABLE,
    "08003": _NETWORK,
    "08004": _UNREACHABLE,
    "08007": _NETWORK,
    "08S01": _NETWORK,
    "08S02": _NETWORK,
    "01002": _NETWORK,
    "40001": _DEADLOCK,
    "40003": _NETWORK,
    "HY010": _NETWORK,  # a statement handle whose connection is gone
    "HY008": _TIMED_OUT,
    "HYT00": _TIMED_OUT,
    "HYT01": _LOGIN_TIMED_OUT,
    "28000": RULES[18456],
    "23000": _CONVERSION,
    "22001": _TRUNCATED,
    "22003": _CONVERSION,
    "22007": _CONVERSION,
    "22008": _CONVERSION,
    "22018": _CONVERSION,
    "42S02": RULES[208],
    "42S22": RULES[207],
}

_BULK_NUMBER: Final = re.compile(r"Sql Error: (\d+): Class \d+: State \d+")
_OWN_KEY: Final = re.compile(r"ux_token\w+_record_key", re.IGNORECASE)
_DIAGNOSTIC: Final = re.compile(r"\[(\w{5})\] \((-?\d+)\)")


def read_driver_error(error: BaseException) -> DriverError:
    """Number, SQLSTATE and text of what the driver raised."""
    text = str(getattr(error, "ddbc_error", "") or error)
    state = _STATES.get(getattr(error, "driver_error", ""))
    if state is None:
        named = re.search(r"SQLSTATE(?: code)?: ?(\w{5})", str(error))
        state = named[1] if named else None
    numbers = []
    for head, words in getattr(error, "diagnostics", None) or ():
        found = _DIAGNOSTIC.search(head)
        if found:
            state = state or found[1]
            numbers.append((int(found[2]), words))
    # One failure can leave several records; the one that the table knows tells most.
    for number, words in numbers:
        if number in RULES:
            return DriverError(number, state, words)
    bulk = _BULK_NUMBER.search(text)
    if bulk:
        return DriverError(int(bulk[1]), state, text)
    if not _TLS_WORDS.search(text):
        for number, pattern in _WORDS:
            if pattern.search(text):
                return DriverError(number, state, text)
    server = [number for number, _ in numbers if number > 0]
    return DriverError(server[0] if server else None, state, text)


def rule_for(error: DriverError) -> Rule:
    """What to do about it; what nobody knows is permanent."""
    if error.number in RULES:
        return RULES[error.number]
    if _TLS_WORDS.search(error.text):
        return _TLS
    if "the port is closed" in error.text:
        return _PORT
    if re.search(r"Timeout error \[258\]|Login timeout expired|connect(?:ion)? timed? ?out",
                 error.text, re.IGNORECASE):  # fmt: skip
        return _LOGIN_TIMED_OUT
    if re.search(r"Query timeout expired|timed out|deadline", error.text, re.IGNORECASE):
        return _TIMED_OUT
    if re.search(
        r"connection (?:is |was )?(?:closed|lost|aborted|reset)|unexpected eof|UnexpectedEof|"
        r"closed connection|terminating connection",
        error.text,
        re.IGNORECASE,
    ):
        return _NETWORK
    rule = _BY_STATE.get(error.sqlstate or "")
    if rule is not None:
        return rule
    number = "" if error.number is None else f" (error {error.number})"
    return Rule(
        TargetRefused,
        "refused",
        f"The server refused a statement{number}: {_one_line(error.text)}",
        "If the sentence does not help, report it with the log of a --verbose run.",
    )


def _one_line(text: str) -> str:
    return " ".join(re.sub(r"^(?:\[[^\]]*\])+", "", text).split())[:300]


def translate_error(
    error: BaseException, target: MssqlTarget, *, committing: bool = False
) -> SyncError:
    """What the driver or SQLAlchemy raised as one of ours, without the password."""
    original = getattr(error, "orig", None) or error
    if isinstance(original, SyncError):
        return original
    found = read_driver_error(original)
    rule = rule_for(found)
    kind, code, sentence, remedy = rule.error, rule.code, rule.sentence, rule.remedy
    if isinstance(error, sa.exc.TimeoutError):
        kind, code = TargetUnavailable, "pool_exhausted"
        sentence = "All connections of the pool were busy for too long."
        remedy = "Raise CONNECTION_POOL_SIZE, or look for what holds the database up."
    if kind is RecordRefused and _OWN_KEY.search(found.text):
        # Our own keys are unique in a chunk: somebody else inserted this one just now.
        kind, code, remedy = TargetUnavailable, "raced", ""
        sentence = "Another session stored the same record at the same moment."
    if committing and kind.kind == "transient" and kind is not TransactionTooLarge:
        kind, code = CommitAmbiguous, "commit_unknown"
        sentence = f"It is not known whether a commit happened. {sentence}"
    said = _server_words(found.text)
    if kind is RecordRefused:
        sentence = f"{sentence} {said}".strip()
    password = target.password.get_secret_value()
    if password:
        sentence, said = sentence.replace(password, "***"), said.replace(password, "***")
    context = {"number": found.number, "sqlstate": found.sqlstate, "said": said}
    return kind(f"{target.label}: {sentence}", code=code, remedy=remedy, context=context)


def _server_words(text: str) -> str:
    """The server's own words without the driver's brackets, on one line."""
    while text.startswith("["):
        text = text.partition("]")[2]
    return " ".join(text.split())[:500]
