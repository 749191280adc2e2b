"""A run that fails leaves a report as well: it is then that somebody wants to read one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path


def test_a_failed_run_leaves_its_report(fleet: Path, tmp_path: Path) -> None:
    reports = tmp_path / "reports"
    # The mark of the first database cannot be written, whatever is tried.
    fault = {"RUBIX_SYNC_FAULT": "store.mark:1:error:forever", "RETRY_ATTEMPTS": "1"}
    run = subprocess.run(
        [
            *(sys.executable, "-m", "rubix_token_sync", "sync", str(fleet), "--quiet"),
            *("--target", f"sqlite:///{tmp_path / 'target.db'}", "--report", str(reports)),
        ],
        env={**os.environ, **fault},
        capture_output=True,
        text=True,
    )
    assert run.returncode == 3, run.stderr
    (written,) = reports.glob("*.json")
    report = json.loads(written.read_text())
    assert (report["status"], report["exit_code"]) == ("FAILED", 3)
    assert report["errors"][-1]["code"] == "injected"
    assert report["total_databases_processed"] == 0
