"""A time-stamping authority of the tests' own: `openssl ts -reply` behind HTTP."""

from __future__ import annotations

import subprocess
import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from tests.ipfs.servers import Behaviour, Request

__all__ = ["REPLY", "StampingAuthority"]

REPLY = "application/timestamp-reply"
_CONFIGURATION = """\
[tsa]
default_tsa = it
[it]
serial = serial
signer_cert = tsa.pem
signer_key = tsa.key
signer_digest = sha256
default_policy = 1.2.3.4.1
digests = {digests}
accuracy = secs:1
ess_cert_id_alg = sha256
"""


class StampingAuthority:
    """Keys, certificates and answers; ``root`` is what those who trust it have."""

    def __init__(
        self, place: Path, name: str, *, days: int = 3650, digests: str = "sha256", more: str = ""
    ) -> None:
        self.place = place
        place.mkdir()
        root_key = ec.generate_private_key(ec.SECP256R1())
        root_name = _named(f"{name} root")
        root = _certificate(root_name, root_name, root_key, root_key, days, is_root=True)
        key = ec.generate_private_key(ec.SECP256R1())
        own = _certificate(_named(name), root_name, key, root_key, days, is_root=False)
        pem = serialization.Encoding.PEM
        self.root = place / "root.pem"
        self.root.write_bytes(root.public_bytes(pem))
        (place / "tsa.pem").write_bytes(own.public_bytes(pem))
        (place / "tsa.key").write_bytes(
            key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        )
        (place / "serial").write_text("01\n")
        (place / "openssl.cnf").write_text(_CONFIGURATION.format(digests=digests) + more)

    def reply(self, query: bytes) -> bytes:
        """Its answer to a request."""
        with tempfile.NamedTemporaryFile(dir=self.place) as file:
            file.write(query)
            file.flush()
            return subprocess.run(
                ["openssl", "ts", "-reply", "-config", "openssl.cnf", "-queryfile", file.name],
                cwd=self.place, capture_output=True, check=True, timeout=60,
            ).stdout  # fmt: skip

    @property
    def behaviour(self) -> Behaviour:
        """Of an HTTP server."""

        def behave(request: Request) -> None:
            assert request.headers["Content-Type"] == "application/timestamp-query"
            request.answer(200, self.reply(asked(request)), Content_Type=REPLY)

        return behave


def asked(request: Request) -> bytes:
    return request.rfile.read(int(request.headers["Content-Length"]))


def _named(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _certificate(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePrivateKey,
    signing: ec.EllipticCurvePrivateKey,
    days: int,
    *,
    is_root: bool,
) -> x509.Certificate:
    now = datetime.now(UTC)
    usage = dict.fromkeys(
        ("content_commitment", "key_encipherment", "data_encipherment", "key_agreement",
         "encipher_only", "decipher_only"), False,
    )  # fmt: skip
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=days))
        .add_extension(x509.BasicConstraints(ca=is_root, path_length=None), critical=True)
        .add_extension(
            x509.KeyUsage(
                digital_signature=not is_root, key_cert_sign=is_root, crl_sign=is_root, **usage
            ),
            critical=True,
        )
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(signing.public_key()),
            critical=False,
        )
    )
    if not is_root:
        builder = builder.add_extension(
            x509.ExtendedKeyUsage([ExtendedKeyUsageOID.TIME_STAMPING]), critical=True
        )
    return builder.sign(signing, hashes.SHA256())
