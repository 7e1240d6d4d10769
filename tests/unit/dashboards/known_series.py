"""What a dashboard may ask for: everything that a program declares, or Prometheus adds."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Final

from monitor.pools import metrics as database
from tests.support.declared_metrics import declared_metrics

_PROMETHEUS: Final = Path(__file__).resolve().parents[3] / "prometheus"
_TARGET: Final = frozenset({"job", "instance"})

# Python's client adds the first three to every process, Prometheus the others to every target.
_GIVEN: Final = (
    "process_start_time_seconds",
    "process_cpu_seconds_total",
    "process_resident_memory_bytes",
    "up",
    "scrape_duration_seconds",
    "scrape_samples_scraped",
)


@cache
def known_series() -> dict[str, frozenset[str]]:
    """Return series name -> its labels, those that a scrape adds included."""
    found = {
        name: series.labels | _TARGET for name, series in declared_metrics(_PROMETHEUS).items()
    }
    for metric in database.METRICS:
        found[metric.name] = frozenset(metric.labels) | _TARGET
    found["ALERTS"] = frozenset({"alertname", "alertstate", "severity"})
    return {**dict.fromkeys(_GIVEN, _TARGET), **found}
