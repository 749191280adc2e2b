"""Telling people what needs them, and only that.

`rules` decides what is a problem (no I/O); `memory` knows what was told before;
`channels` carries messages (Apprise) and heartbeats; `desk` puts them together.

Who tells what: a run tells of its own source; what no run can tell, because it
died or never started, is told by ``status --alert`` on one machine.  So nothing is
told twice without the machines having to agree, and what was told is remembered
in a local file: it must work when the target is what is broken.

A channel that fails is logged and changes nothing: not the run, not its exit code.
"""

from __future__ import annotations

from rubix_token_sync.alerts.desk import AlertDesk, AlertOptions
from rubix_token_sync.alerts.rules import (
    Alert,
    ContentFailure,
    RunFacts,
    alert_of_failure,
    alerts_of_run,
    alerts_of_status,
)

__all__ = [
    "Alert",
    "AlertDesk",
    "AlertOptions",
    "ContentFailure",
    "RunFacts",
    "alert_of_failure",
    "alerts_of_run",
    "alerts_of_status",
]
