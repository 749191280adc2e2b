"""What the test server can be told to do wrong, and where."""

from __future__ import annotations

import re
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Refuse:
    """Answer with an error; ``close`` drops the connection behind it (as severity 20 does)."""

    number: int
    text: str = ""
    severity: int = 16
    state: int = 1
    close: bool = False


@dataclass(frozen=True)
class RefuseInside:
    """Do what was asked for, then report an error behind the first result."""

    number: int
    text: str = ""
    severity: int = 16


@dataclass(frozen=True)
class Stall:
    """Say nothing, not even to a cancel, until the client hangs up."""


@dataclass(frozen=True)
class HalfPacket:
    """Do what was asked for, send the first half of the answer, hang up."""


@dataclass(frozen=True)
class Drop:
    """Hang up before doing what was asked for, or (``after``) instead of saying it is done."""

    after: bool = False


@dataclass(frozen=True)
class Count:
    """Report this many rows, whatever happened."""

    rows: int


Action = Refuse | RefuseInside | Stall | HalfPacket | Drop | Count


@dataclass
class Fault:
    """``action`` at the ``nth`` time (and the ``times - 1`` next ones) that something happens.

    ``at`` is ``connect`` (before the first byte), ``login``, ``sql`` (a batch or a
    parameterised call whose text matches ``match``), ``bulk`` (the rows of a bulk
    load) or ``commit``.
    """

    at: str
    action: Action
    match: str = ""
    nth: int = 1
    times: int = 1
    seen: int = field(default=0, init=False)
    fired: int = field(default=0, init=False)

    def due(self, at: str, text: str) -> bool:
        if at != self.at or not re.search(self.match, text, re.IGNORECASE | re.DOTALL):
            return False
        self.seen += 1
        if not self.nth <= self.seen < self.nth + self.times:
            return False
        self.fired += 1
        return True


TEXTS = {
    18456: "Login failed for user 'rubix'.",
    4060: 'Cannot open database "tokens" requested by the login. The login failed.',
    40615: "Cannot open server 'h' requested by the login. Client with IP address '203.0.113.7' is "
    "not allowed to access the server.  To enable access, use the Azure Management Portal or run "
    "sp_set_firewall_rule on the master database to create a firewall rule for this IP address or "
    "address range.  It may take up to five minutes for this change to take effect.",
    40914: "Cannot open server 'h' requested by the login. Client is not allowed to access the "
    "server.",
    40613: "Database 'tokens' on server 'h' is not currently available.  Please retry the "
    "connection later.  If the problem persists, contact customer support, and provide them the "
    "session tracing ID of '{00000000-0000-0000-0000-000000000000}'.",
    40501: "The service is currently busy. Retry the request after 10 seconds. Incident ID: "
    "e1d2f3a4-0000-0000-0000-000000000000. Code: 131075",
    40197: "The service has encountered an error processing your request. Please try again. "
    "Error code 40166.",
    40143: "The service has encountered an error processing your request. Please try again. "
    "Error code 823.",
    40540: "The service has encountered an error processing your request. Please try again. "
    "Error code 1205.",
    10928: "Resource ID: 1. The request limit for the database is 90 and has been reached. "
    "See 'http://go.microsoft.com/fwlink/?LinkId=267637' for assistance.",
    10929: "Resource ID: 1. The request minimum guarantee is 0, maximum limit is 90 and the "
    "current usage for the database is 90. However, the server is currently too busy to "
    "support requests greater than 0 for this database. See "
    "http://go.microsoft.com/fwlink/?LinkId=267637 for assistance. Otherwise, please "
    "try again later.",
    10936: "Resource ID : 1. The request limit for the elastic pool is 200 and has been reached. "
    "See 'http://go.microsoft.com/fwlink/?LinkId=267637' for assistance.",
    49918: "Cannot process request. Not enough resources to process request. Please retry you "
    "request later.",
    49919: "Cannot process create or update request. Too many create or update operations in "
    'progress for subscription "s". Please retry your request later.',
    49920: 'Cannot process request. Too many operations in progress for subscription "s". Please '
    "retry your request later.",
    49983: "The '/lease' could not be processed, please retry.",
    42108: "Can not connect to the SQL pool since it is paused. Please resume the SQL pool and try "
    "again.",
    42109: "The SQL pool is warming up. Please try again.",
    926: "Database 'tokens' cannot be opened. It has been marked SUSPECT by recovery. See the SQL "
    "Server errorlog for more information.",
    4221: "Login to read-secondary failed due to long wait on 'HADR_DATABASE_WAIT_FOR_TRANSITION_TO"
    "_VERSIONING'. The replica is not available for login because row versions are missing for "
    "transactions that were in-flight when the replica was recycled.",
    615: "Could not find database ID 7, name 'tokens'. The database may be offline. Wait a few "
    "minutes and try again.",
    233: "A connection was successfully established with the server, but then an error occurred "
    "during the login process. (provider: TCP Provider, error: 0 - No process is on the other end "
    "of the pipe.)",
    64: "A connection was successfully established with the server, but then an error occurred "
    "during the login process. (provider: TCP Provider, error: 0 - The specified network name is "
    "no longer available.)",
    20: "The instance of SQL Server you attempted to connect to does not support encryption.",
    121: "A connection was successfully established with the server, but then an error occurred "
    "during the pre-login handshake. (provider: TCP Provider, error: 0 - The semaphore timeout "
    "period has expired.)",
    10053: "A transport-level error has occurred when receiving results from the server. "
    "(provider: TCP Provider, error: 0 - An established connection was aborted by the software in "
    "your host machine.)",
    10054: "A transport-level error has occurred when sending the request to the server. "
    "(provider: TCP Provider, error: 0 - An existing connection was forcibly closed by the remote "
    "host.)",
    10060: "A network-related or instance-specific error occurred while establishing a connection "
    "to SQL Server. The server was not found or was not accessible. (provider: TCP Provider, "
    "error: 0 - A connection attempt failed because the connected party did not properly respond "
    "after a period of time.)",
    11001: "A network-related or instance-specific error occurred while establishing a connection "
    "to SQL Server. (provider: TCP Provider, error: 0 - No such host is known.)",
    1204: "The instance of the SQL Server Database Engine cannot obtain a LOCK resource at this "
    "time. Rerun your statement when there are fewer active users. Ask the database administrator "
    "to check the lock and memory configuration for this instance, or to check for long-running "
    "transactions.",
    1205: "Transaction (Process ID 52) was deadlocked on lock resources with another process and "
    "has been chosen as the deadlock victim. Rerun the transaction.",
    1222: "Lock request time out period exceeded.",
    3961: "Snapshot isolation transaction failed in database 'tokens' because the object accessed "
    "by the statement has been modified by a DDL statement in another concurrent transaction since "
    "the start of this transaction.  It is disallowed because the metadata is not versioned.  A "
    "concurrent update to metadata can lead to inconsistency if mixed with snapshot isolation.",
    40549: "Session is terminated because you have a long-running transaction. Try shortening your "
    "transaction.",
    40550: "The session has been terminated because it has acquired too many locks. Try reading or "
    "modifying fewer rows in a single transaction.",
    40551: "The session has been terminated because of excessive TEMPDB usage. Try modifying your "
    "query to reduce the temporary table space usage.",
    40552: "The session has been terminated because of excessive transaction log space usage. Try "
    "modifying fewer rows in a single transaction.",
    40553: "The session has been terminated because of excessive memory usage. Try modifying your "
    "query to process fewer rows.",
    40544: "The database has reached its size quota. Partition or delete data, drop indexes, or "
    "consult the documentation for possible resolutions. Code: 524289",
    229: "The INSERT permission was denied on the object 'TokenRecords', database 'tokens', schema "
    "'dbo'.",
    3701: "Cannot drop the view 'TokenRecordVersions', because it does not exist or you do not "
    "have permission.",
    262: "CREATE TABLE permission denied in database 'tokens'.",
    208: "Invalid object name 'TokenRecords'.",
    2628: "String or binary data would be truncated in table 'tokens.dbo.TokenRecords', column "
    "'token_id'. Truncated value: 'Qm'.",
    8152: "String or binary data would be truncated.",
    2601: "Cannot insert duplicate key row in object 'dbo.TokenRecords' with unique index "
    "'ux_tokenrecords_record_key'. The duplicate key value is (0x00).",
    2627: "Violation of PRIMARY KEY constraint 'PK_X'. Cannot insert duplicate key in object "
    "'dbo.TokenRecords'. The duplicate key value is (0x00).",
    515: "Cannot insert the value NULL into column 'node_name', table 'tokens.dbo.TokenRecords'; "
    "column does not allow nulls. INSERT fails.",
    8115: "Arithmetic overflow error converting expression to data type datetime2.",
    242: "The conversion of a varchar data type to a datetime data type resulted in an "
    "out-of-range value.",
    1946: "Operation failed. The index entry of length 2000 bytes for the index "
    "'ix_tokenrecords_did' exceeds the maximum length of 1700 bytes for nonclustered indexes.",
}
"""What SQL Server and Azure say with each number, as documented (sys.messages, MS Learn)."""

FATAL = {926, 4221, 40197, 40143, 40540, 40501, 40549, 40550, 40551, 40552, 40553, 10928, 10929}
"""Numbers behind which the server hangs up."""


def refusal(number: int) -> Refuse:
    """The error ``number`` as the real server sends it."""
    return Refuse(
        number, TEXTS[number], severity=20 if number in FATAL else 16, close=number in FATAL
    )
