"""One root's walk: depth first, step by step; a step that hangs is left out, and reported."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import threading
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Final

from rubix_token_sync import failpoints, node_files
from rubix_token_sync.errors import SourceError
from rubix_token_sync.ipfs.repository import note_stall
from rubix_token_sync.node_files import BoundedCalls, text_of
from rubix_token_sync.node_places import DATABASES, NODE_DIRECTORY, PRUNE_MARKS, REPOSITORY
from rubix_token_sync.nodes.found import Found, Home, printable
from rubix_token_sync.nodes.kinds import other_dbms, stale
from rubix_token_sync.nodes.skipped import (
    LINK_SENTENCES,
    REMEDIES,
    REPOSITORY_SENTENCES,
    SENTENCES,
    Skipped,
)
from rubix_token_sync.records.schema import COLUMN_SIZES
from rubix_token_sync.records.values import utf16_length

__all__ = ["Walk"]

_REPOSITORY_MARKS: Final = (b"config", b"datastore_spec", b"blocks")
_NOWHERE: Final = frozenset({errno.ELOOP, errno.ENOENT, errno.ENOTDIR})

_Commit = Callable[[], None]
_Task = Callable[[], _Commit]
"""The first may hang and changes nothing; what it gives back notes what was found."""


@dataclass(frozen=True, slots=True)
class _Step:
    path: bytes
    task: _Task
    if_stalled: _Commit


class Walk:
    """The walk below one root; `run`, then `follow_links`, then `name_strays`."""

    def __init__(self, root: bytes, given: bytes, found: Found, stall_s: float) -> None:
        self.root = root
        self._given = given
        self._found = found
        self._stall_s = stall_s
        self._device = -1
        self._todo: list[_Step] = []
        self._links: list[tuple[bytes, Home]] = []
        self._strays: list[tuple[bytes, str]] = []
        """Files that are named like a database, but are not where a node has it."""
        self._turn = threading.Lock()
        self._current: _Step | None = None
        self._asked: bytes | None = None
        """The mount point that a link or repository being looked at leads to."""
        self._dead: set[bytes] = set()
        """Mount points that did not answer; nothing there is asked again."""

    def run(self) -> None:
        """Walk the directories."""
        self._push(self.root, self._begin)
        self._work_off()

    def follow_links(self) -> None:
        """Look at the links met on the way, once every real place was seen."""
        for path, home in reversed(self._links):
            self._push(path, partial(self._link, path, home))
        self._work_off()

    def name_strays(self) -> None:
        """Say what each stray file is, once every database is known."""
        for path, code in self._strays:
            self._push(path, partial(self._stray, path, code))
        self._work_off()

    def _push(self, path: bytes, task: _Task, if_stalled: _Commit = lambda: None) -> None:
        self._todo.append(_Step(path, task, if_stalled))

    def _work_off(self) -> None:
        while self._todo:
            calls = BoundedCalls(self._stall_s)
            try:
                calls.call(partial(self._steps, calls))
            except SourceError:
                with self._turn:  # the thread left behind notes nothing from now on
                    self._note_stall()
            finally:
                calls.close()

    def _note_stall(self) -> None:
        if self._current is not None:
            self._current.if_stalled()
            repository = os.path.basename(self._current.path) == REPOSITORY
            sentences = REPOSITORY_SENTENCES if repository else SENTENCES
            if repository:  # nobody need wait for it a second time
                said = f"The file system gave no answer for {self._stall_s:g} s."
                note_stall(text_of(self._current.path), node_files.stalled(said))
            self._found.skip(self._current.path, "stalled", sentences, seconds=self._stall_s)
            if self._asked is not None:
                self._dead.add(self._asked)

    def _steps(self, calls: BoundedCalls) -> None:
        while True:
            with self._turn:
                if calls.gave_up or not self._todo:
                    return
                self._current, self._asked = self._todo.pop(), None
            commit = self._current.task()
            with self._turn:
                if _left_behind(calls):
                    return
                commit()
                self._current = None
            calls.progress()

    def _answers(self, path: bytes) -> bool:
        """Whether the file system that ``path`` leads to is not known to be dead."""
        with contextlib.suppress(OSError):  # not a link
            path = os.path.join(os.path.dirname(path), node_files.readlink(path))
        mount = os.path.normpath(path)
        while mount not in self._found.mounts and mount != b"/":
            mount = os.path.dirname(mount)
        if mount in self._dead:
            return False
        self._asked = mount
        return True

    # --- steps: each may hang, and gives back what is to be noted ---------------------

    def _begin(self) -> _Commit:
        try:
            self._device = node_files.stat(self.root).st_dev
        except OSError as error:
            return partial(self._found.fail, self._given, error, root=True)
        return self._directory(self.root, Home(None))

    def _directory(self, path: bytes, home: Home) -> _Commit:
        """Read one directory."""
        failpoints.point("discovery.scan")
        try:
            # A descriptor, so that a directory swapped for a link is noticed.
            follow = 0 if path == self.root else os.O_NOFOLLOW
            fd = node_files.open_handle(path, os.O_RDONLY | os.O_DIRECTORY | follow)
        except OSError as error:
            return partial(self._found.fail, path, error, root=path == self.root)
        try:
            status = os.fstat(fd)
            if status.st_dev != (home.device or self._device) and not _is_nodes(path):
                return partial(self._found.skip, path, "other_file_system")
            identity = status.st_dev, status.st_ino
            if identity in self._found.seen:
                return lambda: None
            with node_files.scan(fd) as entries:
                listed = {os.fsencode(entry.name): _kind(entry) for entry in entries}
        except OSError as error:
            return partial(self._found.fail, path, error)
        finally:
            os.close(fd)
        return partial(self._note_directory, path, home, identity, listed)

    def _note_directory(
        self, path: bytes, home: Home, identity: tuple[int, int], listed: dict[bytes, str]
    ) -> None:
        found = self._found
        if identity in found.seen:
            return
        found.seen.add(identity)
        found.directories += 1
        is_node = _is_nodes(path)
        home = Home(home.repository, identity[0] if is_node else home.device)
        if is_node:
            found.homes.add(identity)
        # Last in, first out: what is pushed last is done first.
        if is_node:
            self._push(
                path,
                partial(
                    self._other_kinds,
                    path,
                    len(found.nodes),
                    not listed.keys().isdisjoint(DATABASES),
                ),
            )
        if PRUNE_MARKS.isdisjoint(listed):
            for name in sorted(listed, reverse=True):
                below = os.path.join(path, name)
                if listed[name] == "directory" and name != REPOSITORY:
                    # A node whose directory Rubix has a disk of its own is a node all the same.
                    if below in found.mounts and name != NODE_DIRECTORY:
                        found.skip(below, "other_file_system")
                    else:
                        self._push(below, partial(self._directory, below, home))
                elif listed[name] == "link" and name not in (REPOSITORY, *DATABASES):
                    self._links.append((below, home))
        for name in DATABASES:
            if name not in listed:
                continue
            database = os.path.join(path, name)
            if not is_node:
                beside = listed.get(NODE_DIRECTORY) in ("directory", "link")
                self._strays.append((database, "beside_rubix" if beside else "not_in_rubix"))
            elif listed[name] == "link":
                self._links.append((database, home))
            else:
                self._push(database, partial(self._database, database, home))
        if REPOSITORY in listed:
            repository = os.path.join(path, REPOSITORY)
            self._push_repository(repository, home)

    def _push_repository(self, path: bytes, home: Home) -> None:
        def take() -> None:
            home.repository = text_of(path)

        # One that stalls is the node's all the same: to be reported as that, not as absent.
        self._push(path, partial(self._repository, path, take, home), take)

    def _other_kinds(self, path: bytes, nodes_before: int, named: bool) -> _Commit:
        """A directory named Rubix, once all below it is known: is all as it should be?"""
        without = other_dbms(path)
        outdated = stale(path)

        def note() -> None:
            if without:
                self._found.skip(path, "other_dbms")
            elif len(self._found.nodes) == nodes_before and not named:
                self._found.skip(path, "no_database")
            if outdated is not None:
                sentence = SENTENCES["perhaps_stale"].format(days=outdated.days)
                database = os.path.join(path, DATABASES[0])
                self._found.notes.add(
                    Skipped(
                        printable(database),
                        "perhaps_stale",
                        sentence,
                        remedy=REMEDIES["perhaps_stale"],
                    )
                )

        return note

    def _database(self, path: bytes, home: Home) -> _Commit:
        """Take what stands at the place of a node's database, a link's target included."""
        try:
            status = node_files.stat(path)
        except OSError as error:
            if error.errno in _NOWHERE and any(link == path for link, _ in self._links):
                return partial(self._found.skip, path, "broken_link")
            return partial(self._found.fail, path, error)
        return partial(self._note_database, path, home, status)

    def _note_database(self, path: bytes, home: Home, status: os.stat_result) -> None:
        found, text = self._found, text_of(path)
        identity = status.st_dev, status.st_ino
        if not stat.S_ISREG(status.st_mode):
            found.skip(path, "not_a_file")
        elif identity in found.files:
            found.skip(path, "same_place", other=printable(found.files[identity]))
        elif utf16_length(text) > COLUMN_SIZES["db_path"]:
            found.skip(path, "path_too_long")
        else:
            found.files[identity] = text
            node = os.path.dirname(os.path.dirname(path))
            found.nodes.append((text, printable(os.path.basename(node) or node), home))

    def _stray(self, path: bytes, code: str) -> _Commit:
        try:
            status = node_files.stat(path)
        except OSError as error:
            return partial(self._found.fail, path, error)
        known = self._found.files.get((status.st_dev, status.st_ino))
        if known is not None:
            return partial(self._found.skip, path, "same_place", other=printable(known))
        return partial(self._found.skip, path, code)

    def _repository(self, path: bytes, take: _Commit, home: Home) -> _Commit:
        """Whether ``path``, named .ipfs, is a repository, possibly by way of a link."""
        # A repository on a disk of its own is mounted there on purpose: no check of mounts.
        if not self._answers(path):
            return partial(self._note_unread, path, take, None)
        try:
            names = node_files.listdir(path)
            for mark in _REPOSITORY_MARKS:
                if mark in names and (
                    mark != b"blocks" or stat.S_ISDIR(node_files.stat(path + b"/blocks").st_mode)
                ):
                    return take
        except NotADirectoryError:
            return partial(self._note_other, path, take, home)
        except OSError as error:
            if error.errno in _NOWHERE:
                return partial(self._found.skip, path, "broken_link")
            return partial(self._note_unread, path, take, error)
        return partial(self._found.skip, path, "bare_repository")

    def _note_other(self, path: bytes, take: _Commit, home: Home) -> None:
        """A file is in the repository's place: unless one further up serves, it is unreadable."""
        if home.repository is None:
            take()
            self._found.skip(path, "io_error", error="something other than a directory")
        else:
            self._found.skip(path, "bare_repository", REPOSITORY_SENTENCES)

    def _note_unread(self, path: bytes, take: _Commit, error: OSError | None) -> None:
        take()  # unreadable is not absent
        if error is None:
            self._found.skip(path, "stalled", REPOSITORY_SENTENCES, seconds=self._stall_s)
        else:
            self._found.fail(path, error, sentences=REPOSITORY_SENTENCES)

    def _link(self, path: bytes, home: Home) -> _Commit:
        """Follow a link that stands for a node, its directory Rubix or its database."""
        if not self._answers(path):
            return partial(self._found.skip, path, "stalled", seconds=self._stall_s)
        name = os.path.basename(path)
        if name in DATABASES:
            return self._database(path, home)
        try:
            status = node_files.stat(path)
            if not stat.S_ISDIR(status.st_mode):
                return lambda: None
            seen = (status.st_dev, status.st_ino) in self._found.seen
            directory = path if name == NODE_DIRECTORY else os.path.join(path, NODE_DIRECTORY)
            databases = self._databases_in(directory)
            own = name != NODE_DIRECTORY and REPOSITORY in node_files.listdir(path)
        except OSError as error:
            if error.errno in _NOWHERE and name != NODE_DIRECTORY:
                loop = error.errno == errno.ELOOP  # it may lead to a directory
                return partial(self._skip_link, path, "circle") if loop else lambda: None
            if error.errno in _NOWHERE:
                return partial(self._found.skip, path, "broken_link")
            return partial(self._found.fail, path, error)
        if seen and not databases:
            return partial(self._skip_link, path, "inside")
        return partial(self._note_link, path, home, directory, databases, own)

    def _skip_link(self, path: bytes, why: str) -> None:
        sentence = LINK_SENTENCES[why]
        self._found.skipped.add(Skipped(printable(path), "symlink", sentence))

    def _databases_in(self, directory: bytes) -> list[bytes]:
        """Names of the databases in a directory named Rubix that no walk has come to."""
        try:
            status = node_files.stat(directory)
            if (status.st_dev, status.st_ino) in self._found.homes:
                return []
            names = node_files.listdir(directory)
        except (FileNotFoundError, NotADirectoryError):
            return []
        return [name for name in DATABASES if name in names]

    def _note_link(
        self, path: bytes, home: Home, directory: bytes, databases: list[bytes], own: bool
    ) -> None:
        if not databases:
            self._found.skip(path, "symlink")
            return
        home = Home(home.repository)
        for name in databases:
            database = os.path.join(directory, name)
            self._push(database, partial(self._database, database, home))
        if own:
            self._push_repository(os.path.join(path, REPOSITORY), home)


def _is_nodes(path: bytes) -> bool:
    return os.path.basename(path) == NODE_DIRECTORY


def _left_behind(calls: BoundedCalls) -> bool:
    return calls.gave_up


def _kind(entry: os.DirEntry[str]) -> str:
    if entry.is_symlink():
        return "link"
    if entry.is_dir(follow_symlinks=False):
        return "directory"
    return "file" if entry.is_file(follow_symlinks=False) else "other"
