"""The battlefield's phases behind a TDS server, which Microsoft's driver talks to.

What the server commits is a SQLite file with the product's tables; what a run reached is read
from there, past driver and server.
"""

from __future__ import annotations

import contextlib
import copy
import shutil
import sqlite3
from pathlib import Path

from rubix_token_sync.records.schema import RECORDS
from tests.chaos.battlefield import Battlefield, Phase
from tests.targets.tds.certificate import make_certificate
from tests.targets.tds.engine import SqliteEngine
from tests.targets.tds.server import TdsServer

__all__ = ["TdsStates"]


class TdsStates:
    """One server, whose database is another one for each phase that begins; a context manager."""

    def __init__(self, home: Path, field: Battlefield) -> None:
        self._home = home
        self._first = home / "first.db"
        self._engine = SqliteEngine(self._first)
        with contextlib.closing(sqlite3.connect(self._first)) as db:
            db.execute("PRAGMA journal_mode=DELETE")  # one file, to be copied
            for column in RECORDS.indexed:  # the server says that it has them all
                db.execute(f"CREATE INDEX ix_tokenrecords_{column} ON TokenRecords ({column})")
        self._change = home / "change.db"
        shutil.copyfile(self._first, self._change)
        assert field.change.template is not None
        self._fill(field.change.template)
        self._server = TdsServer(self._engine, *make_certificate(home))
        self._made = 0

    def _fill(self, template: Path) -> None:
        """Everything that the SQLite target ``template`` holds."""
        with contextlib.closing(sqlite3.connect(self._change, isolation_level=None)) as db:
            db.execute("ATTACH ? AS held", (str(template),))
            for name, table in self._engine.tables.metadata.tables.items():
                held = {row[1] for row in db.execute(f"PRAGMA held.table_info({name})")}
                if held:  # a staging table is the server's alone
                    columns = ", ".join(c.name for c in table.columns if c.name in held)
                    db.execute(f"INSERT INTO {name} ({columns}) SELECT {columns} FROM held.{name}")

    def fresh(self, phase: Phase) -> str:
        """The address of the server, whose database is now as the phase starts from."""
        if self._made:
            self.file.unlink()
        self._made += 1
        self._engine = copy.copy(self._engine)
        self._engine.path = self.file
        shutil.copyfile(self._first if phase.template is None else self._change, self.file)
        with contextlib.closing(sqlite3.connect(self.file)) as db:
            db.execute("PRAGMA journal_mode=WAL")
        self._server.engine = self._engine
        password = self._server.password.replace('"', '""')
        return (
            f"Server=tcp:127.0.0.1,{self._server.port};Initial Catalog=tokens;"
            f'User ID={self._server.user};Password="{password}";TrustServerCertificate=True'
        )

    @property
    def file(self) -> Path:
        """What the server has committed."""
        return self._home / f"server-{self._made}.db"

    def committed(self, _address: str) -> str:
        """The same as a target that can be read without the server."""
        return f"sqlite:///{self.file}"

    def __enter__(self) -> TdsStates:
        self._server.__enter__()
        return self

    def __exit__(self, *exc: object) -> None:
        self._server.__exit__(*exc)
