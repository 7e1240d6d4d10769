"""Turns the samples of the page into OpenTelemetry's metrics, by the same names."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import Final

from opentelemetry.sdk.metrics.export import (
    AggregationTemporality,
    Gauge,
    Metric,
    MetricsData,
    NumberDataPoint,
    ResourceMetrics,
    ScopeMetrics,
    Sum,
)
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.util.instrumentation import InstrumentationScope

from monitor.exposition import metric as exposition
from monitor.exposition.render import CLUSTER_LABEL
from monitor.exposition.series import Block, ByPartition, Series
from monitor.exposition.version import VERSION

_SCOPE: Final = InstrumentationScope("kafka-lag-monitor", VERSION)
_OF_PARTITIONS: Final = frozenset({"partition", "partition_id"})
# UCUM's names, as OpenTelemetry wants them; others are annotations.
_UNITS: Final = {"seconds": "s", "bytes": "By", "": ""}


def resource() -> Resource:
    """Return what pushes: OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES go before our name."""
    own = Resource({"service.name": "kafka-lag-monitor", "service.version": VERSION})
    return own.merge(OTELResourceDetector().detect())


class Points:
    """Collects the blocks of one or many clusters; counters began at `started_ns` (Unix time).

    Without `partitions`, what is told of each partition alone is left out: topics have many.
    """

    def __init__(self, started_ns: int, *, partitions: bool = True) -> None:
        self._started_ns = started_ns
        self._left_out = frozenset[str]() if partitions else _OF_PARTITIONS
        self._declared: dict[str, exposition.Metric] = {}
        self._points: defaultdict[str, list[NumberDataPoint]] = defaultdict(list)

    def add(self, blocks: Iterable[Block], cluster: str | None, seen_ns: int) -> None:
        """Add samples; those without a label `cluster` get it, if there is a name."""
        for block in blocks:
            for metric, series in block.samples().items():
                if not self._left_out.isdisjoint(metric.labels):
                    continue
                self._declared.setdefault(metric.name, metric)
                extra = {}
                if cluster is not None and CLUSTER_LABEL not in metric.labels:
                    extra = {CLUSTER_LABEL: cluster}
                self._points[metric.name] += (
                    NumberDataPoint(
                        {**extra, **dict(zip(metric.labels, labels, strict=True))},
                        self._started_ns if metric.kind == "counter" else 0,
                        seen_ns,
                        value,
                    )
                    for labels, value in _samples(series)
                )

    def __len__(self) -> int:
        """Return how many samples there are."""
        return sum(map(len, self._points.values()))

    def data(self, of: Resource) -> MetricsData:
        """Return all of it as one push."""
        found = [
            Metric(
                name,
                metric.help,
                _UNITS.get(metric.unit, f"{{{metric.unit}}}"),
                Sum(self._points[name], AggregationTemporality.CUMULATIVE, is_monotonic=True)
                if metric.kind == "counter"
                else Gauge(self._points[name]),
            )
            for name, metric in self._declared.items()
            if self._points[name]
        ]
        return MetricsData([ResourceMetrics(of, [ScopeMetrics(_SCOPE, found, "")], "")])


def _samples(
    series: Series | ByPartition,
) -> Iterator[tuple[tuple[str, ...], float]]:
    if isinstance(series, ByPartition):
        for labels, partitions in series.values.items():
            for partition, value in partitions.items():
                yield (*labels, str(partition)), value
    else:
        yield from series.items()
