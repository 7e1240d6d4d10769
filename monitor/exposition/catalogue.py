"""The one list of the families of metrics, in the page's order.

Not in their package: the pools' family, which is beside what it tells of, imports from there.
"""

from __future__ import annotations

from typing import Final

from monitor.exposition.families import (
    burrow,
    exporter,
    history,
    kminion,
    lag_exporter,
    measures,
    monitor,
    otlp,
    process,
)
from monitor.exposition.families.family import Family
from monitor.exposition.metric import Metric
from monitor.pools.metrics import FAMILY as DATABASE

FAMILIES: Final[tuple[Family, ...]] = (
    exporter.FAMILY,
    measures.FAMILY,
    monitor.FAMILY,
    process.FAMILY,
    otlp.FAMILY,
    history.FAMILY,
    kminion.FAMILY,
    lag_exporter.FAMILY,
    burrow.FAMILY,
    DATABASE,
)
ALL_METRICS: Final[tuple[Metric, ...]] = tuple(
    metric for family in FAMILIES for metric in family.metrics
)
# What may be switched on and off by name; the others are always on.
CHOICES: Final = tuple(family.name for family in FAMILIES if not family.is_always_on)
DEFAULT_FAMILIES: Final = tuple(family.name for family in FAMILIES if family.is_default)
