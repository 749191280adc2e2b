"""Certificates of a cluster: one authority, and one certificate for each of its machines.

Dask's peers prove themselves to each other by mutual TLS: only holders of a certificate of the
authority can connect.  `make_certificates` writes

    DIR/authority/key.pem             stays where it was made; signs certificates of new machines
    DIR/NAME/authority.pem            what NAME checks others by
    DIR/NAME/certificate.pem, key.pem what NAME proves itself by

Each DIR/NAME goes to its machine as one directory.  Keys are P-256, files have mode 600.
"""

from __future__ import annotations

import errno
import os
import re
import ssl
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Final

from rubix_token_sync.errors import SettingsError
from rubix_token_sync.nodes.keep_out import keep_out

if TYPE_CHECKING:
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
    from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
    from cryptography.hazmat.primitives.hashes import SHA256

__all__ = ["AUTHORITY", "Certificates", "MadeCertificate", "make_certificates"]

AUTHORITY: Final = "authority"
_AUTHORITY_FILE: Final = "authority.pem"
_CERTIFICATE_FILE: Final = "certificate.pem"
_KEY_FILE: Final = "key.pem"

_AUTHORITY_DAYS: Final = 3650
_EARLIER: Final = timedelta(days=1)
"""Certificates are valid from a day before they were made: clocks of machines differ."""
_EXPIRES_SOON: Final = timedelta(days=30)
_LARGEST_FILE: Final = 2**16
_NAME: Final = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,62}[A-Za-z0-9])?")


@dataclass(frozen=True)
class MadeCertificate:
    """One machine's certificate, as it was written."""

    name: str
    directory: str
    expires_at: datetime
    """UTC, without a zone."""


def make_certificates(
    directory: str | os.PathLike[str],
    names: Sequence[str],
    *,
    days: int = 825,
    renew: bool = False,
) -> list[MadeCertificate]:
    """Write a certificate for each of ``names`` below ``directory``, and the authority once.

    ``renew`` replaces certificates that exist; else they are an error, so that none is lost.

    Raises:
        SettingsError: a name cannot be one, a certificate exists, or nothing can be written.
    """
    top = Path(directory)
    wrong = [name for name in names if not _NAME.fullmatch(name) or name == AUTHORITY]
    if wrong:
        raise SettingsError(
            f"{', '.join(map(repr, wrong))} cannot be the name of a machine's certificate.",
            code="bad_certificate_name",
            remedy="Use letters, digits, dots and hyphens, and not the name 'authority'.",
        )
    for place in (top, *(top / name for name in names)):  # a link may lead into a node
        keep_out(place, "The certificates")
    files = (_CERTIFICATE_FILE, _KEY_FILE)
    there = [name for name in names if any(os.path.lexists(top / name / file) for file in files)]
    if there and not renew:
        raise SettingsError(
            f"{', '.join(there)}: a certificate or its key exists already in {top}.",
            code="certificate_exists",
            remedy="Leave the name out, or replace the certificate by --renew.",
        )
    try:
        key, certificate = _authority(top / AUTHORITY)
        return [_issue(top / name, name, key, certificate, days) for name in dict.fromkeys(names)]
    except OSError as error:
        raise SettingsError(
            f"The certificates cannot be written to {top}: {error.strerror or error}.",
            code="certificate_unwritable",
            remedy="Choose another directory, or run as the user that owns it.",
        ) from error


@dataclass(frozen=True)
class Certificates:
    """The directory of one machine: who it is, and whom it believes."""

    directory: str

    @property
    def authority(self) -> str:
        """File of the authority's certificate."""
        return os.path.join(self.directory, _AUTHORITY_FILE)

    @property
    def certificate(self) -> str:
        """File of the machine's own certificate."""
        return os.path.join(self.directory, _CERTIFICATE_FILE)

    @property
    def key(self) -> str:
        """File of its private key."""
        return os.path.join(self.directory, _KEY_FILE)

    def check(self, now: datetime | None = None) -> str | None:
        """A sentence that somebody should see, where the certificate expires soon.

        Raises:
            SettingsError: a file is missing, open to others, damaged or expired.
        """
        from cryptography import x509

        held = {file: self._read(file) for file in (self.authority, self.certificate, self.key)}
        self._check_mode()
        try:
            _load_key(held[self.key])  # OpenSSL would ask the terminal for a passphrase
            ssl.create_default_context(cafile=self.authority).load_cert_chain(
                self.certificate, self.key
            )
            own = x509.load_pem_x509_certificate(held[self.certificate])
        except (ssl.SSLError, ValueError, OSError) as error:
            raise SettingsError(
                f"The certificate in {self.directory} cannot be used: {_said(error)}.",
                code="certificate_unusable",
                remedy="Copy the whole directory again from where it was made.",
            ) from error
        moment = now or datetime.now(UTC)
        if moment > own.not_valid_after_utc:
            raise SettingsError(
                f"The certificate in {self.directory} expired on "
                f"{own.not_valid_after_utc:%Y-%m-%d}.",
                code="certificate_expired",
                remedy="Make a new one by `rubix-token-sync cluster certs --renew`, and copy it "
                "here; if it is not that old, set this machine's clock.",
            )
        if moment < own.not_valid_before_utc:
            raise SettingsError(
                f"The certificate in {self.directory} is valid only from "
                f"{own.not_valid_before_utc:%Y-%m-%d %H:%M} UTC on; here it is "
                f"{moment:%Y-%m-%d %H:%M} UTC.",
                code="certificate_not_yet_valid",
                remedy="Set this machine's clock.",
            )
        if moment > own.not_valid_after_utc - _EXPIRES_SOON:
            return (
                f"The certificate in {self.directory} expires on "
                f"{own.not_valid_after_utc:%Y-%m-%d}: `rubix-token-sync cluster certs --renew`."
            )
        return None

    def _read(self, file: str) -> bytes:
        try:
            return _read_file(file)
        except (FileNotFoundError, NotADirectoryError) as error:
            raise SettingsError(
                f"{file} is missing: this machine has no certificate of the cluster.",
                code="certificate_missing",
                remedy="Make one by `rubix-token-sync cluster certs`, copy its directory "
                "here, and name it by --certs.",
            ) from error
        except OSError as error:
            raise SettingsError(
                f"The certificate in {self.directory} cannot be used: {_said(error)}.",
                code="certificate_unusable",
                remedy="Let the user that runs this own the directory, and copy it again from "
                "where it was made where that is not enough.",
            ) from error

    def _check_mode(self) -> None:
        mode = stat.S_IMODE(os.stat(self.key).st_mode)
        if mode & 0o077:
            raise SettingsError(
                f"Others may read the private key {self.key} (mode {mode:o}).",
                code="certificate_key_insecure",
                remedy=f"Run: chmod 600 {self.key}",
            )


def _read_file(path: str | os.PathLike[str]) -> bytes:
    """A small, regular file; a pipe or a device is not waited for.

    Raises:
        OSError: it cannot be read, or it is not such a file.
    """
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise OSError(errno.EINVAL, "Not a regular file", os.fspath(path))
    with os.fdopen(handle, "rb") as file:
        data = file.read(_LARGEST_FILE + 1)
    if len(data) > _LARGEST_FILE:
        raise OSError(errno.EFBIG, "Too large for a certificate or a key", os.fspath(path))
    return data


def _load_key(data: bytes) -> PrivateKeyTypes:
    """
    Raises:
        ValueError: it is not a key, or a passphrase protects it.
    """
    from cryptography.hazmat.primitives import serialization

    try:
        key = serialization.load_pem_private_key(data, None)
    except TypeError as error:
        raise ValueError("a passphrase protects its key") from error
    except ValueError as error:
        raise ValueError("its key is damaged") from error
    return key


def _said(error: Exception) -> str:
    if isinstance(error, OSError) and not isinstance(error, ssl.SSLError):
        name = os.path.basename(os.fsdecode(error.filename or ""))
        return f"{name}: {error.strerror}" if name else error.strerror or str(error)
    return str(getattr(error, "reason", "") or error).rstrip(".")


def _authority(place: Path) -> tuple[EllipticCurvePrivateKey, x509.Certificate]:
    """The authority of this directory; made where there is none."""
    from cryptography import x509
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    if any(os.path.lexists(place / file) for file in (_KEY_FILE, _AUTHORITY_FILE)):
        # Where one of the two is missing, another authority in its place would split the cluster.
        try:
            key = _load_key(_read_file(place / _KEY_FILE))
            certificate = x509.load_pem_x509_certificate(_read_file(place / _AUTHORITY_FILE))
        except (ValueError, OSError) as error:
            raise _damaged(place, _said(error)) from error
        if not isinstance(key, ec.EllipticCurvePrivateKey):
            raise _damaged(place, "its key is of another kind")
        if certificate.public_key() != key.public_key():
            raise _damaged(place, "its key is another one's")
        if certificate.not_valid_after_utc <= datetime.now(UTC):
            raise _damaged(place, "it has expired")
        return key, certificate
    key = ec.generate_private_key(ec.SECP256R1())
    now = datetime.now(UTC)
    name = _name(f"rubix-token-sync cluster {now:%Y-%m-%d %H:%M:%S}")
    certificate = (
        _builder(name, name, key, now, now + timedelta(days=_AUTHORITY_DAYS))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs_certificates=True), critical=True)
        .sign(key, _digest())
    )
    _directory(place)
    _write(place / _KEY_FILE, _pem(key))
    _write(place / _AUTHORITY_FILE, certificate.public_bytes(serialization.Encoding.PEM))
    return key, certificate


def _damaged(place: Path, why: str) -> SettingsError:
    return SettingsError(
        f"The authority in {place} cannot be used: {why}.",
        code="certificate_unusable",
        remedy="Bring key.pem and authority.pem back to that directory (from a backup, or from "
        "where they are kept offline), or begin again in an empty one: all machines then need "
        "new certificates.",
    )


def _issue(
    place: Path,
    name: str,
    authority_key: EllipticCurvePrivateKey,
    authority: x509.Certificate,
    days: int,
) -> MadeCertificate:
    from cryptography import x509
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import ExtendedKeyUsageOID

    key = ec.generate_private_key(ec.SECP256R1())
    now = datetime.now(UTC)
    until = min(now + timedelta(days=days), authority.not_valid_after_utc)
    both = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
    certificate = (
        _builder(_name(name), authority.subject, key, now, until)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage(both), critical=False)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(authority_key.public_key()),
            critical=False,
        )
        .sign(authority_key, _digest())
    )
    _directory(place)
    encoding = serialization.Encoding.PEM
    _write(place / _AUTHORITY_FILE, authority.public_bytes(encoding))
    _write(place / _KEY_FILE, _pem(key))
    _write(place / _CERTIFICATE_FILE, certificate.public_bytes(encoding))
    return MadeCertificate(name, str(place), certificate.not_valid_after_utc.replace(tzinfo=None))


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    key: EllipticCurvePrivateKey,
    now: datetime,
    until: datetime,
) -> x509.CertificateBuilder:
    from cryptography import x509

    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _EARLIER)
        .not_valid_after(until)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )


def _name(text: str) -> x509.Name:
    from cryptography import x509
    from cryptography.x509.oid import NameOID

    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    from cryptography import x509

    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _digest() -> SHA256:
    from cryptography.hazmat.primitives import hashes

    return hashes.SHA256()


def _pem(key: EllipticCurvePrivateKey) -> bytes:
    from cryptography.hazmat.primitives import serialization

    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


def _directory(place: Path) -> None:
    place.mkdir(mode=0o700, parents=True, exist_ok=True)


def _write(path: Path, data: bytes) -> None:
    """The whole file or none of it, readable by its owner only."""
    fresh = path.with_name(f".{path.name}.new")
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        os.fchmod(descriptor, 0o600)
        file.write(data)
        file.flush()
        os.fsync(descriptor)
    fresh.replace(path)
