"""30: ``lease_seconds`` decides how long a lease lasts, for whoever looks at it."""

from __future__ import annotations

from tests.incidents.conftest import Site

_HOLD = """INSERT INTO SyncLeases
 (source_ip, session_id, holder, acquired_at, heartbeat_at, expires_at) VALUES
 ('vm1', '00000000-0000-4000-8000-000000000001', 'elsewhere|-|1|1', {heard}, {heard}, {ends})"""
_TIME = "strftime('%Y-%m-%d %H:%M:%f000', 'now', '{:+d} seconds')"


def hold(site: Site, heard: int, ends: int) -> None:
    site.change("DELETE FROM SyncLeases")
    site.change(_HOLD.format(heard=_TIME.format(heard), ends=_TIME.format(ends)))


def test_the_holder_says_how_long_it_lasts(site: Site) -> None:
    site.sync()
    hold(site, -70, 530)  # of 600 s: it was taken over after 70
    refused = site.run("sync", "--report", str(site.reports)).expect(4)
    assert "600 s after it was last heard of" in refused.stderr
    hold(site, -12, -2)  # of 10 s
    site.sync()


def test_the_setting_reaches_the_row(site: Site) -> None:
    env = {"RUBIX_SYNC_LEASE_SECONDS": "600", "RUBIX_SYNC_FAULT": "store.session.start:1:kill"}
    site.run("sync", "--report", str(site.reports), env=env)
    lasts = "round((julianday(expires_at) - julianday(heartbeat_at)) * 86400)"
    assert site.one(f"SELECT {lasts} FROM SyncLeases") == 600
