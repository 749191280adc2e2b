"""39: the same place under two spellings is one place, and stored paths stay as they are."""

from __future__ import annotations

from pathlib import Path

from tests.incidents.conftest import Site


def _paths(site: Site) -> set[str]:
    return {path for (path,) in site.rows("SELECT DISTINCT db_path FROM TokenRecords")}


def test_roots_spelled_otherwise(site: Site) -> None:
    first = site.sync()
    stored, real = _paths(site), site.fleet
    link = site.home / "link"
    link.symlink_to(real)
    for spelling in (link, Path(f"{real}/../{real.name}/"), real / "node032" / ".."):
        site.fleet = spelling
        again = site.sync()
        assert again["records_inserted"] == 0, spelling
        assert again["total_databases_failed"] == first["total_databases_failed"]
    site.fleet = real
    assert _paths(site) == stored
    assert all(path.startswith(f"{real}/") for path in stored)


def test_a_spelling_that_an_older_version_stored_is_kept(site: Site) -> None:
    """The first edition stored a root that is a link as it was given."""
    site.sync()
    count = site.one("SELECT count(*) FROM TokenRecords")
    real, moved = site.fleet, site.home / "moved"
    real.rename(moved)  # the stored paths are now those of a link
    real.symlink_to(moved)
    for spelling in (real, moved):
        site.fleet = spelling
        assert site.sync()["records_inserted"] == 0
    assert site.one("SELECT count(*) FROM TokenRecords") == count
    assert site.one("SELECT count(*) FROM TokenRecords WHERE source_deleted_at IS NOT NULL") == 0


def test_a_database_gone_below_a_linked_root_is_missed(site: Site) -> None:
    site.sync()
    link = site.home / "link"
    link.symlink_to(site.fleet)
    (site.fleet / "node032" / "Rubix" / "rubix.db").unlink()
    site.fleet = link
    report = site.sync()
    assert "database_gone" in {error["code"] for error in report["errors"]}
