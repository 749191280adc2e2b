"""Addresses in a form that this program does not take: named, and the right form is printed."""

from __future__ import annotations

import contextlib
import re

import pytest

from rubix_token_sync.errors import SettingsError
from rubix_token_sync.targets.registry import parse_target

SECRET = "x1234Sesame"

MISTAKEN = {
    "tokens.db": "sqlite:///tokens.db",
    "/a/b.db": "sqlite:////a/b.db",
    "./t": "sqlite:///./t",
    "sub/tokens.sqlite3": "sqlite:///sub/tokens.sqlite3",
    "what?.db": "sqlite:///what%3F.db",
    "azure_sql_connection.txt": "--target-file azure_sql_connection.txt",
    "/etc/rubix/connection.TXT": "--target-file /etc/rubix/connection.TXT",
    "sqlite:tokens.db": "sqlite:///tokens.db",
    "sqlite:/a/b.db": "sqlite:////a/b.db",
    "sqllite:///tokens.db": "sqlite://",
    "postgre://h/d": "postgres://",
    "mysql://h/d": "sqlite:///FILE",
    "file:tokens.db": "sqlite:///tokens.db",
    "tcp:h.database.windows.net,1433": "mssql://USER@h.database.windows.net/DATABASE",
    "postgresql+psycopg2://u@h/d": "postgresql:// without it",
    "mssql+pymssql://u@h/d": "mssql:// without it",
    "postgresql:h/d": "postgresql://",
    f"jdbc:sqlserver://h:1433;databaseName=d;password={SECRET}": "mssql://USER@HOST",
    f"jdbc:oracle:thin:u/{SECRET}@h:1521/d": "sqlite:///FILE",
    f"mysql+pymysql://u:{SECRET}@h/d": "sqlite:///FILE",
    "Data Source=some where/tokens.db;Version=3": "sqlite:///some where/tokens.db",
    "sqlite3:///t.db": "sqlite:///FILE",
    f"oracle://u:{SECRET}@h/d": "sqlite:///FILE",
}


@pytest.mark.parametrize("text", MISTAKEN)
def test_the_form_is_named_and_the_right_one_printed(text: str) -> None:
    with pytest.raises(SettingsError) as caught:
        parse_target(text)
    assert caught.value.code == "unknown_target"
    assert MISTAKEN[text] in caught.value.remedy
    assert SECRET not in f"{caught.value}{caught.value.context}"
    assert ("SQL Server" in caught.value.message) == text.startswith("jdbc:sqlserver")


@pytest.mark.parametrize("text", MISTAKEN)
def test_what_is_suggested_is_accepted(text: str) -> None:
    """Advice is tried (incident 34)."""
    with pytest.raises(SettingsError) as caught:
        parse_target(text)
    suggested = re.search(r"Did you mean (.+)\?$", caught.value.remedy)
    if suggested:
        assert suggested[1].startswith(parse_target(suggested[1]).kind[:6])


@pytest.mark.parametrize("address", ["postgresql://u:p@[::1/d", "sqlite://[x", "sqlite:///a[b.db"])
def test_a_bracket_is_no_bug(address: str) -> None:
    target = parse_target(address)
    assert target.secrets() is not None
    with contextlib.suppress(SettingsError):
        target.exists()


def test_a_server_with_a_files_name_is_a_server() -> None:
    assert parse_target("Data Source=host.db;Initial Catalog=tokens").kind == "mssql"


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("sqlite:///tokens.db", "sqlite"),
        ("sqlite:////a/b=c.db", "sqlite"),
        ("postgresql://u:p=;@h/d?sslmode=require", "postgresql"),
        ("postgres:///d?host=/run/x", "postgresql"),
        ("jdbc:postgresql://h/d?user=u&password=p", "postgresql"),
        ("host=h dbname=d user=u password=p", "postgresql"),
        ("dbname = d host = h password = p", "postgresql"),
        ("Host=h;Database=d;Username=u;Password=p", "postgresql"),
        ("mssql://h/d", "mssql"),
        ("mssql+pyodbc://u:p@h/d", "mssql"),
        ("sqlserver://h/d", "mssql"),
        ("Server=tcp:h,1433;Initial Catalog=d;User ID=u;Password=jdbc:x://y", "mssql"),
        ("Driver={ODBC Driver 18 for SQL Server};Server=h;Database=d;UID=u;PWD=p", "mssql"),
        ("Data Source=h;Initial Catalog=d;User ID=host;Password=host=x", "mssql"),
        ("Initial Catalog=d;Server=h;Password=a host=b", "mssql"),
    ],
)
def test_right_forms_pass(text: str, kind: str) -> None:
    assert parse_target(text).kind == kind
