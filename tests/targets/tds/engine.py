"""A backing for the test server: this program's tables in SQLite, and its T-SQL translated.

Only what the store really sends is understood; anything else is an error, so
that a new statement shows up.  Reads see what is committed (as on SQL Server
by default); the first write of a transaction takes SQLite's one write lock.
"""

from __future__ import annotations

import re
import sqlite3
import uuid
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import mssql

from rubix_token_sync.targets.base import SCHEMA_VERSION
from rubix_token_sync.targets.mssql.target import SPELLING
from rubix_token_sync.targets.sql.tables import build_tables

from . import wire
from .server import EngineError, RunResult

VERSION = "Microsoft SQL Azure (RTM) - 12.0.2000.8 \n\tTest"
_WRITES = re.compile(r"^(?:INSERT|UPDATE|DELETE|TRUNCATE|DROP|CREATE)\b", re.IGNORECASE)
_STAMP = re.compile(r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{6}$")
_BUSY_SECONDS = 20


class SqliteEngine:
    """One database file, with the schema in place; ``application_user`` has no DDL rights."""

    def __init__(self, path: Path, *, bulk: bool = True) -> None:
        self.path = path
        self.bulk = bulk
        self.has_default = True  # of synced_at: what the server says of it
        self.schema = "dbo"  # of the user, by default
        self.snapshots = True  # ALLOW_SNAPSHOT_ISOLATION, as Azure SQL has it
        self.tables = build_tables(SPELLING)
        self.kinds = {
            column.name: _kind(column.type)
            for table in self.tables.metadata.tables.values()
            for column in table.columns
        }
        with sqlite3.connect(path) as conn:
            conn.execute("PRAGMA journal_mode=WAL")
            for table in self.tables.metadata.tables.values():
                conn.execute(_create(table))
                for index in table.indexes:
                    if index.unique:
                        columns = ", ".join(c.name for c in index.columns)
                        conn.execute(
                            f"CREATE UNIQUE INDEX {index.name} ON {table.name} ({columns})"
                        )
            conn.execute("CREATE TABLE alembic_version (version_num TEXT PRIMARY KEY)")
            conn.execute("INSERT INTO alembic_version VALUES (?)", (SCHEMA_VERSION,))
        conn.close()

    def session(self) -> SqliteSession:
        return SqliteSession(self)

    def query(self, sql: str, *parameters: Any) -> list[tuple[Any, ...]]:
        """What is committed, for a test to look at."""
        conn = sqlite3.connect(self.path)
        try:
            return conn.execute(sql, parameters).fetchall()
        finally:
            conn.close()

    def change(self, sql: str) -> None:
        """Change what is committed, behind the server's back."""
        conn = sqlite3.connect(self.path, timeout=_BUSY_SECONDS)
        try:
            with conn:
                conn.execute(sql)
        finally:
            conn.close()


class SqliteSession:
    """One connection."""

    def __init__(self, engine: SqliteEngine) -> None:
        self.engine = engine
        self.open = False
        self.level = "READ COMMITTED"
        self.conn = sqlite3.connect(
            engine.path, timeout=_BUSY_SECONDS, isolation_level=None, check_same_thread=False
        )
        self.conn.create_function("utcnow", 0, lambda: _stamp(datetime.now(UTC)))
        self.conn.create_function("newid", 0, lambda: str(uuid.uuid4()))
        self.conn.create_function("days_from_now", 1, _days_from_now)
        self.conn.create_function("after_now", 1, lambda ms: _stamp(_later(milliseconds=ms)))
        self.conn.create_function("left_of", 2, lambda text, n: None if n is None else text[:n])
        self.conn.create_function("charindex", 2, lambda part, text: text.find(part) + 1)
        self.conn.create_function("CONCAT", -1, lambda *texts: "".join(t or "" for t in texts))
        self.conn.create_function("USER_NAME", 0, lambda: "dbo")
        self.conn.create_function("server_version", 0, lambda: VERSION)
        self.conn.create_function("SCHEMA_NAME", 0, lambda: engine.schema)
        self.conn.create_collation("Latin1_General_BIN2", lambda a, b: (a > b) - (a < b))
        # All tables are there, with all of their indexes.
        self.conn.create_function("OBJECT_ID", 1, lambda _name: 1)
        self.conn.create_function("INDEXPROPERTY", 3, lambda _table, _name, _property: 2)

    # ------------------------------------------------------------ transactions

    def begin(self) -> None:
        self.open = True

    def commit(self) -> None:
        if self.conn.in_transaction:
            self.conn.execute("COMMIT")
        self.open = False

    def rollback(self) -> None:
        if self.conn.in_transaction:
            self.conn.execute("ROLLBACK")
        self.open = False

    def in_transaction(self) -> bool:
        return self.open

    def close(self) -> None:
        self.rollback()
        self.conn.close()

    # ------------------------------------------------------------ statements

    def execute(self, sql: str, parameters: dict[str, Any]) -> list[RunResult]:
        control = {
            "BEGIN TRANSACTION": self.begin,
            "COMMIT TRANSACTION": self.commit,
            "ROLLBACK TRANSACTION": self.rollback,
        }.get(sql)
        if control is not None:
            control()
            return [RunResult()]
        if "SET FMTONLY ON" in sql:
            return self._bulk_metadata(sql)
        for pattern, answer in _ANSWERS:
            if re.search(pattern, sql, re.IGNORECASE):
                return [answer(self.engine)]
        values = {name: _stored(value) for name, value in parameters.items()}
        try:
            return self._batch(sql, values)
        except sqlite3.IntegrityError as error:
            self.rollback()  # XACT_ABORT
            raise _refusal(str(error)) from error
        except sqlite3.OperationalError as error:
            if "locked" not in str(error):
                raise AssertionError(f"not understood: {sql}\n{error}") from error
            self.rollback()
            raise EngineError(1222, "Lock request time out period exceeded.") from error

    def _batch(self, sql: str, values: dict[str, Any]) -> list[RunResult]:
        outcomes: list[RunResult] = []
        variables: dict[str, Any] = {"@@ROWCOUNT": 0}
        silent = skipping = inside = False
        for statement in _split(sql):
            if condition := re.match(r"IF (@\w+) < @(\w+) BEGIN\s+(.*)$", statement, re.DOTALL):
                skipping = not variables[condition[1].upper()] < values[condition[2]]
                statement, inside = condition[3], True
            ends = inside and statement.endswith(" END")  # a CASE ends with that, too
            inside = inside and not ends
            if skipping:
                skipping = not ends
                continue
            statement = statement.removesuffix(" END") if ends else statement
            head = statement.upper()
            if head.startswith(("SET NOCOUNT", "SET XACT_ABORT", "SET LOCK_TIMEOUT", "SET TEXT")):
                silent = head == "SET NOCOUNT ON"
            elif level := re.fullmatch(r"SET TRANSACTION ISOLATION LEVEL (.+)", head):
                self.level = level[1]
            elif head == "BEGIN TRANSACTION":
                self.begin()
            elif head == "IF @@TRANCOUNT > 0 ROLLBACK TRANSACTION":
                self.rollback()
            elif head == "COMMIT TRANSACTION":
                self.commit()
            elif head.startswith("DECLARE "):
                variables[statement.split()[1].upper()] = None
            elif assigned := re.fullmatch(r"SET (@\w+) = (@@?\w+|0)", statement):
                variables[assigned[1].upper()] = variables.get(assigned[2].upper(), 0)
            elif re.fullmatch(r"EXEC (@\w+) = sp_getapplock .*", statement, re.DOTALL):
                variables[statement.split()[1].upper()] = 0
            elif re.fullmatch(r"SELECT (?:@@?[A-OQ-Za-z]\w+)(?:, @@?\w+)*", statement):
                names = [name.strip() for name in statement[7:].split(",")]
                row = [variables[name.upper()] for name in names]
                outcomes.append(
                    RunResult(
                        names=[""] * len(row), kinds=[wire.INT8] * len(row), rows=[tuple(row)]
                    )
                )
            else:
                outcome = self._statement(translated(statement), values)
                variables["@@ROWCOUNT"] = max(outcome.count, 0)
                if outcome.names or not silent:
                    outcomes.append(outcome)
        return outcomes

    def _statement(self, sql: str, values: dict[str, Any]) -> RunResult:
        if _WRITES.match(sql) and not self.conn.in_transaction:
            self.conn.execute("BEGIN IMMEDIATE")
            if not self.open:  # a statement of its own
                try:
                    return self._run(sql, values)
                finally:
                    self.conn.execute("COMMIT")
        return self._run(sql, values)

    def _run(self, sql: str, values: dict[str, Any]) -> RunResult:
        if self.level == "SNAPSHOT" and self.open and not self.conn.in_transaction:
            self.conn.execute("BEGIN")
        used = {name: values[name] for name in values if re.search(rf"@{name}\b", sql)}
        cursor = self.conn.execute(sql, used)
        if cursor.description is None:
            return RunResult(count=cursor.rowcount)
        names = [column[0] for column in cursor.description]
        rows = cursor.fetchall()
        kinds = [
            self.engine.kinds.get(name) or _guessed([row[number] for row in rows])
            for number, name in enumerate(names)
        ]
        read = [
            tuple(_sent(kind, value) for kind, value in zip(kinds, row, strict=True))
            for row in rows
        ]
        return RunResult(count=len(rows), names=names, kinds=kinds, rows=read)

    # ------------------------------------------------------------ bulk loads

    def _bulk_metadata(self, sql: str) -> list[RunResult]:
        if not self.engine.bulk:
            raise EngineError(33557097, "SET FMTONLY is not supported here.")
        found = re.search(r"OBJECT_ID\(N'\[?(?:dbo\]?\.\[)?(\w+)\]?'\)", sql)
        assert found, sql
        table = self.engine.tables.metadata.tables[found[1]]
        names = [column.name for column in table.columns]
        count = RunResult(names=["trancount"], kinds=[wire.INT4], rows=[(int(self.open),)])
        layout = RunResult(names=names, kinds=[_kind(c.type) for c in table.columns])
        collations = RunResult(
            names=["colid", "name", "tds_collation", "collation"],
            kinds=[wire.INT4, wire.nvarchar(128), wire.varbinary(5), wire.nvarchar(128)],
        )
        return [count, layout, collations]

    def bulk(self, statement: str, names: Sequence[str], rows: list[tuple[Any, ...]]) -> int:
        found = re.search(r"INSERT\s+BULK\s+(?:\[?dbo\]?\.)?\[?(\w+)\]?", statement, re.IGNORECASE)
        assert found, statement
        marks = ", ".join("?" for _ in names)
        sql = f"INSERT INTO {found[1]} ({', '.join(names)}) VALUES ({marks})"
        self.conn.execute("BEGIN IMMEDIATE")
        try:
            self.conn.executemany(sql, [tuple(map(_stored, row)) for row in rows])
        except sqlite3.IntegrityError as error:
            self.rollback()
            raise _refusal(str(error)) from error
        if not self.open:
            self.conn.execute("COMMIT")
        return len(rows)


# --- T-SQL to SQLite ----------------------------------------------------------------


def translated(sql: str) -> str:
    """One T-SQL statement of the store as SQLite understands it."""
    sql = re.sub(r"\bN'", "'", sql)
    sql = re.sub(r"CAST\(SYSUTCDATETIME\(\) AS DATETIME2\(6\)\)", "utcnow()", sql)
    sql = re.sub(r"DATEADD\(DAY, (\S+), SYSUTCDATETIME\(\)\)", r"days_from_now(\1)", sql)
    sql = re.sub(r"DATEADD\(MILLISECOND, (\d+), utcnow\(\)\)", r"after_now(\1)", sql)
    sql = re.sub(r"AS (VAR)?BINARY\((MAX|\d+)\)", "AS BLOB", sql)
    sql = re.sub(r"\b0x([0-9A-F]+)\b", r"x'\1'", sql)
    sql = sql.replace("ISNULL(", "ifnull(")
    sql = re.sub(r"OFFSET (\S+) ROWS\s+FETCH FIRST (\S+) ROWS ONLY", r"LIMIT \2 OFFSET \1", sql)
    sql = re.sub(r"\bdbo\.", "", sql)
    sql = sql.replace("@@VERSION", "server_version()")
    sql = re.sub(
        r"^UPDATE r SET (.*?) FROM (\w+) AS r JOIN (\w+) AS s ON (.*?) WHERE ",
        r"UPDATE \2 AS r SET \1 FROM \3 AS s WHERE \4 AND ",
        sql,
        flags=re.DOTALL,
    )
    sql = re.sub(
        r"^DELETE TOP \((\d+)\) FROM (\w+) WHERE (.*)$",
        r"DELETE FROM \2 WHERE rowid IN (SELECT rowid FROM \2 WHERE \3 LIMIT \1)",
        sql,
        flags=re.DOTALL,
    )
    sql = re.sub(
        r"^(INSERT .*?)\s+OUTPUT inserted\.(\[?\w+\]?)\s+(VALUES .*)$",
        r"\1 \3 RETURNING \2",
        sql,
        flags=re.DOTALL,
    )
    sql = re.sub(r"WITH \((?:REPEATABLEREAD|UPDLOCK)\)", "", sql)
    sql = sql.replace("left(", "left_of(")
    sql = re.sub(r"^IF OBJECT_ID\(.*?\) IS NULL .* ELSE (SELECT .*)$", r"\1", sql)
    top = re.match(r"SELECT TOP (\S+) (.*)$", sql, re.DOTALL)
    if top:
        sql = f"SELECT {top[2]} LIMIT {top[1]}"
    return sql


def _split(sql: str) -> list[str]:
    parts = re.findall(r"(?:[^;']|'(?:[^']|'')*')+", sql)
    return [part.strip() for part in parts if part.strip()]


def _one(name: str, kind: wire.Type, value: Any) -> Callable[[SqliteEngine], RunResult]:
    return lambda engine: RunResult(names=[name], kinds=[kind], rows=[(value,)])


def _has_default(engine: SqliteEngine) -> RunResult:
    return RunResult(names=[""], kinds=[wire.INT4], rows=[(int(engine.has_default),)])


def _snapshots(engine: SqliteEngine) -> RunResult:
    return RunResult(names=[""], kinds=[wire.INT4], rows=[(int(engine.snapshots),)])


_ANSWERS: list[tuple[str, Callable[[SqliteEngine], RunResult]]] = [
    (r"^select object_id\(@\w+, 'U'\)", _one("", wire.INT4, 1)),
    (r"HAS_PERMS_BY_NAME", _one("", wire.INT4, 0)),
    (r"SERVERPROPERTY\('EngineEdition'\)", _one("", wire.INT4, 5)),
    (r"FROM sys\.columns", _has_default),
    (r"FROM sys\.databases", _snapshots),
    (
        r"(?:INFORMATION_SCHEMA|sys)[\].\[]+tables\b|sys\.objects",
        _one("name", wire.nvarchar(128), "alembic_version"),
    ),
]


def _create(table: sa.Table) -> str:
    parts = []
    for column in table.columns:
        if column.autoincrement is True and column.primary_key:
            parts.append(f"{column.name} INTEGER PRIMARY KEY AUTOINCREMENT")
            continue
        text = f"{column.name}"
        if not column.nullable:
            text += " NOT NULL"
        default = column.server_default
        if isinstance(default, sa.DefaultClause):
            words = str(getattr(default.arg, "text", default.arg))
            words = words.replace("GETUTCDATE()", "utcnow()").replace("NEWID()", "newid()")
            text += f" DEFAULT ({words})"
        size = getattr(column.type, "length", None)
        if size and isinstance(column.type, sa.Unicode):
            text += f" CHECK (length({column.name}) <= {size})"
        if isinstance(column.type, (sa.Uuid, sa.Unicode, sa.UnicodeText)):
            text += " COLLATE NOCASE"  # as the usual collation of Azure SQL
        parts.append(text)
    key = [c.name for c in table.primary_key if c.autoincrement is not True]
    if key:
        parts.append(f"PRIMARY KEY ({', '.join(key)})")
    return f"CREATE TABLE {table.name} ({', '.join(parts)})"


def _kind(kind: sa.types.TypeEngine[Any]) -> wire.Type:
    kind = kind.dialect_impl(mssql.dialect())
    if isinstance(kind, mssql.BINARY):
        return wire.binary(kind.length)
    if isinstance(kind, sa.BigInteger):
        return wire.INT8
    if isinstance(kind, sa.Integer):
        return wire.INT4
    if isinstance(kind, sa.Boolean):
        return wire.BIT
    if isinstance(kind, sa.Float):
        return wire.FLOAT
    if isinstance(kind, sa.DateTime):
        return wire.DATETIME2
    if isinstance(kind, sa.Uuid):
        return wire.GUID
    return wire.nvarchar(getattr(kind, "length", None))


def _guessed(values: list[Any]) -> wire.Type:
    value = next((v for v in values if v is not None), None)
    if isinstance(value, int):
        return wire.INT8
    if isinstance(value, float):
        return wire.FLOAT
    if isinstance(value, bytes):
        return wire.varbinary(None)
    if isinstance(value, str) and _STAMP.match(value):
        return wire.DATETIME2
    return wire.nvarchar(None)


def _sent(kind: wire.Type, value: Any) -> Any:
    if kind == wire.DATETIME2 and value is not None:
        return datetime.strptime(value, "%Y-%m-%d %H:%M:%S.%f")
    return value


def _stored(value: Any) -> Any:
    if isinstance(value, datetime):
        return _stamp(value)
    if isinstance(value, uuid.UUID):
        return str(value)
    if isinstance(value, Decimal):
        return float(value)
    if isinstance(value, bool):
        return int(value)
    return value


def _stamp(value: datetime) -> str:
    return value.strftime("%Y-%m-%d %H:%M:%S.%f")


def _later(**span: int) -> datetime:
    return datetime.now(UTC) + timedelta(**span)


def _days_from_now(days: int) -> str:
    return _stamp(_later(days=days))


def _refusal(text: str) -> EngineError:
    column = text.rpartition(" ")[2]
    if text.startswith("UNIQUE"):
        table = column.partition(".")[0]
        if column.endswith(".record_key"):
            return EngineError(
                2601,
                f"Cannot insert duplicate key row in object 'dbo.{table}' with unique index "
                f"'ux_{table.lower()}_record_key'. The duplicate key value is (0x00).",
                14,
            )
        return EngineError(
            2627,
            f"Violation of PRIMARY KEY constraint 'PK'. Cannot insert duplicate key in object "
            f"'dbo.{table}'. The duplicate key value is (0x00).",
            14,
        )
    if text.startswith("CHECK"):
        return EngineError(2628, f"String or binary data would be truncated in table 't', {text}")
    return EngineError(515, f"Cannot insert the value NULL into column '{column}'")
