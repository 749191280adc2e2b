"""Connection strings as people write them, and what must never come out of them."""

from __future__ import annotations

import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mssql_python.connection_string_parser import _ConnectionStringParser

from rubix_token_sync.errors import SettingsError
from rubix_token_sync.targets.mssql.address import (
    MssqlTarget,
    parse_connection_string,
)
from rubix_token_sync.targets.registry import parse_target

HOSTILE = "p;w}d'\"=ü"
GUIDE = (
    "Server=tcp:rauditser.database.windows.net,1433;Initial Catalog=rauditd;"
    "Persist Security Info=False;User ID=rubix;Password=s3cret!;"
    "MultipleActiveResultSets=False;Encrypt=True;TrustServerCertificate=False;"
    "Connection Timeout=30;"
)


def driver_reads(target: MssqlTarget) -> dict[str, str]:
    """What Microsoft's own parser makes of the string we hand it."""
    parser = _ConnectionStringParser(validate_keywords=True)
    return parser._normalize_params(parser._parse(target.to_driver()))


def refused(text: str) -> SettingsError:
    with pytest.raises(SettingsError) as caught:
        parse_connection_string(text)
    assert caught.value.exit_code == 2
    assert caught.value.remedy
    return caught.value


def test_the_guides_string_is_read_as_it_is_printed() -> None:
    target = parse_connection_string(GUIDE)
    assert (target.server, target.port) == ("rauditser.database.windows.net", 1433)
    assert (target.database, target.user) == ("rauditd", "rubix")
    assert target.password.get_secret_value() == "s3cret!"
    assert target.encrypt == "yes"
    assert not target.trust_server_certificate
    assert target.connect_timeout_s == 30
    assert target.warnings == ()
    read = driver_reads(target)
    assert read["Server"] == "rauditser.database.windows.net,1433"
    assert read["PWD"] == "s3cret!"
    assert read["Encrypt"] == "yes"
    assert read["TrustServerCertificate"] == "no"


ADO = "Data Source=tcp:h,1433;Initial Catalog=d;User ID=u;Password={};Encrypt=True"
ODBC = "Driver={{ODBC Driver 18 for SQL Server}};Server=tcp:h,1433;Database=d;Uid=u;Pwd={}"


@pytest.mark.parametrize(
    "text",
    [
        ADO.format('"p;w}d\'""=ü"'),
        ADO.format("'p;w}d''\"=ü'"),
        ADO.format("{p;w}}d'\"=ü}"),
        ODBC.format("{p;w}}d'\"=ü}"),
        ODBC.format(" {p;w}}d'\"=ü} "),
        "mssql://u:p%3Bw%7Dd%27%22%3D%C3%BC@h:1433/d",
        "MSSQL+mssqlpython://u:p%3Bw%7Dd%27%22%3D%C3%BC@h/d?encrypt=yes",
        "\ufeff" + ADO.format('"p;w}d\'""=ü"').replace(";User", ";\r\nUser") + "\r\n",
        ADO.format('"p;w}d\'""=ü"').replace("User ID", "uSeR_id").replace("Password", "PWD"),
    ],
)
def test_a_hostile_password_survives_every_form(text: str) -> None:
    assert parse_target(text.lstrip("\ufeff")).kind == "mssql"
    target = parse_connection_string(text)
    assert target.password.get_secret_value() == HOSTILE
    assert (target.address, target.database, target.user) == ("h,1433", "d", "u")
    assert driver_reads(target)["PWD"] == HOSTILE


passwords = st.text(
    st.characters(blacklist_categories=["Cs", "Cc"]) | st.sampled_from(";{}'\"= "), min_size=1
).filter(str.strip)


@given(passwords)
def test_any_password_reaches_the_driver(password: str) -> None:
    quoted = {
        "double": ADO.format('"' + password.replace('"', '""') + '"'),
        "single": ADO.format("'" + password.replace("'", "''") + "'"),
        "braces": ODBC.format("{" + password.replace("}", "}}") + "}"),
    }
    for text in quoted.values():
        try:
            target = parse_connection_string(text)
        except SettingsError as error:
            assert error.code == "connection_placeholder"  # noqa: PT017 - "changeme" and its like
            continue
        assert target.password.get_secret_value() == password
        assert driver_reads(target)["PWD"] == password


@given(st.text(max_size=60), st.sampled_from(["", "Server=h;Database=d;User ID=u;Password="]))
def test_any_text_is_read_or_refused(text: str, start: str) -> None:
    try:
        target = parse_connection_string(start + text)
    except SettingsError:
        return
    assert driver_reads(target)["Server"] == target.address


def test_the_password_shows_nowhere() -> None:
    target = parse_connection_string(ADO.format('"hunter2;x"'))
    for text in (repr(target), str(target), target.label, f"{target!r:>10}"):
        assert "hunter2" not in text
    again = pickle.loads(pickle.dumps(target))
    assert again == target
    assert again.password.get_secret_value() == "hunter2;x"


@pytest.mark.parametrize(
    "text",
    [
        "Server=h;Database=d;User ID=u;Password=hunter2;Hunter2",
        "Server=h;Database=d;User ID=u;Password=a;hunter2=b",
        "Server=h;Database=d;User ID=u;Password=a;Hunter and More=b",
        'Server=h;Database=d;User ID=u;Password="hunter2',
        'Server=h;Database=d;User ID=u;Password="hunter2" more',
        "Driver=x;Server=h;Database=d;Uid=u;Pwd={hunter2",
        "Driver=x;Server=h;Database=d;Uid=u;Pwd={hunter2}x;",
        "Server=h;Database=d;User ID=u;Password=hunter2;PWD=hunter22",
        "mssql://u:hunter2#x@h/d",
        "mssql://u:hunter2/x@h/d",
        "mssql://u:hunter2@h:port/d",
        "mssql://u:[hunter2@h/d",
        "Server=h;Database=d;User ID=u;Password=hunter2;Encrypt=perhaps",
        "Server=hunter2@h;Database=d;User ID=u;Password=x",
        "Server=h;Database=d;User ID=u;Password=x\0hunter2",
    ],
)
def test_what_cannot_be_read_is_refused_without_showing_the_password(text: str) -> None:
    error = refused(text)
    assert error.code == "connection_string"
    assert "hunter" not in f"{error} {error.context} {error!r}".lower()


def test_an_unknown_keyword_is_refused_by_name() -> None:
    assert "'Initial Katalog'" in refused(GUIDE + "Initial Katalog=x").message
    # ... and one that only looks like a password's tail when it is a misspelt keyword.
    text = "Server=h;Database=d;User ID=u;Password=a;Encrpyt=True"
    assert "'Encrpyt'" in refused(text).message


@pytest.mark.parametrize(
    ("keyword", "why"),
    [("DSN", "data source"), ("AttachDBFilename", "file"), ("Failover Partner", "mirroring")],
)
def test_keywords_that_would_change_the_meaning_are_refused(keyword: str, why: str) -> None:
    error = refused(f"{keyword}=x;{GUIDE}")
    assert keyword in error.message
    assert why in error.message


@pytest.mark.parametrize(
    "value",
    [
        "{your_password}",
        "your_password",
        "YOUR_ACTUAL_PASSWORD",
        "<password>",
        "{your_password_here}",
        "<your-password>",
        "changeme",
    ],
)
def test_a_placeholder_is_refused(value: str) -> None:
    error = refused(GUIDE.replace("s3cret!", value))
    assert error.code == "connection_placeholder"
    assert "password" in error.message


@pytest.mark.parametrize(
    "value",
    ["your.mother", "i-put-it-there", "passwordless", "<>", "{}[]", "your_", "servername1", "id"],
)
def test_a_real_password_is_not_taken_for_a_placeholder(value: str) -> None:
    target = parse_connection_string(GUIDE.replace("s3cret!", f'"{value}"'))
    assert target.password.get_secret_value() == value


@pytest.mark.parametrize(
    "server", ["your_server.database.windows.net", "<server>", "{your_server},1433"]
)
def test_the_templates_server_is_refused(server: str) -> None:
    text = GUIDE.replace("rauditser.database.windows.net,1433", f'"{server}"')
    text = text.replace('tcp:"', '"')
    assert refused(text).code == "connection_placeholder"


@pytest.mark.parametrize("missing", ["Server", "Initial Catalog", "User ID", "Password"])
@pytest.mark.parametrize("how", ["absent", "empty"])
def test_what_is_missing_is_named(missing: str, how: str) -> None:
    parts = [p for p in GUIDE.split(";") if p and not p.startswith(missing + "=")]
    if how == "empty":
        parts.insert(1, f"{missing}=")
    error = refused(";".join(parts))
    word = {"Initial Catalog": "database", "User ID": "user"}.get(missing, missing.lower())
    assert word in error.message


@pytest.mark.parametrize(
    ("value", "encrypt", "warned"),
    [
        ("True", "yes", False),
        ("Mandatory", "yes", False),
        ("strict", "strict", False),
        ("False", "no", True),
        ("optional", "no", True),
    ],
)
def test_encryption_is_on_unless_the_string_says_otherwise(
    value: str, encrypt: str, warned: bool
) -> None:
    target = parse_connection_string(GUIDE.replace("Encrypt=True", f"Encrypt={value}"))
    assert target.encrypt == encrypt
    assert bool(target.warnings) == warned
    assert parse_connection_string(GUIDE.replace("Encrypt=True;", "")).encrypt == "yes"


def test_accepting_any_certificate_is_warned_about() -> None:
    target = parse_connection_string(GUIDE.replace("Certificate=False", "Certificate=True"))
    assert target.trust_server_certificate
    assert "certificate" in target.warnings[0]


@pytest.mark.parametrize(
    ("spelt", "driver"),
    [
        ("Active Directory Managed Identity", "ActiveDirectoryMSI"),
        ("ActiveDirectoryMsi", "ActiveDirectoryMSI"),
        ("Active Directory Default", "ActiveDirectoryDefault"),
        ("Active Directory Service Principal", "ActiveDirectoryServicePrincipal"),
    ],
)
def test_entra_identities_take_no_password_unless_they_need_one(spelt: str, driver: str) -> None:
    text = f"Server=h;Database=d;Authentication={spelt}"
    if driver == "ActiveDirectoryServicePrincipal":
        assert "user" in refused(text).message
        text += ";User ID=client;Password=s"
    read = driver_reads(parse_connection_string(text))
    assert read["Authentication"] == driver
    assert ("PWD" in read) == ("Password" in text)


@pytest.mark.parametrize(
    ("server", "address"),
    [
        ("h", "h,1433"),
        ("tcp:h,1444", "h,1444"),
        ("h:1444", "h,1444"),
        ("TCP: h , 1444", "h,1444"),
        (r"h\inst", r"h\inst"),
        ("(local)", "localhost,1433"),
        ("10.0.0.4,1433", "10.0.0.4,1433"),
    ],
)
def test_servers_are_spelt_in_many_ways(server: str, address: str) -> None:
    text = f"Server={server};Database=d;UID=u;PWD=x"
    assert parse_connection_string(text).address == address


@pytest.mark.parametrize("server", ["np:h", "h,99999", "h,x", "a b", "h;", "h,0", "lpc:h"])
def test_servers_that_cannot_be_one_are_refused(server: str) -> None:
    assert refused(f"Server='{server}';Database=d;UID=u;PWD=x").code == "connection_string"


@pytest.mark.parametrize(
    ("text", "is_it"),
    [
        (GUIDE, True),
        ("mssql://u:p@h/d", True),
        (ODBC.format("x"), True),
        ("postgresql://u:p@h/d", False),
        ("sqlite:///x;server=1", False),
        ("host=h dbname=d", False),
    ],
)
def test_other_targets_are_told_apart(text: str, is_it: bool) -> None:
    try:
        kind = parse_target(text).kind
    except SettingsError:
        kind = ""
    assert (kind == "mssql") is is_it
