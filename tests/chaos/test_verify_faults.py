"""`verify` and `--dry-run` under faults: they tell, they change nothing, they never say 'equal'."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from tests.chaos.battlefield import SETTINGS, SOURCE, Battlefield
from tests.chaos.door import Door
from tests.chaos.target_state import content_of

_COMMANDS = {"verify": ("verify",), "dry-run": ("sync", "--dry-run")}


def _points(door: Door, arguments: tuple[str, ...], log: Path) -> Counter[str]:
    door.run(*arguments, env={**SETTINGS, "RUBIX_SYNC_FAULT_LOG": str(log)})
    return Counter(line.split()[1] for line in log.read_text().splitlines())


@pytest.mark.timeout(300)
@pytest.mark.parametrize("action", [pytest.param("error", marks=pytest.mark.long), "kill"])
@pytest.mark.parametrize("command", _COMMANDS)
def test_every_point_of_a_reading_command(
    door: Door, battlefield: Battlefield, tmp_path: Path, command: str, action: str
) -> None:
    url = battlefield.fresh_sqlite(tmp_path / "target.db", battlefield.change)
    before = (tmp_path / "target.db").read_bytes()
    common = (str(battlefield.fleet), "--target", url, "--source-ip", SOURCE)
    arguments = (*_COMMANDS[command], *common)
    points = _points(door, arguments, tmp_path / "log")
    assert ("store.records" in points) == (command == "verify")
    for point, count in points.items():
        for n in {1, count}:
            fired = tmp_path / "fired"
            fired.unlink(missing_ok=True)
            env = {
                **SETTINGS,
                "RUBIX_SYNC_FAULT": f"{point}:{n}:{action}",
                "RUBIX_SYNC_FAULT_ONCE": str(fired),
            }
            run = door.run(*arguments, env=env)
            assert fired.exists(), (point, n)
            if action == "kill":
                assert run.code == -9, (point, n)
            else:
                run.expect(1, 3, 5)  # the nodes have changed since: 5 is right, 0 is not
                assert run.code == 5 or "rror" in run.stderr or "WARNING" in run.stderr
            assert (tmp_path / "target.db").read_bytes() == before, (point, n)
    assert content_of(url).records
