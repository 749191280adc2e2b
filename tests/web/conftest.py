"""A target with everything in it that a page can meet, and the page over it, in this process."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from starlette.testclient import TestClient

import rubix_token_sync as rts
from rubix_token_sync import log
from rubix_token_sync.records.kinds import KINDS
from rubix_token_sync.targets.base import TargetOptions
from rubix_token_sync.targets.registry import open_target, parse_target
from rubix_token_sync.testing import change_status
from rubix_token_sync.web.app import make_app
from rubix_token_sync.web.options import ServeOptions
from tests.audit.fleets import Row, insert, put_database
from tests.spelling import spell_everywhere

SCRIPT = "<script>document.title='owned'</script>"
BIDI = "abc\u202egnp.exe\u2066x"
HOSTILE_IDS = (
    SCRIPT,
    "../../etc/passwd",
    "'\"><img src=x onerror=alert(1)>",
    BIDI,
    "%2e%2e%2f?id=1#x&y=2",
    "javascript:alert(1)",
    "a" * 500,
    "\n\r\tline\x1b[31m",
    '=HYPERLINK("http://x")',
)
HOSTILE_NODES = ("node 'with\" quotes", SCRIPT, "../../up", f"right{BIDI}left")


@dataclass(frozen=True)
class Place:
    """Where everything is."""

    target: str
    reports: Path
    evidence: Path
    hostile: tuple[str, ...] = HOSTILE_IDS


def fill_with_hostile_rows(target: str) -> None:
    """Rows as only an attacker's node has them: each id on two nodes, under different DIDs."""
    store = open_target(parse_target(target), TargetOptions())
    large = "<b>" + "x" * 50_000
    rows = [
        Row(node, token, did=f"did{SCRIPT}{number}", source="evil'\"<&", transaction=SCRIPT,
            content=large if number == 0 else f"{SCRIPT}{BIDI}", parent=SCRIPT, value=SCRIPT)
        for number, node in enumerate(HOSTILE_NODES)
        for token in (HOSTILE_IDS if number < 2 else HOSTILE_IDS[:3])
    ]  # fmt: skip
    rows.append(
        Row(
            HOSTILE_NODES[0],
            "no content",
            fetched=False,
            error=f"{SCRIPT}: {BIDI}",
            source="evil'\"<&",
        )
    )
    now = datetime(2026, 11, 1)

    def work(conn: Any) -> None:
        insert(conn, store.tables, rows)
        for node in HOSTILE_NODES:
            put_database(conn, store.tables, node, now, source="evil'\"<&")

    store.transact(work)
    store.close()


@pytest.fixture(scope="session")
def place(unpacked_fleet: Path, tmp_path_factory: pytest.TempPathFactory) -> Place:
    """The fleet synced twice by one machine, a hostile one beside it, audited twice; signed."""
    directory = tmp_path_factory.mktemp("web")
    target, reports = f"sqlite:///{directory}/target.db", directory / "reports"
    fleet = shutil.copytree(unpacked_fleet, directory / "fleet", symlinks=True)
    configuration = rts.configure(
        str(fleet), target=target, source_ip="vm1", report=str(reports),
        state_directory=os.environ.get("STATE_DIRECTORY"),
    )  # fmt: skip
    rts.sync(configuration=configuration, observers=[rts.ReportObserver(reports)])
    change_status(fleet / "node032/Rubix/rubix.db", 0.2)
    rts.sync(configuration=configuration, observers=[rts.ReportObserver(reports)])
    fill_with_hostile_rows(target)
    rts.audit_records(target=target)
    rts.audit_records(target=target)
    key = directory / "key"
    rts.make_evidence_key(key)
    (directory / "evidence").mkdir()
    rts.create_evidence(directory / "evidence" / "first", key=key, target=target)
    log.tear_down()
    return Place(target, reports, directory / "evidence")


@dataclass
class Site:
    """The page in this process."""

    client: TestClient
    target: str

    def get(self, address: str, **more: Any) -> Any:
        """The answer; redirects are shown, not followed."""
        return self.client.get(address, follow_redirects=False, **more)

    def page(self, address: str) -> Page:
        """A page that is there."""
        answer = self.get(address)
        assert answer.status_code == 200, f"{address}: {answer.status_code} {answer.text[:2000]}"
        return Page.of(answer.text)

    def json(self, address: str) -> Any:
        """A document."""
        answer = self.get(address)
        assert answer.status_code == 200, f"{address}: {answer.status_code} {answer.text[:2000]}"
        return answer.json()

    def tokens(self, filters: str) -> list[Any]:
        """All records that a list of tokens leads to, from page to page."""
        found, more = [], ""
        while True:  # a search that no index answers ends after a while, on a busy machine early
            page = self.json(f"/tokens.json?{filters}&limit=500{more}")
            found += page["tokens"]
            if page["next"] is None:
                return found
            more = f"&after={quote(page['next'])}"


@dataclass
class Page:
    """What is in a page, as a browser's parser finds it."""

    text: str
    tags: list[str] = field(default_factory=list)
    links: list[str] = field(default_factory=list)
    attributes: list[tuple[str, str, str]] = field(default_factory=list)
    words: str = ""

    @classmethod
    def of(cls, text: str) -> Page:
        """Parse it."""
        page = cls(text)
        parser = _Parser(page)
        parser.feed(text)
        page.words = " ".join(parser.said)
        return page


class _Parser(HTMLParser):
    def __init__(self, page: Page) -> None:
        super().__init__()
        self.page, self.said = page, list[str]()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.page.tags.append(tag)
        for name, value in attrs:
            self.page.attributes.append((tag, name, value or ""))
            if tag == "a" and name == "href" and value:
                self.page.links.append(value)

    def handle_data(self, data: str) -> None:
        if data.strip():
            self.said.append(data.strip())


Opener = Callable[..., Site]


@pytest.fixture(scope="module")
def opened(place: Place) -> Iterator[Opener]:
    """Opens the page with options of its own, over any target."""
    readers: list[rts.TargetReader] = []
    clients: list[TestClient] = []

    def open_it(
        *, target: str | None = None, base: str = "http://127.0.0.1:8765",
        peer: str = "127.0.0.1", **options: Any,
    ) -> Site:  # fmt: skip
        configuration = rts.configure(target=target or place.target)
        reader: Any = rts.open_target(configuration=configuration)
        spell_everywhere(reader._store.engine)
        given = {"reports": (str(place.reports),), "evidence": (str(place.evidence),)} | options
        app: Any = make_app(configuration, reader, ServeOptions(**given))
        client = TestClient(app, base_url=base, client=(peer, 50_000))
        client.__enter__()
        readers.append(reader)
        clients.append(client)
        return Site(client, target or place.target)

    yield open_it
    for client in clients:
        client.__exit__()
    for reader in readers:
        reader.close()
    log.tear_down()


@pytest.fixture(scope="module")
def site(opened: Opener) -> Site:
    """The page, open to this machine."""
    return opened()


KIND_NAMES = tuple(kind.name for kind in KINDS)
