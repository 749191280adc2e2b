"""Nothing of ours goes into a node's directories, whatever it is and however it is spelled."""

from __future__ import annotations

from pathlib import Path

import pytest

from rubix_token_sync.nodes.keep_out import node_around
from rubix_token_sync.testing import create_database, write_block
from tests.cli.conftest import Run


@pytest.fixture
def node(tmp_path: Path) -> Path:
    """A node, and a link to it from elsewhere."""
    home = tmp_path / "fleet/node1"
    token = write_block(home / ".ipfs", b"content")
    create_database(home / "Rubix/rubix.db", [(token, "", 1.0, "d", 0, "", "", 0)])
    (tmp_path / "link").symlink_to(home)
    return home


@pytest.mark.parametrize(
    "place",
    [
        "fleet/node1",
        "fleet/node1/tokens.db",
        "fleet/node1/reports/deep/below",
        "fleet/node1/Rubix/tokens.db",
        "fleet/node1/Rubix/rubix.db",
        "fleet/node1/.ipfs/x",
        "fleet/node1/.ipfs/blocks/x/y",
        "link/tokens.db",
        "fleet/other/../node1/x",
        "anywhere/rubix.db",
        "anywhere/rubix.db-wal",
    ],
)
def test_inside(tmp_path: Path, node: Path, place: str) -> None:
    assert node_around(tmp_path / place) is not None


@pytest.mark.parametrize(
    "place",
    ["tokens.db", "fleet/tokens.db", "fleet/node2/x", "fleet/node1.db", "fleet/reports", "Rubix/x"],
)
def test_outside(tmp_path: Path, node: Path, place: str) -> None:
    assert node_around(tmp_path / place) is None


def test_beside_a_database_without_the_usual_directory(tmp_path: Path) -> None:
    create_database(tmp_path / "data/rubix.db", [])
    assert node_around(tmp_path / "data/tokens.db") == str(tmp_path / "data")
    assert node_around(tmp_path / "data/out/tokens.db") is None


def test_a_block_store_under_another_name(tmp_path: Path) -> None:
    write_block(tmp_path / "store", b"x")
    assert node_around(tmp_path / "store/anything") == str(tmp_path / "store")


@pytest.mark.parametrize(
    "arguments",
    [
        ["sync", "{fleet}", "--target", "sqlite:///{node}/t.db"],
        ["sync", "{fleet}", "--target", "sqlite:///{node}/Rubix/rubix.db"],
        ["sync", "{fleet}", "--target", "sqlite:///{link}/t.db"],
        ["sync", "{fleet}", "--report", "{node}/reports"],
        ["sync", "{fleet}", "--log-file", "{node}/run.log"],
        ["retry-failed", "{fleet}", "--report", "{node}/.ipfs/reports"],
        ["check", "{fleet}", "--target", "sqlite:///{node}/t.db"],
        ["schema", "upgrade", "--target", "sqlite:///{node}/t.db"],
        ["verify", "{fleet}", "--combined", "{node}/list"],
        ["init", "{node}"],
        ["demo", "{node}"],
        ["demo", "{node}/Rubix/demo"],
    ],
)
def test_refused_before_anything_is_made(
    run: Run, node: Path, tmp_path: Path, arguments: list[str]
) -> None:
    before = sorted(node.rglob("*"))
    places = {"fleet": tmp_path / "fleet", "node": node, "link": tmp_path / "link"}
    ended = run(*(argument.format(**places) for argument in arguments))
    assert ended.code == 2 or (ended.code, arguments[0]) == (2, "check"), ended.err
    said = ended.err + ended.out
    assert "inside the node's directory" in said
    assert sorted(node.rglob("*")) == before


def test_in_the_directory_of_a_node_the_default_target_is_refused(
    run: Run, node: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(node)
    assert run("sync").code == 2
    assert sorted(path.name for path in node.iterdir()) == [".ipfs", "Rubix"]


def test_scratch_space_in_a_node_is_refused(run: Run, node: Path, tmp_path: Path) -> None:
    Path("s.toml").write_text(f'scratch = "{node}/scratch"\n')
    run(
        "sync", tmp_path / "fleet", "--config", "s.toml", "--target", "sqlite:///t.db", "--json"
    ).error(2, "inside_a_node")
