"""A node's content and repository, within bounded time, as workers ask for them."""

from __future__ import annotations

from rubix_token_sync.ipfs.fetch import ContentChain, ContentOptions, open_chain
from rubix_token_sync.ipfs.repository import repository_fingerprint

__all__ = ["fingerprint_patiently", "open_patiently"]


def fingerprint_patiently(repository: str | None) -> str | None:
    """`repository_fingerprint`, None where there is no repository.

    Raises:
        SourceError: ``stalled``.
    """
    return repository_fingerprint(repository) if repository else None


def open_patiently(repository: str | None, options: ContentOptions) -> ContentChain:
    """`open_chain`, which bounds whatever it reads."""
    return open_chain(repository, options)
