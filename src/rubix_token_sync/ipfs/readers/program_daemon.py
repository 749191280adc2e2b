"""A script: lets an ``ipfs`` program serve a private copy as long as its starter lives.

    python -I keeper.py

The first line of standard input is a JSON object, `Order`.  The script becomes
the user the order names, makes a repository in the order's directory around a
copy of the node's blocks, and runs the program on it as an API server on a
unix socket.  When standard input ends, because the starter closed it or is
gone (killed or not), the program is ended and the directory removed.  When
something goes wrong one line on standard output says what.

Nothing but the standard library: all modules must be there before the change
of user, who may not be able to read them.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import stat
import subprocess
import sys
import threading
from typing import Any, TypedDict

MULTIHASH_KEYS_SINCE = 12
PATIENCE_S = 10.0
SIGNS_OF_LIFE = ("copying", "copied")
"""Files in the directory: one that is touched for each file copied, and one that says that the
program is being started."""
STORES = frozenset({"mount", "measure", "log", "flatfs", "levelds", "badgerds", "pebbleds"})


class Order(TypedDict):
    """What the starter wants."""

    directory: str  # ours to fill and to remove
    program: str
    repository: str  # the node's
    blocks: str  # the directory of its blocks
    version: int | None  # its version
    user: int | None  # whom to become; None: stay
    group: int | None
    start_s: float  # seconds that the program may take to make a repository


class GivenUpError(Exception):
    """The order cannot be carried out; the message is for people."""


def socket_path(directory: str) -> str:
    """Where the program serves."""
    return os.path.join(directory, "api.sock")


def repository_path(directory: str) -> str:
    """The private repository."""
    return os.path.join(directory, "repo")


def main() -> int:
    # Whoever ends the starter must not end this before it has cleaned up.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    line = sys.stdin.readline()
    if not line:
        return 0
    order: Order = json.loads(line)
    let_go = threading.Event()

    def watch() -> None:
        sys.stdin.read()
        let_go.set()

    threading.Thread(target=watch, daemon=True).start()
    if order["user"] is not None and order["group"] is not None:
        os.setgroups([])
        os.setgid(order["group"])
        os.setuid(order["user"])
    os.umask(0o077)
    try:
        copy = _Copy(order, let_go)
        copy.make()
        return copy.serve()
    except GivenUpError as error:
        print(error, flush=True)
    except (OSError, ValueError, subprocess.SubprocessError) as error:
        reason = error.strerror if isinstance(error, OSError) else None
        print(f"it could not be put to work ({reason or type(error).__name__})", flush=True)
    finally:
        shutil.rmtree(order["directory"], ignore_errors=True)
    return 1


class _Copy:
    """A private repository around a copy of a node's blocks."""

    def __init__(self, order: Order, let_go: threading.Event) -> None:
        self._order = order
        self._let_go = let_go
        self._directory = order["directory"]
        self._repository = repository_path(self._directory)
        self._log = os.path.join(self._directory, "program.log")
        # Nothing of our own environment: it may hold secrets, or IPFS_… of somebody else.
        self._env = {
            "IPFS_PATH": self._repository,
            "HOME": self._directory,
            "PATH": os.defpath,
            "IPFS_TELEMETRY": "off",
        }

    def make(self) -> None:
        """Fill the directory.  The node's identity stays where it is: the copy gets its own."""
        spec = self._spec()
        self._check_room()
        self._init()
        self._check_version()
        for name in ("blocks", "datastore"):
            shutil.rmtree(os.path.join(self._repository, name), ignore_errors=True)
        blocks = self._order["blocks"]
        shutil.copytree(blocks, self._inside(blocks), copy_function=self._copy_file)
        self._configure(spec)

    def serve(self) -> int:
        """Run the program until it ends or the starter lets go."""
        with (
            open(os.path.join(self._directory, SIGNS_OF_LIFE[1]), "wb"),
            open(self._log, "wb") as output,
        ):
            program = subprocess.Popen(
                [self._order["program"], "daemon", "--offline"],
                env=self._env,
                cwd=self._directory,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=_default_signals,
            )

        def end() -> None:
            self._let_go.wait()
            program.terminate()
            try:
                program.wait(PATIENCE_S)
            except subprocess.TimeoutExpired:
                program.kill()

        threading.Thread(target=end, daemon=True).start()
        code = program.wait()
        if not self._let_go.is_set():
            raise GivenUpError(f"it ended with exit code {code}: {_last_line(self._log)}")
        return 0

    def _spec(self) -> Any:
        """The specification of the node's datastore; only kinds that lie in its directory."""
        path = os.path.join(self._order["repository"], "config")
        # A FIFO in its place must not hang: do not wait for a writer.
        with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb") as file:
            try:
                config = json.loads(file.read(1 << 20))
            except RecursionError:
                config = None
        store = config.get("Datastore") if isinstance(config, dict) else None
        spec = store.get("Spec") if isinstance(store, dict) else None
        pending: list[Any] = [spec]
        while pending:
            part = pending.pop()
            kind = part.get("type") if isinstance(part, dict) else None
            mounts = part.get("mounts", []) if isinstance(part, dict) else None
            if not isinstance(kind, str) or kind not in STORES or not isinstance(mounts, list):
                raise GivenUpError("the datastore is of a kind that cannot be copied")
            pending += mounts + ([part["child"]] if "child" in part else [])
        return spec

    def _check_room(self) -> None:
        size = 0
        for path, _, files in os.walk(self._order["blocks"]):
            size += sum(os.lstat(os.path.join(path, file)).st_size for file in files)
        free = shutil.disk_usage(self._directory).free
        if size > free * 0.9:
            raise GivenUpError(
                f"no room for a copy of the repository in {os.path.dirname(self._directory)} "
                f"({size >> 20} MiB, {free >> 20} MiB are free); start the node's daemon instead"
            )

    def _init(self) -> None:
        with open(self._log, "wb") as output:
            done = subprocess.run(
                [self._order["program"], "init", "--empty-repo"],
                env=self._env,
                cwd=self._directory,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                timeout=self._order["start_s"],
                check=False,
            )
        if done.returncode != 0:
            raise GivenUpError(
                f"it failed with exit code {done.returncode}: {_last_line(self._log)}"
            )

    def _check_version(self) -> None:
        with open(os.path.join(self._repository, "version"), "rb") as file:
            own = file.read(32).strip()
        theirs = self._order["version"]
        if not own.isdigit() or theirs is None:
            raise GivenUpError("the repository's version is unknown")
        if int(own) != theirs and min(int(own), theirs) < MULTIHASH_KEYS_SINCE:
            raise GivenUpError(
                f"it is for repositories of version {int(own)}, the node's has {theirs}"
            )

    def _inside(self, path: str) -> str:
        """The place in the copy for a path in the node's repository."""
        relative = os.path.relpath(path, self._order["repository"])
        if relative.startswith(os.pardir) or os.path.isabs(relative) or relative == os.curdir:
            raise GivenUpError("the datastore lies outside the repository")
        return os.path.join(self._repository, relative)

    def _copy_file(self, source: str, target: str) -> str:
        if self._let_go.is_set():
            raise GivenUpError("it is no longer wanted")
        if stat.S_ISREG(os.lstat(source).st_mode):  # no links, pipes, sockets
            shutil.copyfile(source, target)
            self._touch()
        return target

    def _touch(self) -> None:
        with open(os.path.join(self._directory, SIGNS_OF_LIFE[0]), "wb"):
            pass

    def _configure(self, spec: Any) -> None:
        path = os.path.join(self._repository, "config")
        with open(path, "rb") as file:
            config = json.load(file)
        config["Datastore"]["Spec"] = spec
        api = f"/unix{socket_path(self._directory)}"
        config["Addresses"] = {"API": api, "Gateway": [], "Swarm": []}
        config["Bootstrap"] = []
        config["AutoConf"] = {"Enabled": False}
        config["Discovery"] = {"MDNS": {"Enabled": False}}
        with open(path, "w", encoding="utf-8") as file:
            json.dump(config, file)
        shutil.copyfile(
            os.path.join(self._order["repository"], "datastore_spec"),
            os.path.join(self._repository, "datastore_spec"),
        )


def _default_signals() -> None:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


def _last_line(log: str) -> str:
    with open(log, "rb") as file:
        lines = file.read()[-4096:].decode("utf-8", "replace").split("\n")
    text = next((line for line in reversed(lines) if line.strip()), "it said nothing")
    return "".join(char for char in text if char.isprintable())[:200]


if __name__ == "__main__":
    sys.exit(main())
