"""40: private copies go where they may, or the database fails with the reason."""

from __future__ import annotations

from pathlib import Path

import pytest

from rubix_token_sync.errors import SourceError
from rubix_token_sync.scratch import Scratch
from tests.incidents.conftest import Site
from tests.incidents.nodes import look


@pytest.fixture
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The system's directories for temporary files, all of them in a test's hands."""
    monkeypatch.setattr("rubix_token_sync.scratch._USUAL", ())
    for name in ("TMPDIR", "TEMP", "TMP"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


def _refused(scratch: Scratch) -> str:
    with pytest.raises(SourceError) as caught:
        scratch.choose(1000)
    assert caught.value.code == "no_scratch_space"
    assert "scratch" in caught.value.remedy
    return caught.value.message


def test_what_is_never_chosen(places: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = places / "root"
    (root / "node" / "Rubix").mkdir(parents=True)
    (root / "node" / "Rubix" / "rubix.db").touch()
    monkeypatch.setenv("TMPDIR", str(root))
    assert Scratch().choose() == str(root)
    assert "below the root" in _refused(Scratch(roots=(str(root),)))
    assert "belongs to the node" in _refused(Scratch(str(root / "node" / "Rubix")))
    monkeypatch.chdir(root)
    assert "the current directory" in _refused(Scratch())
    monkeypatch.setenv("TMPDIR", ".")
    assert "neither scratch nor TMPDIR" in _refused(Scratch())  # nothing relative, and no fallback
    assert "no such file" in _refused(Scratch(str(places / "missing")))
    assert "are needed" in _refused(Scratch(str(places), margin_bytes=2**60))


def test_dask_keeps_its_files_where_copies_may_go(
    places: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker of a cluster may be started anywhere: in a node's directory, for one."""
    from rubix_token_sync.cluster.engine import running_dask

    node = places / "node"
    (node / "Rubix").mkdir(parents=True)
    (node / "Rubix" / "rubix.db").touch()
    monkeypatch.chdir(node)
    before = look(node)
    with pytest.raises(SourceError) as caught, running_dask():
        pass
    assert caught.value.code == "no_scratch_space"
    (places / "scratch").mkdir()
    with running_dask(Scratch(str(places / "scratch"), (str(node),))) as directory:
        assert directory.startswith(str(places / "scratch"))
    assert look(node) == before


def test_a_database_that_needs_a_copy_fails_alone(site: Site) -> None:
    """The fleet's node with a -wal and no -shm can only be read from a copy."""
    inside = site.fleet / "node032" / "Rubix"
    before = look(site.fleet)
    done = site.run("sync", "--json", env={"RUBIX_SYNC_SCRATCH": str(site.home / "missing")})
    done.expect(1)
    (failed,) = [e for e in done.document["errors"] if e["code"] == "no_scratch_space"]
    assert failed["node_name"] == "Qnode1"
    assert str(site.home / "missing") in failed["message"]
    site.run("sync", "--report", str(site.reports), cwd=inside, env={"TMPDIR": str(inside)}).expect(
        0, 1
    )
    assert look(site.fleet) == before


@pytest.mark.parametrize("place", ["node032", "node032/Rubix", "node032/.ipfs"])
def test_units_are_not_written_into_a_node(site: Site, place: str) -> None:
    before = sorted(site.fleet.rglob("*"))
    written = site.door.run("install-service", "--user", "nobody", "--to", str(site.fleet / place))
    assert written.code == 2
    assert "[inside_a_node]" in written.stderr
    assert sorted(site.fleet.rglob("*")) == before
