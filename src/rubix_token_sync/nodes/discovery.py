"""Finds Rubix nodes below the roots a user gives.

A node is a file named ``rubix.db``; by convention it lies in
``<node>/Rubix/rubix.db`` and the node is named after the directory two levels
above the file.  Its IPFS repository is the nearest valid ``.ipfs`` directory
upwards from the database, never above the roots (a ``.ipfs`` is valid when it
holds ``config``, ``datastore_spec`` or ``blocks/``).

What the walk does not do, and reports as `Skipped` where it matters:

* follow symbolic links (paths are made absolute lexically, nothing is resolved;
  only a root itself may be a link, because the user named it);
* leave the file system of a root: mount points are known beforehand from the
  kernel's list, so a dead network mount is skipped without being touched;
* look into IPFS repositories (a block store has millions of files);
* die of a directory it may not read, or hang for ever in one that stalls.
"""

from __future__ import annotations

import errno
import os
import re
import stat
import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from rubix_token_sync import failpoints
from rubix_token_sync.records.schema import COLUMN_SIZES

__all__ = ["DATABASE_NAME", "Discovery", "Node", "Skipped", "discover"]

DATABASE_NAME: Final = "rubix.db"
REPOSITORY_NAME: Final = ".ipfs"
_REPOSITORY_MARKS: Final = ("config", "datastore_spec", "blocks")
# A directory with one of these files is a block store or a repository under
# another name; there is no node below it.
_PRUNE_MARKS: Final = frozenset({"datastore_spec", "SHARDING"})
_MOUNTINFO: Final = "/proc/self/mountinfo"


@dataclass(frozen=True, slots=True, order=True)
class Node:
    """One database to sync."""

    db_path: str
    """Absolute path of ``rubix.db``, lexically below its root; clean UTF-8."""
    name: str
    """The directory two levels above the database; a label, not unique."""
    repository: str | None
    """Absolute path of the node's ``.ipfs``, or None when there is no valid one."""


@dataclass(frozen=True, slots=True, order=True)
class Skipped:
    """Something that was found and not taken, with the reason.

    ``path`` is printable UTF-8; bytes of a name that are not are written ``\\xNN``.
    """

    path: str
    reason_code: str
    sentence: str


@dataclass(frozen=True, slots=True)
class Discovery:
    """What was found, sorted by path."""

    nodes: list[Node]
    skipped: list[Skipped]
    directories: int
    """How many directories were read."""


SENTENCES: Final = {
    "access_denied": "This user may not read the directory.",
    "bare_repository": "A directory named .ipfs without config, datastore_spec or blocks is no "
    "IPFS repository.",
    "io_error": "The directory cannot be read ({error}).",
    "name_not_utf8": "The path is not valid UTF-8, so the target could not store it; rename it.",
    "no_database": "A directory named Rubix without rubix.db: the node has no database.",
    "no_such_directory": "There is no such directory.",
    "not_a_directory": "Not a directory.",
    "not_a_file": "rubix.db is not a regular file.",
    "other_file_system": "Another file system is mounted here; give it as a root of its own to "
    "include it.",
    "path_too_long": f"The path is longer than {COLUMN_SIZES['db_path']} characters, the most "
    "that the target stores.",
    "stalled": "The file system did not answer for {seconds:g} s; the rest of this root was left "
    "out.",
    "symlink": "Symbolic links are not followed; give the link's target as a root to include it.",
}
"""Every reason code with what is told to people."""


def discover(roots: Sequence[str | os.PathLike[str]], *, stall_s: float = 60.0) -> Discovery:
    """Find every node below ``roots``, in a stable order.

    Directories reached through several roots count once.  A root that is given
    together with one of its parents is part of that parent, so repositories are
    looked for up to the outer one (unless it is on another file system).

    Args:
        roots: directories; relative ones are taken from the current directory.
        stall_s: a root whose file system does not answer for so many seconds is
            given up, with what was found until then.
    """
    absolute = list(dict.fromkeys(os.path.abspath(os.fspath(root)) for root in roots))
    # Outer roots first: what lies in an inner one has then been seen.
    absolute.sort(key=lambda root: (root.count(os.sep) if root != os.sep else 0, root))
    found = _Found()
    mounts = _mount_points()
    for root in absolute:
        walk = _Walk(root, found, mounts)
        thread = threading.Thread(target=walk.run, name="discovery", daemon=True)
        thread.start()
        steps = -1
        while thread.is_alive() and steps != walk.steps:
            steps = walk.steps
            thread.join(stall_s)
        if thread.is_alive():
            walk.abandoned = True
            found = found.copy()  # the stuck thread may still write into the old one
            found.skip(walk.current, "stalled", seconds=stall_s)
        elif walk.crash is not None:
            raise walk.crash
    given = set(absolute)
    skipped = [
        item
        for item in found.skipped
        if item.path not in given or item.reason_code not in _SOLVED_BY_A_ROOT
    ]
    return Discovery(sorted(found.nodes), sorted(skipped), found.directories)


@dataclass(slots=True)
class _Found:
    nodes: list[Node] = field(default_factory=list)
    skipped: set[Skipped] = field(default_factory=set)
    seen: set[tuple[int, int]] = field(default_factory=set)
    directories: int = 0

    def copy(self) -> _Found:
        return _Found(list(self.nodes), set(self.skipped), set(self.seen), self.directories)

    def skip(self, path: str, code: str, **values: object) -> None:
        self.skipped.add(Skipped(printable(path), code, SENTENCES[code].format(**values)))


@dataclass(slots=True)
class _Listed:
    directories: list[str] = field(default_factory=list)
    marks: dict[str, str] = field(default_factory=dict)
    """Names that matter, with what they are: file, directory, link or other."""


def _kind(entry: os.DirEntry[str]) -> str:
    if entry.is_symlink():
        return "link"
    if entry.is_dir(follow_symlinks=False):
        return "directory"
    return "file" if entry.is_file(follow_symlinks=False) else "other"


def printable(path: str) -> str:
    """``path`` as text that any encoder takes: undecodable bytes become ``\\xNN``."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


class _Walk:
    """Walks one root depth first, in a thread of its own so that it may hang."""

    def __init__(self, root: str, found: _Found, mounts: frozenset[str]) -> None:
        self.root = root
        self.current = root
        self.steps = 0
        self.abandoned = False
        self.crash: BaseException | None = None
        self._found = found
        self._mounts = mounts
        self._device = -1

    def run(self) -> None:
        try:
            self._walk()
        except BaseException as error:  # noqa: BLE001 - handed to the waiting thread, which raises it
            self.crash = error

    def _walk(self) -> None:
        try:
            self._device = os.stat(self.root).st_dev
        except OSError as error:
            self._unreadable(self.root, error)
            return
        # (directory, nearest valid repository above it); for a directory named
        # Rubix a second visit, with None, tells whether a node was found below.
        todo: list[tuple[str, str | None, int]] = [(self.root, None, -1)]
        while todo and not self.abandoned:
            path, repository, nodes_before = todo.pop()
            if nodes_before >= 0:
                if len(self._found.nodes) == nodes_before:
                    self._found.skip(path, "no_database")
                continue
            self.current = path
            self.steps += 1
            try:
                listed = self._list(path)
            except OSError as error:
                self._unreadable(path, error)
                continue
            if listed is None:
                continue
            self._found.directories += 1
            if REPOSITORY_NAME in listed.marks:
                repository = self._repository(path, listed) or repository
            if DATABASE_NAME in listed.marks:
                self._database(path, listed, repository)
            elif os.path.basename(path) == "Rubix":
                todo.append((path, None, len(self._found.nodes)))
            if _PRUNE_MARKS.isdisjoint(listed.marks):
                # Last in, first out: reversed, so that the walk is in name order.
                todo += [
                    (below, repository, -1)
                    for below in sorted(listed.directories, reverse=True)
                    if self._enter(below)
                ]

    def _list(self, path: str) -> _Listed | None:
        """Read one directory; None when it was seen before or is not to be entered."""
        failpoints.point("discovery.scan")
        # A descriptor, so that a directory swapped for a link is noticed.
        follow = 0 if path == self.root else os.O_NOFOLLOW
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NONBLOCK | os.O_CLOEXEC | follow)
        try:
            status = os.fstat(fd)
            if status.st_dev != self._device:
                self._found.skip(path, "other_file_system")
                return None
            identity = status.st_dev, status.st_ino
            if identity in self._found.seen:
                return None
            self._found.seen.add(identity)
            listed = _Listed()
            with os.scandir(fd) as scan:
                for entry in scan:
                    name = entry.name
                    if name in _NAMES_THAT_MATTER:
                        listed.marks[name] = _kind(entry)
                    if name == REPOSITORY_NAME:
                        continue
                    if entry.is_dir(follow_symlinks=False):
                        listed.directories.append(os.path.join(path, name))
                    elif entry.is_symlink() and name != DATABASE_NAME:
                        self._link(path, entry)
            return listed
        finally:
            os.close(fd)

    def _enter(self, path: str) -> bool:
        if path in self._mounts:
            self._found.skip(path, "other_file_system")
            return False
        return True

    def _link(self, directory: str, entry: os.DirEntry[str]) -> None:
        """Report a symbolic link that leads, or may lead, to a directory."""
        path = os.path.join(directory, entry.name)
        try:
            target = os.path.normpath(os.path.join(directory, os.readlink(path)))
            # What lies on another file system may be a dead network mount: not touched.
            elsewhere = any(
                target == mount or target.startswith(mount + os.sep)
                for mount in self._mounts
                if not self.root.startswith(mount)
            )
            if elsewhere or entry.is_dir():
                self._found.skip(path, "symlink")
        except OSError as error:
            if error.errno == errno.ELOOP:
                self._found.skip(path, "symlink")
            elif not isinstance(error, FileNotFoundError):
                self._unreadable(path, error)

    def _repository(self, directory: str, listed: _Listed) -> str | None:
        path = os.path.join(directory, REPOSITORY_NAME)
        if listed.marks[REPOSITORY_NAME] == "link":
            self._found.skip(path, "symlink")
            return None
        # A repository on a disk of its own is mounted there on purpose: no check of mounts.
        for mark in _REPOSITORY_MARKS:
            try:
                status = os.lstat(os.path.join(path, mark))
            except (FileNotFoundError, NotADirectoryError):
                continue
            except OSError as error:
                self._unreadable(path, error)
                return None
            if mark != "blocks" or stat.S_ISDIR(status.st_mode):
                return path
        self._found.skip(path, "bare_repository")
        return None

    def _database(self, directory: str, listed: _Listed, repository: str | None) -> None:
        path = os.path.join(directory, DATABASE_NAME)
        kind = listed.marks[DATABASE_NAME]
        if kind == "link":
            self._found.skip(path, "symlink")
        elif kind != "file":
            self._found.skip(path, "not_a_file")
        elif not _is_utf8(path):
            self._found.skip(path, "name_not_utf8")
        elif len(path.encode("utf-16-le")) // 2 > COLUMN_SIZES["db_path"]:
            self._found.skip(path, "path_too_long")
        else:
            home = os.path.dirname(directory)
            self._found.nodes.append(Node(path, os.path.basename(home) or home, repository))

    def _unreadable(self, path: str, error: OSError) -> None:
        if isinstance(error, PermissionError):
            self._found.skip(path, "access_denied")
        elif isinstance(error, FileNotFoundError):
            if path == self.root:  # anything else was just removed by its owner
                self._found.skip(path, "no_such_directory")
        elif isinstance(error, NotADirectoryError):
            self._found.skip(path, "not_a_directory")
        else:
            self._found.skip(path, "io_error", error=os.strerror(error.errno or errno.EIO))


_SOLVED_BY_A_ROOT: Final = frozenset({"other_file_system", "symlink"})
_NAMES_THAT_MATTER: Final = {DATABASE_NAME, REPOSITORY_NAME, *_PRUNE_MARKS}


def _is_utf8(path: str) -> bool:
    try:
        path.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _mount_points(lines: Iterable[str] | None = None) -> frozenset[str]:
    """Mount points of this machine (proc(5), field 5 of mountinfo); empty elsewhere."""
    if lines is None:
        try:
            text = Path(_MOUNTINFO).read_bytes()
        except OSError:
            return frozenset()
        lines = os.fsdecode(text).split("\n")
    octal = re.compile(r"\\([0-7]{3})")
    fields = (line.split(" ") for line in lines)
    return frozenset(
        octal.sub(lambda m: chr(int(m[1], 8)), words[4]) for words in fields if len(words) > 4
    )
