"""The errors of SQL Server and Azure SQL as ours: found by number in `error_numbers`.

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
    SyncError,
    TargetRefused,
    TargetUnavailable,
    TransactionTooLarge,
)
from rubix_token_sync.targets.mssql.address import MssqlTarget
from rubix_token_sync.targets.mssql.error_numbers import (
    BY_STATE,
    LOGIN_TIMED_OUT,
    NETWORK,
    PORT,
    RULES,
    STATES,
    TIMED_OUT,
    TLS,
    TLS_WORDS,
    WORDS,
    Rule,
)

__all__ = ["DriverError", "read_driver_error", "rule_for", "translate_error"]

_BULK_NUMBER: Final = re.compile(r"Sql Error: (\d+): Class \d+: State \d+")
_OWN_KEY: Final = re.compile(r"ux_token\w+_record_key", re.IGNORECASE)
_DIAGNOSTIC: Final = re.compile(r"\[(\w{5})\] \((-?\d+)\)")


@dataclass(frozen=True, slots=True)
class DriverError:
    """What could be read out of a driver's exception."""

    number: int | None
    sqlstate: str | None
    text: str


def read_driver_error(error: BaseException) -> DriverError:
    """Number, SQLSTATE and text of what the driver raised."""
    text = str(getattr(error, "ddbc_error", "") or error)
    state = STATES.get(getattr(error, "driver_error", ""))
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
    if not TLS_WORDS.search(text):
        for number, pattern in WORDS:
            if pattern.search(text):
                return DriverError(number, state, text)
    server = [number for number, _ in numbers if number > 0]
    return DriverError(server[0] if server else None, state, text)


def rule_for(error: DriverError) -> Rule:
    """What to do about it; what nobody knows is permanent."""
    if error.number in RULES:
        return RULES[error.number]
    if TLS_WORDS.search(error.text):
        return TLS
    if "the port is closed" in error.text:
        return PORT
    if re.search(r"Timeout error \[258\]|Login timeout expired|connect(?:ion)? timed? ?out",
                 error.text, re.IGNORECASE):  # fmt: skip
        return LOGIN_TIMED_OUT
    if re.search(r"Query timeout expired|timed out|deadline", error.text, re.IGNORECASE):
        return TIMED_OUT
    if re.search(
        r"connection (?:is |was )?(?:closed|lost|aborted|reset)|unexpected eof|UnexpectedEof|"
        r"closed connection|terminating connection",
        error.text,
        re.IGNORECASE,
    ):
        return NETWORK
    rule = BY_STATE.get(error.sqlstate or "")
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
