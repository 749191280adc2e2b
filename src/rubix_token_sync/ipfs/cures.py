"""What an operator can do about content that a node did not give."""

from __future__ import annotations

from typing import Final

__all__ = ["CURES", "REASONS", "curable"]

_AGAIN: Final = "run `rubix-token-sync retry-failed`"
_SAYS: Final = "`rubix-token-sync errors --category ipfs --node NODE` says what is wrong with it"
_DAEMON: Final = (
    "Start the node's IPFS daemon, or name the node's ipfs program with --ipfs-program; then "
    f"{_AGAIN}."
)

CURES: Final = {
    "access_denied": "Run as the user that owns the node, or let this user read its repository; "
    f"then {_AGAIN}.",
    "damaged": "Have the node's owner repair the repository (`ipfs repo verify`), or add "
    f"--ipfs-network with --gateway URL to get the content elsewhere; then {_AGAIN}.",
    "read_error": f"{_SAYS}. Correct the repository's files, its disk or its mount; then {_AGAIN}.",
    "no_repository": "Restore or mount the node's repository if it had one, then "
    f"{_AGAIN}: it also takes over content that the target has from other nodes.",
    "unsupported_format": _DAEMON,
    "daemon_not_running": _DAEMON,
    "daemon_refused": "Set ipfs_api_token if the node's daemon asks for an authorization; for any "
    "other reason `rubix-token-sync errors --category ipfs --node NODE` says what to correct. "
    f"Then {_AGAIN}.",
    "program_failed": "Start the node, or name an ipfs program with --ipfs-program; where one was "
    f"found, run it by hand to see why it fails. Then {_AGAIN}.",
    "gateway_failed": f"Check the gateway, then {_AGAIN}.",
    "timed_out": "Raise IPFS_TIMEOUT, or wait until the disk or network is less busy; then "
    f"{_AGAIN}.",
}
"""Reasons for missing content that an operator can remove, with what to do.

The other reasons lie with the token: its id is not a content identifier, or no node has its
content.
"""

REASONS: Final = {
    "access_denied": "this user may not read the node's repository",
    "damaged": "blocks are damaged",
    "read_error": "the node's repository could not be read",
    "no_repository": "the node has no IPFS repository on this machine",
    "unsupported_format": "only the node's own software can read its repository",
    "daemon_not_running": "the node's IPFS daemon is not running",
    "daemon_refused": "the node's IPFS daemon did not serve it",
    "program_failed": "no ipfs program could read the node's repository",
    "gateway_failed": "the gateway did not deliver it",
    "timed_out": "it did not arrive in time",
}
"""The same reasons in words."""


def curable(code: str, *, repository: bool) -> bool:
    """Whether content that failed for ``code`` would come once the operator did something.

    ``repository``: the node has one (a node without one has no content to give).
    """
    return code in CURES and (code != "no_repository" or repository)
