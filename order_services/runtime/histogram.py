"""A histogram that takes many observations at once."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable

import prometheus_client


class Histogram(prometheus_client.Histogram):
    """The client library's histogram, with which each observation costs as much as a small message."""

    def observe_all(self, amounts: Iterable[float]) -> None:
        """Observe each amount."""
        self.observe_counts(Counter(amounts))

    def observe_counts(self, counts: Counter[float]) -> None:
        """Observe each amount as often as it is counted."""
        bounds = self._upper_bounds
        buckets: dict[int, int] = {}
        total = 0.0
        for amount, count in counts.items():
            index = bisect_left(bounds, amount)
            buckets[index] = buckets.get(index, 0) + count
            total += amount * count
        self._sum.inc(total)
        for index, count in buckets.items():
            self._buckets[index].inc(count)
