"""Draw the committed dashboards from a Prometheus: `python -m dashboards.drawing --help`."""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Final

from dashboards import grafana
from dashboards.answers import View
from dashboards.drawing.page import WIDTH, page
from dashboards.prometheus import Client, PrometheusError

_CHROMIUM: Final = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
    "--hide-scrollbars",
)


class DrawingError(Exception):
    """No picture could be made; says why."""


def draw(view: View, directory: Path) -> list[Path]:
    """Write a PNG of each dashboard into the directory and return their paths.

    Raises DrawingError without Chromium, PrometheusError when a query is refused.
    """
    browser = shutil.which("chromium") or shutil.which("chromium-browser")
    if browser is None:
        raise DrawingError("Chromium is needed: install your system's package `chromium`")
    directory.mkdir(parents=True, exist_ok=True)
    return [
        _picture(browser, *page(name, dashboard, view), directory / f"dashboard-{name}.png")
        for name, dashboard in grafana.load().items()
    ]


def _picture(browser: str, document: str, height: int, target: Path) -> Path:
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "page.html"
        source.write_text(document)
        subprocess.run(  # noqa: S603  # every argument is ours
            [
                *(browser, *_CHROMIUM, f"--user-data-dir={folder}/profile"),
                *(f"--window-size={WIDTH},{height}", f"--screenshot={target.resolve()}"),
                source.as_uri(),
            ],
            check=True,
            capture_output=True,
            timeout=300,
        )
    return target


def main() -> int:
    """Return 0, or 2 when nothing could be drawn."""
    parser = argparse.ArgumentParser(prog="python -m dashboards.drawing", description=__doc__)
    parser.add_argument("--prometheus", default="http://127.0.0.1:9090", metavar="URL")
    parser.add_argument("--minutes", type=float, default=30.0, help="the time range, until now")
    parser.add_argument("--scrape-interval", type=int, default=15, metavar="SECONDS")
    parser.add_argument("--output", type=Path, default=Path("docs/pictures"), metavar="DIRECTORY")
    asked = parser.parse_args()
    now = time.time()
    view = View(Client(asked.prometheus), now - 60 * asked.minutes, now, asked.scrape_interval)
    try:
        for path in draw(view, asked.output):
            print(path)  # noqa: T201  # a command's output
    except (DrawingError, PrometheusError, OSError) as error:
        print(f"{asked.prometheus}: {error}", file=sys.stderr)  # noqa: T201  # as above
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
