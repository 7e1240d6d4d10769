"""How pushing goes, for the monitor's own page."""

from __future__ import annotations

from typing import Final

from monitor.exposition.families.family import Family
from monitor.exposition.metric import Metric

_WHEN: Final = "figures are pushed to an OpenTelemetry collector"

UP = Metric(
    "kafka_monitor_otlp_up",
    "gauge",
    "1 if the OpenTelemetry collector took the last push, 0 if it did not.",
    when=_WHEN,
)
LAST_PUSH = Metric(
    "kafka_monitor_otlp_last_push_timestamp_seconds",
    "gauge",
    "When the collector last took a push, as a Unix time.",
    unit="seconds",
    when=_WHEN,
)
METRICS: Final = (UP, LAST_PUSH)
FAMILY: Final = Family(
    "otlp", "About what is pushed by OTLP; on where it is.", METRICS, is_always_on=True
)
