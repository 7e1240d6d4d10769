"""Draw the committed dashboards from a Prometheus: `python -m scripts.dashboard_pictures --help`.

Grafana itself is no Python package. The pictures show what a dashboard's queries bring, on its grid and
in its colours; they are not Grafana's own rendering.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import matplotlib as mpl
from matplotlib.figure import Figure

from dashboards import grafana
from dashboards.answers import View
from dashboards.prometheus import Client, PrometheusError
from scripts.panels import DRAWN_BY, TEXT, Fields, Mark, read_fields

WIDTH: Final = 14.4  # inches, at 100 dots each
DPI: Final = 100
COLUMNS: Final = 24
ROW: Final = 0.38  # inches of a row of Grafana's grid
HEADER: Final = 0.6
_BACKGROUND: Final = "#111217"
_STYLE: Final[dict[Any, Any]] = {
    "font.size": 8,
    "text.color": TEXT,
    "axes.facecolor": "#181b1f",
    "axes.edgecolor": "#34373e",
    "axes.labelcolor": TEXT,
    "axes.titlesize": 9,
    "axes.titlelocation": "left",
    "axes.grid": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "grid.color": "#2c3037",
    "grid.linewidth": 0.5,
    # names are read through no line
    "legend.facecolor": "#181b1f",
    "legend.edgecolor": "none",
    "legend.framealpha": 0.85,
    "legend.fontsize": 7,
    "xtick.color": TEXT,
    "ytick.color": TEXT,
    "lines.linewidth": 1,
}


def draw(view: View, directory: Path) -> list[Path]:
    """Write a PNG of each dashboard and return their paths; raises PrometheusError."""
    directory.mkdir(parents=True, exist_ok=True)
    paths = []
    for name, dashboard in grafana.load().items():
        figure, _ = picture(name, dashboard, view)
        paths.append(directory / f"dashboard-{name}.png")
        figure.savefig(paths[-1], facecolor=_BACKGROUND)
    return paths


def picture(name: str, dashboard: Mapping[str, Any], view: View) -> tuple[Figure, list[str]]:
    """Return a dashboard's picture, and the titles of the panels that have nothing to show."""
    values = view.values(dashboard)
    marks = list(_marks(dashboard, view, values))
    bottom = max(panel["gridPos"]["y"] + panel["gridPos"]["h"] for panel in dashboard["panels"])
    height = HEADER + bottom * ROW
    empty = []
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(WIDTH, height), dpi=DPI)
        figure.text(0.012, 1 - 0.25 / height, dashboard["title"], fontsize=13, va="center")
        for panel in dashboard["panels"]:
            at = panel["gridPos"]
            top = 1 - (HEADER + at["y"] * ROW) / height
            if panel["type"] == "row":
                figure.text(0.012, top - 0.2 / height, panel["title"], fontsize=10, va="center")
                continue
            answers: Fields = [
                field
                for query in grafana.panel_queries(name, panel)
                for field in read_fields(panel, query, view.ask(query, values))
            ]
            axes = figure.add_axes(_place(at, top, height, panel["type"]))
            axes.set_title(panel["title"])
            if not any(field.values for field in answers):
                empty.append(panel["title"])
                axes.set_axis_off()
                nothing = panel["fieldConfig"]["defaults"].get("noValue", "No data")
                axes.text(0.5, 0.5, nothing, ha="center", transform=axes.transAxes)
                continue
            DRAWN_BY[panel["type"]](axes, panel, answers, view, marks)
    return figure, empty


def _place(
    at: Mapping[str, int], top: float, height: float, kind: str
) -> tuple[float, float, float, float]:
    """Return left, bottom, width and height of a panel's axes, as shares of the picture."""
    with_axis = kind in ("timeseries", "heatmap", "state-timeline")
    beside = 1.95 if kind == "state-timeline" else 0.75 if with_axis else 0.12
    title, below = 0.3 / height, (0.25 if with_axis else 0.1) / height
    left = (at["x"] / COLUMNS * 0.985) + 0.008 + beside / WIDTH
    right = ((at["x"] + at["w"]) / COLUMNS * 0.985) - 0.004
    tall = at["h"] * ROW / height
    return left, top - tall + below, max(0.01, right - left), max(0.005, tall - title - below)


def _marks(dashboard: Mapping[str, Any], view: View, values: Mapping[str, str]) -> Iterator[Mark]:
    """Yield when each annotation of the dashboard happened, and its colour."""
    for annotation in dashboard["annotations"]["list"]:
        if "expr" not in annotation:
            continue
        expr = grafana.expand(annotation["expr"], values)
        for series in view.client.query_range(expr, view.start, view.end, view.step_s):
            if annotation.get("useValueForTime"):
                moments = {round(v / 1000) for _, v in series.points if math.isfinite(v)}
            else:
                moments = {round(series.points[0][0])}
            for moment in sorted(moments):
                if view.start <= moment <= view.end:
                    yield Mark(moment, annotation["iconColor"])


def main() -> int:
    """Return 0, or 2 when nothing could be drawn."""
    parser = argparse.ArgumentParser(prog="python -m scripts.dashboard_pictures")
    parser.add_argument("--prometheus", default="http://127.0.0.1:9090", metavar="URL")
    parser.add_argument("--minutes", type=float, default=30.0, help="the time range, until now")
    parser.add_argument("--scrape-interval", type=int, default=15, metavar="SECONDS")
    parser.add_argument("--output", type=Path, default=Path("docs/pictures"), metavar="DIRECTORY")
    asked = parser.parse_args()
    now = time.time()
    view = View(Client(asked.prometheus), now - 60 * asked.minutes, now, asked.scrape_interval)
    try:
        for path in draw(view, asked.output):
            print(path)
    except (PrometheusError, OSError) as error:
        print(f"{asked.prometheus}: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
