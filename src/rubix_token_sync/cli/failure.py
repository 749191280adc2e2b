"""How a command tells what went wrong, and the exit code that goes with it."""

from __future__ import annotations

import json
import sys
import traceback

from rubix_token_sync.errors import SyncError
from rubix_token_sync.installation import runnable
from rubix_token_sync.log import log_to_file, redact
from rubix_token_sync.os_errors import refusal

__all__ = ["print_failure", "tell"]


def tell(error: Exception, *, verbose: bool, as_json: bool) -> int:
    """Print one error for people (and as JSON on stdout); returns the exit code."""
    known = error if isinstance(error, SyncError) else refusal(error)
    if known is not None:
        code, name, message, remedy = (
            known.exit_code,
            known.code,
            known.message,
            runnable(known.remedy),
        )
        category = known.category
    else:
        code, name, category = 1, "unexpected", "system"
        message = f"Unexpected: {type(error).__name__}: {error}"
        remedy = "This is a bug; please report it with the output of --verbose."
    if verbose:
        trace = "".join(traceback.format_exception(error))
        print(redact(trace), file=sys.stderr)
    print(redact(f"Error: {message}" + (f"\n{remedy}" if remedy else "")), file=sys.stderr)
    log_to_file(
        "command_failed",
        f"{message} {remedy}".strip(),
        exc_info=error if known is None else None,
        code=name,
        category=category,
        exit_code=code,
    )
    if as_json:
        print_failure(code, name, category, message, remedy)
    return code


def print_failure(exit_code: int, code: str, category: str, message: str, remedy: str) -> None:
    """The document that ``--json`` puts on stdout when a command fails."""
    document = {
        "ok": False,
        "exit_code": exit_code,
        "error": {
            "code": code,
            "category": category,
            "message": redact(message),
            "remedy": redact(remedy),
        },
    }
    print(json.dumps(document, indent=2, ensure_ascii=False))
