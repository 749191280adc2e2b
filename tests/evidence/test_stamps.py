"""Time stamps: asked for, checked, missed where they should be; and authorities that misbehave."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

import rubix_token_sync as rts
from rubix_token_sync import failpoints, log
from rubix_token_sync.evidence import form, standalone
from rubix_token_sync.evidence.keys import read_public_key
from rubix_token_sync.evidence.stamping import open_authority, stamp
from rubix_token_sync.evidence.stamps import check_stamp, request_for
from rubix_token_sync.installation import extra_command
from tests.cli.conftest import Run
from tests.evidence.authority import REPLY, StampingAuthority
from tests.evidence.conftest import Signed
from tests.evidence.forging import edit_manifest, flip, sign_again
from tests.evidence.test_stock_tools import TOOLS, blocks, elsewhere, shell, verifier
from tests.ipfs.servers import (
    Behaviour,
    Server,
    dripping,
    dripping_body,
    endless,
    hanging,
    raw,
    refused_port,
    saying,
    servers,
)

__all__ = ["elsewhere"]

pytest.importorskip("rfc3161_client", reason="the extra timestamps is not installed")
pytestmark = pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not here")


@dataclass(frozen=True)
class Stamped:
    """Evidence with a time stamp, and who stamped it; only to be read."""

    directory: Path
    authority: StampingAuthority
    url: str


@pytest.fixture(scope="module")
def stamped(signed: Signed, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stamped]:
    place = tmp_path_factory.mktemp("stamped")
    authority = StampingAuthority(place / "authority", "Clock & Sons")
    server = Server(authority.behaviour)
    try:
        made = rts.create_evidence(
            place / "evidence",
            key=signed.key,
            target=signed.target,
            timestamp=server.url,
            timestamp_ca=authority.root,
        )
        assert made.time_stamp is not None
        yield Stamped(place / "evidence", authority, server.url)
    finally:
        server.stop()


@pytest.fixture
def copy(stamped: Stamped, tmp_path: Path) -> Path:
    """Stamped evidence to be changed."""
    return shutil.copytree(stamped.directory, tmp_path / "evidence")


@pytest.fixture
def unstamped(copy: Path) -> Path:
    """Evidence whose authority gave no stamp."""
    for name in form.STAMPS:
        (copy / name).unlink()
    return copy


@pytest.fixture
def serve() -> Iterator[Callable[[Behaviour], Server]]:
    """Servers that stop with the test."""
    with servers() as start:
        yield start


@pytest.fixture(autouse=True)
def _place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    yield
    log.tear_down()


def test_by_the_door(run: Run, signed: Signed, stamped: Stamped) -> None:
    ca = ("--timestamp-ca", stamped.authority.root)
    create = ("evidence", "create", "e", "--key", signed.key, "--target", signed.target)
    made = run(*create, "--timestamp", stamped.url, *ca, "--json").document
    assert made["time_stamp"].keys() == {"at", "authority", "serial", "policy", "trusted"}
    assert (made["time_stamp"]["authority"], made["time_stamp"]["trusted"]) == (
        "CN=Clock & Sons", True,
    )  # fmt: skip
    manifest = json.loads(Path("e", form.MANIFEST).read_bytes())
    assert manifest["predicate"]["time_stamp_from"] == "127.0.0.1"
    assert sorted(path.name for path in Path("e").iterdir()) == sorted([*form.NAMES, *form.STAMPS])
    assert {path.stat().st_mode & 0o777 for path in Path("e").iterdir()} == {0o600}
    verify = ("evidence", "verify", "e", "--key", signed.public)
    shown = run(*verify, *ca)
    assert shown.code == 0
    assert f"Stamped at {made['time_stamp']['at']} by CN=Clock & Sons." in shown.out
    document = run(*verify, *ca, "--json").document
    assert document["time_stamp"] == made["time_stamp"]
    unchecked = run(*verify)
    assert unchecked.code == 1
    assert "was not checked" in unchecked.out
    assert run(*verify, "--json").document["time_stamp"]["trusted"] is False
    run("evidence", "stamp", "e", "--timestamp", stamped.url, *ca, "--json").error(
        2, "timestamp_exists"
    )


def test_a_stamp_that_was_not_had_is_missed_and_made_up_for(
    run: Run, signed: Signed, stamped: Stamped, serve: Callable[[Behaviour], Server]
) -> None:
    ca = ("--timestamp-ca", stamped.authority.root)
    create = ("evidence", "create", "e", "--key", signed.key, "--target", signed.target)
    down = serve(saying(503)).url
    error = run(*create, "--timestamp", down, *ca, "--json").error(1, "timestamp_unavailable")
    assert (
        "is signed, but has no time stamp: 127.0.0.1 answered with the HTTP status 503"
        in (error["message"])
    )
    assert "rubix-token-sync evidence stamp" in error["remedy"]
    assert sorted(path.name for path in Path("e").iterdir()) == sorted(form.NAMES)
    for given in ((), ca):
        missed = run("evidence", "verify", "e", "--key", signed.public, *given)
        assert missed.code == 1
        assert "It has no time stamp, and should have one." in missed.out
    again = run("evidence", "stamp", "e", "--timestamp", stamped.url, *ca)
    assert again.code == 0
    assert "by CN=Clock & Sons." in again.out
    assert run("evidence", "verify", "e", "--key", signed.public, *ca).code == 0
    assert [path.name for path in Path().iterdir()] == ["e"]


def test_what_fails_before_anything_is_made(
    run: Run, signed: Signed, stamped: Stamped, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    create = ("evidence", "create", "e", "--key", signed.key, "--target", signed.target, "--json")
    ca = ("--timestamp-ca", stamped.authority.root)
    for url in ("tsa.example", "ftp://tsa.example", "https://", "https://u:secret@tsa.example/",
                "https://tsa.example:x/", "https://t`a.example/"):  # fmt: skip
        ended = run(*create, "--timestamp", url, *ca)
        ended.error(2, "timestamp_url")
        assert "secret" not in ended.out + ended.err
    run(*create, "--timestamp", stamped.url).error(2, "timestamp_ca")
    for name, data in (("none", None), ("text", b"hello"), ("key", signed.public.read_bytes())):
        if data is not None:
            (tmp_path / name).write_bytes(data)
        run(*create, "--timestamp", stamped.url, "--timestamp-ca", name).error(2, "timestamp_ca")
    with monkeypatch.context() as hidden:
        hidden.setitem(sys.modules, "rfc3161_client", None)
        error = run(*create, "--timestamp", stamped.url, *ca).error(2, "extra_missing")
        assert extra_command("timestamps") in error["remedy"]
        run("evidence", "verify", stamped.directory, "--json").error(2, "extra_missing")
        assert run("evidence", "verify", signed.directory, "--key", signed.public).code == 0
    assert not (tmp_path / "e").exists()
    stamp_it = ("evidence", "stamp", signed.directory, "--timestamp", stamped.url, *ca, "--json")
    run(*stamp_it).error(2, "timestamp_unforeseen")


def misbehaving(stamped: Stamped, place: Path) -> dict[str, tuple[Behaviour, str]]:
    """Ways in which an authority gives no stamp, each with the code."""
    authority = stamped.authority
    good = (stamped.directory / form.STAMP).read_bytes()
    strict = StampingAuthority(place / "strict", "Strict", digests="sha512")
    stranger = StampingAuthority(place / "stranger", "Clock & Sons")
    chained = StampingAuthority(place / "chained", "Chained", more="certs = root.pem\n")
    note = (stamped.directory / form.CHECKPOINT).read_bytes()
    lost, wrong = "timestamp_unavailable", "timestamp_wrong"

    def replay(request: bytes) -> Behaviour:
        return saying(200, authority.reply(request), Content_Type=REPLY)

    return {
        "hangs": (hanging, lost),
        "drips its header": (dripping, lost),
        "drips its body": (dripping_body, lost),
        "never ends": (endless, lost),
        "closes": (raw(b""), lost),
        "is not HTTP": (raw(b"SSH-2.0-x\r\n"), lost),
        "fails": (saying(500, b"x"), lost),
        "redirects": (saying(307, Location=stamped.url), lost),
        "answers a page": (saying(200, good, Content_Type="text/html"), lost),
        "answers too much": (saying(200, bytes(300_000), Content_Type=REPLY), lost),
        "answers nothing": (saying(200, b"", Content_Type=REPLY), wrong),
        "answers nonsense": (saying(200, b"\x30\x03\x02\x01\x00" * 9, Content_Type=REPLY), wrong),
        "answers half": (saying(200, good[: len(good) // 2], Content_Type=REPLY), wrong),
        "answers in gzip": (
            saying(200, b"\x1f\x8b" + good, Content_Type=REPLY, Content_Encoding="gzip"), wrong,
        ),
        "refuses": (strict.behaviour, wrong),
        "answers an earlier request": (saying(200, good, Content_Type=REPLY), wrong),
        "answers a request of its own": (replay(request_for(note)), wrong),
        "sends certificates out of order": (chained.behaviour, wrong),
        "stamps other bytes": (replay(request_for(b"other")), wrong),
        "is another one of the same name": (stranger.behaviour, wrong),
    }  # fmt: skip


WAYS = (
    "hangs", "drips its header", "drips its body", "never ends", "closes", "is not HTTP", "fails",
    "redirects", "answers a page", "answers too much", "answers nothing", "answers nonsense",
    "answers half", "answers in gzip", "refuses", "answers an earlier request",
    "answers a request of its own", "sends certificates out of order", "stamps other bytes",
    "is another one of the same name",
)  # fmt: skip


@pytest.mark.parametrize("way", WAYS)
def test_an_authority_that_gives_no_stamp(
    signed: Signed, stamped: Stamped, unstamped: Path, tmp_path: Path,
    serve: Callable[[Behaviour], Server], way: str,
) -> None:  # fmt: skip
    ways = misbehaving(stamped, tmp_path)
    assert ways.keys() == set(WAYS)
    behaviour, code = ways[way]
    before = {path.name: path.read_bytes() for path in unstamped.iterdir()}
    authority = open_authority(serve(behaviour).url, stamped.authority.root)
    with pytest.raises(rts.EvidenceUnstamped) as failure:
        stamp(unstamped, authority, seconds=0.5 if way in WAYS[:4] else 20.0)
    assert (failure.value.code, failure.value.exit_code) == (code, 1)
    assert "127.0.0.1" in failure.value.message
    assert {path.name: path.read_bytes() for path in unstamped.iterdir()} == before
    assert rts.verify_evidence(unstamped, key=signed.public).exit_code == 1


def test_an_authority_that_cannot_be_reached(stamped: Stamped, unstamped: Path) -> None:
    authority = open_authority(f"http://127.0.0.1:{refused_port()}", stamped.authority.root)
    with pytest.raises(rts.EvidenceUnstamped, match=r"cannot be reached \(ConnectError\)"):
        stamp(unstamped, authority)
    failpoints.arm("evidence.stamp:1:error")
    with pytest.raises(rts.EvidenceUnstamped, match="cannot be reached"):
        rts.stamp_evidence(unstamped, timestamp=stamped.url, timestamp_ca=stamped.authority.root)


Change = Callable[[Path, Stamped, Signed], None]


def _from(name: str, data: Callable[[Stamped], bytes]) -> Change:
    return lambda directory, stamped, _: (directory / name).write_bytes(data(stamped)) and None


def _stamp_of_other_bytes(directory: Path, stamped: Stamped, _: Signed) -> None:
    request = request_for(b"other")
    (directory / form.STAMP_REQUEST).write_bytes(request)
    (directory / form.STAMP).write_bytes(stamped.authority.reply(request))


def _stamp_by_another(directory: Path, stamped: Stamped, _: Signed) -> None:
    other = StampingAuthority(directory.with_name("other"), "Clock & Sons")
    request = (directory / form.STAMP_REQUEST).read_bytes()
    (directory / form.STAMP).write_bytes(other.reply(request))


def _another_request(directory: Path, stamped: Stamped, _: Signed) -> None:
    request = request_for((directory / form.CHECKPOINT).read_bytes())
    (directory / form.STAMP_REQUEST).write_bytes(request)


def _signed_later(directory: Path, _: Stamped, signed: Signed) -> None:
    """The same key signs something else; the stamp is of what it signed before."""
    sign_again(directory, signed.other_key)


def _not_asked_for(directory: Path, _: Stamped, signed: Signed) -> None:
    edit_manifest(lambda m: m["predicate"].update(time_stamp_from=None))(directory, signed)
    sign_again(directory, signed.key, manifest=False)


def _names_no_host(directory: Path, _: Stamped, signed: Signed) -> None:
    edit_manifest(lambda m: m["predicate"].update(time_stamp_from=[1]))(directory, signed)
    sign_again(directory, signed.key, manifest=False)


def _flip(name: str) -> Change:
    return lambda directory, _, signed: flip(name)(directory, signed)


FORGED: dict[str, tuple[Change, str]] = {
    "the stamp alone is missing": (
        lambda d, *_: (d / form.STAMP).unlink(), "evidence_file_missing"),
    "the request alone is missing": (
        lambda d, *_: (d / form.STAMP_REQUEST).unlink(), "evidence_file_missing"),
    "a bit in the stamp": (_flip(form.STAMP), "evidence_timestamp"),
    "a bit in the request": (_flip(form.STAMP_REQUEST), "evidence_timestamp"),
    "half a stamp": (
        _from(form.STAMP, lambda s: (s.directory / form.STAMP).read_bytes()[:500]),
        "evidence_timestamp"),
    "nothing as a stamp": (_from(form.STAMP, lambda _: b""), "evidence_timestamp"),
    "nothing as a request": (_from(form.STAMP_REQUEST, lambda _: b""), "evidence_timestamp"),
    "a stamp of other bytes, with its request": (_stamp_of_other_bytes, "evidence_timestamp"),
    "a stamp of another request": (_another_request, "evidence_timestamp"),
    "a stamp by another authority of that name": (_stamp_by_another, "evidence_timestamp"),
    "a stamp that nobody asked for": (_not_asked_for, "evidence_file_extra"),
    "a manifest with a strange authority": (_names_no_host, "evidence_form"),
    "a large stamp": (_from(form.STAMP, lambda _: bytes(65 * 2**20)), "evidence_too_large"),
}  # fmt: skip


@pytest.mark.parametrize("name", FORGED)
def test_a_forged_stamp_is_refused(
    run: Run, signed: Signed, stamped: Stamped, copy: Path, name: str
) -> None:
    change, code = FORGED[name]
    change(copy, stamped, signed)
    ca = ("--timestamp-ca", stamped.authority.root)
    error = run("evidence", "verify", copy, "--key", signed.public, *ca, "--json").error(5, code)
    assert len(error["message"]) > 20


def test_a_stamp_does_not_cover_what_was_signed_later(
    signed: Signed, stamped: Stamped, copy: Path
) -> None:
    _signed_later(copy, stamped, signed)
    other = signed.other_key.with_name("other.pub")
    with pytest.raises(rts.EvidenceRefused, match="of other bytes than this checkpoint"):
        rts.verify_evidence(copy, key=other, timestamp_ca=stamped.authority.root)


def test_clocks_that_contradict_each_other(stamped: Stamped, signed: Signed) -> None:
    """A stamp of before the moment that the target's clock names."""
    note = (stamped.directory / form.CHECKPOINT).read_bytes()
    request, response = ((stamped.directory / name).read_bytes() for name in form.STAMPS)
    at = check_stamp(request, response, note, "2020-01-01T00:00:00.000000Z").at
    assert check_stamp(request, response, note, at).at == at
    with pytest.raises(rts.EvidenceRefused, match="one of the two clocks was wrong"):
        check_stamp(request, response, note, "2999-01-01T00:00:00.000000Z")


def test_whatever_byte_is_changed_it_is_refused_or_the_same(stamped: Stamped) -> None:
    """No parser falls over, and no other time is ever told."""
    from rubix_token_sync.evidence.stamping import read_roots

    note = (stamped.directory / form.CHECKPOINT).read_bytes()
    request, response = ((stamped.directory / name).read_bytes() for name in form.STAMPS)
    roots = read_roots(stamped.authority.root)
    made = "2020-01-01T00:00:00.000000Z"
    true = check_stamp(request, response, note, made, roots)
    accepted = 0
    for place in range(0, len(response), 5):
        changed = bytearray(response)
        changed[place] ^= 0x10
        try:
            found = check_stamp(request, bytes(changed), note, made, roots)
        except rts.EvidenceRefused:
            continue
        accepted += 1  # in a certificate that the chain does not need, say
        assert (found.at, found.serial, found.policy) == (true.at, true.serial, true.policy)
    assert accepted < len(response) / 5 / 2


@pytest.mark.skipif(not all(map(shutil.which, TOOLS)), reason=f"without {', '.join(TOOLS)}")
def test_stock_tools_check_it(
    signed: Signed, stamped: Stamped, copy: Path, elsewhere: Path
) -> None:
    """VERIFY.md of stamped evidence, executed where this program is not."""
    commands = blocks(copy)
    assert len(commands) == 6
    (step,) = [one for one in commands if "openssl ts" in one]
    shutil.copy(stamped.authority.root, copy.with_name("authority.pem"))
    done = shell(elsewhere, copy, "".join(commands))
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("Verification: OK") == 2
    assert "Time stamp:" in done.stdout
    for name in form.STAMPS:
        kept = (copy / name).read_bytes()
        flip(name)(copy, signed)
        assert shell(elsewhere, copy, step).returncode != 0
        (copy / name).write_bytes(kept)
    stranger = StampingAuthority(copy.with_name("stranger"), "Clock & Sons")
    shutil.copy(stranger.root, copy.with_name("authority.pem"))
    assert shell(elsewhere, copy, step).returncode != 0


def test_the_verifier_says_that_it_does_not_check_stamps(
    signed: Signed, copy: Path, elsewhere: Path
) -> None:
    named = ("--key", signed.public)
    shown = verifier(elsewhere, copy, copy, *named)
    assert shown.returncode == 0
    assert "not checked here, but by `openssl ts`" in shown.stdout
    for name in form.STAMPS:
        (copy / name).unlink()
        if name == form.STAMP_REQUEST:
            assert verifier(elsewhere, copy, copy, *named).returncode == 5
    missed = verifier(elsewhere, copy, copy, *named)
    assert missed.returncode == 1
    assert "It was to be stamped by '127.0.0.1', and has no stamp." in missed.stdout
    _not_asked_for(copy, None, signed)  # type: ignore[arg-type]
    for name in form.STAMPS:
        (copy / name).write_bytes(b"x")
    with pytest.raises(standalone.Refused, match="names no authority"):
        standalone.check_directory(str(copy), read_public_key(signed.public).raw)
