"""Draw the README's pictures from a running system, in three minutes: `make pictures`.

Needs Chromium, Prometheus and PgBouncer; pngquant makes the files small. The system is started on free
ports and stopped at the end.
"""

from __future__ import annotations

import html
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from dashboards.answers import View
from dashboards.prometheus import LocalPrometheus
from order_services.local.plan import DEMO_FAULTS
from order_services.local.up import DEMO_CANCEL_SHARE
from scripts.dashboard_pictures import draw
from tests.support.watched_system import WatchedSystem, watched

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
            timeout=300,
        )
    shrink(target)


def terminal(command: str, output: str, target: Path, *, width: int) -> None:
    """Show a command and what it printed as a terminal would."""
    page = TERMINAL_PAGE.format(command=html.escape(command), output=html.escape(output))
    with tempfile.NamedTemporaryFile("w", suffix=".html", encoding="utf-8") as file:
        file.write(page)
        file.flush()
        height = 60 + 20 * (output.count("\n") + 1)
        screenshot(f"file://{file.name}", target, width=width, height=height)


def shrink(picture: Path) -> None:
    """Keep 64 colours, where pngquant is installed: a third of the size, and nothing to see of it."""
    program = shutil.which("pngquant")
    if program is not None:
        options = ("--force", "--ext", ".png", "--speed", "1", "--nofs", "64")
        subprocess.run([program, *options, picture], check=True, timeout=300)
    print(f"{picture.name}: {picture.stat().st_size // 1024} KiB")


def lag_report(system: WatchedSystem) -> None:
    """Take the picture of the monitor's report."""
    groups = ("--group", "payment-service-group", "--group", "shipping-service-group")
    lag = subprocess.run(
        [
            *(sys.executable, "-m", "monitor", "lag", *groups),
            *("--bootstrap-servers", system.shop.broker.bootstrap_servers),
        ],
        capture_output=True, text=True, check=True, env={**os.environ, "COLUMNS": "120"},
    )  # fmt: skip
    terminal(f"monitor lag {' '.join(groups)}", lag.stdout, PICTURES / "lag.png", width=1520)


def main() -> None:
    """Start the system, let it have a bad day, and take the pictures."""
    # as Ctrl-C: without it the servers that were started would stay behind
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    PICTURES.mkdir(parents=True, exist_ok=True)
    rules = sorted((PICTURES.parent.parent / "alerts" / "rules").glob("*.yml"))
    with (
        tempfile.TemporaryDirectory() as data,
        watched(
            Path(data),
            20,
            replicas={"payment": 3, "inventory": 2},
            settings=DEMO_FAULTS,
            cancel_share=DEMO_CANCEL_SHARE,
        ) as system,
        LocalPrometheus(
            Path(data) / "prometheus", system.targets, rules=rules, scrape_interval_s=2
        ) as prometheus,
    ):
        start = time.time()
        # a picture of an idle system shows nothing, and a status needs ten polls
        time.sleep(25)
        with system.frozen("payment", 2):  # its partitions go to the others, and lag
            time.sleep(12)
        time.sleep(12)
        system.deny_connections(6)
        system.end_connections_until_a_batch_is_tried_again(prometheus.client)
        system.replica("inventory", 2).kill()
        system.start_again("inventory", 2)
        time.sleep(10)
        with system.frozen("shipping"):
            time.sleep(20)
            lag_report(system)
        time.sleep(10)
        view = View(prometheus.client, start, time.time(), prometheus.scrape_interval_s)
        for picture in draw(view, PICTURES):
            shrink(picture)


if __name__ == "__main__":
    main()
