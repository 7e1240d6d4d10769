"""Many observations at once are counted as if they came one by one."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client import Histogram as PlainHistogram

from order_services.process.histogram import Histogram

# on a bound, between bounds, below all, above all, and some of them twice
AMOUNTS = [0.5, 1.0, 1.5, 2.0, 2.0, 0.0, 7.0, 7.0]


def exposition(*, plain: bool) -> bytes:
    registry = CollectorRegistry()
    kind = PlainHistogram if plain else Histogram
    histogram = kind("waiting_seconds", "Time.", ["topic"], buckets=(1, 2, 5), registry=registry)
    child = histogram.labels("orders")
    if isinstance(child, Histogram):
        child.observe_all(AMOUNTS[:3])
        child.observe_all([amount - 1.5 for amount in AMOUNTS[3:]], 1.5)
    else:
        for amount in AMOUNTS:
            child.observe(amount)
    lines = generate_latest(registry).splitlines()
    return b"\n".join(line for line in lines if b"_created" not in line)


def test_the_result_is_that_of_the_client_library() -> None:
    assert exposition(plain=False) == exposition(plain=True)


def test_nothing_observed_counts_nothing() -> None:
    registry = CollectorRegistry()
    histogram = Histogram("waiting_seconds", "Time.", registry=registry)
    histogram.observe_all([])
    assert registry.get_sample_value("waiting_seconds_count") == 0
