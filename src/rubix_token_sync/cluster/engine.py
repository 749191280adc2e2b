"""Dask as this program runs it: its settings, its certificates, its log.

Measured, and held by tests: with Dask's defaults a task whose host died waits for ever, a cut
cable is noticed after five minutes, the scheduler may move work between hosts, and nothing is
encrypted.  `SAFE` changes that, and switches off what opens ports or costs time here.
"""

from __future__ import annotations

import ipaddress
import logging
import ssl
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from rubix_token_sync.cluster.certificates import Certificates
from rubix_token_sync.errors import SettingsError
from rubix_token_sync.installation import extra_command
from rubix_token_sync.scratch import Scratch
from rubix_token_sync.surroundings import show_tornado

if TYPE_CHECKING:
    from distributed.security import Security

__all__ = [
    "DEFAULT_PORT",
    "Address",
    "Connection",
    "connection_of",
    "require_dask",
    "root_of",
    "running_dask",
]

DEFAULT_PORT: Final = 8786
SAFE: Final[dict[str, Any]] = {
    # A host that is gone: its task fails, is not tried again and never runs elsewhere.
    "distributed.scheduler.allowed-failures": 0,
    "distributed.scheduler.no-workers-timeout": "15s",
    "distributed.scheduler.worker-ttl": "20s",
    "distributed.scheduler.work-stealing": False,
    # A silent connection is dead after 12 s; 10 s or less ends the scheduler.
    "distributed.comm.timeouts.tcp": "12s",
    "distributed.comm.timeouts.connect": "10s",
    "distributed.client.scheduler-info-interval": "1s",
    # Results never lie in Dask: a few thousand lines of events are all that it keeps.
    "distributed.admin.low-level-log-length": 5000,
    # Looking at itself costs a process that only waits more than waiting does.
    "distributed.admin.tick.interval": "1s",
    "distributed.admin.tick.limit": "30s",
    "distributed.admin.system-monitor.interval": "10s",
    "distributed.admin.system-monitor.disk": False,
    "distributed.admin.system-monitor.gil.enabled": False,
    "distributed.scheduler.active-memory-manager.start": False,
    "distributed.worker.memory.target": False,
    "distributed.worker.memory.spill": False,
    "distributed.worker.memory.pause": False,
    "distributed.worker.memory.terminate": False,
    "distributed.worker.profile.enabled": False,
    "distributed.diagnostics.nvml": False,
    # Nothing is served by HTTP, which would not be encrypted.
    "distributed.scheduler.http.routes": [],
    "distributed.worker.http.routes": [],
    # A user's own settings of Dask load no code into these processes.
    "distributed.scheduler.preload": [],
    "distributed.worker.preload": [],
    "distributed.client.preload": [],
    "distributed.worker.resources": {},
    "distributed.worker.lifetime.duration": None,
}
NO_HTTP: Final = "127.0.0.1:0"
"""Dask's servers open an HTTP port in any case: on loopback, and `SAFE` leaves it empty."""

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Address:
    """Where a scheduler listens: ``tls://HOST:PORT``, or ``tcp://`` on loopback."""

    scheme: str
    host: str
    port: int

    @classmethod
    def parse(cls, text: str, *, plain: bool = False) -> Address:
        """
        Raises:
            SettingsError: it is not an address, or a plain one that is not allowed.
        """
        given = text if "://" in text else f"{'tcp' if plain else 'tls'}://{text}"
        try:
            parts = urlsplit(given)
            host, port = parts.hostname, parts.port
            (host or "").encode("idna")  # what no resolver can be asked for
        except ValueError:
            host, port, parts = None, None, urlsplit("")
        if parts.scheme not in ("tls", "tcp") or not host or parts.path or parts.username:
            raise SettingsError(
                f"{text!r} is not the address of a scheduler.",
                code="bad_scheduler_address",
                remedy="Write tls://HOST:PORT.",
            )
        if parts.scheme == "tcp" and not (plain and _is_loopback(host)):
            raise SettingsError(
                f"{given} is not encrypted.",
                code="plain_refused",
                remedy="Write tls://HOST:PORT; only on this machine, and with --plain, may a "
                "cluster do without: tcp://127.0.0.1:PORT.",
            )
        if parts.scheme == "tls" and plain:
            raise SettingsError(
                f"--plain was given, and {given} is encrypted.",
                code="plain_refused",
                remedy="Leave --plain out.",
            )
        return cls(parts.scheme, host, DEFAULT_PORT if port is None else port)

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}:{self.port}"


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


@dataclass(frozen=True)
class Connection:
    """An address with what this machine proves itself by there; None: plain, on loopback."""

    address: Address
    certificates: Certificates | None

    def security(self) -> Security:
        """For Dask: mutual TLS, or plain connections on loopback."""
        from distributed.security import Security

        held = self.certificates
        if held is None:
            return Security(require_encryption=False)
        roles = {
            f"tls_{role}_{kind}": value
            for role in ("client", "scheduler", "worker")
            for kind, value in (("cert", held.certificate), ("key", held.key))
        }
        return Security(
            require_encryption=True,
            tls_ca_file=held.authority,
            tls_min_version=ssl.TLSVersion.TLSv1_3,  # both ends are this program
            tls_ciphers=None,  # whatever a user's own settings of Dask say
            tls_max_version=None,
            **roles,
        )


def connection_of(address: str, certificates: str, *, plain: bool = False) -> Connection:
    """What was given on the command line, checked.

    Raises:
        SettingsError: the address, a certificate, or the extra ``cluster`` is missing.
    """
    found = Address.parse(address, plain=plain)
    require_dask()
    if plain:
        return Connection(found, None)
    held = Certificates(certificates)
    note = held.check()
    if note is not None:
        _LOG.warning("%s", note)
    return Connection(found, held)


def require_dask() -> None:
    """
    Raises:
        SettingsError: the extra ``cluster`` is missing.
    """
    show_tornado()
    try:
        import distributed  # noqa: F401 - whether it is there
    except ImportError as error:
        raise SettingsError(
            "A cluster needs the package distributed.",
            code="extra_missing",
            remedy=f"Run: {extra_command('cluster')}",
        ) from error


@contextmanager
def running_dask(scratch: Scratch = Scratch()) -> Iterator[str]:  # noqa: B008 - frozen
    """Within it, Dask has our settings, logs through us, and keeps its files where it says.

    Raises:
        SourceError: ``no_scratch_space``.
    """
    import dask

    with (
        tempfile.TemporaryDirectory(prefix="rubix-cluster-", dir=scratch.choose()) as directory,
        dask.config.set({**SAFE, "temporary-directory": directory}),
        _through_our_log(),
    ):
        yield directory


def root_of(error: BaseException) -> BaseException:
    """What happened first: Dask wraps it in errors of its own."""
    while error.__cause__ is not None:
        error = error.__cause__
    return error


class _Forward(logging.Handler):
    """Dask's lines, in our log.

    What it calls an error is handled here, and said in a sentence of our own; but who was
    refused at the door, only the scheduler knows.
    """

    def emit(self, record: logging.LogRecord) -> None:
        text = record.getMessage().partition("\n")[0]
        warns = record.levelno >= logging.CRITICAL or "handshake failed" in text
        if text:
            _LOG.log(logging.WARNING if warns else logging.DEBUG, "Dask: %s", text)


@contextmanager
def _through_our_log() -> Iterator[None]:
    """Its loggers have handlers and levels of their own since it was imported."""
    import distributed  # noqa: F401 - sets them

    named = ("distributed", "distributed.client", "distributed.gc", "tornado", "asyncio")
    forward = _Forward()
    before = {}
    for name in named:
        logger = logging.getLogger(name)
        before[name] = (logger.handlers[:], logger.level, logger.propagate)
        logger.handlers[:] = [forward]
        logger.setLevel(logging.INFO)
        logger.propagate = False
    try:
        yield
    finally:
        for name, (handlers, level, propagate) in before.items():
            logger = logging.getLogger(name)
            logger.handlers[:], logger.propagate = handlers, propagate
            logger.setLevel(level)
