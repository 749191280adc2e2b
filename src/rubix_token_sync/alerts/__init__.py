"""Alerts: people hear of what needs them, once, and when it is over.

`rules` decides what is worth an alert (no I/O); `memory` knows what was sent before;
`channels` carries messages (Apprise) and heartbeats; `desk` puts them together.

A run reports on its own source; what no run can report, because it died or never
started, is reported by ``status --alert`` on one machine.  So nothing is sent twice
without the machines having to agree, and what was sent is remembered in a local file:
it must work when the target is what is broken.

A channel that fails is logged and changes nothing: not the run, not its exit code.
"""

from __future__ import annotations

from rubix_token_sync.alerts.desk import AlertDesk, AlertOptions
from rubix_token_sync.alerts.rules import (
    Alert,
    RunFacts,
    alert_of_failure,
    alerts_of_findings,
    alerts_of_run,
    alerts_of_status,
)

__all__ = [
    "Alert",
    "AlertDesk",
    "AlertOptions",
    "RunFacts",
    "alert_of_failure",
    "alerts_of_findings",
    "alerts_of_run",
    "alerts_of_status",
]
