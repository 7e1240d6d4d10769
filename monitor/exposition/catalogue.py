"""All metrics that a page can have, in the page's order."""

from __future__ import annotations

from typing import Final

from monitor.exposition import burrow, kminion, lag_exporter, process
from monitor.exposition.metrics import EXPORTER, MEASURES, METRICS, MONITOR, Metric
from monitor.otlp import metrics as otlp
from monitor.pools.metrics import DATABASE
from monitor.pools.metrics import METRICS as DATABASE_METRICS

ALL_METRICS: Final[tuple[Metric, ...]] = (
    *METRICS,
    *process.METRICS,
    *otlp.METRICS,
    *kminion.METRICS,
    *lag_exporter.METRICS,
    *burrow.METRICS,
    *DATABASE_METRICS,
)

# What may be switched on and off by name; the others are always on.
CHOICES: Final = (EXPORTER, MEASURES, kminion.KMINION, lag_exporter.LAG_EXPORTER, burrow.BURROW)
DEFAULT_FAMILIES: Final = (EXPORTER, MEASURES)
ALWAYS: Final = (MONITOR, DATABASE)
