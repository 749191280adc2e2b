"""Time stamps (RFC 3161): a third party says that a checkpoint existed at a moment.

Stamped is the file `checkpoint`, which holds the signature as well as its text: what an
authority has stamped was signed before that.  The request is kept beside the answer, because
it holds the nonce.  ASN.1, CMS and certificates are read by the package rfc3161-client (the
extra ``timestamps``), which stands on cryptography and OpenSSL.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import TYPE_CHECKING, Any, Final

from rubix_token_sync.errors import EvidenceRefused, SettingsError
from rubix_token_sync.evidence.directory import refused
from rubix_token_sync.installation import extra_command

if TYPE_CHECKING:
    from cryptography.x509 import Certificate

__all__ = ["Stamp", "certificates_in", "check_stamp", "request_for", "require_library"]

_SHA256: Final = "2.16.840.1.101.3.4.2.1"
_CLOCKS: Final = timedelta(minutes=5)
"""The target's clock may be ahead of the authority's by this much."""
_GRANTED: Final = 0


@dataclass(frozen=True)
class Stamp:
    """What an authority says of a checkpoint."""

    at: str
    """When it existed, by the authority's clock; UTC, RFC 3339."""
    authority: str
    """The name in the certificate that it is signed with (RFC 4514)."""
    serial: str
    policy: str
    """The authority's policy, an object identifier."""
    trusted: bool
    """Signature and certificates were checked, up to one of those that the caller named."""


def require_library() -> None:
    """
    Raises:
        SettingsError: the extra ``timestamps`` is not installed.
    """
    try:
        import rfc3161_client  # noqa: F401 - whether it is there
    except ImportError as error:
        raise SettingsError(
            "Time stamps need the package rfc3161-client.",
            code="extra_missing",
            remedy=f"Run: {extra_command('timestamps')}",
        ) from error


def certificates_in(data: bytes) -> list[Certificate]:
    """The certificates of a file in PEM, at least one.

    Raises:
        ValueError: it holds none, or something else.
    """
    from cryptography.x509 import load_pem_x509_certificates

    return load_pem_x509_certificates(data)


def request_for(checkpoint: bytes) -> bytes:
    """A request for a stamp of these bytes, by their SHA-256, with a nonce."""
    from rfc3161_client import HashAlgorithm, TimestampRequestBuilder

    builder = TimestampRequestBuilder().data(checkpoint).hash_algorithm(HashAlgorithm.SHA256)
    return builder.nonce(nonce=True).cert_request(cert_request=True).build().as_bytes()


def check_stamp(
    request: bytes,
    response: bytes,
    checkpoint: bytes,
    made_at: str,
    roots: Sequence[Certificate] = (),
) -> Stamp:
    """What the response says, which belongs to the request and the checkpoint.

    ``roots`` are the certificates that the caller trusts; without them the signature is not
    checked.  Those of the authority must have been valid when it stamped, not now.

    Raises:
        EvidenceRefused: it is not a stamp of this checkpoint, or not by a trusted authority.
    """
    from rfc3161_client import decode_timestamp_response
    from rfc3161_client._rust import parse_timestamp_request  # the package has no other name

    try:
        asked, answer = parse_timestamp_request(request), decode_timestamp_response(response)
        if answer.status != _GRANTED:
            raise _wrong(f"the authority did not grant it (status {answer.status}){_why(answer)}")
        info, nonce = answer.tst_info, asked.nonce
        wanted = (_SHA256, sha256(checkpoint).digest())
        for imprint in (asked.message_imprint, info.message_imprint):
            if (imprint.hash_algorithm.dotted_string, bytes(imprint.message)) != wanted:
                raise _wrong("it is of other bytes than this checkpoint")
        if nonce is None or info.nonce != nonce:
            raise _wrong("it does not answer the request that is kept with it (nonce)")
        at = info.gen_time.replace(tzinfo=info.gen_time.tzinfo or UTC).astimezone(UTC)
        stamp = Stamp(
            at.isoformat(timespec="microseconds").replace("+00:00", "Z"),
            _name(answer),
            str(info.serial_number),
            info.policy.dotted_string,
            trusted=bool(roots),
        )
        if roots:
            _check_signature(answer, checkpoint, nonce, roots)
    except EvidenceRefused:
        raise
    except Exception as error:  # parsers of hostile bytes raise what they like
        raise _wrong(f"it is malformed ({str(error)[:200] or type(error).__name__})") from error
    if at < datetime.fromisoformat(made_at) - _CLOCKS:
        raise _wrong(
            f"it is of {stamp.at}, when the target's clock had not yet come to {made_at}: one of "
            "the two clocks was wrong"
        )
    return stamp


def _check_signature(
    answer: Any, checkpoint: bytes, nonce: int, roots: Sequence[Certificate]
) -> None:
    """The authority's certificate, which is for stamping, and is issued below ``roots``."""
    from rfc3161_client import VerificationError, VerifierBuilder

    try:
        verifier = VerifierBuilder(roots=list(roots), nonce=nonce).build()
        verifier.verify_message(answer, checkpoint)
    except VerificationError as error:
        raise _wrong(
            f"it is not signed by an authority whose certificates you named: {error}"
        ) from error


def _name(answer: Any) -> str:
    """The subject of the certificate that signs; empty where the answer does not hold it."""
    from cryptography.x509 import load_der_x509_certificate

    signer = next(iter(answer.signed_data.signer_infos), None)
    for data in answer.signed_data.certificates:
        found = load_der_x509_certificate(bytes(data))
        if signer and (found.issuer, found.serial_number) == (signer.issuer, signer.serial_number):
            return found.subject.rfc4514_string()
    return ""


def _why(answer: Any) -> str:
    """What the authority says of a refusal."""
    texts = " ".join(map(str, answer.status_string))[:200]
    return f": {texts}" if texts else ""


def _wrong(why: str) -> Exception:
    return refused("evidence_timestamp", f"The time stamp cannot be relied on: {why}.")
