"""`explain` answers for every code there is, from the page that ships with the package."""

from __future__ import annotations

import json
from pathlib import Path

from rubix_token_sync.explanations import explanations, find, nearest
from tests.cli.conftest import Ended, Run, run
from tests.docs.test_troubleshooting import literal_codes, meant_codes

__all__ = ["run"]

EXIT_CODES = ["0", "1", "2", "3", "4", "5", "6", "130", "141", "143"]


def test_every_code_of_the_program_is_explained() -> None:
    known = {entry.code for entry in explanations()}
    missing = (set(literal_codes() | meant_codes()) | set(EXIT_CODES)) - known
    assert missing - {"database_failed"} == set()


def test_every_entry_has_a_meaning_and_a_cure() -> None:
    lacking = [e for e in explanations() if not (e.says and e.cure and e.area)]
    assert lacking == []


def test_a_code_that_means_two_things_has_both() -> None:
    assert {entry.area for entry in find("access_denied")} == {"A node's database", "Content"}
    assert find("[Access-Denied]"), "as it is printed, and as people type it"
    assert find("ipfs/no_repository"), "as `errors` prints it"
    assert nearest("acces_denied")[0] == "access_denied"


def test_the_command(run: Run) -> None:
    ended: Ended = run("explain", "login_failed", "3")
    assert ended.code == 0
    assert "the user name or the password is wrong" in ended.out
    assert "3 (Exit codes)" in ended.out
    run("explain", "login_faild", "--json").error(2, "unknown_code")
    assert "Did you mean login_failed" in run("explain", "login_faild").err
    everything = run("explain", "--json").document["explanations"]
    assert len(everything) == len(explanations()) > 150
    assert "\n  config_untrusted " in run("explain").out


def test_the_page_is_in_the_package() -> None:
    page = Path(__file__).parents[2] / "docs" / "TROUBLESHOOTING.md"
    shipped = Path(__file__).parents[2] / "src" / "rubix_token_sync" / "explanations.md"
    assert shipped.samefile(page)
    assert json.dumps(shipped.read_text(encoding="utf-8"))
