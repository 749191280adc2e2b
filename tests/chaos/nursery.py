"""A process that has everything loaded and forks a child for each command.

Run as ``python -m tests.chaos.nursery`` by `tests.chaos.door`.  It reads one JSON document a
line and answers with one: ``start`` forks a child that is the program in every
respect (own session, own exit, own threads) except that its modules are loaded
already; ``wait`` reaps it.  Thousands of runs would spend most of their time on
imports otherwise.
"""

from __future__ import annotations

import ctypes
import faulthandler
import gc
import importlib
import json
import os
import pkgutil
import resource
import signal
import sys
from typing import Any, NoReturn

from rubix_token_sync.surroundings import hide_unused

_LOADED = (
    "alembic.command",
    "alembic.migration",
    "dateutil.relativedelta",
    "numpy.ma",
    "rubix_token_sync.ipfs.cid_arrays",
    "rubix_token_sync.ipfs.directories",
    "rubix_token_sync.ipfs.http.client",
    "rubix_token_sync.reports.page",
    "rubix_token_sync.targets.migrations.guide_tables",
    "rubix_token_sync.targets.postgresql.target",
    "rubix_token_sync.targets.sqlite.target",
    "rubix_token_sync.runs.chain_rows",
    "rubix_token_sync.runs.compare",
    "rubix_token_sync.runs.dry_run",
    "rubix_token_sync.runs.worker",
)
_LOADED_WHOLE = tuple(
    f"rubix_token_sync.{name}"
    for name in ("alerts", "audit", "cli", "ipfs.readers", "library", "settings")
)
"""Packages with all their modules, whatever these are called."""


def _modules() -> list[str]:
    found = list(_LOADED)
    for name in _LOADED_WHOLE:
        package = importlib.import_module(name)
        found += [f"{name}.{module.name}" for module in pkgutil.iter_modules(package.__path__)]
    return found


def _become(request: dict[str, Any]) -> list[str]:
    """Turn this fresh child into what the request asks for; gives its arguments."""
    os.setsid()
    for fd, name in ((0, os.devnull), (1, request["stdout"]), (2, request["stderr"])):
        flags = os.O_RDONLY if fd == 0 else os.O_WRONLY | os.O_CREAT | os.O_TRUNC
        opened = os.open(name, flags, 0o600)
        os.dup2(opened, fd)
        os.close(opened)
    os.chdir(request["cwd"])
    os.environ.update(request["env"])
    faulthandler.register(signal.SIGUSR2, all_threads=True)
    for name, limit in request["limits"].items():
        resource.setrlimit(getattr(resource, name), (limit, limit))
    if request["plain"]:
        _give_up_privileges()
    from rubix_token_sync import failpoints
    from rubix_token_sync.runs import survey

    failpoints.arm()
    if request["processes"]:
        survey._INLINE_BYTES = 0  # even the smallest fleet is worth worker processes
    return list(request["arguments"])


def _make_tables() -> None:
    """Those of SQLite, for all children."""
    from rubix_token_sync.targets.sql.tables import build_tables
    from rubix_token_sync.targets.sqlite.target import SPELLING

    build_tables(SPELLING)


def _give_up_privileges() -> None:
    """Obey modes of files as any user does, even as root (capset(2), version 3)."""
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)
    nothing = (ctypes.c_uint32 * 6)()
    if ctypes.CDLL(None, use_errno=True).capset(header, nothing) != 0:
        raise OSError(ctypes.get_errno(), "capset")


def _child(request: dict[str, Any]) -> NoReturn:
    from rubix_token_sync.cli import main

    arguments = _become(request)
    sys.argv[1:] = arguments
    main(arguments)
    raise AssertionError("main() returns by SystemExit")


def serve() -> None:
    """Answer requests until standard input ends; children return from here by exceptions."""
    hide_unused()  # as the program does where it starts
    for name in _modules():
        importlib.import_module(name)
    _make_tables()
    gc.collect()
    gc.freeze()  # or each child's collector copies every page that it looks at
    print(json.dumps({"ready": True}), flush=True)
    for line in iter(sys.stdin.readline, ""):
        request = json.loads(line)
        if request["do"] == "wait":
            _, status = os.waitpid(request["pid"], 0)
            print(json.dumps({"code": os.waitstatus_to_exitcode(status)}), flush=True)
            continue
        pid = os.fork()
        if pid == 0:
            _child(request)
        print(json.dumps({"pid": pid}), flush=True)


if __name__ == "__main__":
    serve()
