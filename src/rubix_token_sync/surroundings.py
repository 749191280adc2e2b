"""What a process may find itself in, put right before anything else is loaded.

Only `os` and `sys` are imported here, which are loaded before any file of the current
directory could be taken for them.
"""

from __future__ import annotations

import os
import sys

__all__ = [
    "LIBRARIES",
    "Tolerant",
    "hide_unused",
    "open_standard_streams",
    "prepare",
    "show_tornado",
    "use_utf8",
    "without_current_directory",
]

LIBRARIES = {
    "ARROW_DEFAULT_MEMORY_POOL": "system",
    "OPENBLAS_NUM_THREADS": "1",
    "PYDANTIC_DISABLE_PLUGINS": "__all__",
}
"""Environment of what is loaded later.

Arrow's own allocator keeps what is given back, a third of a worker's memory.  Nothing here is
linear algebra, so numpy need not start threads for it; pydantic need not look through all packages
that are installed for plug-ins.
"""


def prepare() -> None:
    """Make import path, standard streams and encoding what the program relies on."""
    sys.path[:] = without_current_directory(sys.path)
    open_standard_streams()
    use_utf8()


def hide_unused() -> None:
    """Keep packages from importing others that this program does not use with them.

    Only for processes that are this program's own.  pyarrow imports pandas, where that is
    installed, as soon as it is given a list, to see whether it is a Series: 0.3 s of a
    processor and 50 MB in every process.  tenacity imports tornado, which comes with Dask.
    """
    sys.meta_path.insert(0, _Hidden())


def show_tornado() -> None:
    """From now on it is used: by Dask."""
    for finder in sys.meta_path:
        if isinstance(finder, _Hidden):
            finder.names.discard("tornado")


class _Hidden:
    """As if these were not installed."""

    def __init__(self) -> None:
        self.names = {"pandas", "tornado"}

    def find_spec(self, name: str, *_: object) -> None:
        if name in self.names:
            raise ModuleNotFoundError(f"{name} is not used by this program", name=name)


class Tolerant:
    """Standard error that may take nothing: a full disk behind it must not stop the work.

    What cannot be written there is lost; it stands in the log file and the report as well.
    """

    def __init__(self, stream: object) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        try:  # noqa: SIM105 - contextlib is not loaded before the import path is clean
            self._stream.write(text)  # type: ignore[attr-defined]
        except OSError:
            pass  # there is no other place to say so
        return len(text)

    def flush(self) -> None:
        try:  # noqa: SIM105 - as above
            self._stream.flush()  # type: ignore[attr-defined]
        except OSError:
            pass

    def __getattr__(self, name: str) -> object:
        return getattr(self._stream, name)


def without_current_directory(entries: list[str]) -> list[str]:
    """``entries`` of an import path without the current directory, by any of its names.

    A file ``signal.py`` that somebody left where the program is started must not run.  Where
    the package itself is imported from there, the directory stays: it is the program's own.
    """
    try:
        here = os.stat(".")
    except OSError:  # removed meanwhile, or unreadable: only the empty name means it
        return [entry for entry in entries if entry]
    package = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

    def is_here(entry: str) -> bool:
        try:
            return os.path.samestat(os.stat(entry or "."), here)
        except (OSError, ValueError):
            return False

    if is_here(package):
        return [entry or package for entry in entries]
    return [entry for entry in entries if not is_here(entry)]


def open_standard_streams() -> None:
    """Give closed standard streams (``>&-``) the null device.

    Otherwise the next file opened, a database perhaps, would have the number of standard
    output, and whatever is printed would go into it.
    """
    for number, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        try:
            os.fstat(number)
        except OSError:
            opened = os.open(os.devnull, os.O_RDWR)
            if opened != number:
                os.dup2(opened, number)
                os.close(opened)
            os.set_inheritable(number, True)
        if getattr(sys, name) is None:
            stream = open(number, mode, encoding="utf-8", errors="replace", closefd=False)  # noqa: SIM115
            setattr(sys, name, stream)


def use_utf8() -> None:
    """Start again in UTF-8 mode where the locale has another encoding.

    The bytes of a file's name must become the same text, and so the same record, in every
    locale.
    """
    if sys.getfilesystemencoding() == "utf-8" or os.environ.get("PYTHONUTF8") == "1":
        return
    os.environ["PYTHONUTF8"] = "1"  # worker processes inherit it
    try:
        os.execv(sys.executable, sys.orig_argv)  # noqa: S606 - this very program
    except OSError as error:
        code = "locale_not_utf8"
        print(
            f"Error: The locale is not UTF-8, and Python ({sys.executable}) cannot be started "
            f"again in UTF-8 mode: {error.strerror}. [{code}]\n"
            "Set LC_ALL=C.UTF-8 or PYTHONUTF8=1.",
            file=sys.stderr,
        )
        sys.exit(2)
