"""Without the optional packages: what needs them says so, everything else works."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from rubix_token_sync.installation import extra_command

from .conftest import SECRET, Answer

Sync = Callable[..., Answer]


@pytest.fixture
def without(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Makes a package look as if it were not installed."""

    def hide(name: str) -> None:
        for module in [m for m in sys.modules if m.split(".")[0] == name]:
            monkeypatch.delitem(sys.modules, module)
        monkeypatch.setitem(sys.modules, name, None)

    return hide


def test_alerts_say_what_they_need(
    sync: Sync, without: Callable[[str], None], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    without("apprise")
    assert sync().exit_code == 0, "nobody asked for alerts"
    monkeypatch.setenv("RUBIX_SYNC_ALERT_URLS", f"json://127.0.0.1:1/{SECRET}")
    done = sync("--json")
    assert (done.exit_code, done.json["error"]["code"]) == (2, "extra_missing")
    assert extra_command("alerts") in done.json["error"]["remedy"]


@pytest.mark.parametrize("flag", ["--metrics-port", "--metrics-file"])
def test_metrics_say_what_they_need(
    sync: Sync, without: Callable[[str], None], tmp_path: Path, flag: str
) -> None:
    without("prometheus_client")
    value = "19469" if flag == "--metrics-port" else str(tmp_path / "x.prom")
    done = sync(flag, value, "--json")
    assert (done.exit_code, done.json["error"]["code"]) == (2, "extra_missing")
    assert not (tmp_path / "target.db").exists(), "said before the run"
