"""Ways of getting content: one module each, and an entry here.

A way's module has a function `open_reader` with the signature of `OpenReader`.  Nothing
else knows which ways there are.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Final, Protocol, cast

if TYPE_CHECKING:
    from rubix_token_sync.ipfs.content import ContentReader, Failure
    from rubix_token_sync.ipfs.options import ContentOptions
    from rubix_token_sync.ipfs.repository import Repository

__all__ = ["REGISTRY", "WAYS", "OpenReader", "opener"]

REGISTRY: Final = {
    "blockstore": "rubix_token_sync.ipfs.readers.blockstore",
    "daemon": "rubix_token_sync.ipfs.readers.daemon",
    "gateway": "rubix_token_sync.ipfs.readers.gateway",
    "program": "rubix_token_sync.ipfs.readers.program",
}
"""The module of each way, in the order in which they are asked."""

WAYS: Final = tuple(REGISTRY)
"""The names of all ways, in that order."""


class OpenReader(Protocol):
    """Opens one way for one node; None where it has nothing to offer there.

    Raises:
        SettingsError: an option makes no sense.
    """

    def __call__(
        self, path: str | None, repository: Repository | Failure, options: ContentOptions
    ) -> ContentReader | None:
        """``path`` is that of the node's repository, None when it has none."""


def opener(way: str) -> OpenReader:
    """The function that opens a way, by its name; its module is loaded now."""
    return cast(OpenReader, import_module(REGISTRY[way]).open_reader)
