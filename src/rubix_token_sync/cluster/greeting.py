"""The first words between the machines of a cluster: who is there, and do we fit together?

Before a host or a coordinator joins, it says hello to the scheduler by one plain message, and
gets a sentence where it cannot take part.  Dask itself would say ``OSError: Timed out``.
"""

from __future__ import annotations

import platform
import socket
import ssl
import time
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Final

import rubix_token_sync
from rubix_token_sync.cluster.engine import Connection
from rubix_token_sync.errors import SettingsError, SyncError

__all__ = [
    "HELLO",
    "Refused",
    "SchedulerUnreachable",
    "Versions",
    "answer_hello",
    "greet",
    "knock",
    "unreachable",
]

HELLO: Final = "rubix_hello"
"""Name of the message, among those that Dask's scheduler knows."""
_SECONDS: Final = 10.0


class SchedulerUnreachable(SyncError):
    """No scheduler answers there; it may later."""


class Refused(SettingsError):
    """This machine cannot take part: its certificate or its version is another."""


@dataclass(frozen=True)
class Versions:
    """What must be the same on all machines of a cluster."""

    program: str
    python: str
    """Major and minor: functions travel between them by name, arguments by pickle."""
    dask: str

    @classmethod
    def own(cls) -> Versions:
        """Those of this process."""
        try:
            dask = version("distributed")
        except PackageNotFoundError:
            dask = "none"
        major, minor, _ = platform.python_version_tuple()
        return cls(rubix_token_sync.__version__, f"{major}.{minor}", dask)

    @classmethod
    def of(cls, given: object) -> Versions | None:
        """As another machine sent them; None: it sent something else."""
        if not isinstance(given, dict):
            return None
        values = [given.get(name) for name in ("program", "python", "dask")]
        if not all(isinstance(value, str) for value in values):
            return None
        return cls(*(str(value)[:40] for value in values))

    def plain(self) -> dict[str, str]:
        """For a message."""
        return {"program": self.program, "python": self.python, "dask": self.dask}

    def against(self, other: Versions) -> str:
        """What differs, for a sentence; empty: they fit together."""
        pairs = (
            ("rubix-token-sync", self.program, other.program),
            ("Python", self.python, other.python),
            ("distributed", self.dask, other.dask),
        )
        return ", ".join(
            f"{name} {here} here and {there} there" for name, here, there in pairs if here != there
        )


def answer_hello(own: Versions) -> Any:
    """The scheduler's side: a handler for Dask's server."""

    async def hello() -> dict[str, Any]:
        return {"versions": own.plain(), "time": time.time()}

    return hello


async def greet(connection: Connection, own: Versions) -> float:
    """Say hello to the scheduler; by how many seconds this machine's clock is ahead of its clock.

    Raises:
        SchedulerUnreachable: no scheduler answers at that address.
        Refused: a certificate or a version does not fit, or it is not our scheduler.
    """
    from distributed.core import rpc

    role = connection.security().get_connection_args("client")
    try:
        async with rpc(str(connection.address), connection_args=role, timeout=_SECONDS) as there:
            before = time.time()
            answer = await getattr(there, HELLO)()
            clock = (before + time.time()) / 2
    except OSError as error:
        why = str(error) or type(error).__name__
        if connection.certificates is None:
            why = "what listens there does not answer without encryption"
        raise unreachable(connection, why) from error
    except Exception as error:
        # Dask gives whatever the other side raised: an unknown message, most likely.
        raise _foreign(connection) from error
    theirs = Versions.of(answer.get("versions")) if isinstance(answer, dict) else None
    if theirs is None:
        raise _foreign(connection)
    differs = own.against(theirs)
    if differs:
        raise Refused(
            f"The scheduler at {connection.address} has other versions: {differs}.",
            code="version_differs",
            remedy="Install the same versions on all machines of the cluster.",
            context={"here": own.plain(), "there": theirs.plain()},
        )
    moment = answer.get("time")
    return clock - moment if isinstance(moment, int | float) else 0.0


def knock(connection: Connection) -> None:
    """Open one connection by hand, to find out in words whether we are let in.

    Raises:
        SchedulerUnreachable: no scheduler answers at that address.
        Refused: one of the two certificates is not of the other's authority.
    """
    address = connection.address
    try:
        with socket.create_connection((address.host, address.port), _SECONDS) as raw:
            if connection.certificates is None:
                return
            context = ssl.create_default_context(cafile=connection.certificates.authority)
            context.check_hostname = False
            context.load_cert_chain(
                connection.certificates.certificate, connection.certificates.key
            )
            with context.wrap_socket(raw) as wrapped:
                # TLS 1.3: whether our certificate is accepted shows in the first byte read.
                if not wrapped.recv(1):
                    raise unreachable(connection, "it closed the connection")
    except ssl.SSLCertVerificationError as error:
        raise Refused(
            f"The certificate of the scheduler at {address} is not one of this cluster's "
            f"authority: {error.verify_message}.",
            code="certificate_foreign",
            remedy="Use the certificates that one `cluster certs` made, on all machines.",
        ) from error
    except ssl.SSLError as error:
        if error.reason in ("WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE"):
            raise Refused(
                f"The scheduler at {address} is not encrypted.",
                code="plain_refused",
                remedy="Start it without --plain, with certificates.",
            ) from error
        raise Refused(
            f"The scheduler at {address} does not accept this machine's certificate: "
            f"{(error.reason or str(error)).replace('_', ' ').lower()}.",
            code="certificate_refused",
            remedy="Use the certificates that one `cluster certs` made, on all machines.",
        ) from error
    except OSError as error:
        raise unreachable(connection, error.strerror or str(error) or "no answer") from error


def unreachable(connection: Connection, why: str) -> SchedulerUnreachable:
    """The error of a scheduler that does not answer, or no longer."""
    return SchedulerUnreachable(
        f"No scheduler can be reached at {connection.address}: {why.rstrip('.')}.",
        code="scheduler_unreachable",
        remedy="Start it by `rubix-token-sync cluster scheduler`, and look at the firewall "
        "between the two machines.",
    )


def _foreign(connection: Connection) -> Refused:
    return Refused(
        f"What listens at {connection.address} is not a scheduler of this program.",
        code="scheduler_foreign",
        remedy="Start it by `rubix-token-sync cluster scheduler`.",
    )
