"""TROUBLESHOOTING.md against the source: every code a user can meet is there, none is invented."""

from __future__ import annotations

import ast
import re
from pathlib import Path

from rubix_token_sync import os_errors
from rubix_token_sync.ipfs.content import FailureCode
from rubix_token_sync.nodes import database_errors, skipped
from rubix_token_sync.records.validate import Code
from rubix_token_sync.targets.mssql import error_numbers
from rubix_token_sync.targets.mssql import errors as mssql_errors
from rubix_token_sync.targets.postgresql import errors as postgres_errors

ROOT = Path(__file__).parents[2]
GUIDE = (ROOT / "docs" / "TROUBLESHOOTING.md").read_text(encoding="utf-8")
SOURCES = sorted((ROOT / "src" / "rubix_token_sync").rglob("*.py"))
_ROW = re.compile(r"^\| `([a-z][a-z0-9_]+)` \| (.*) \|$", re.MULTILINE)
_UNNAMED = {"database_failed"}
"""Names of events and of problems, not of errors."""


def rows() -> list[tuple[str, str]]:
    """Every row with a code: the code and what it says."""
    return [(match[1], match[2].split(" | ")[0]) for match in _ROW.finditer(GUIDE)]


def literal_codes() -> dict[str, str]:
    """Codes given as ``code="…"`` (or one of two) to anything but a log event, with their file."""
    found = {}
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Call):
                continue
            if ast.unparse(node.func).endswith("log_event"):
                continue
            for keyword in node.keywords:
                if keyword.arg == "code":
                    for part in ast.walk(keyword.value):
                        if isinstance(part, ast.Constant) and isinstance(part.value, str):
                            found[part.value] = path.name
    return found


def meant_codes() -> dict[str, str]:
    """Codes of the tables of errors: one place per outside world."""
    found = dict.fromkeys(database_errors.REMEDIES, "nodes/database_errors.py")
    found |= dict.fromkeys(os_errors._REMEDIES, "os_errors.py")
    found |= dict.fromkeys(skipped.SENTENCES, "nodes/skipped.py")
    found |= dict.fromkeys((code.value for code in FailureCode), "ipfs/content.py")
    found |= dict.fromkeys((code.value for code in Code), "records/validate.py")
    tables = (error_numbers, "Rule"), (mssql_errors, "Rule"), (postgres_errors, "_Meaning")
    for module, kind in tables:
        tree = ast.parse(Path(module.__file__).read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == kind:
                second = node.args[1]
                assert isinstance(second, ast.Constant)
                found[str(second.value)] = Path(module.__file__).name
    return found


def test_every_code_has_a_row() -> None:
    told = {code for code, _ in rows()}
    missing = {
        code: place
        for code, place in sorted((literal_codes() | meant_codes()).items())
        if code not in told and code not in _UNNAMED
    }
    assert missing == {}, "add them to docs/TROUBLESHOOTING.md"


def test_no_row_is_of_another_program() -> None:
    text = "\n".join(path.read_text(encoding="utf-8") for path in SOURCES)
    for code, _ in rows():
        assert re.search(rf"[\"']{code}[\"']", text), code


def quoted_rows() -> list[tuple[str, str]]:
    """Rows of the tables that quote the program."""
    own_words = GUIDE.partition("## Records")[2].partition("\n## ")[0]
    return [row for row in rows() if f"| `{row[0]}` |" not in own_words]


def test_what_it_says_is_what_the_program_says() -> None:
    """Each piece of a sentence between … is in some text of the program."""
    texts = _texts()
    strange = [
        f"{code}: {words!r}"
        for code, says in quoted_rows()
        if not says.startswith(("the ", "how many", "more than"))
        for piece in says.split("…")
        if len(words := piece.strip(" .:;(),")) > 25 and words not in texts
    ]
    assert strange == []


def _texts() -> str:
    found = []
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.append(node.value)
    return "\n".join(found)
