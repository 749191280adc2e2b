"""A running TDS server over an empty target, and stores that talk to it."""

from __future__ import annotations

import datetime
import ipaddress
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from rubix_token_sync.targets.base import TargetOptions
from rubix_token_sync.targets.registry import open_target, parse_target
from rubix_token_sync.targets.sql.target import SqlTarget

from .engine import SqliteEngine
from .server import TdsServer


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """Files of a self-signed certificate for 127.0.0.1 and of its key."""
    directory = tmp_path_factory.mktemp("certificate")
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    names = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=2))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .sign(key, hashes.SHA256())
    )
    certificate, private = directory / "certificate.pem", directory / "key.pem"
    certificate.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    private.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return str(certificate), str(private)


@pytest.fixture
def engine(tmp_path: Path) -> SqliteEngine:
    return SqliteEngine(tmp_path / "server.db")


@pytest.fixture
def server(engine: SqliteEngine, certificate: tuple[str, str]) -> Iterator[TdsServer]:
    with TdsServer(engine, *certificate) as running:
        yield running


@pytest.fixture
def address(server: TdsServer) -> str:
    """The connection string (ADO.NET) of the server, with its hostile password."""
    password = server.password.replace('"', '""')
    return (
        f"Server=tcp:127.0.0.1,{server.port};Initial Catalog=tokens;User ID={server.user};"
        f'Password="{password}";TrustServerCertificate=True;Connection Timeout=5'
    )


@pytest.fixture
def opened(address: str) -> Iterator[Callable[..., SqlTarget]]:
    """Opens stores on the server; their waits between attempts are short."""
    stores: list[SqlTarget] = []

    def open_it(**options: object) -> SqlTarget:
        given = {"call_seconds": 20.0, "wait_factor": 0.001, **options}
        stores.append(open_target(parse_target(address), TargetOptions(**given)))  # type: ignore[arg-type]
        return stores[-1]

    yield open_it
    for store in stores:
        store.close()


@pytest.fixture
def store(opened: Callable[..., SqlTarget]) -> SqlTarget:
    return opened()
