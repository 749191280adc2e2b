"""What an earlier run could not read and this one was not asked for stays an error."""

from __future__ import annotations

import pytest

from rubix_token_sync.runs.carried import Looked, carried, place, root_of
from rubix_token_sync.targets.base import ErrorEntry

PATH = "/a/n1/Rubix/rubix.db"


def database(path: str = PATH, root: str | None = "/a", message: str = "") -> ErrorEntry:
    context = {} if root is None else {"root": root}
    return ErrorEntry("database", "corrupt", message, "n1", path, context=context)


def directory(path: str, root: str = "/a") -> ErrorEntry:
    context = {"path": path, "reason": "access_denied", "root": root}
    return ErrorEntry("system", "directory_unread", "", context=context)


def looked(*roots: str, found: str = "", dealt_with: str = "", known: str = "") -> Looked:
    return Looked(roots, found.split(), dealt_with.split(), known.split())


@pytest.mark.parametrize(
    ("entry", "run", "stays"),
    [
        (database(), looked("/b"), True),  # other roots
        (database(), looked("/a", found=PATH, dealt_with=PATH), False),  # this run's own
        (database(), looked("/a", found=PATH), True),  # left out by --node
        (database(), looked("/a"), False),  # looked for, and gone
        (database(), looked("/b", known=PATH), False),  # its mark says how it stands
        (database(), looked("/a/n2"), False),  # roots within the former one leave it out
        (database(root=None), looked("/a/n2"), True),  # of an earlier version: nobody knows
        (directory("/a/x"), looked("/a"), False),
        (directory("/a/x"), looked("/a/x"), False),
        (directory("/a/x"), looked("/a/xy"), False),
        (directory("/a/x"), looked("/b"), True),
    ],
)
def test_what_stays(entry: ErrorEntry, run: Looked, stays: bool) -> None:
    assert carried([entry], run) == ([entry] if stays else [])


def test_each_place_once_as_it_was_last() -> None:
    old, new = database(message="old"), database(message="new")
    assert carried([old, directory("/a/x"), new], looked("/b")) == [new, directory("/a/x")]
    assert place(new) == PATH
    assert place(directory("/a/x")) == "/a/x"


def test_the_innermost_root() -> None:
    assert root_of(PATH, ["/", "/a", "/a/n1", "/a/n"]) == "/a/n1"
    assert root_of(PATH, ["/b"]) is None
