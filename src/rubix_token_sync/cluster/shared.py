"""A root that several hosts see is one source: its databases are spread over these hosts.

The run is a plain one, on the coordinator: it finds the nodes, plans, holds the lease, writes
session, errors and report.  Only the work on single databases is elsewhere: each host takes the
next one when it is free, reads it, and publishes it under the run's lease.  So a database has
the identity that a plain sync would give it.

A database that a host took and did not finish is not given to another one in the
same run: a lost host may still be writing, and two hosts that publish one database
under one lease could mix two states of it.  When the run ends, so does its lease, and
with it the right of any lost host; the next run does what was left.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from rubix_token_sync import node_files
from rubix_token_sync.cluster.client import client_of, connected
from rubix_token_sync.cluster.engine import Connection, running_dask
from rubix_token_sync.cluster.greeting import Versions, knock
from rubix_token_sync.cluster.partaking import place_of
from rubix_token_sync.cluster.roster import Member, members_of, sharing
from rubix_token_sync.cluster.shared_pool import SharedPool
from rubix_token_sync.cluster.target import FleetTarget
from rubix_token_sync.errors import SyncError
from rubix_token_sync.library.configuration import Configuration
from rubix_token_sync.log import log_event
from rubix_token_sync.runs.cancel import CancelToken
from rubix_token_sync.runs.worker_pool import Executor
from rubix_token_sync.scratch import Scratch
from rubix_token_sync.targets.base import Lease
from rubix_token_sync.text import counted

if TYPE_CHECKING:
    from distributed import Client

__all__ = ["SharedOptions", "sharing_hosts"]

_LOG = logging.getLogger(__name__)
_PACE: Final = 0.25
_SAME_FOR_ALL: Final = ("chains", "ipfs_network", "content_ways")
"""Settings that decide what records are: the coordinator's hold for every host."""


@dataclass(frozen=True)
class SharedOptions:
    """How a source is shared."""

    hosts: int = 1
    """So many must take part, at least."""
    wait_seconds: float = 20.0
    """How long they may take to connect."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """For the hosts: see `messages.FORWARDED`."""


@contextlib.contextmanager
def sharing_hosts(
    connection: Connection,
    configuration: Configuration,
    options: SharedOptions,
    *,
    stop: CancelToken | None = None,
) -> Iterator[Executor]:
    """The hosts that share the source of ``configuration``, to do a run's jobs.

    Raises:
        SettingsError: this machine cannot take part: its certificate or version.
        SchedulerUnreachable: no scheduler answers.
        SyncError: too few hosts are connected.
        Interrupted: ``stop`` came meanwhile.
    """
    own = Versions.own()
    knock(connection)
    scratch = Scratch(configuration.settings.scratch)
    with running_dask(scratch), client_of(connection, own) as client:
        hosts = _Hosts(client, connection, own, configuration, options)
        hosts.gather(stop or CancelToken())

        def pool(lease: Lease | None, stop: CancelToken) -> SharedPool:
            return SharedPool(hosts, lease, stop)

        yield pool


class _Hosts:
    """Who shares the source, and what all shares of it have in common."""

    def __init__(
        self,
        client: Client,
        connection: Connection,
        own: Versions,
        configuration: Configuration,
        options: SharedOptions,
    ) -> None:
        self.client = client
        self.source = configuration.settings.source_ip
        self.roots = tuple(place_of(_real(root)) for root in configuration.roots)
        self.target = FleetTarget(configuration)
        same = {name: getattr(configuration.settings, name) for name in _SAME_FOR_ALL}
        self.settings: Mapping[str, Any] = {**same, **options.settings}
        self._connection = connection
        self._own = own
        self._options = options
        self._noted: set[str] = set()

    def now(self) -> list[Member]:
        """Those that are connected; others of that name are named once, in the log."""
        everybody = members_of(connected(self.client, self._connection))
        members, left_out = sharing(everybody, self._own, self.source)
        for problem in left_out:
            if problem.message not in self._noted:
                self._noted.add(problem.message)
                log_event(_LOG, logging.WARNING, problem.code, problem.message)
        return members

    def gather(self, stop: CancelToken) -> None:
        """Wait until there are enough.

        Raises:
            SyncError: ``hosts_missing``.
            Interrupted: ``stop`` came.
        """
        deadline = time.monotonic() + self._options.wait_seconds
        while len(members := self.now()) < self._options.hosts:
            stop.check()
            if time.monotonic() > deadline:
                raise SyncError(
                    f"{counted(len(members), 'host')} of the source {self.source} could be used, "
                    f"of the {self._options.hosts:,} that must take part.",
                    code="hosts_missing",
                    remedy="Start `cluster worker` there with the same source_ip; their logs say "
                    "why they are not connected.",
                )
            time.sleep(_PACE)


def _real(root: str) -> str:
    """Where nodes below it are found: their paths are part of their records' keys."""
    return node_files.text_of(node_files.realpath(root))
