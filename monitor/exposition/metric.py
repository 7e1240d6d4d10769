"""What a metric's declaration says."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Kind = Literal["gauge", "counter"]
Rollup = Literal["sum", "max", "min"]


@dataclass(frozen=True, slots=True, eq=False)  # one object each: hashing all fields is slow
class Metric:
    """A metric's declaration; `unit` is for readers and documents, the name carries it too.

    `rollup` is how a group's samples are joined where settings ask for fewer labels than
    partitions have; without it they are left out there. `when` is the condition under which the
    metric has samples at all, empty for those that any cluster with a consumer group has.
    """

    name: str
    kind: Kind
    help: str
    labels: tuple[str, ...] = ()
    unit: str = ""
    rollup: Rollup | None = None
    when: str = ""


def group_metric(
    name: str,
    text: str,
    labels: tuple[str, ...] = ("consumergroup",),
    unit: str = "",
    *,
    rollup: Rollup | None = None,
    when: str = "",
) -> Metric:
    """Declare a metric of consumer groups; a name that ends in _total is a counter's."""
    kind: Kind = "counter" if name.endswith("_total") else "gauge"
    return Metric(f"kafka_consumergroup_{name}", kind, text, labels, unit, rollup, when)


def partition_metric(name: str, text: str, unit: str = "", when: str = "") -> Metric:
    """Declare a metric of a topic's partitions."""
    labels = ("topic", "partition")
    return Metric(f"kafka_topic_partition_{name}", "gauge", text, labels, unit, when=when)
