"""Content from trustless gateways: raw blocks, proven here, from whoever has them.

https://specs.ipfs.tech/http-gateways/trustless-gateway/: ``GET /ipfs/CID`` with
both ``?format=raw`` and ``Accept: application/vnd.ipld.raw``, for servers differ
in which they heed.  A gateway is believed nothing: whatever does not have the
id's hash counts as a fault of the gateway, and redirects are not followed.
"""

from __future__ import annotations

import http.client
import threading
import time
from collections.abc import Sequence
from typing import Final

from rubix_token_sync.errors import SettingsError
from rubix_token_sync.ipfs.blocks import DAMAGED, block_failure, content_of
from rubix_token_sync.ipfs.cid import Cid
from rubix_token_sync.ipfs.content import Failure, FailureCode
from rubix_token_sync.ipfs.http.breaker import breaker_of
from rubix_token_sync.ipfs.http.client import Address, Endpoint, parse_url
from rubix_token_sync.ipfs.http.retry import (
    LONGEST_PAUSE_S,
    Askers,
    PassingError,
    Persistence,
    retry_after,
)
from rubix_token_sync.ipfs.options import ContentOptions
from rubix_token_sync.ipfs.repository import Repository

__all__ = ["PER_GATEWAY", "GatewayReader", "open_reader"]

PER_GATEWAY: Final = 16
"""Requests at once to one gateway, at most."""

_HEADERS: Final = {"Accept": "application/vnd.ipld.raw", "User-Agent": "rubix-token-sync"}
_ABSENT = Failure(
    FailureCode.NOT_IN_REPOSITORY, "neither the node's repository nor any gateway holds it"
)
_DEFAULT_PAUSE_S: Final = 1.0


def open_reader(
    path: str | None, repository: Repository | Failure, options: ContentOptions
) -> GatewayReader | None:
    """The way for one node; None unless the network and gateways are allowed."""
    del path, repository  # a gateway serves every node
    if not (options.network and options.gateways):
        return None
    return GatewayReader(
        options.gateways,
        workers=options.workers,
        timeout_s=options.timeout_s,
        attempts=options.attempts,
    )


class GatewayReader:
    """Asks configured gateways, the healthiest first; see `ContentReader`."""

    name = "gateway"

    def __init__(
        self, urls: Sequence[str], *, workers: int, timeout_s: float, attempts: int
    ) -> None:
        """Raises `SettingsError` for what is not a plain http or https URL."""
        self._gateways = [_Gateway(_address(url), workers, timeout_s) for url in urls]
        self._persistence = Persistence(attempts)
        self._askers = Askers(workers)

    def read(self, cids: Sequence[Cid]) -> list[bytes | Failure]:
        """Verified content or a failure for each CID."""
        return self._askers.map(self._content, cids)

    def blocks(self, cids: Sequence[Cid]) -> list[bytes | Failure]:
        """Verified blocks or a failure for each CID."""
        return self._askers.map(self._block, cids)

    def close(self) -> None:
        self._askers.close()
        for gateway in self._gateways:
            gateway.endpoint.close()

    def _content(self, cid: Cid) -> bytes | Failure:
        return content_of(cid, self._block)

    def _block(self, cid: Cid) -> bytes | Failure:
        return self._persistence.block(self._round, cid)

    def _round(self, cid: Cid) -> bytes | Failure:
        """Ask all gateways, one after the other, until one has it.

        Raises `PassingError` when none had it but one of them may have it later.
        """
        passing: list[PassingError] = []
        failed: list[Failure] = []
        for gateway in sorted(self._gateways, key=_Gateway.rank):
            try:
                block = gateway.block(cid)
            except PassingError as error:
                passing.append(error)
                continue
            if isinstance(block, bytes) or block.final:
                return block
            failed.append(block)
        if passing:
            raise min(passing, key=lambda error: error.pause_s or 0.0)
        telling = [failure for failure in failed if failure is not _ABSENT]
        return telling[0] if telling else _ABSENT


class _Gateway:
    """One gateway: its connections and how well it does."""

    def __init__(self, address: Address, workers: int, timeout_s: float) -> None:
        at_once = min(workers, PER_GATEWAY)
        self.endpoint = Endpoint(address, keep=at_once)
        self._name = f"the gateway {address.host}"
        self._timeout_s = timeout_s
        self._breaker = breaker_of(str(address))
        self._slots = threading.BoundedSemaphore(at_once)
        self._busy = 0
        self._latency_s = 0.0
        self._faults = 0.0
        self._paused_until = 0.0

    def rank(self) -> tuple[bool, float, float]:
        """Smaller is better: open breakers last, then by faults, then by speed and load."""
        resting = self._breaker.open or self._paused_until > time.monotonic()
        return resting, round(self._faults, 1), self._latency_s * (1 + self._busy)

    def block(self, cid: Cid) -> bytes | Failure:
        """One attempt at one block; raises `PassingError` for what may change."""
        pause_s = self._paused_until - time.monotonic()
        if pause_s > 0:
            return self._wait(pause_s)
        kept_back = self._breaker.check()
        if kept_back is not None:
            return kept_back
        with self._slots:
            self._busy += 1
            started = time.monotonic()
            try:
                return self._ask(cid)
            finally:
                self._busy -= 1
                self._latency_s += (time.monotonic() - started - self._latency_s) / 8

    def _ask(self, cid: Cid) -> bytes | Failure:
        try:
            answer = self.endpoint.exchange(
                "GET", f"/ipfs/{cid.text}?format=raw", _HEADERS, self._timeout_s
            )
        except TimeoutError:
            return self._passing(
                Failure(FailureCode.TIMED_OUT, f"{self._name} did not answer in time")
            )
        except OSError:
            return self._passing(self._says("cannot be reached"))
        except http.client.HTTPException:
            return self._passing(self._says("broke off its answer"))
        status = answer.status
        if status == 200:
            problem = block_failure(cid, answer.body) if answer.complete else DAMAGED
            if problem is None or problem.final:
                self._breaker.succeeded()
                self._faults *= 0.9
                return problem or answer.body
            return self._fault(self._says("sent something else than the block"), at_once=True)
        if status in (404, 410):
            self._breaker.succeeded()
            return _ABSENT
        if status == 504:  # its own search took too long; that says nothing of its health
            self._breaker.succeeded()
            raise PassingError(
                Failure(FailureCode.TIMED_OUT, f"{self._name} did not find it in time")
            )
        if status in (429, 503):
            asked_s = retry_after(answer.headers.get("Retry-After"))
            if asked_s is not None or status == 429:
                self._breaker.succeeded()
                pause_s = _DEFAULT_PAUSE_S if asked_s is None else asked_s
                self._paused_until = time.monotonic() + pause_s
                self._faults += 0.1
                return self._wait(pause_s)
        if status >= 500:
            return self._passing(self._says(f"answered with an error (HTTP {status})"))
        return self._fault(self._says(f"refused (HTTP {status})"), at_once=False)

    def _says(self, what: str) -> Failure:
        return Failure(FailureCode.GATEWAY_FAILED, f"{self._name} {what}")

    def _passing(self, failure: Failure) -> Failure:
        """Count it; raise `PassingError` unless that opened the breaker."""
        self._fault(failure, at_once=False)
        if self._breaker.open:
            return failure
        raise PassingError(failure)

    def _fault(self, failure: Failure, *, at_once: bool) -> Failure:
        self._faults = self._faults * 0.9 + 1
        self._breaker.failed(failure, at_once=at_once)
        return failure

    def _wait(self, pause_s: float) -> Failure:
        failure = self._says("asks to be left alone")
        if pause_s <= LONGEST_PAUSE_S:
            raise PassingError(failure, pause_s)
        return failure  # nobody waits that long for one token


def _address(url: str) -> Address:
    address = parse_url(url)
    if address is None:
        raise SettingsError(
            "One of the gateways is not a plain http or https URL.",
            code="gateway_url",
            remedy="Write gateways as https://HOST or https://HOST/PATH, without query.",
        )
    return address
