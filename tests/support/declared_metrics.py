"""The series that our programs expose, taken from where they declare them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

import yaml
from prometheus_client.metrics import Histogram, MetricWrapperBase

from monitor.exposition.catalogue import ALL_METRICS
from order_services.process import instrumentation

Kind = Literal["counter", "gauge"]

MONITOR_JOB: Final = "kafka-monitor"
SERVICES_JOB: Final = "order-services"
# Every series may have it: the monitor's where the cluster has a name, the services' where their targets
# are labelled with it. A rule that keeps it does so in both cases.
CLUSTER: Final = "cluster"


@dataclass(frozen=True, slots=True)
class Series:
    """What Prometheus stores under one name.

    `labels` has those that a scrape adds too, `bounds` the values of a histogram's `le`, `jobs` the
    labels by job where they differ (Prometheus' own series).
    """

    kind: Kind
    labels: frozenset[str]
    low: float = 0.0
    high: float = float("inf")
    bounds: frozenset[str] = frozenset()
    jobs: Mapping[str, frozenset[str]] | None = None


def target_labels(prometheus: Path) -> dict[str, frozenset[str]]:
    """Return the labels that a scrape adds, by job, from prometheus.yml and its target files."""
    config = yaml.safe_load((prometheus / "prometheus.yml").read_text())
    return {
        job["job_name"]: frozenset({"job", "instance", CLUSTER})
        | frozenset.intersection(
            *(
                frozenset(group.get("labels", {}))
                for sd in job["file_sd_configs"]
                for file in sd["files"]
                for group in yaml.safe_load((prometheus / file).read_text())
            )
        )
        for job in config["scrape_configs"]
    }


def declared_metrics(prometheus: Path) -> dict[str, Series]:
    """Return every series that a scrape of our programs can bring, by name."""
    jobs = target_labels(prometheus)
    monitor, services = jobs[MONITOR_JOB], jobs[SERVICES_JOB]
    found = {metric.name: _series(metric.kind, metric.labels, monitor) for metric in ALL_METRICS}
    for value in vars(instrumentation).values():
        if isinstance(value, MetricWrapperBase):
            found.update(_of_client(value, services))
    found["up"] = Series("gauge", frozenset.intersection(*jobs.values()), high=1.0, jobs=jobs)
    return found


def _series(kind: Kind, labels: tuple[str, ...], target: frozenset[str]) -> Series:
    return Series(kind, frozenset(labels) | target)


def _of_client(metric: MetricWrapperBase, target: frozenset[str]) -> Iterator[tuple[str, Series]]:
    name, labels = metric._name, frozenset(metric._labelnames) | target
    if isinstance(metric, Histogram):
        bounds = frozenset("+Inf" if b == float("inf") else str(b) for b in metric._upper_bounds)
        yield f"{name}_bucket", Series("counter", labels | {"le"}, bounds=bounds)
        yield f"{name}_count", Series("counter", labels)
        yield f"{name}_sum", Series("counter", labels)
    elif metric._type == "counter":
        yield f"{name}_total", Series("counter", labels)
    else:
        yield name, Series("gauge", labels)
