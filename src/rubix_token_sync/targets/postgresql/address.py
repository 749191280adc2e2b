"""Addresses of PostgreSQL: a libpq URL or keywords, checked, with this program's defaults.

All of libpq's parameters may stand in it (``sslmode``, ``sslrootcert``,
``connect_timeout``, ``service`` …) and its environment variables count
(``PGPASSWORD``, ``PGPASSFILE``, ``PGSSLMODE`` …).  What people paste from other
programs is read, too: see `rubix_token_sync.targets.postgresql.forms`.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Final

from psycopg import conninfo
from psycopg.errors import Error
from pydantic import SecretStr

from rubix_token_sync.errors import SettingsError
from rubix_token_sync.targets.postgresql.forms import as_libpq

__all__ = ["PostgresAddress", "exists", "secrets"]

_CONNECT_SECONDS: Final = 30
_LOCAL_HOSTS: Final = frozenset({"localhost", "127.0.0.1", "::1"})
_SSL_MODES: Final = ("disable", "allow", "prefer", "require", "verify-ca", "verify-full")
_SECRETS: Final = ("password", "sslpassword", "oauth_client_secret")
_KEEP_ALIVE: Final = {
    # A server that is gone without a word is noticed within a minute.
    "keepalives_idle": "20",
    "keepalives_interval": "10",
    "keepalives_count": "4",
}


@dataclass(frozen=True)
class PostgresAddress:
    """Where a server is and how to get in; secrets stay wrapped.

    ``place`` is for people: no user, no password.
    """

    parameters: dict[str, str]
    secrets: dict[str, SecretStr]
    place: str

    @classmethod
    def parse(cls, address: SecretStr, environ: Mapping[str, str] | None = None) -> PostgresAddress:
        """From a URL (``postgresql://…``), libpq's keywords, or another program's form.

        Without ``sslmode`` a server elsewhere must offer TLS (``require``, or
        ``verify-full`` where ``sslrootcert`` names whom to trust).

        Raises:
            SettingsError: code ``bad_postgresql_url``; says nothing of the URL's parts.
        """
        environ = os.environ if environ is None else environ
        try:
            found = conninfo.conninfo_to_dict(as_libpq(address.get_secret_value().strip()))
        except Error:  # its text quotes what it stumbled over, which can be a password
            raise _refusal("is malformed") from None
        parameters = {name: str(value) for name, value in found.items() if value is not None}
        secrets: dict[str, SecretStr] = {
            name: SecretStr(parameters.pop(name)) for name in _SECRETS if name in parameters
        }
        host, port = parameters.get("host", ""), parameters.get("port", "")
        if "@" in host or not all(part.isdigit() for part in port.split(",") if part):
            raise _refusal("has an '@', ':' or '/' too many")
        if not all(0 < int(part) < 65_536 for part in port.split(",") if part):
            raise SettingsError(
                "The port in the PostgreSQL address is not a number from 1 to 65535.",
                code="bad_postgresql_url",
                remedy="PostgreSQL's usual port is 5432.",
            )
        _check_ssl_mode(parameters.get("sslmode"))
        local = _is_local(host or parameters.get("hostaddr", "") or environ.get("PGHOST", ""))
        service = "service" in parameters or "PGSERVICE" in environ
        if not local and not service and "PGSSLMODE" not in environ:
            trusted = "sslrootcert" in parameters or "PGSSLROOTCERT" in environ
            parameters.setdefault("sslmode", "verify-full" if trusted else "require")
        parameters.setdefault("application_name", "rubix-token-sync")
        parameters["client_encoding"] = "UTF8"
        if "PGCONNECT_TIMEOUT" not in environ:
            parameters.setdefault("connect_timeout", str(_CONNECT_SECONDS))
        for name, value in _KEEP_ALIVE.items():
            parameters.setdefault(name, value)
        database = parameters.get("dbname") or environ.get("PGDATABASE", "")
        shown = f"{host}:{port}" if port and not host.startswith("/") else host
        return cls(parameters, secrets, f"postgresql://{shown}/{database}")

    def connection_arguments(self) -> dict[str, str]:
        """Everything, secrets unwrapped, as `psycopg.connect` takes it."""
        secret = {name: value.get_secret_value() for name, value in self.secrets.items()}
        return {**self.parameters, **secret}

    def redact(self, text: str) -> str:
        """``text`` without any secret that found its way into it."""
        for value in self.secrets.values():
            if value.get_secret_value():
                text = text.replace(value.get_secret_value(), "***")
        return text


def secrets(address: str) -> list[str]:
    """Passwords in an address, also in one that cannot be read."""
    found = re.findall(r"(?:password|pwd)\s*=\s*[\"']?([^;&\s\"']+)", address, re.IGNORECASE)
    with contextlib.suppress(SettingsError):  # raised again, and shown, where it is opened
        parsed = PostgresAddress.parse(SecretStr(address)).secrets.values()
        found += [value.get_secret_value() for value in parsed if value.get_secret_value()]
    return found


def exists(address: str) -> bool:  # noqa: ARG001 - part of every target's entry
    """A server's database is looked for when it is opened."""
    return True


def _check_ssl_mode(mode: str | None) -> None:
    if mode is None or mode in _SSL_MODES:
        return
    like = get_close_matches(mode.lower().replace("_", "-"), _SSL_MODES, n=1)
    raise SettingsError(
        "The sslmode in the PostgreSQL address is unknown.",
        code="bad_postgresql_url",
        remedy=(f"Did you mean {like[0]}? " if like else "")
        + f"Write one of {', '.join(_SSL_MODES)}.",
    )


def _is_local(host: str) -> bool:
    """Every host is a socket or this machine."""
    return all(
        not one or one.startswith(("/", "@")) or one in _LOCAL_HOSTS for one in host.split(",")
    )


def _refusal(what: str) -> SettingsError:
    return SettingsError(
        f"The PostgreSQL address {what}.",
        code="bad_postgresql_url",
        remedy="Write postgresql://USER:PASSWORD@HOST:PORT/DATABASE?sslmode=require; "
        "in user and password write %40 for @, %3A for :, %2F for / and %25 for %.",
    )
