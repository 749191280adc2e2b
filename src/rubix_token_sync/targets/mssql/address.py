"""Connection strings of SQL Server and Azure SQL Database, read the way people write them.

Three forms are understood: ADO.NET (what the Azure portal and the guide print),
ODBC (`MS-ODBCSTR`: ``{…}`` quotes, ``}}`` stands for ``}``) and URLs
(``mssql://user:password@host:port/database?encrypt=yes``).  All become one
`MssqlTarget`, from which the driver's own string is built afresh, so that
nothing a user typed reaches the driver unparsed.

No error shows a value of the string; passwords leave this module only as
`pydantic.SecretStr` and inside the string for the driver.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Final, Literal, TypeVar

from pydantic import SecretStr

from rubix_token_sync.errors import SettingsError
from rubix_token_sync.targets.mssql.address_text import read_pairs, refuse

__all__ = ["MssqlTarget", "exists", "parse_connection_string", "secrets"]

Encryption = Literal["yes", "no", "strict"]
Value = TypeVar("Value")

DEFAULT_PORT: Final = 1433
DEFAULT_CONNECT_TIMEOUT_S: Final = 30
PACKET_BYTES: Final = 16_000
"""Twice as fast as the default of 4,096; with TLS the ODBC driver fails above some 16,350
("Packet size too large for SSL Encrypt/Decrypt operations")."""

_MEANING: Final = {
    "server": "server",
    "datasource": "server",
    "addr": "server",
    "address": "server",
    "networkaddress": "server",
    "database": "database",
    "initialcatalog": "database",
    "userid": "user",
    "uid": "user",
    "user": "user",
    "username": "user",
    "password": "password",
    "pwd": "password",
    "authentication": "authentication",
    "integratedsecurity": "trusted",
    "trustedconnection": "trusted",
    "encrypt": "encrypt",
    "trustservercertificate": "trust_server_certificate",
    "hostnameincertificate": "hostname_in_certificate",
    "servercertificate": "server_certificate",
    "serverspn": "server_spn",
    "connectiontimeout": "connect_timeout_s",
    "connecttimeout": "connect_timeout_s",
    "logintimeout": "connect_timeout_s",
    "timeout": "connect_timeout_s",
    "commandtimeout": "command_timeout_s",
    "packetsize": "packet_bytes",
    "multisubnetfailover": "multi_subnet_failover",
    "applicationintent": "application_intent",
    "ipaddresspreference": "ip_address_preference",
}
"""Keyword, in lower case and without blanks and underscores → what it means here."""

_HARMLESS: Final = frozenset(
    {
        "ansinpw", "app", "applicationname", "asynchronousprocessing", "autotranslate",
        "connectionlifetime", "connectionreset", "connectretrycount", "connectretryinterval",
        "contextconnection", "currentlanguage", "description", "driver", "enlist", "keepalive",
        "keepaliveinterval", "language", "loadbalancetimeout", "marsconnection", "maxpoolsize",
        "minpoolsize", "multipleactiveresultsets", "net", "network", "networklibrary",
        "persistsecurityinfo", "poolblockingperiod", "pooling", "quotedid", "regional",
        "replication", "transactionbinding", "transparentnetworkipresolution",
        "typesystemversion", "workstationid", "wsid",
    }
)  # fmt: skip
"""Keywords that change nothing for this program: it pools, names and retries by itself."""

_REFUSED: Final = {
    "dsn": "names a data source of this machine's ODBC settings",
    "filedsn": "names a file with ODBC settings",
    "failoverpartner": "is for database mirroring, which this program does not follow",
    "attachdbfilename": "attaches a database file, which is for a server on the same machine",
    "userinstance": "starts a private server, which is for a server on the same machine",
    "columnencryptionsetting": "is for encrypted columns, which this program does not use",
    "columnencryption": "is for encrypted columns, which this program does not use",
}

_AUTHENTICATION: Final = {
    "sqlpassword": None,
    "activedirectorymsi": "ActiveDirectoryMSI",
    "activedirectorymanagedidentity": "ActiveDirectoryMSI",
    "activedirectorydefault": "ActiveDirectoryDefault",
    "activedirectoryserviceprincipal": "ActiveDirectoryServicePrincipal",
    "activedirectorypassword": "ActiveDirectoryPassword",
    "activedirectoryinteractive": "ActiveDirectoryInteractive",
    "activedirectorydevicecode": "ActiveDirectoryDeviceCode",
    "activedirectorydevicecodeflow": "ActiveDirectoryDeviceCode",
    "activedirectoryintegrated": "ActiveDirectoryIntegrated",
}

_NEEDS_PASSWORD: Final = frozenset(
    {None, "ActiveDirectoryServicePrincipal", "ActiveDirectoryPassword"}
)

_NO_PASSWORD: Final = SecretStr("")

_PLACEHOLDER: Final = re.compile(
    r"""^(?:tcp:)?(?:
        [<\[{] [a-z_\- ]*
        (?:password|pwd|secret|server|user|database|login|name|id) [a-z_\- ]* [>\]}]
      | (?:(?:enter|put|insert|type|replace)[_\- ]?(?:with[_\- ]?)?)?
        your[_\- ]?(?:[a-z]+[_\- ])*
        (?:password|pwd|secret|server|user|database|login|name|host|db|id)
        (?:[_\- ]?(?:here|name|id))*
      | (?:password|pwd)[_\- ]here | change[_\- ]?me
    )(?:\.[a-z.]+)?(?:,\d+)?$""",
    re.IGNORECASE | re.VERBOSE,
)
"""What templates and portals print where the user's own value belongs."""


@dataclass(frozen=True, slots=True)
class MssqlTarget:
    """One SQL Server or Azure SQL database and how to log in to it.

    ``warnings`` are sentences to be shown once, loudly.  ``password`` never
    shows in a representation; it is part of `to_driver` and of pickles (which
    only ever travel through a pipe to a worker process).
    """

    server: str
    port: int | None
    database: str
    user: str = ""
    password: SecretStr = _NO_PASSWORD
    authentication: str | None = None
    trusted: bool = False
    encrypt: Encryption = "yes"
    trust_server_certificate: bool = False
    hostname_in_certificate: str = ""
    server_certificate: str = ""
    server_spn: str = ""
    connect_timeout_s: int = DEFAULT_CONNECT_TIMEOUT_S
    command_timeout_s: int | None = None
    packet_bytes: int = PACKET_BYTES
    multi_subnet_failover: bool = False
    application_intent: str = ""
    ip_address_preference: str = ""
    warnings: tuple[str, ...] = ()

    @property
    def address(self) -> str:
        """``host,port`` (or ``host\\instance``) as the driver and people read it."""
        return self.server if self.port is None else f"{self.server},{self.port}"

    @property
    def label(self) -> str:
        """What reports and logs call this target; holds no secret and no user."""
        return (
            f"mssql://{self.server}{'' if self.port is None else f':{self.port}'}/{self.database}"
        )

    @property
    def packet(self) -> int:
        """Bytes of a packet: what was asked for, where encryption does not forbid it."""
        return self.packet_bytes if self.encrypt == "no" else min(self.packet_bytes, PACKET_BYTES)

    def to_driver(self) -> str:
        """The connection string for ``mssql_python.connect``; holds the password."""
        pairs = [
            ("Server", self.address),
            ("Database", self.database),
            ("UID", self.user),
            ("PWD", self.password.get_secret_value()),
            ("Authentication", self.authentication or ""),
            ("Trusted_Connection", "yes" if self.trusted else ""),
            ("Encrypt", self.encrypt),
            ("TrustServerCertificate", "yes" if self.trust_server_certificate else "no"),
            ("HostnameInCertificate", self.hostname_in_certificate),
            ("ServerCertificate", self.server_certificate),
            ("ServerSPN", self.server_spn),
            ("PacketSize", str(self.packet)),
            ("MultiSubnetFailover", "yes" if self.multi_subnet_failover else ""),
            ("ApplicationIntent", self.application_intent),
            ("IpAddressPreference", self.ip_address_preference),
            # Reviving a connection behind our back would lose the session's
            # settings and the open transaction; the pool replaces it itself.
            ("ConnectRetryCount", "0"),
        ]
        return "".join(f"{name}={_braced(value)};" for name, value in pairs if value)


def secrets(address: str) -> list[str]:
    """The password in a connection string."""
    return [parse_connection_string(address).password.get_secret_value()]


def exists(address: str) -> bool:  # noqa: ARG001 - part of every target's entry
    """A server's database is looked for when it is opened."""
    return True


def parse_connection_string(text: str) -> MssqlTarget:
    """Read an ADO.NET string, an ODBC string or a ``mssql://`` URL.

    Raises:
        SettingsError: code ``connection_string``: it cannot be read, a keyword is
            unknown, or a value is missing or impossible;
            code ``connection_placeholder``: it still holds the template's words.
    """
    pairs = read_pairs(text)
    return _target(pairs)


def _target(pairs: list[tuple[str, str]]) -> MssqlTarget:
    found: dict[str, tuple[str, str]] = {}
    for at, (key, value) in enumerate(pairs):
        name = _plain(key)
        if name in _REFUSED:
            refuse(f"The keyword {_shown(key)} {_REFUSED[name]}.", "Remove it.")
        if name in _HARMLESS:
            continue
        meaning = _MEANING.get(name)
        if meaning is None:
            behind_password = at > 0 and _meaning(pairs[at - 1][0]) == "password"
            shown = _shown(key, doubtful=behind_password)
            refuse(
                f"The keyword {shown} in the connection string is not known.",
                "Remove it, or correct its spelling. If it is part of a password with a ';', "
                "put the password in double quotes (ADO.NET) or in braces (ODBC).",
            )
        if meaning in found and found[meaning][1] != value:
            refuse(
                f"The connection string says {_shown(found[meaning][0])} and "
                f"{_shown(key)}, which mean the same, with different values.",
                "Keep one of them.",
            )
        found[meaning] = key, value
    values = {meaning: value for meaning, (_, value) in found.items()}
    keys = {meaning: key for meaning, (key, _) in found.items()}

    def text_of(meaning: str) -> str:
        return values.get(meaning, "").strip()

    def parsed(meaning: str, parse: Callable[[str], Value], default: Value) -> Value:
        value = text_of(meaning)
        if not value:
            return default
        try:
            return parse(value)
        except (ValueError, KeyError):
            refuse(
                f"The value of {_shown(keys[meaning])} in the connection string is not "
                "one that this keyword can have.",
                "Correct it, or remove the keyword.",
            )

    for meaning in ("server", "database", "user", "password"):
        value = values.get(meaning, "").strip()
        if value and _PLACEHOLDER.match(value):
            raise SettingsError(
                f"The connection string still has the template's placeholder as its {meaning}.",
                code="connection_placeholder",
                remedy=f"Put the real {meaning} in its place.",
            )
    server, port = _server(text_of("server"))
    if not text_of("database"):
        refuse(
            "The connection string names no database.",
            "Add 'Initial Catalog=…' (ADO.NET), 'Database=…' (ODBC) or '/…' (URL).",
        )
    authentication = parsed("authentication", _authentication, None)
    trusted = parsed("trusted", _trusted, False)
    if not trusted and authentication in _NEEDS_PASSWORD:
        for meaning in ("user", "password"):
            if not values.get(meaning, ""):
                refuse(
                    f"The connection string has no {meaning}.",
                    f"Put the {meaning} into it, or 'Authentication=Active Directory Default' "
                    "to log in with an identity of Entra ID.",
                )
    unspoken: Encryption = "yes"
    encrypt = parsed("encrypt", _encryption, unspoken)
    trust = parsed("trust_server_certificate", _boolean, False)
    warnings = []
    if encrypt == "no":
        warnings.append(
            "The connection string turns encryption off (Encrypt): everything but the login "
            "travels readable for others."
        )
    if trust:
        warnings.append(
            "The connection string accepts any certificate (TrustServerCertificate): "
            "nothing shows that the server is the one it claims to be."
        )
    return MssqlTarget(
        server=server,
        port=port,
        database=text_of("database"),
        user=text_of("user"),
        password=SecretStr(values.get("password", "")),
        authentication=authentication,
        trusted=trusted,
        encrypt=encrypt,
        trust_server_certificate=trust,
        hostname_in_certificate=text_of("hostname_in_certificate"),
        server_certificate=text_of("server_certificate"),
        server_spn=text_of("server_spn"),
        connect_timeout_s=parsed("connect_timeout_s", _number(0, 3600), 0)
        or DEFAULT_CONNECT_TIMEOUT_S,
        command_timeout_s=parsed("command_timeout_s", _number(0, 86_400), 0) or None,
        packet_bytes=parsed("packet_bytes", _number(512, 32_767), PACKET_BYTES),
        multi_subnet_failover=parsed("multi_subnet_failover", _boolean, False),
        application_intent=parsed("application_intent", _intent, ""),
        ip_address_preference=parsed("ip_address_preference", _address_preference, ""),
        warnings=tuple(warnings),
    )


def _server(value: str) -> tuple[str, int | None]:
    """Host (with instance) and port of ``tcp:host\\instance,port``."""
    if not value:
        refuse("The connection string names no server.", "Add 'Server=…'.")
    protocol = re.match(r"(tcp|np|lpc|admin)\s*:\s*", value, re.IGNORECASE)
    if protocol:
        if protocol[1].lower() != "tcp":
            refuse(
                "The connection string asks for a protocol other than TCP.",
                "Write 'Server=tcp:host,1433'.",
            )
        value = value[protocol.end() :]
    host, comma, port_text = value.partition(",")
    if not comma and value.count(":") == 1:
        host, comma, port_text = value.partition(":")  # host:port, a common slip
    host = host.strip()
    if host in (".", "(local)"):
        host = "localhost"
    if not re.fullmatch(r"[^\s,;={}'\"/@]+", host):
        refuse(
            "The server's name in the connection string cannot be one.",
            "Write 'Server=tcp:host,1433' with the server's full name.",
        )
    if comma:
        port_text = port_text.strip()
        if not (port_text.isascii() and port_text.isdigit() and 0 < int(port_text) < 65_536):
            refuse("The server's port is not a number from 1 to 65535.", "Azure SQL's is 1433.")
        return host, int(port_text)
    return host, None if "\\" in host else DEFAULT_PORT


def _boolean(value: str) -> bool:
    return {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}[
        value.lower()
    ]


def _trusted(value: str) -> bool:
    return True if value.lower() == "sspi" else _boolean(value)


def _encryption(value: str) -> Encryption:
    lowered = value.lower()
    if lowered == "strict":
        return "strict"
    if lowered in ("mandatory", "optional"):
        return "yes" if lowered == "mandatory" else "no"
    return "yes" if _boolean(value) else "no"


def _authentication(value: str) -> str | None:
    return _AUTHENTICATION[_plain(value)]


def _intent(value: str) -> str:
    # A read-only replica cannot be written to; ReadOnly is a mistake here.
    return {"readwrite": "ReadWrite"}[value.lower()]


def _address_preference(value: str) -> str:
    return {
        "ipv4first": "IPv4First",
        "ipv6first": "IPv6First",
        "useplatformdefault": "UsePlatformDefault",
    }[value.lower()]


def _number(low: int, high: int) -> Callable[[str], int]:
    def parse(value: str) -> int:
        if not (value.isascii() and value.isdigit() and low <= int(value) <= high):
            raise ValueError
        return int(value)

    return parse


def _braced(value: str) -> str:
    """``value`` as ODBC quotes it where it must."""
    if re.fullmatch(r"[A-Za-z0-9.,_\\:\-]+", value):
        return value
    return "{" + value.replace("}", "}}") + "}"


def _meaning(key: str) -> str | None:
    return _MEANING.get(_plain(key))


def _plain(key: str) -> str:
    return re.sub(r"[\s_]+", "", key).lower()


def _shown(key: str, *, doubtful: bool = False) -> str:
    """A keyword, quoted, for a message.

    What stands before a '=' can be the tail of an unquoted password with a
    ';' in it: only what looks like a keyword is shown, and right behind the
    password only what resembles a known one.
    """
    known = [*_MEANING, *_HARMLESS, *_REFUSED]
    if doubtful and not get_close_matches(_plain(key), known, n=1, cutoff=0.8):
        return "right behind the password"
    return f"'{key}'" if re.fullmatch(r"[A-Za-z][A-Za-z _]{1,30}", key) else "'…'"
