"""Ask a dashboard's queries on a real Prometheus, and say of one whether it would draw nothing."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from dashboards import grafana
from dashboards.prometheus import Client, PrometheusError, Series

# Grafana's own rule: four scrapes fit into a rate's window, so that two always do
SCRAPES_PER_RATE_WINDOW: Final = 4
POINTS: Final = 240


@dataclass(frozen=True, slots=True)
class View:
    """What a user looks at: a Prometheus, a time range, and "All" in every variable."""

    client: Client
    start: float
    end: float
    scrape_interval_s: int

    @property
    def step_s(self) -> int:
        """The time between two points of a graph, whole seconds."""
        return max(1, self.scrape_interval_s, math.ceil((self.end - self.start) / POINTS))

    def values(self, dashboard: Mapping[str, Any]) -> dict[str, str]:
        """Return the values of the dashboard's variables and of Grafana's own."""
        return grafana.select_all(
            dashboard,
            window_s=round(self.end - self.start),
            rate_s=max(
                SCRAPES_PER_RATE_WINDOW * self.scrape_interval_s,
                self.step_s + self.scrape_interval_s,
            ),
        )

    def ask(self, query: grafana.Query, values: Mapping[str, str]) -> list[Series]:
        """Return what Grafana would get for a query; raises PrometheusError."""
        expr = grafana.expand(query.expr, values)
        if query.instant:
            return self.client.query(expr, self.end)
        return self.client.query_range(expr, self.start, self.end, self.step_s)


def problem(view: View, query: grafana.Query, values: Mapping[str, str]) -> str | None:
    """Say why a query would draw nothing, or not what its legend promises; None when it is fine."""
    try:
        series = view.ask(query, values)
    except PrometheusError as error:
        return f"refused: {error}"
    numbers = [value for one in series for _, value in one.points]
    if not any(math.isfinite(number) for number in numbers):
        return "no data" if not series else "no finite value"
    if any(math.isinf(number) for number in numbers):
        return "an infinite value"
    missing = {label for label in query.legend_labels for one in series if label not in one.labels}
    return f"no label {', '.join(sorted(missing))}" if missing else None
