"""Looks at databases and pools on a schedule of its own, in a thread of its own.

A database that hangs then delays its own figures and no Kafka poll.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from monitor.every import Every
from monitor.exposition.series import Block, Samples
from monitor.guard import Failure
from monitor.pools.analysis import analyse, replicas_within
from monitor.pools.metrics import LAST_LOOK, samples
from monitor.pools.report import PoolReport
from monitor.pools.settings import DatabaseSettings

if TYPE_CHECKING:
    from monitor.pools.collector import DatabaseCollector

# A look is bounded by its sources' time limits; longer than this nobody waits for it at the end.
STOP_SECONDS: Final = 1.0
INTERVALS_UNTIL_STALE: Final = 3


@dataclass(frozen=True, slots=True)
class _Look:
    """What a look found, when in Unix time, and in seconds of the monotonic clock."""

    samples: Samples
    report: PoolReport
    taken_at: float
    seen_at: float


class DatabaseWatch:
    """Repeats looks; `blocks` has the samples of the last one while it is not too old.

    A look that fails, whatever it raised, takes the figures of the one before off the page: `failed`
    says why. Only when the last good one ended is told on.
    """

    def __init__(
        self, settings: DatabaseSettings, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._settings = settings
        self._monotonic = monotonic
        self._every = Every("databases", self._look)
        self._collector: DatabaseCollector | None = None
        self._last: _Look | None = None
        self._stale_after_s = float("inf")
        # by group, of those that are asked for
        self._budgets: dict[str, tuple[int, str]] = {}

    def start(self, interval_s: float) -> None:
        """Look now and then every `interval_s` seconds in the background, if there is anything."""
        if self._settings.is_empty:
            return
        self._stale_after_s = INTERVALS_UNTIL_STALE * interval_s
        self._every.start(interval_s)

    def stop(self) -> None:
        """Start no other look, and wait a moment for one that is under way."""
        self._every.stop(STOP_SECONDS)
        if self._collector is not None and not self._every.is_running:
            self._collector.close()

    def failed(self) -> Mapping[Failure, str]:
        """Return why the last look failed, if it did."""
        error = self._every.error
        return {} if error is None else {("databases", ""): error}

    def budget_of(self, group: str) -> tuple[int, str] | None:
        """Return for how many replicas of a group's service there are connections, and where.

        What was known last, as a database whose connections are all taken does not answer; None where
        it was never known. Any thread may ask.
        """
        report = self.report()
        known = None if report is None else replicas_within(report.services, group)
        if known is not None:
            self._budgets[group] = known
        return self._budgets.get(group)

    def blocks(self) -> Iterator[Block]:
        """Yield the samples of the last look."""
        last = self._last
        if last is None:
            return
        if self._is_fresh(last):
            yield Block((last.samples,), lambda: last.samples, name="databases")
        yield Block((), lambda: {LAST_LOOK: {(): round(last.taken_at, 3)}}, name="last look")

    def report(self) -> PoolReport | None:
        """Return what the last look found, None where there was none, or too long ago."""
        last = self._last
        return last.report if last is not None and self._is_fresh(last) else None

    @property
    def is_empty(self) -> bool:
        """Say whether there is nothing to look at."""
        return self._settings.is_empty

    def _is_fresh(self, last: _Look) -> bool:
        return not self.failed() and self._monotonic() - last.seen_at <= self._stale_after_s

    def _look(self) -> None:
        if self._collector is None:
            # here, as most monitors watch no database: the driver takes 6 MB
            from monitor.pools.collector import DatabaseCollector  # noqa: PLC0415

            self._collector = DatabaseCollector(self._settings)
        snapshot = self._collector.collect()
        report = analyse(snapshot, self._settings.pool_max)
        found = samples(snapshot, report)
        self._last = _Look(found, report, snapshot.taken_at, self._monotonic())
