"""``python docs/screenshots.py``: make the pictures of the pages anew, from a demo fleet.

Needs Chromium on PATH.  They are not compared by a test: fonts differ between machines.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).parent
PROGRAM = Path(sys.executable).parent / "rubix-token-sync"
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
PORT = 8799


def take(browser: str, address: str, picture: Path, height: int) -> None:
    """One picture of what a reader sees first."""
    subprocess.run(
        [browser, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars",
         f"--window-size=1200,{height}", f"--screenshot={picture}", address],
        check=True, capture_output=True, timeout=120,
    )  # fmt: skip


def main() -> int:
    """0: all pictures were made."""
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        print("No Chromium on PATH.", file=sys.stderr)
        return 1
    from rubix_token_sync.cli import COMMANDS

    with tempfile.TemporaryDirectory() as work:
        demo = Path(work) / "demo"
        subprocess.run([PROGRAM, "demo", demo, "--tokens", "300"], check=True, capture_output=True)
        (report,) = (demo / "reports").glob("*.html")
        take(browser, report.as_uri(), HERE / "report.png", 900)
        if "serve" in COMMANDS:
            target = ["--target", f"sqlite:///{demo}/rubix-tokens.db", "--source-ip", "demo"]
            subprocess.run([PROGRAM, "audit", *target, "--quiet"], check=False)
            served = subprocess.Popen([PROGRAM, "serve", "--port", str(PORT), "--quiet", *target])
            try:
                time.sleep(5)
                take(browser, f"http://127.0.0.1:{PORT}/", HERE / "page.png", 900)
            finally:
                served.terminate()
                served.wait(30)
    return 0


if __name__ == "__main__":
    sys.exit(main())
