"""What an operator can do about content that a node did not give."""

from __future__ import annotations

from typing import Final

__all__ = ["CURES", "curable"]

CURES: Final = {
    "access_denied": "Run as the user that owns the node, or let this user read its repository.",
    "damaged": "Have the node's owner repair the repository (`ipfs repo verify`), or add "
    "--ipfs-network with --gateway URL to get the content elsewhere; then run "
    "`rubix-token-sync retry-failed`.",
    "read_error": "Look at the disk and the mount of the node's repository, then run "
    "`rubix-token-sync retry-failed`.",
    "no_repository": "Look at the path of the node's repository and at content_ways; "
    "`rubix-token-sync discover` shows which repository belongs to which node.",
    "unsupported_format": "Start the node's IPFS daemon, or name the node's ipfs program with "
    "--ipfs-program.",
    "daemon_not_running": "Start the node's IPFS daemon, or name the node's ipfs program with "
    "--ipfs-program.",
    "daemon_refused": "Set ipfs_api_token to what the node's daemon asks for.",
    "program_failed": "Start the node, or name an ipfs program with --ipfs-program; where one was "
    "found, run it by hand to see why it fails.",
    "gateway_failed": "Look at the gateway, then run `rubix-token-sync retry-failed`.",
    "timed_out": "Raise IPFS_TIMEOUT, or wait until the disk or network is less busy; then run "
    "`rubix-token-sync retry-failed`.",
}
"""Reasons for missing content that an operator can remove, with what to do.

The other reasons lie with the token: its id is none, or no node has its content.
"""


def curable(code: str, *, repository: bool) -> bool:
    """Whether content that failed for ``code`` would come once the operator did something.

    ``repository``: the node has one (a node without one has no content to give).
    """
    return code in CURES and (code != "no_repository" or repository)
