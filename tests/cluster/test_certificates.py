"""Certificates: who makes them, who may read them, what is wrong with one."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from rubix_token_sync.cluster import Certificates, make_certificates
from rubix_token_sync.errors import SettingsError
from tests.cli.conftest import Run, run

__all__ = ["run"]


@pytest.fixture
def made(tmp_path: Path) -> Path:
    make_certificates(tmp_path / "c", ["vm1", "vm2"])
    return tmp_path / "c"


def refused(code: str, directory: Path, now: datetime | None = None) -> SettingsError:
    with pytest.raises(SettingsError) as caught:
        Certificates(str(directory)).check(now)
    assert caught.value.code == code
    return caught.value


def test_only_their_owner_may_read_them(made: Path) -> None:
    old = os.umask(0)
    try:
        make_certificates(made, ["vm3"])
    finally:
        os.umask(old)
    files = [path for path in made.rglob("*") if path.is_file()]
    assert len(files) == 2 + 3 * 3
    assert {stat.S_IMODE(path.stat().st_mode) for path in files} == {0o600}
    assert {stat.S_IMODE(path.stat().st_mode) for path in made.iterdir()} == {0o700}
    assert not list(made.rglob("*.new"))


def test_one_authority_for_all_of_a_directory(made: Path) -> None:
    make_certificates(made, ["vm3"])
    assert len({(made / n / "authority.pem").read_bytes() for n in ("vm1", "vm3")}) == 1
    for name in ("vm1", "vm2", "vm3"):
        assert Certificates(str(made / name)).check() is None


@pytest.mark.skipif(shutil.which("openssl") is None, reason="no openssl here")
def test_openssl_accepts_them_strictly(made: Path) -> None:
    for purpose in ("sslserver", "sslclient"):
        subprocess.run(
            ["openssl", "verify", "-x509_strict", "-purpose", purpose, "-CAfile",
             str(made / "vm1/authority.pem"), str(made / "vm1/certificate.pem")],
            check=True,
            capture_output=True,
        )  # fmt: skip


def test_nothing_is_replaced_unasked(made: Path) -> None:
    before = (made / "vm1/key.pem").read_bytes()
    with pytest.raises(SettingsError) as caught:
        make_certificates(made, ["vm1", "vm9"])
    assert caught.value.code == "certificate_exists"
    assert (made / "vm1/key.pem").read_bytes() == before
    assert not (made / "vm9").exists()
    make_certificates(made, ["vm1"], renew=True)
    assert (made / "vm1/key.pem").read_bytes() != before


@pytest.mark.parametrize("name", ["", "..", "a/b", "authority", "-x", "a b", "x" * 80])
def test_names_that_are_none(tmp_path: Path, name: str) -> None:
    with pytest.raises(SettingsError) as caught:
        make_certificates(tmp_path / "c", [name])
    assert caught.value.code == "bad_certificate_name"
    assert not (tmp_path / "c").exists()


def test_what_is_wrong_with_one(made: Path) -> None:
    own = made / "vm1"
    now = datetime.now(UTC)
    refused("certificate_expired", own, now + timedelta(days=900))
    refused("certificate_not_yet_valid", own, now - timedelta(days=2))
    note = Certificates(str(own)).check(now + timedelta(days=810))
    assert note is not None
    assert "expires on" in note
    (own / "key.pem").chmod(0o640)
    assert "chmod 600" in refused("certificate_key_insecure", own).remedy
    (own / "key.pem").chmod(0o600)
    shutil.copy(made / "vm2/key.pem", own / "key.pem")
    refused("certificate_unusable", own)
    (own / "certificate.pem").write_text("nonsense")
    refused("certificate_unusable", own)
    (own / "authority.pem").unlink()
    refused("certificate_missing", own)


def _encrypted(key: Path) -> None:
    """The same key under a passphrase, for which OpenSSL would ask the terminal."""
    held = serialization.load_pem_private_key(key.read_bytes(), None)
    key.write_bytes(
        held.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"secret"),
        )
    )


def _pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path, 0o600)


def _large(path: Path) -> None:
    os.truncate(path, 2**40)


def _endless(path: Path) -> None:
    path.unlink()
    path.symlink_to("/dev/zero")


def _directory(path: Path) -> None:
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize("spoil", [_encrypted, _pipe, _large, _endless, _directory])
@pytest.mark.parametrize("place", ["vm1", "authority"])
def test_nothing_is_waited_for(made: Path, place: str, spoil: Callable[[Path], None]) -> None:
    spoil(made / place / "key.pem")
    if place == "vm1":
        refused("certificate_unusable", made / place)
        return
    with pytest.raises(SettingsError) as caught:
        make_certificates(made, ["vm3"])
    assert caught.value.code == "certificate_unusable"
    assert not (made / "vm3").exists()


@pytest.mark.parametrize("kept_offline", ["key.pem", "authority.pem"])
def test_an_authority_is_not_replaced_by_another(made: Path, kept_offline: str) -> None:
    held = made / "authority"
    offline = (held / kept_offline).read_bytes()
    (held / kept_offline).unlink()
    before = {path: path.read_bytes() for path in made.rglob("*.pem")}
    with pytest.raises(SettingsError) as caught:
        make_certificates(made, ["vm3"])
    assert caught.value.code == "certificate_unusable"
    assert "kept offline" in caught.value.remedy
    assert {path: path.read_bytes() for path in made.rglob("*.pem")} == before
    (held / kept_offline).write_bytes(offline)
    make_certificates(made, ["vm3"])


def test_the_key_of_another_authority_signs_nothing(made: Path, tmp_path: Path) -> None:
    make_certificates(tmp_path / "other", ["vm1"])
    shutil.copy(tmp_path / "other/authority/key.pem", made / "authority/key.pem")
    with pytest.raises(SettingsError) as caught:
        make_certificates(made, ["vm3"])
    assert caught.value.code == "certificate_unusable"


def test_a_key_alone_is_not_written_over(made: Path) -> None:
    (made / "vm1/certificate.pem").unlink()
    before = (made / "vm1/key.pem").read_bytes()
    with pytest.raises(SettingsError) as caught:
        make_certificates(made, ["vm1"])
    assert caught.value.code == "certificate_exists"
    assert (made / "vm1/key.pem").read_bytes() == before


def test_no_certificate_outlasts_its_authority(tmp_path: Path) -> None:
    (made,) = make_certificates(tmp_path / "c", ["vm1"], days=100_000)
    held = x509.load_pem_x509_certificate((tmp_path / "c/authority/authority.pem").read_bytes())
    assert made.expires_at == held.not_valid_after_utc.replace(tzinfo=None)


def test_a_link_leads_into_no_node(tmp_path: Path, made: Path) -> None:
    (tmp_path / "node/Rubix").mkdir(parents=True)
    (tmp_path / "node/Rubix/rubix.db").touch()
    (made / "vm3").symlink_to(tmp_path / "node")
    with pytest.raises(SettingsError) as caught:
        make_certificates(made, ["vm3"])
    assert caught.value.code == "inside_a_node"
    assert sorted(path.name for path in (tmp_path / "node").iterdir()) == ["Rubix"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_what_may_not_be_read_is_not_called_missing(made: Path) -> None:
    (made / "vm1").chmod(0)
    refused("certificate_unusable", made / "vm1")
    (made / "vm1").chmod(0o700)


def test_a_damaged_authority_signs_nothing(made: Path) -> None:
    (made / "authority/key.pem").write_text("nonsense")
    with pytest.raises(SettingsError) as caught:
        make_certificates(made, ["vm3"])
    assert caught.value.code == "certificate_unusable"


def test_the_command(run: Run, tmp_path: Path) -> None:
    ended = run("cluster", "certs", str(tmp_path / "c"), "vm1", "--json")
    assert ended.code == 0
    (one,) = ended.document["certificates"]
    assert (one["name"], one["directory"]) == ("vm1", str(tmp_path / "c/vm1"))
    run("cluster", "certs", str(tmp_path / "c"), "vm1", "--json").error(2, "certificate_exists")
    target = f"sqlite:///{tmp_path}/t.db"
    there = ("--scheduler", "tls://127.0.0.1:1", "--target", target, "--json")
    missing = run("cluster", "worker", *there, "--certs", str(tmp_path / "none"))
    missing.error(2, "certificate_missing")
    unreached = run("cluster", "sync", *there, "--certs", str(tmp_path / "c/vm1"))
    unreached.error(1, "scheduler_unreachable")
