"""Settings: five layers, limits, origins, and no secret in any word about them."""

from __future__ import annotations

import copy
import os
import pickle
import socket
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

from rubix_token_sync import settings as public
from rubix_token_sync.errors import SettingsError
from rubix_token_sync.settings import (
    GUIDE_NAMES,
    Settings,
    commented_settings_file,
    describe,
    load_settings,
    primary_address,
    unknown_variables,
    usable_cpus,
)
from rubix_token_sync.settings.masking import holds_secret, masked
from rubix_token_sync.settings.model import SECRETS

PASSWORD = "hunter2-Sesame"


def write(path: Path, text: str, mode: int = 0o600) -> Path:
    path.write_text(text, encoding="utf-8")
    path.chmod(mode)
    return path


def load(
    flags: dict[str, object] | None = None,
    config: Path | None = None,
    profile: str | None = None,
    **environ: str,
) -> Settings:
    return load_settings(flags or {}, config, profile, environ)


def refused(code: str, *words: str, **arguments: Any) -> SettingsError:
    with pytest.raises(SettingsError) as caught:
        load(**arguments)
    error = caught.value
    assert error.exit_code == 2
    assert error.code == code
    for word in words:
        assert word in str(error)
    assert error.__cause__ is None
    assert (
        error.__context__ is None or error.__suppress_context__
    )  # a traceback must not show pydantic's own error
    return error


def test_defaults_are_the_guides() -> None:
    settings = load()
    assert settings.num_ipfs_workers == usable_cpus() * 2
    assert settings.ipfs_timeout == 30
    assert settings.batch_size == 2000
    assert settings.bulk_insert_size == 10_000
    assert settings.connection_pool_size == 10
    assert settings.retry_attempts == 3
    assert settings.target.get_secret_value() == "sqlite:///rubix-tokens.db"
    assert settings.roots == ()
    assert {settings.origin(name) for name in Settings.model_fields} == {"default"}


def test_profiles_are_the_guides() -> None:
    high = load(profile="high-performance")
    assert (high.num_ipfs_workers, high.batch_size, high.bulk_insert_size) == (
        usable_cpus() * 3,
        5000,
        20_000,
    )
    assert high.connection_pool_size == 15
    low = load(profile="resource-constrained")
    assert (low.num_ipfs_workers, low.batch_size, low.bulk_insert_size) == (
        max(2, usable_cpus() // 2),
        1000,
        5000,
    )
    assert low.connection_pool_size == 5
    assert high.origin("batch_size") == "profile: high-performance"
    assert high.origin("retry_attempts") == "default"


@pytest.mark.parametrize("name", sorted(GUIDE_NAMES))
def test_each_layer_is_stronger_than_the_one_before(tmp_path: Path, name: str) -> None:
    config = write(tmp_path / "s.toml", f'{name} = 17\nprofile = "high-performance"\n')
    bare, prefixed = name.upper(), f"RUBIX_SYNC_{name.upper()}"
    layers: list[tuple[dict[str, Any], int | None, str]] = [
        ({}, None, "default"),
        ({"config": config}, 17, f"file: {config}"),
        ({"config": config, bare: "18"}, 18, f"environment: {bare}"),
        ({"config": config, bare: "18", prefixed: "19"}, 19, f"environment: {prefixed}"),
        (
            {"config": config, bare: "18", prefixed: "19", "flags": {name: 20}},
            20,
            f"flag: --{name.replace('_', '-')}",
        ),
    ]
    for arguments, value, origin in layers:
        settings = load(**arguments)
        if value is not None:
            assert getattr(settings, name) == value
        assert settings.origin(name) == origin


def test_a_profile_is_weaker_than_the_file_it_stands_in(tmp_path: Path) -> None:
    config = write(tmp_path / "s.toml", 'profile = "resource-constrained"\nBATCH_SIZE = 1234\n')
    settings = load(config=config)
    assert (settings.batch_size, settings.bulk_insert_size) == (1234, 5000)
    assert settings.origin("batch_size") == f"file: {config}"
    assert load(config=config, profile="high-performance").bulk_insert_size == 20_000


def test_file_and_profile_can_come_from_the_environment(tmp_path: Path) -> None:
    config = write(tmp_path / "s.toml", "batch_size = 7\n")
    settings = load(RUBIX_SYNC_CONFIG=str(config), RUBIX_SYNC_PROFILE="high-performance")
    assert (settings.batch_size, settings.bulk_insert_size) == (7, 20_000)
    other = write(tmp_path / "t.toml", "batch_size = 8\n")
    assert load(config=other, RUBIX_SYNC_CONFIG=str(config)).batch_size == 8


def test_not_given_is_not_given() -> None:
    settings = load({"batch_size": None, "roots": ()}, BATCH_SIZE="", RUBIX_SYNC_ROOTS="  ")
    assert settings.batch_size == 2000
    assert settings.origin("roots") == "default"


def test_false_and_zero_are_given() -> None:
    settings = load({"ipfs_network": False, "max_shrink": 0.0}, RUBIX_SYNC_IPFS_NETWORK="true")
    assert settings.ipfs_network is False
    assert settings.max_shrink == 0


def test_lists_in_the_environment(tmp_path: Path) -> None:
    settings = load(
        RUBIX_SYNC_ROOTS=os.pathsep.join(["/mnt/a b", "/mnt/c"]),
        RUBIX_SYNC_GATEWAYS="https://one.example, http://two.example:8080/x",
    )
    assert settings.roots == ("/mnt/a b", "/mnt/c")
    assert settings.gateways == ("https://one.example", "http://two.example:8080/x")
    config = write(tmp_path / "s.toml", 'roots = ["/mnt/d", "/mnt/e"]\n')
    assert load(config=config).roots == ("/mnt/d", "/mnt/e")
    assert load({"roots": [Path("/mnt/f")]}, config=config).roots == ("/mnt/f",)


# --- what is refused -----------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "value", "allowed"),
    [
        ("num_ipfs_workers", "0", "a whole number from 1 to 1,024"),
        ("num_ipfs_workers", "many", "a whole number from 1 to 1,024"),
        ("ipfs_timeout", "-1", "a number from 0.1 to 3,600"),
        ("ipfs_timeout", "nan", "a number from 0.1 to 3,600"),
        ("ipfs_timeout", "inf", "a number from 0.1 to 3,600"),
        ("batch_size", "20001", "a whole number from 1 to 20,000"),
        ("batch_size", "2.5", "a whole number from 1 to 20,000"),
        ("bulk_insert_size", "0", "a whole number from 1 to 10,000,000"),
        ("connection_pool_size", "101", "a whole number from 2 to 100"),
        ("retry_attempts", "21", "a whole number from 1 to 20"),
        ("max_shrink", "1.5", "a number from 0 to 1"),
        ("profile", "fast", "one of high-performance, resource-constrained"),
        ("log_format", "xml", "one of text, json"),
        ("ipfs_network", "perhaps", "true or false"),
        ("source_ip", "x" * 46, "printable text of 1 to 45 characters"),
        ("source_ip", "a\tb", "printable text of 1 to 45 characters"),
    ],
)
def test_an_invalid_value_is_named_with_its_origin_and_what_is_allowed(
    name: str, value: str, allowed: str
) -> None:
    variable = f"RUBIX_SYNC_{name.upper()}"
    error = refused(
        "setting_invalid", repr(value), f"environment: {variable}", allowed, **{variable: value}
    )
    shown = name.upper() if name in GUIDE_NAMES else name
    assert str(error).startswith(f"{shown} = ")
    assert error.context == {"settings": [name]}


def test_all_invalid_values_are_told_at_once(tmp_path: Path) -> None:
    config = write(tmp_path / "s.toml", "batch_size = true\nretry_attempts = [1]\n")
    refused(
        "setting_invalid",
        "BATCH_SIZE = True",
        "RETRY_ATTEMPTS = [1]",
        "IPFS_TIMEOUT = 'x'",
        str(config),
        config=config,
        IPFS_TIMEOUT="x",
    )


def test_a_lease_must_outlive_its_heartbeats() -> None:
    refused(
        "setting_invalid",
        "lease_seconds = 20",
        "heartbeat_seconds = 10",
        "three times",
        flags={"lease_seconds": 20},
    )


def test_an_unknown_key_is_refused_with_a_suggestion(tmp_path: Path) -> None:
    config = write(tmp_path / "s.toml", "batchsize = 5\n")
    refused("setting_unknown", "'batchsize'", "Did you mean 'batch_size'?", config=config)
    write(config, "[zebra]\nx = 1\n")
    error = refused("setting_unknown", "'zebra'", config=config)
    assert "Did you mean" not in str(error)


def test_the_same_key_in_two_cases_is_refused(tmp_path: Path) -> None:
    config = write(tmp_path / "s.toml", "batch_size = 5\nBATCH_SIZE = 6\n")
    refused("setting_twice", "'batch_size'", config=config)


def test_a_file_that_cannot_be_read_or_is_no_toml(tmp_path: Path) -> None:
    refused("config_unreadable", "No such file", config=tmp_path / "none.toml")
    refused("config_unreadable", "directory", config=tmp_path)
    assert load_settings({}, config=os.devnull) == load_settings({}), "as everybody writes: none"
    broken = write(tmp_path / "s.toml", f"target_file = \n# {PASSWORD}\n")
    error = refused("config_syntax", "line 1", config=broken)
    assert PASSWORD not in str(error)
    broken.write_bytes(b"report = '\xff'\n")
    refused("config_syntax", "UTF-8", config=broken)


def test_flags_that_are_no_settings_are_a_mistake_of_ours() -> None:
    with pytest.raises(TypeError, match="batchsize"):
        load({"batchsize": 1})


def test_the_stronger_of_target_and_target_file_counts(tmp_path: Path) -> None:
    config = write(tmp_path / "s.toml", 'target_file = "azure.txt"\n')
    assert load(config=config).target_file == str(tmp_path / "azure.txt"), "beside the settings"
    settings = load({"target": "sqlite:///x.db"}, config=config)
    assert (settings.target.get_secret_value(), settings.target_file) == ("sqlite:///x.db", None)
    settings = load({"target_file": "b.txt"}, RUBIX_SYNC_TARGET="sqlite:///x.db")
    assert settings.target_file == "b.txt"
    assert settings.origin("target") == "default"
    refused(
        "target_twice",
        "--target",
        "--target-file",
        flags={"target": "sqlite:///x.db", "target_file": "b.txt"},
    )


# --- secrets -------------------------------------------------------------------

WITH_PASSWORD = f"postgresql://rubix:{PASSWORD}@db.example:5432/rauditd?sslmode=require"


def test_secrets_are_not_shown(tmp_path: Path) -> None:
    config = write(
        tmp_path / "s.toml",
        f'target = "{WITH_PASSWORD}"\nipfs_api_token = "bearer:{PASSWORD}"\n'
        f'gateways = ["https://{PASSWORD}@gw.example/{PASSWORD}?key={PASSWORD}"]\n',
    )
    settings = load(config=config)
    assert settings.target.get_secret_value() == WITH_PASSWORD
    shown = "\n".join(" ".join(row) for row in describe(settings))
    assert PASSWORD not in shown
    assert "postgresql://rubix:***@db.example:5432/rauditd?***" in shown
    assert "https://***@gw.example/***?***" in shown
    assert PASSWORD not in f"{settings.target!r}{settings.ipfs_api_token!r}{settings.target}"


def test_secrets_are_told_to_whoever_redacts() -> None:
    settings = load(
        {
            "target": "postgresql://u:p%40ss%2Fword@h/d?sslpassword=k%20ey",
            "gateways": ["https://us%40er:gate@gw.example/x", "https://free.example"],
            "ipfs_api_token": "bearer:to:ken",
        }
    )
    assert settings.secrets() == {
        "p%40ss%2Fword", "p@ss/word", "k ey", "gate", "us%40er", "us@er",
        "bearer:to:ken", "to:ken",
    }  # fmt: skip
    settings = load({"target": "mssql://u:one@[bad", "gateways": ["https://gw.example"]})
    assert settings.secrets() == {"mssql://u:one@[bad"}
    assert load().secrets() == set()


@pytest.mark.parametrize("name", sorted(SECRETS))
def test_errors_about_secrets_do_not_show_them(name: str) -> None:
    value: object = [1, PASSWORD] if name != "gateways" else [PASSWORD]
    error = refused("setting_invalid", f"{name} = the value (not shown)", flags={name: value})
    assert PASSWORD not in repr(error) + str(error.context)


def test_a_settings_file_with_a_secret_is_for_its_owner_only(tmp_path: Path) -> None:
    config = write(tmp_path / "s.toml", f'target = "{WITH_PASSWORD}"\n', 0o640)
    error = refused("config_insecure", "mode 640", f"chmod 600 {config}", "target", config=config)
    assert PASSWORD not in str(error)
    config.chmod(0o600)
    load(config=config)
    config.chmod(0o644)
    load({"allow_insecure_target_file": True}, config=config)
    # The secret of a weaker layer that is not in force is in the file all the same.
    refused("config_insecure", config=config, flags={"target": "sqlite:///x.db"})
    write(config, 'target = "sqlite:///tokens.db"\nbatch_size = 3\n', 0o644)
    assert load(config=config).batch_size == 3


@pytest.mark.parametrize(
    ("text", "shown", "secret"),
    [
        ("sqlite:///rubix-tokens.db", "sqlite:///rubix-tokens.db", False),
        ("sqlite:////abs/x.db", "sqlite:////abs/x.db", False),
        (f"postgresql://u:{PASSWORD}@h/d", "postgresql://u:***@h/d", True),
        ("postgresql://u@h/d", "postgresql://u@h/d", False),
        (f"postgresql://h/d?password={PASSWORD}", "postgresql://h/d?***", True),
        ("mssql://h:1433/d?encrypt=yes", "mssql://h:1433/d?***", False),
        (f"mssql://u:{PASSWORD}@[::1]:1433/d", "mssql://u:***@[::1]:1433/d", True),
        (f"Server=tcp:h,1433;User ID=u;Password={PASSWORD};", "***", True),
        (f"Driver=x;PWD = {{{PASSWORD}}}", "***", True),
        ("Server=tcp:h,1433;Authentication=ActiveDirectoryDefault", "***", False),
        (f"host=h dbname=d password={PASSWORD}", "***", True),
        ("https://gw.example", "https://gw.example", False),
        (f"https://gw.example/{PASSWORD}/", "https://gw.example/***", False),
        (f"https://{PASSWORD}@gw.example", "https://***@gw.example", True),
        (f"http://u:{PASSWORD}@[bad", "***", True),
        (f"postgresql://u:{PASSWORD}@h:notaport/d", "***", True),
        ("postgresql://u@/d?host=/run/pg&port=6432", "postgresql://u@/d?***", False),
        (f"postgresql://u:{PASSWORD}@a:1,b:2/d", "postgresql://u:***@a:1,b:2/d", True),
        (f"postgresql://u:12#{PASSWORD}@h/d", "***", True),
        (f"postgresql://u:1/{PASSWORD}@h/d", "***", True),
    ],
)
def test_masking(text: str, shown: str, secret: bool) -> None:
    assert masked(text) == shown
    assert PASSWORD not in masked(text)
    assert holds_secret(text) is secret


# --- words about settings ------------------------------------------------------


def test_describe_has_every_setting_with_its_origin() -> None:
    settings = load({"batch_size": 5}, IPFS_TIMEOUT="2.50", profile="high-performance")
    rows = describe(settings)
    assert [row.name.lower() for row in rows] == list(Settings.model_fields)
    told = {row.name: (row.value, row.origin) for row in rows}
    assert told["BATCH_SIZE"] == ("5", "flag: --batch-size")
    assert told["IPFS_TIMEOUT"] == ("2.5", "environment: IPFS_TIMEOUT")
    assert told["BULK_INSERT_SIZE"] == ("20000", "profile: high-performance")
    assert told["ipfs_network"] == ("false", "default")
    assert told["profile"] == ("high-performance", "flag: --profile")
    assert told["scratch"] == ("", "default")


def test_the_commented_file_has_every_setting_and_changes_nothing(tmp_path: Path) -> None:
    text = commented_settings_file()
    assert tomllib.loads(text) == {}
    # With the marks taken away it is a settings file with every setting in it.
    lines = [
        line[1:] if line.startswith("#") and line[1:2].isalpha() else line
        for line in text.splitlines()
    ]
    values = tomllib.loads("\n".join(lines))
    assert list(values) == list(Settings.model_fields)
    fixed = {
        name: value
        for name, value in values.items()
        if name not in ("num_ipfs_workers", "source_ip")
    }
    defaults = Settings()
    for name, value in fixed.items():
        default = getattr(defaults, name)
        if default is None:
            continue  # an example
        if name == "target":
            default = default.get_secret_value()
        assert value == (list(default) if isinstance(default, tuple) else default), name
    del values["target"]  # not together with target_file
    config = write(
        tmp_path / "s.toml", "\n".join(line for line in lines if not line.startswith("target ="))
    )
    settings = load(config=config)
    assert settings.origin("lease_seconds") == f"file: {config}"
    for name in GUIDE_NAMES:
        assert f"RUBIX_SYNC_{name.upper()}, {name.upper()}." in text


def test_unknown_variables_are_told() -> None:
    environ = {
        "RUBIX_SYNC_BATCHSIZE": "1",
        "RUBIX_SYNC_BATCH_SIZE": "1",
        "RUBIX_SYNC_CONFIG": "x",
        "RUBIX_SYNC_FAULT": "x",
        "BATCHSIZE": "1",
    }
    assert unknown_variables(environ) == {"RUBIX_SYNC_BATCHSIZE": "RUBIX_SYNC_BATCH_SIZE"}
    assert unknown_variables({"RUBIX_SYNC_ZEBRA": "1"}) == {"RUBIX_SYNC_ZEBRA": None}


def test_settings_are_immutable_and_cross_process_borders() -> None:
    settings = load({"batch_size": 5})
    with pytest.raises(ValueError, match="frozen"):
        settings.batch_size = 6
    for other in (pickle.loads(pickle.dumps(settings)), copy.copy(settings)):
        assert other == settings
        assert other.origin("batch_size") == "flag: --batch-size"


def test_what_the_package_exports() -> None:
    assert public.__all__ == [
        "GUIDE_NAMES",
        "PREFIX",
        "PROFILES",
        "Described",
        "Settings",
        "commented_settings_file",
        "describe",
        "load_settings",
        "primary_address",
        "unknown_variables",
        "usable_cpus",
    ]


# --- this machine ----------------------------------------------------------------


def test_usable_cpus_are_those_this_process_may_run_on() -> None:
    code = (
        "import os; os.sched_setaffinity(0, [min(os.sched_getaffinity(0))]);"
        "from rubix_token_sync.settings import usable_cpus; print(usable_cpus())"
    )
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert run.stdout == "1\n"


def test_the_primary_address_is_one_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    address = primary_address()
    assert 0 < len(address) <= 45
    if address != socket.gethostname():
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.bind((address, 0))  # only an own address can be bound

    class NoRoute(socket.socket):
        def connect(self, address: object) -> None:
            raise OSError(101, "Network is unreachable")

    monkeypatch.setattr(socket, "socket", NoRoute)
    assert primary_address() == socket.gethostname()[:45]
