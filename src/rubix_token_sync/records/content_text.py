"""Content is stored as text, from which its bytes can be had again.

UTF-8 text stands as it is; anything else (not UTF-8, a NUL character, or text that itself
begins like this form) as a ``data:`` URL (RFC 2397): ``data:application/octet-stream;base64,…``.
"""

from __future__ import annotations

from base64 import b64decode, b64encode
from typing import Final

__all__ = ["CONTENT_MARKER", "decode_content", "encode_content", "is_text"]

CONTENT_MARKER: Final = "data:application/octet-stream;base64,"
"""What ``ipfs_data`` begins with when the content is not plain text."""

_MARKER: Final = CONTENT_MARKER.encode()


def encode_content(data: bytes) -> str:
    """``data`` as ``ipfs_data`` holds it."""
    if b"\0" not in data and not data.startswith(_MARKER):
        try:
            return data.decode()
        except UnicodeDecodeError:
            pass
    return CONTENT_MARKER + b64encode(data).decode()


def decode_content(text: str) -> bytes:
    """The bytes of a token from its ``ipfs_data``: the inverse of `encode_content`.

    Raises:
        ValueError: the text begins with the marker but is not what encoding gives.
    """
    if not text.startswith(CONTENT_MARKER):
        return text.encode()
    encoded = text[len(CONTENT_MARKER) :]
    data = b64decode(encoded, validate=True)
    if b64encode(data).decode() != encoded:
        raise ValueError("not the base64 of any bytes")
    return data


def is_text(content: bytes) -> bool:
    """Whether it is text of which no database makes less: UTF-8 without NUL."""
    if b"\0" in content:
        return False
    try:
        content.decode()
    except UnicodeDecodeError:
        return False
    return True
