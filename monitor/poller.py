"""One poll: collect, analyse, render, publish; a scheduler repeats it.

What is published is immutable and swapped in as a whole: readers take `latest` once and see one
poll, never parts of two.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Protocol

from apscheduler.schedulers.background import BackgroundScheduler

from monitor.analysis.measures import Analyst, Found, GroupMeasures, Times
from monitor.analysis.status import DEFAULT_RULES, StatusRules
from monitor.exposition.catalogue import ALWAYS, DEFAULT_FAMILIES
from monitor.exposition.render import Page, Renderer
from monitor.exposition.samples import Choice, blocks
from monitor.exposition.series import Block, Level
from monitor.idle import without_idle_groups
from monitor.kafka.questions import UnreachableError
from monitor.memory import GarbageCollection
from monitor.model import LogLook, Snapshot
from monitor.state import State

_log = logging.getLogger(__name__)


class Source(Protocol):
    """Where snapshots come from."""

    def poll(self) -> Snapshot:
        """Return a snapshot; raises UnreachableError when no broker was ever reached."""

    def offsets_for_times(self, wanted: Times) -> Found:
        """Return the first offset at or after a time of each partition, and its record's time."""

    def look_at_logs(self, wanted: Times) -> Mapping[str, Mapping[int, LogLook]]:
        """Return what a read_committed consumer finds in each partition from an offset on."""

    def take_request_counts(self) -> Mapping[str, int]:
        """Return the requests sent since the last poll ended, by API name."""


@dataclass(frozen=True, slots=True)
class Published:
    """What readers see: a state and the page rendered from it.

    `succeeded_at` is when a poll last reached a broker, in seconds of the monotonic clock: the wall
    clock may be set back or forth. It is swapped in with the page, so that nobody is told "ready"
    and then served the page before it.
    """

    state: State
    page: Page
    succeeded_at: float | None = None


class Poller:
    """Polls a source and publishes the result; `poll` runs in one thread at a time."""

    def __init__(
        self,
        source: Source,
        *,
        stale_after_s: float,
        cluster: str | None = None,
        families: Collection[str] = DEFAULT_FAMILIES,
        level: Level = Level.PARTITION,
        members: bool = True,
        hide_empty_groups: bool = False,
        rules: StatusRules = DEFAULT_RULES,
        more_blocks: Callable[[], Iterable[Block]] = tuple,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._source = source
        self._cluster = cluster
        self._stale_after_s = stale_after_s
        self._clock = clock
        self._monotonic = monotonic
        self._analyst = Analyst(source.offsets_for_times, source.look_at_logs, rules=rules)
        self._hide_empty_groups = hide_empty_groups
        self._choice = Choice(stale_after_s, level, families, members)
        self._more_blocks = more_blocks
        self._renderer = Renderer({*families, *ALWAYS})
        self._garbage = GarbageCollection()
        self._stopping = False
        self._scheduler: BackgroundScheduler | None = None
        self.latest = self._publish(State(cluster or "unknown", clock()))

    def poll(self) -> State:
        """Collect, analyse and publish once; a cluster that can't be reached is published too."""
        with self._garbage.not_collected():
            state = self._next_state()
            reached_at = self._monotonic() if state.error is None else self.latest.succeeded_at
            self.latest = replace(self._publish(state), succeeded_at=reached_at)
        return state

    def unready_reason(self) -> str | None:
        """Say why the data can't be relied on now, None when it can."""
        latest = self.latest
        state = latest.state
        if latest.succeeded_at is None:
            return state.error or "the first poll has not ended"
        age = self._monotonic() - latest.succeeded_at
        if age > self._stale_after_s:
            return f"the data is {age:.0f} s old: {state.error or 'no poll has ended since'}"
        return None

    def start(self, interval_s: float) -> None:
        """Poll now and then every `interval_s` seconds in the background."""
        self._scheduler = BackgroundScheduler(timezone=UTC)
        # one poll at a time: a slow cluster must not be asked twice at once, nor to catch up
        self._scheduler.add_job(
            self._poll_safely,
            "interval",
            seconds=interval_s,
            next_run_time=datetime.now(UTC),
            max_instances=1,
            coalesce=True,
            misfire_grace_time=None,
        )
        logging.getLogger("apscheduler").setLevel(logging.CRITICAL)
        self._scheduler.start()

    def stop(self) -> None:
        """Start no other poll; one that runs ends by itself, or when its source is closed."""
        self._stopping = True
        if self._scheduler is not None:
            self._scheduler.shutdown(wait=False)
            self._scheduler = None

    def _poll_safely(self) -> None:
        try:
            self.poll()
        except Exception:  # noqa: BLE001  # one bad poll must not end polling; data then gets old
            if not self._stopping:
                _log.exception("poll failed")

    def _next_state(self) -> State:
        last = self.latest.state
        started = self._monotonic()
        try:
            snapshot = self._source.poll()
        except UnreachableError as error:
            return replace(
                last, polled_at=self._clock(), monotonic_at=self._monotonic(), error=str(error)
            )
        groups: Mapping[str, GroupMeasures] = self._analyst.measure(snapshot)
        asked = Counter(snapshot.requests)
        asked.update(self._source.take_request_counts())
        snapshot = replace(snapshot, requests=dict(asked))
        if self._hide_empty_groups:
            snapshot, groups = without_idle_groups(snapshot, groups)
        now = self._clock()
        reached = any(broker not in snapshot.broker_errors for broker in snapshot.brokers)
        return State(
            cluster=self._cluster or snapshot.cluster_id or "unknown",
            polled_at=now,
            snapshot=snapshot,
            groups=groups,
            findings=self._analyst.findings,
            error=None if reached else "; ".join(snapshot.errors) or "no broker answers",
            succeeded_at=now if reached else last.succeeded_at,
            duration_seconds=self._monotonic() - started,
            monotonic_at=self._monotonic(),
        )

    def _publish(self, state: State) -> Published:
        found = (*blocks(state, self._choice), *self._more_blocks())
        return Published(state, self._renderer.render(found))
