"""Content from a node's own daemon, by Kubo's RPC API.

A running daemon writes its API's address to ``<repo>/api``; after a crash the
file is stale, so whatever it says is only tried.  Blocks are asked for
(``/api/v0/block/get``), never files, so that every byte can be proven.  Unless
the network is allowed the daemon is asked to look in its own repository only
(``offline=true``), and only an address on this machine is used: the file
is the node owner's to write.
"""

from __future__ import annotations

import base64
import http.client
import json
from collections.abc import Callable, Sequence
from typing import Final

from pydantic import SecretStr

from rubix_token_sync.errors import SourceError
from rubix_token_sync.ipfs.blocks import BLOCK_TOO_LARGE, block_failure, content_of
from rubix_token_sync.ipfs.cid import Cid
from rubix_token_sync.ipfs.content import Failure, FailureCode
from rubix_token_sync.ipfs.http.breaker import breaker_of
from rubix_token_sync.ipfs.http.client import Address, Answer, Endpoint, parse_multiaddr
from rubix_token_sync.ipfs.http.retry import Askers, PassingError, Persistence
from rubix_token_sync.ipfs.options import ContentOptions
from rubix_token_sync.ipfs.repository import (
    NO_REPOSITORY,
    Repository,
    failure_of,
    is_directory,
    known_stall,
    note_stall,
)
from rubix_token_sync.ipfs.repository_files import MalformedFileError, authorizations, read_api

__all__ = [
    "BLOCK_GET",
    "DaemonReader",
    "authorization_header",
    "configured_authorization",
    "open_reader",
]

BLOCK_GET: Final = "/api/v0/block/get"

_GRACE_S: Final = 2.0  # so that the daemon's own time limit ends an attempt before ours
_NOT_RUNNING = Failure(FailureCode.DAEMON_NOT_RUNNING, "the node's daemon is not running")
_STALE = Failure(
    FailureCode.DAEMON_NOT_RUNNING,
    "the node's daemon is not running (nothing answers at the address in the file api)",
)
_NOT_HERE = Failure(FailureCode.NOT_IN_REPOSITORY, "the node's daemon does not hold it")
_NOT_FOUND = Failure(FailureCode.TIMED_OUT, "the node's daemon did not find it in the network")
_TIMED_OUT = Failure(FailureCode.TIMED_OUT, "the node's daemon did not answer in time")
_BROKEN = Failure(FailureCode.DAEMON_REFUSED, "the node's daemon broke off its answer")
_DENIED = Failure(
    FailureCode.DAEMON_REFUSED,
    "the node's daemon demands an authorization (API.Authorizations); set ipfs_api_token",
)
_NO_RIGHT = Failure(
    FailureCode.DAEMON_REFUSED,
    "this user may not use the socket of the node's daemon; run as its owner or as root",
)
_ELSEWHERE = Failure(
    FailureCode.DAEMON_REFUSED,
    "the address in the repository's file api is not on this machine; "
    "it is asked only when the network is allowed",
)
_UNKNOWN_ADDRESS = Failure(
    FailureCode.DAEMON_REFUSED, "the address in the repository's file api is of an unknown kind"
)


def open_reader(
    path: str | None, repository: Repository | Failure, options: ContentOptions
) -> DaemonReader:
    """The way for one node: its own daemon, wherever that answers."""
    del repository  # a daemon serves what this user may not read
    return DaemonReader(
        path,
        workers=options.workers,
        timeout_s=options.timeout_s,
        attempts=options.attempts,
        network=options.network,
        authorization=options.daemon_authorization,
    )


class DaemonReader:
    """Asks the daemon that holds one repository; see `ContentReader`."""

    name = "daemon"

    def __init__(
        self,
        repository: str | None,
        *,
        workers: int,
        timeout_s: float,
        attempts: int,
        network: bool = False,
        authorization: SecretStr | None = None,
    ) -> None:
        self._repository = repository
        self._workers = workers
        self._timeout_s = timeout_s
        self._network = network
        self._authorization = authorization
        self._persistence = Persistence(attempts)
        self._askers = Askers(workers)
        self._multiaddr = ""
        self._endpoint: Endpoint | None = None
        limit = f"&timeout={timeout_s:g}s" if network else "&offline=true"
        self._target = f"{BLOCK_GET}?arg=%s{limit}"

    def read(self, cids: Sequence[Cid]) -> list[bytes | Failure]:
        """Verified content or a failure for each CID; 0.4 ms a token and processor."""
        return self._map(self._content, cids)

    def blocks(self, cids: Sequence[Cid]) -> list[bytes | Failure]:
        """Verified blocks or a failure for each CID."""
        return self._map(self._block, cids)

    def close(self) -> None:
        self._askers.close()
        if self._endpoint is not None:
            self._endpoint.close()
            self._endpoint = None

    def _map(
        self, ask: Callable[[Cid], bytes | Failure], cids: Sequence[Cid]
    ) -> list[bytes | Failure]:
        failure = self._locate() or self._breaker.resting()
        if failure is not None:
            return [failure] * len(cids)
        return self._askers.map(ask, cids)

    def _content(self, cid: Cid) -> bytes | Failure:
        return content_of(cid, self._block)

    def _block(self, cid: Cid) -> bytes | Failure:
        return self._persistence.block(self._attempt, cid)

    def _locate(self) -> Failure | None:
        """Find the endpoint; anew for each batch, for a daemon may come, go and move."""
        if self._repository is None:
            return NO_REPOSITORY
        stalled = known_stall(self._repository)
        if stalled is not None:
            return stalled
        try:
            text = read_api(self._repository)
        except SourceError as error:
            return note_stall(self._repository, error)
        except (PermissionError, NotADirectoryError) as error:
            return failure_of(error, self._repository)
        except OSError:
            return _NOT_RUNNING if is_directory(self._repository) else NO_REPOSITORY
        if self._endpoint is not None and text == self._multiaddr:
            return None
        address = parse_multiaddr(text)
        if address is None:
            return _UNKNOWN_ADDRESS
        local = address.local
        if not local and not self._network:
            return _ELSEWHERE
        if local:  # a secret goes to no other machine, whatever the file says
            address = self._authorized(address)
        if self._endpoint is not None:
            self._endpoint.close()
        self._endpoint = Endpoint(address, keep=self._workers)
        self._breaker = breaker_of(f"{self._repository} {address}")
        self._multiaddr = text
        return None

    def _authorized(self, address: Address) -> Address:
        if self._authorization is not None:
            header = authorization_header(self._authorization.get_secret_value())
        else:
            header = configured_authorization(self._repository or "")
        return Address(address.scheme, address.host, address.port, address.prefix, header)

    def _attempt(self, cid: Cid) -> bytes | Failure:
        kept_back = self._breaker.check()
        if kept_back is not None:
            return kept_back
        assert self._endpoint is not None
        timeout_s = self._timeout_s + (_GRACE_S if self._network else 0)
        try:
            answer = self._endpoint.exchange("POST", self._target % cid.text, {}, timeout_s)
        except TimeoutError:
            return self._failed(_TIMED_OUT)
        except PermissionError:
            return self._failed(_NO_RIGHT, at_once=True)
        except ConnectionRefusedError:
            # On this machine that means that nobody listens, and no pause changes it.
            return self._failed(_STALE, at_once=self._endpoint.address.local)
        except OSError:
            return self._failed(_STALE)
        except http.client.HTTPException:
            return self._failed(_BROKEN)
        return self._understood(cid, answer)

    def _understood(self, cid: Cid, answer: Answer) -> bytes | Failure:
        if answer.status == 200:
            self._breaker.succeeded()
            if not answer.complete:
                return BLOCK_TOO_LARGE
            return block_failure(cid, answer.body) or answer.body
        if answer.status in (401, 403):
            return self._failed(_DENIED, at_once=True)
        if answer.status < 500:
            refused = Failure(
                FailureCode.DAEMON_REFUSED,
                f"what answers at the daemon's address is not a Kubo daemon (HTTP {answer.status})",
            )
            self._breaker.failed(refused, at_once=answer.status != 400)
            return refused
        message = _message(answer.body)
        if "not found" in message or "could not find" in message:
            self._breaker.succeeded()
            return _NOT_HERE
        if "deadline exceeded" in message or "timed out" in message:
            # The daemon is well; it just has not found this one in time.
            self._breaker.succeeded()
            raise PassingError(_NOT_FOUND)
        return self._failed(
            Failure(
                FailureCode.DAEMON_REFUSED,
                f"the node's daemon answered with an error (HTTP {answer.status})",
            )
        )

    def _failed(self, failure: Failure, *, at_once: bool = False) -> Failure:
        """Count it; raise `PassingError` unless that opened the breaker."""
        self._breaker.failed(failure, at_once=at_once)
        if self._breaker.open:
            return failure
        raise PassingError(failure)


def authorization_header(secret: str) -> str:
    """The header's value for a secret in Kubo's notation, or as it is.

    Kubo (``API.Authorizations.*.AuthSecret``): ``bearer:TOKEN``,
    ``basic:USER:PASSWORD`` or ``basic:BASE64``.
    """
    kind, colon, rest = secret.strip().partition(":")
    if colon and kind.lower() == "bearer":
        header = f"Bearer {rest}"
    elif colon and kind.lower() == "basic":
        pair = base64.b64encode(rest.encode()).decode() if ":" in rest else rest
        header = f"Basic {pair}"
    else:
        header = secret.strip()
    return header if header.isprintable() and header.isascii() else ""


def configured_authorization(repository: str) -> str:
    """The header that the repository's own ``config`` lets in to `BLOCK_GET`; '' for none."""
    try:
        # Its owner's secret goes to its owner's daemon, never another's by way of a link.
        for secret, paths in authorizations(repository):
            if any(BLOCK_GET.startswith(path) for path in paths):
                return authorization_header(secret)
    except (OSError, MalformedFileError):
        # Then none is demanded, or the daemon will say so.
        return ""
    return ""


def _message(body: bytes) -> str:
    try:
        return str(json.loads(body)["Message"]).lower()
    except (ValueError, KeyError, TypeError, RecursionError):
        return ""
