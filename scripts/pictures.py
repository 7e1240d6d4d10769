"""Draw the README's pictures from a running system: `make pictures`.

Needs Chromium on the PATH. The system is started on free ports and stopped at the end.
"""

from __future__ import annotations

import html
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil

from tests.support.running_system import RunningSystem, get_json
from tests.support.waiting import wait_for

PICTURES = Path(__file__).resolve().parent.parent / "docs" / "pictures"
CHROMIUM_FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
    "--hide-scrollbars",
)
TERMINAL_PAGE = """<!doctype html><meta charset="utf-8"><style>
body {{ margin: 0; background: #16181d; color: #d8dee9; padding: 18px 22px;
       font: 14px/1.4 "DejaVu Sans Mono", monospace; }}
pre {{ margin: 0; }} .prompt {{ color: #8fbc8f; }}
</style><pre><span class="prompt">$ {command}</span>
{output}</pre>"""


def screenshot(url: str, target: Path, *, width: int, height: int, wait_ms: int = 3_000) -> None:
    """Open a page in a real browser and keep what it shows."""
    browser = shutil.which("chromium") or shutil.which("chromium-browser")
    if browser is None:
        sys.exit("pictures: Chromium is needed: install your system's package `chromium`")
    with tempfile.TemporaryDirectory() as profile:
        subprocess.run(
            [
                *(browser, *CHROMIUM_FLAGS, f"--user-data-dir={profile}"),
                *(f"--window-size={width},{height}", f"--virtual-time-budget={wait_ms}"),
                *(f"--screenshot={target}", url),
            ],
            check=True,
            capture_output=True,
            timeout=120,
        )
    print(f"{target.name}: {target.stat().st_size // 1024} KiB")


def terminal(command: str, output: str, target: Path, *, width: int) -> None:
    """Show a command and what it printed as a terminal would."""
    page = TERMINAL_PAGE.format(command=html.escape(command), output=html.escape(output))
    with tempfile.NamedTemporaryFile("w", suffix=".html", encoding="utf-8") as file:
        file.write(page)
        file.flush()
        height = 60 + 20 * (output.count("\n") + 1)
        screenshot(f"file://{file.name}", target, width=width, height=height)


def main() -> None:
    """Start the system, let it work for a while, and take the pictures."""
    PICTURES.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as data:
        system = RunningSystem(
            Path(data) / "data", ("--rate", "40", "--replicas", "payment=3,inventory=2")
        )
        system.start().wait_until_up()
        try:
            gateway = system.service_url("gateway")
            wait_for("orders", lambda: get_json(f"{gateway}/api/orders")["orders"])
            # a picture of an idle system shows nothing, and a status needs ten polls
            time.sleep(40)
            psutil.Process(system.programs()["shipping-1"]).suspend()
            time.sleep(25)
            screenshot(f"{system.monitor_url}/", PICTURES / "status.png", width=1200, height=560)
            screenshot(
                f"{system.service_url('analytics')}/",
                PICTURES / "analytics.png",
                width=1000,
                height=700,
                wait_ms=6_000,
            )
            lag = subprocess.run(
                [
                    *(sys.executable, "-m", "monitor", "lag"),
                    *("--bootstrap-servers", system.bootstrap_servers),
                    *("--group", "payment-service-group", "--group", "shipping-service-group"),
                ],
                capture_output=True, text=True, check=True, env={**os.environ, "COLUMNS": "120"},
            )  # fmt: skip
            terminal(
                "monitor lag --group payment-service-group --group shipping-service-group",
                lag.stdout,
                PICTURES / "lag.png",
                width=1520,
            )
        finally:
            psutil.Process(system.programs()["shipping-1"]).resume()
            system.stop()


if __name__ == "__main__":
    main()
