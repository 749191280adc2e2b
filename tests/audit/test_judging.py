"""The judge of a run: tables found again, and a sync that does without them where it must."""

from __future__ import annotations

import errno
import mmap
from pathlib import Path

import pytest

from rubix_token_sync.audit.judging import JudgeOptions, judge_for_sync, prepare_judge
from rubix_token_sync.testing import whole_token, write_block
from tests.state import TABLES


@pytest.fixture
def tables(tmp_path: Path) -> Path:
    """A private copy of the suite's tables."""
    shared = JudgeOptions(TABLES)
    place = tmp_path / "tables"
    place.mkdir()
    numbers = Path(prepare_judge(shared, ids=False).numbers)
    (place / numbers.name).write_bytes(numbers.read_bytes())
    return place


def test_a_damaged_table_costs_verdicts_and_is_built_again(
    tables: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    files = judge_for_sync(JudgeOptions(str(tables)))
    assert files is not None
    content = whole_token(1, 7)
    token = write_block(tmp_path / ".ipfs", content)
    (verdict,) = _verdicts(files, token, content)
    assert verdict == "genuine"
    table = Path(files.numbers)
    with table.open("r+b") as file:  # all keys of the table become zeros
        file.seek(4096)
        file.write(bytes(table.stat().st_size * 2 // 3 - 4096))
    judge = files.open_for_sync()
    assert judge.judge([token], [content], ["rbt"]) is None
    assert judge.judge([token], [content], ["rbt"]) is None
    assert "not judged" in caplog.text
    assert not table.exists()


def test_a_table_that_cannot_be_mapped_now_is_not_thrown_away(
    tables: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    files = judge_for_sync(JudgeOptions(str(tables)))
    assert files is not None
    content = whole_token(1, 7)
    token = write_block(tmp_path / ".ipfs", content)

    def no_memory(*_: object, **__: object) -> None:
        raise OSError(errno.ENOMEM, "Cannot allocate memory")

    with monkeypatch.context() as scarce:
        scarce.setattr(mmap, "mmap", no_memory)
        assert files.open_for_sync().judge([token], [content], ["rbt"]) is None
    assert "not judged" in caplog.text
    assert _verdicts(files, token, content) == ["genuine"]


def test_where_nothing_can_be_written_a_sync_goes_on_without_verdicts(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("")
    assert judge_for_sync(JudgeOptions(str(tmp_path / "file" / "tables"))) is None
    assert "not judged" in caplog.text
    assert judge_for_sync(None) is None


def _verdicts(files: object, token: str, content: bytes) -> list[str]:
    judged = files.open_for_sync().judge([token], [content], ["rbt"])  # type: ignore[attr-defined]
    return judged.column("verdict").to_pylist()  # type: ignore[no-any-return]
