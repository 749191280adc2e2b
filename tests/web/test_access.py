"""Who is let in, who may decide, and what no page ever shows."""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

import rubix_token_sync as rts
from rubix_token_sync.web.access import COOKIE
from rubix_token_sync.web.options import ServeOptions, network, read_token
from rubix_token_sync.web.session import LASTS, Attempts, Logins
from tests.web.conftest import Opener, Place, Site

TOKEN = "a-token-that-nobody-guesses-9137"


@pytest.fixture
def locked(opened: Opener) -> Site:
    """The page behind a token, seen by somebody who has none."""
    return opened(token=TOKEN, base="http://page.example:8765")


def log_in(site: Site, token: str = TOKEN, **fields: str) -> Any:
    """Post the form as a browser does."""
    return site.client.post(
        "/login", data={"token": token, "name": "Ada", **fields},
        headers={"Sec-Fetch-Site": "same-origin"}, follow_redirects=False,
    )  # fmt: skip


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.4", "page.example"])
def test_an_open_page_is_served_to_this_machine_only(host: str) -> None:
    with pytest.raises(rts.SettingsError) as refused:
        ServeOptions(host=host).check()
    assert refused.value.code == "web_exposed"
    ServeOptions(host=host, token=TOKEN).check()
    ServeOptions(host=host, trusted_proxies=(network("10.0.0.1"),)).check()
    ServeOptions(host="127.0.0.1").check()


@pytest.mark.parametrize("text", ["0.0.0.0/0", "::/0", "nowhere", ""])
def test_not_everybody_is_a_trusted_proxy(text: str) -> None:
    with pytest.raises(rts.SettingsError):
        network(text)


def test_a_token_file_is_for_its_owner_alone(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text(f"{TOKEN}\nnot this line\n")
    file.chmod(0o600)
    assert read_token(str(file)) == TOKEN
    file.chmod(0o640)
    with pytest.raises(rts.SettingsError, match="others"):
        read_token(str(file))
    file.chmod(0o600)
    file.write_text("short\n")
    with pytest.raises(rts.SettingsError, match="16"):
        read_token(str(file))
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo, 0o600)
    assert stat.S_ISFIFO(fifo.stat().st_mode)
    for other in (fifo, tmp_path, "/dev/zero"):
        with pytest.raises(rts.SettingsError, match="is not a regular file"):
            read_token(str(other))
    with pytest.raises(rts.SettingsError):
        read_token(str(tmp_path / "none"))


def test_nothing_is_shown_without_a_login(locked: Site) -> None:
    for address in ("/", "/tokens", "/finding?name=x", "/find?q=Qm"):
        answer = locked.get(address)
        assert answer.status_code == 303
        assert answer.headers["location"].startswith("/login")
    for address in ("/fleet.json", "/tokens.csv", "/live", "/live.json"):
        answer = locked.get(address)
        assert (answer.status_code, answer.json()["error"]["code"]) == (401, "web_login_needed")
    assert locked.client.post("/finding/acknowledge").status_code == 401
    assert locked.get("/login").status_code == 200
    assert locked.get("/static/page.css").status_code == 200
    assert locked.get("/healthz").text == "ok\n"


def test_the_token_opens_it_and_the_cookie_is_strict(locked: Site) -> None:
    answer = log_in(locked, to="/tokens?node=node033")
    assert (answer.status_code, answer.headers["location"]) == (303, "/tokens?node=node033")
    cookie = answer.headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "samesite=strict" in cookie.lower()
    assert TOKEN not in cookie
    assert locked.get("/tokens").status_code == 200
    assert "Ada" in locked.page("/").words
    out = locked.client.post("/logout", headers={"Sec-Fetch-Site": "same-origin"},
                             follow_redirects=False)  # fmt: skip
    assert out.headers["location"] == "/login"
    assert locked.get("/").status_code == 303


def test_a_login_leads_nowhere_else(locked: Site) -> None:
    for to in ("https://evil.example/", "//evil.example", "/\\evil.example", "/\r\nx", "x"):
        assert log_in(locked, to=to).headers["location"] == "/"


def test_a_bearer_is_for_programs(locked: Site) -> None:
    right = {"Authorization": f"Bearer {TOKEN}"}
    assert locked.get("/fleet.json", headers=right).status_code == 200
    assert locked.get("/fleet.json", headers={"Authorization": "Bearer no"}).status_code == 401


def test_cookies_of_others_are_worth_nothing() -> None:
    logins = Logins(TOKEN)
    cookie = logins.cookie("Ada", now=1_000.0)
    assert logins.name_in(cookie, now=1_000.0 + LASTS - 1) == "Ada"
    assert logins.name_in(cookie, now=1_000.0 + LASTS + 1) is None
    assert Logins("another-token-altogether").name_in(cookie, now=1_001.0) is None
    text, _, signature = cookie.partition(".")
    other = "1" if signature.endswith("0") else "0"
    forgeries = [text, f"{text}.", f"{text}x.{signature}", f"{text}.{signature[:-1]}{other}"]
    for forged in ("", ".", *forgeries, "é.é", "a" * 5_000):
        assert logins.name_in(forged, now=1_001.0) is None, forged


def test_wrong_tokens_are_listened_to_ever_less(opened: Opener) -> None:
    site = opened(token=TOKEN, base="http://page.example:8765", peer="10.9.8.7")
    for _ in range(5):
        assert log_in(site, "wrong-token-wrong-token").status_code == 401
    refused = log_in(site)
    assert refused.status_code == 429, "the right one has to wait as well"
    assert int(refused.headers["retry-after"]) >= 1
    assert site.get("/fleet.json", headers={"Authorization": f"Bearer {TOKEN}"}).status_code == 429


def test_waiting_doubles_and_is_forgotten() -> None:
    attempts = Attempts()
    waits = []
    for number in range(12):
        attempts.wrong("a", now=float(number))
        waits.append(round(attempts.wait("a", now=float(number)), 3))
    assert waits[:6] == [0, 0, 0, 0, 1, 2]
    assert waits[6:] == [4, 8, 16, 32, 64, 128]
    assert attempts.wait("b", now=11.0) == 0
    assert attempts.wait("a", now=2_000.0) == 0
    for number in range(100):
        attempts.wrong(f"many{number}", now=3_000.0)
    assert attempts.wait("somebody else", now=3_000.0) > 0
    for number in range(20_000):
        attempts.wrong(str(number), now=3_000.0)
    assert len(attempts._wrong) <= 10_000


def a_finding(site: Site) -> dict[str, Any]:
    """One that is open."""
    found: dict[str, Any] = site.json("/findings.json")["findings"][0]
    return found


@pytest.mark.parametrize(
    "headers",
    [
        {}, {"Sec-Fetch-Site": "cross-site"}, {"Sec-Fetch-Site": "same-site"},
        {"Sec-Fetch-Site": "none"}, {"Origin": "http://evil.example"}, {"Origin": "null"},
        {"Origin": "http://127.0.0.1:9999"},
        {"Sec-Fetch-Site": "cross-site", "Origin": "http://127.0.0.1:8765"},
    ],
)  # fmt: skip
def test_other_pages_decide_nothing(site: Site, headers: dict[str, str]) -> None:
    found = a_finding(site)
    answer = site.client.post(
        "/finding/acknowledge", data={"name": found["fingerprint"]}, headers=headers,
        follow_redirects=False,
    )  # fmt: skip
    assert answer.status_code == 403
    name = quote(found["fingerprint"])
    (after,) = site.json(f"/finding.json?name={name}")["findings"]
    assert after["acknowledged_by"] == found["acknowledged_by"]


@pytest.mark.parametrize(
    "headers", [{"Sec-Fetch-Site": "same-origin"}, {"Origin": "http://127.0.0.1:8765"}]
)
def test_people_decide_about_findings(site: Site, place: Place, headers: dict[str, str]) -> None:
    name = a_finding(site)["fingerprint"]

    def decide(what: str, **fields: str) -> Any:
        answer = site.client.post(
            f"/finding/{what}", data={"name": name, **fields}, headers=headers,
            follow_redirects=False,
        )  # fmt: skip
        assert answer.status_code == 303, answer.text
        (found,) = site.json(f"/finding.json?name={quote(name)}")["findings"]
        return found

    try:
        found = decide("acknowledge", note="<b>seen</b>")
        assert (found["state"], found["note"]) == ("acknowledged", "<b>seen</b>")
        assert "<b>seen</b>" in site.page(f"/finding?name={quote(name)}").words
        found = decide("suppress", reason="known to be a test", **{"for": "7d"})
        assert (found["state"], found["suppressed_reason"]) == ("suppressed", "known to be a test")
        assert name not in [f["fingerprint"] for f in site.json("/findings.json")["findings"]]
        assert decide("reopen")["state"] not in ("suppressed", "acknowledged")
    finally:
        rts.reopen_finding(name, target=place.target)


def test_what_cannot_be_decided_is_said(site: Site, opened: Opener) -> None:
    own = {"Sec-Fetch-Site": "same-origin"}
    name = a_finding(site)["fingerprint"]

    def post(page: Site, what: str, **fields: str) -> Any:
        return page.client.post(f"/finding/{what}", data=fields, headers=own)

    assert post(site, "suppress", name=name, **{"for": "7d"}).status_code == 400
    assert post(site, "suppress", name=name, reason="x", **{"for": "long"}).status_code == 400
    assert post(site, "acknowledge", name="held_twice:000000").status_code == 404
    assert post(site, "destroy", name=name).status_code == 404
    assert post(opened(read_only=True), "acknowledge", name=name).status_code == 403
    large = site.client.post(
        "/finding/acknowledge",
        content=b"name=" + b"x" * 20_000,
        headers=own | {"Content-Type": "application/x-www-form-urlencoded"},
    )
    assert large.status_code == 413
    assert (
        site.client.post("/finding/acknowledge", json={"name": name}, headers=own).status_code
        == 415
    )


def test_another_name_for_this_machine_is_refused(site: Site, opened: Opener) -> None:
    """A page elsewhere may point its own name here; it must not read what is open to us."""
    assert site.get("/", headers={"Host": "evil.example"}).status_code == 421
    assert site.get("/", headers={"Host": "localhost:8765"}).status_code == 200
    named = opened(names=("tokens.internal",))
    assert named.get("/", headers={"Host": "tokens.internal"}).status_code == 200


def test_a_trusted_proxy_names_the_user(opened: Opener) -> None:
    options = {"trusted_proxies": (network("10.0.0.0/24"),), "base": "http://page.example"}
    proxy = opened(peer="10.0.0.7", **options)
    assert "grace" in proxy.get("/", headers={"X-Forwarded-User": "grace"}).text
    assert proxy.get("/").status_code == 403, "without a user"
    other = opened(peer="10.0.1.7", **options)
    answer = other.get("/", headers={"X-Forwarded-User": "grace"})
    assert answer.status_code == 403, "whoever is not the proxy can say anything"


def test_it_may_live_below_a_path(opened: Opener) -> None:
    site = opened(root_path="/tokens-of-ours")
    for front in ("", "/tokens-of-ours"):  # the proxy may take the path away, or leave it
        page = site.page(f"{front}/nodes")
        own = [v for _, name, v in page.attributes if name in ("href", "src", "action", "hx-get")]
        assert own
        assert all(v.startswith(("/tokens-of-ours/", "#")) for v in own), own
    locked = opened(root_path="/t", token=TOKEN, base="http://page.example")
    assert locked.get("/t/").headers["location"] == "/t/login"
    answer = log_in(locked, to="/nodes")
    assert answer.headers["location"] == "/t/nodes"
    assert "Path=/t;" in answer.headers["set-cookie"]


def test_every_answer_has_its_headers(site: Site) -> None:
    for address in (
        "/",
        "/fleet.json",
        "/tokens.csv",
        "/nowhere",
        "/static/live.js",
        "/token?id=x",
    ):
        headers = site.get(address).headers
        policy = headers["content-security-policy"]
        assert policy.startswith("default-src 'self'; ")
        assert "unsafe" not in policy
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["x-frame-options"] == "DENY"
        if not address.startswith("/static"):
            assert headers["cache-control"] == "no-store"
        assert "server" not in headers


def test_nothing_in_a_page_is_inline(site: Site) -> None:
    for address in ("/", "/runs", "/tokens", "/findings"):
        page = site.page(address)
        assert "style" not in page.tags
        for tag, name, value in page.attributes:
            assert not name.startswith("on"), (tag, name)
            assert name != "style", tag
            if name == "src":
                assert value.startswith("/static/")
        assert re.findall(r"<script[^>]*>([^<]*)</script>", page.text) == ["", ""]


def test_a_link_from_elsewhere_gets_its_cookie(locked: Site) -> None:
    """A strict cookie stays at home when a mail's link is clicked; the hop brings it along."""
    log_in(locked)
    cookie = locked.client.cookies.get(COOKIE)
    locked.client.cookies.clear()
    hop = locked.get("/nodes", headers={"Sec-Fetch-Site": "cross-site"})
    assert (hop.status_code, 'http-equiv="refresh"' in hop.text) == (200, True)
    assert "node033" not in hop.text
    locked.client.cookies.set(COOKIE, str(cookie))
    assert "node033" in locked.page("/nodes").text


def test_no_secret_is_in_any_page(opened: Opener, place: Place) -> None:
    site = opened(token=TOKEN, base="http://page.example")
    log_in(site)
    for address in ("/", "/nodes", "/runs", "/tokens", "/findings", "/errors", "/evidence", "/no"):
        for form in (address, f"{address.rstrip('/') or '/fleet'}.json"):
            assert TOKEN not in site.get(form).text
