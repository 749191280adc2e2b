"""38: hostile files beside the tokens cost the content of their node, never the run."""

from __future__ import annotations

import pytest

from tests.incidents.conftest import Site

SPECS = [
    '{"mounts":[{"mountpoint":["/blocks"],"type":"flatfs","path":"blocks"}],"type":"mount"}',
    '{"mounts":[{"mountpoint":{},"type":"flatfs"}],"type":"mount"}',
    '{"mounts":[1, null, "x"]}',
    '{"type":"badgerds","path":"a\\u0000b"}',
    '{"type":"badgerds","path":"\\ud800"}',
    '{"type":["flatfs"],"path":1e999}',
    "[" * 60_000,
]


@pytest.mark.parametrize("spec", SPECS)
def test_a_hostile_specification(spec: str, site: Site) -> None:
    (site.fleet / "node032" / ".ipfs" / "datastore_spec").write_text(spec)
    report = site.sync()
    assert report["total_databases_processed"] == 6
    kinds = {
        str(error).partition(":")[0]
        for (error,) in site.rows(
            "SELECT DISTINCT ipfs_error FROM TokenRecords WHERE node_name = 'node032'"
        )
    }
    assert kinds <= {"read_error", "no_cid", "program_failed"}


@pytest.mark.parametrize(
    "api", ["/dns4/a..b/tcp/5001", "/dns4/%s/tcp/1" % ("x" * 70), "\0", "/unix/"]
)
def test_a_hostile_address(api: str, site: Site) -> None:
    repository = site.fleet / "node032" / ".ipfs"
    (repository / "datastore_spec").write_text('{"type":"badgerds","path":"badgerds"}')
    (repository / "api").write_text(api)
    report = site.sync("--ipfs-network", "--ipfs-timeout", "1")
    assert report["total_databases_processed"] == 6
