"""What the errors of SQL Server and Azure SQL mean: one table, by number.

Sources: Microsoft's lists of transient connection errors, of resource
governance errors and of database engine events and errors (Microsoft Learn).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from rubix_token_sync.errors import (
    RecordRefused,
    SchemaError,
    TargetError,
    TargetOverloaded,
    TargetRefused,
    TargetUnavailable,
    TransactionTooLarge,
)

__all__ = [
    "BY_STATE",
    "LOGIN_TIMED_OUT",
    "NETWORK",
    "PORT",
    "RULES",
    "STATES",
    "TIMED_OUT",
    "TLS",
    "TLS_WORDS",
    "WORDS",
    "Rule",
]


@dataclass(frozen=True, slots=True)
class Rule:
    """What to do about an error, and what to say to the user."""

    error: type[TargetError]
    code: str
    sentence: str
    remedy: str


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
NETWORK = Rule(
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
PORT = Rule(
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
TIMED_OUT = Rule(
    TargetUnavailable,
    "timed_out",
    "The server did not answer in time.",
    "Look for locks or load on the database, or use a smaller BATCH_SIZE. " + _AGAIN,
)
LOGIN_TIMED_OUT = Rule(
    TargetUnavailable,
    "login_timed_out",
    "The server did not answer the login in time.",
    "A firewall that swallows packets looks like this, and so does a paused database that "
    "wakes up: run again, then check the network path to port 1433.",
)
TLS = Rule(
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
_CHANGED = Rule(
    TargetUnavailable,
    "tables_changed",
    "The tables were changed while they were read: an index was built, or the schema upgraded.",
    "Run again, best when no first sync or upgrade is under way.",
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
    20: NETWORK,
    64: NETWORK,
    121: NETWORK,
    233: NETWORK,
    10053: NETWORK,
    10054: NETWORK,
    10060: _UNREACHABLE,
    11001: _NAME,
    1204: _DEADLOCK,
    1205: _DEADLOCK,
    1222: _DEADLOCK,
    3961: _CHANGED,  # a snapshot does not outlive DDL
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
    3701: _RIGHTS,  # an object that it may see and not drop
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
WORDS: Final = tuple(
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
        (3961, r"modified by a DDL statement in another concurrent transaction"),
        (262, r"permission denied in database"),
        (3701, r"Cannot drop the .* you do not have permission|must be owner of view"),
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

TLS_WORDS: Final = re.compile(
    r"SSL Provider|certificate verify failed|Encryption not supported|"
    r"SSL Security error|invalid peer certificate|UnknownIssuer|TLS (?:error|handshake)",
    re.IGNORECASE,
)

# mssql_python's names for the SQLSTATEs that matter here (its exceptions have no state).
STATES: Final = {
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

BY_STATE: Final = {
    "08001": _UNREACHABLE,
    "08003": NETWORK,
    "08004": _UNREACHABLE,
    "08007": NETWORK,
    "08S01": NETWORK,
    "08S02": NETWORK,
    "01002": NETWORK,
    "40001": _DEADLOCK,
    "40003": NETWORK,
    "HY010": NETWORK,  # a statement handle whose connection is gone
    "HY008": TIMED_OUT,
    "HYT00": TIMED_OUT,
    "HYT01": LOGIN_TIMED_OUT,
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
