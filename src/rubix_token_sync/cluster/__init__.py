"""Many hosts by one command, on Dask; only for fleets that want it (docs/CLUSTER.md).

Timers on each host need none of this: nothing outside this package imports it, and a plain
`sync` never does.  Needs the extra ``cluster``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from rubix_token_sync.cluster.certificates import (
    Certificates,
    MadeCertificate,
    make_certificates,
)
from rubix_token_sync.cluster.engine import DEFAULT_PORT, Address, Connection, connection_of
from rubix_token_sync.cluster.fleet import FleetOptions, run_fleet
from rubix_token_sync.cluster.host import Host, HostSettings
from rubix_token_sync.cluster.messages import FORWARDED
from rubix_token_sync.cluster.outcome import FleetResult, HostOutcome
from rubix_token_sync.cluster.scheduler import run_scheduler
from rubix_token_sync.cluster.shared import SharedOptions, sharing_hosts
from rubix_token_sync.cluster.watching import HostView
from rubix_token_sync.runs.worker_pool import Executor

if TYPE_CHECKING:
    from rubix_token_sync.cluster.worker import run_worker

__all__ = [
    "DEFAULT_PORT",
    "FORWARDED",
    "Address",
    "Certificates",
    "Connection",
    "Executor",
    "FleetOptions",
    "FleetResult",
    "Host",
    "HostOutcome",
    "HostSettings",
    "HostView",
    "MadeCertificate",
    "SharedOptions",
    "connection_of",
    "make_certificates",
    "run_fleet",
    "run_scheduler",
    "run_worker",
    "sharing_hosts",
]


def __getattr__(name: str) -> object:
    if name == "run_worker":  # its module needs Dask to be there
        from rubix_token_sync.cluster.engine import require_dask

        require_dask()
        from rubix_token_sync.cluster.worker import run_worker

        return run_worker
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
