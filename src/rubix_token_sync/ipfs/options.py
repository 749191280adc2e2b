"""How content may be got."""

from __future__ import annotations

from dataclasses import dataclass, field

from pydantic import SecretStr

from rubix_token_sync.ipfs.readers import WAYS
from rubix_token_sync.scratch import Scratch

__all__ = ["ContentOptions"]


@dataclass(frozen=True, slots=True)
class ContentOptions:
    """How content may be got; picklable, the same for every node of a run.

    At most ``workers`` requests are under way at once (NUM_IPFS_WORKERS); each attempt
    may take ``timeout_s`` seconds, and what can change is tried ``attempts`` times.
    Only with ``network`` is anything asked that is not on this machine: ``gateways``
    (base URLs), or other nodes by way of the daemon.  ``program`` is an ``ipfs``
    program to use instead of the node's own; its private copies go to ``scratch``.
    ``daemon_authorization`` is the value of the Authorization header for daemons that
    want one, where their ``config`` does not say it.  ``ways`` names those that are
    switched on.
    """

    workers: int = 8
    timeout_s: float = 10.0
    attempts: int = 3
    network: bool = False
    gateways: tuple[str, ...] = field(default=(), repr=False)  # URLs may hold passwords
    program: str | None = None
    daemon_authorization: SecretStr | None = None
    ways: tuple[str, ...] = WAYS
    scratch: Scratch = field(default_factory=Scratch)
