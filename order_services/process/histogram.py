"""A histogram that takes many observations at once."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable

import prometheus_client


class Histogram(prometheus_client.Histogram):
    """The client library's histogram, with which each observation costs as much as a small message."""

    def observe_all(self, amounts: Iterable[float], added: float = 0.0) -> None:
        """Observe each amount plus what is `added` to all, as `observe` would one by one."""
        ordered = sorted(amounts)
        self._sum.inc(sum(ordered) + added * len(ordered))
        below = 0
        for bucket, bound in zip(self._buckets, self._upper_bounds, strict=True):
            up_to = bisect_right(ordered, bound - added)
            if up_to > below:
                bucket.inc(up_to - below)
                below = up_to
