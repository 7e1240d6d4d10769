"""One poll: collect, analyse, render, publish; repeated on the monotonic clock.

What is published is immutable and swapped in as a whole: readers take `latest` once and see one
poll, never parts of two. A poll that fails, or does not end, is published too: what the last good
one saw ages, and is taken off the page when it is too old.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Final, Protocol

import structlog

from monitor.analysis.analyst import Analyst
from monitor.analysis.kept import Kept, why_not
from monitor.analysis.scaling.advisor import Advisor
from monitor.analysis.status import DEFAULT_RULES, StatusRules
from monitor.analysis.time_questions import TimeReplies, Times
from monitor.analysis.windows import CommitWindow
from monitor.changes import changes
from monitor.configuration import Watched
from monitor.every import Every, cause_of
from monitor.exposition.blocks import Choice, blocks
from monitor.exposition.catalogue import DEFAULT_FAMILIES
from monitor.exposition.families.monitor import DATA_AGE, faults
from monitor.exposition.render import Page, Parts, Renderer, page_of
from monitor.exposition.series import Block, Level
from monitor.guard import Guard
from monitor.kafka.brokers import UnreachableError
from monitor.memory import GarbageCollection
from monitor.model import LogLook, Snapshot
from monitor.state import State

_log = structlog.get_logger(__name__)

# Of so many brokers it is told why they do not answer.
MAX_CAUSES: Final = 3


class Source(Protocol):
    """Where snapshots come from."""

    def poll(self) -> Snapshot:
        """Return a snapshot; raises UnreachableError when no broker was ever reached."""

    def offsets_for_times(self, wanted: Times) -> TimeReplies:
        """Return the first offset at or after a time of each partition, and its record's time."""

    def look_at_logs(self, wanted: Times) -> Mapping[str, Mapping[int, LogLook]]:
        """Return what a read_committed consumer finds in each partition from an offset on."""

    def take_request_counts(self) -> Mapping[str, int]:
        """Return the requests sent since the last poll ended, by API name."""


class Keeper(Protocol):
    """Where what a restart takes up is kept, by cluster."""

    def take_up(self, cluster: str, restore: Callable[[Kept], None]) -> bool:
        """Hand what was kept to `restore`, and return whether it went on from that."""

    def keep(self, cluster: str, kept: Kept) -> None:
        """Keep what is new; the first of a process is all. Waits for nothing."""


@dataclass(frozen=True)
class Published:
    """What readers see: a state, and the lines rendered from it.

    `succeeded_at` is when a poll last reached a broker, in seconds of the monotonic clock: the wall
    clock may be set back or forth. `oldest_at` is when the oldest that is shown was seen, None where
    nothing is. Both are swapped in with the lines, so that nobody is told "ready" and then served the
    page before it.
    """

    state: State
    parts: Parts
    succeeded_at: float | None = None
    oldest_at: float | None = None

    @cached_property
    def page(self) -> Page:
        """Return the page of these lines, without the age of what it shows.

        Made when it is first asked for: a fleet joins the lines of all its clusters at each poll, and
        few ask for one cluster's page.
        """
        return page_of(self.parts)


class Poller:
    """Polls a source and publishes the result; `poll` runs in one thread at a time.

    `keeper` has what a restart takes up, None for nothing. `published` is called after each publication, by the thread that made it.
    """

    def __init__(
        self,
        source: Source,
        *,
        stale_after_s: float,
        cluster: str | None = None,
        families: Collection[str] = DEFAULT_FAMILIES,
        level: Level = Level.PARTITION,
        measures_level: Level = Level.TOPIC,
        members: bool = True,
        hide_empty_groups: bool = False,
        rules: StatusRules = DEFAULT_RULES,
        keeper: Keeper | None = None,
        scaling: Advisor | None = None,
        published: Callable[[], None] = lambda: None,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._source = source
        self._cluster = cluster
        self._stale_after_s = stale_after_s
        self._clock = clock
        self._monotonic = monotonic
        self._guard = Guard()
        self._rules = rules
        self._keeper = keeper
        self._has_begun = False
        self._analyst = self._new_analyst()
        self.scaling = scaling or Advisor()
        self._choice = Choice(
            stale_after_s, level, families, measures_level, members,
            hide_empty_groups=hide_empty_groups,
        )  # fmt: skip
        self._tell_published = published
        self._renderer = Renderer(cluster=cluster)
        self._garbage = GarbageCollection()
        self._every = Every("poll", self.poll, overdue=self._publish_overdue)
        # a poll that hangs is published by another thread than its own
        self._publishing = threading.Lock()
        self._stopping = False
        self.latest = self._published(State(cluster or "unknown", clock()), None)

    def poll(self) -> State:
        """Collect, analyse and publish once; what fails, or can't be reached, is published too."""
        with self._garbage.not_collected():
            self._guard.start_poll()
            state = self._next_state()
            with self._publishing:
                reached_at = self._monotonic() if state.error is None else self.latest.succeeded_at
                self._publish(state, reached_at)
            if state.error is None and state.snapshot is not None:
                self.scaling.observe(state.snapshot, state.groups)
        return state

    def page(self) -> Page:
        """Return the page with the age of what it shows as of now, not as of its poll."""
        latest = self.latest
        if latest.oldest_at is None:
            return latest.page
        age = self._age_of(latest.oldest_at)
        return latest.page.ending_with(
            self._renderer.lines(DATA_AGE, {(latest.state.cluster,): age})
        )

    @property
    def pollers(self) -> Mapping[str, Poller]:
        """Return itself, as a fleet of one that no list names: what serves a fleet serves this, too."""
        return {"": self}

    @property
    def watched(self) -> Sequence[Watched]:
        """Return no settings: they are not known here."""
        return ()

    def page_of(self, cluster: str) -> Page | None:
        """Return the page of a cluster by its name; this one has none."""
        return self.page() if cluster == self._cluster else None

    def data_age(self) -> float | None:
        """Return how many seconds ago the oldest that is shown was seen, None where nothing is."""
        oldest_at = self.latest.oldest_at
        return None if oldest_at is None else self._age_of(oldest_at)

    def _age_of(self, oldest_at: float) -> float:
        return round(max(0.0, self._monotonic() - oldest_at), 3)

    def current(self) -> State:
        """Return the last state without what is too old by now."""
        return self._until_now().without_older_than(self._stale_after_s)

    def shown(self) -> State:
        """Return the last state without what is too old by now, or hidden."""
        state = self.current()
        return state.without_empty_groups() if self._choice.hide_empty_groups else state

    @property
    def interval_s(self) -> float | None:
        """Return how many seconds there are between two polls, None until it has been started."""
        return self._choice.poll_interval_s

    @property
    def cluster(self) -> str | None:
        """Return the name that is a label of its series, None where they have none."""
        return self._cluster

    def blocks_at(self, level: Level) -> Iterator[Block]:
        """Yield the samples of the last state as of now, with groups as far down as this."""
        return blocks(self._until_now(), replace(self._choice, level=level))

    def commit_windows(self, group: str) -> Mapping[str, Mapping[int, CommitWindow]]:
        """Return the last commits that polls saw of a group, by topic and partition."""
        return self._analyst.commit_windows(group)

    def _until_now(self) -> State:
        return replace(self.latest.state, monotonic_at=self._monotonic())

    def unready_reason(self) -> str | None:
        """Say why the data can't be relied on now, None when it can."""
        latest = self.latest
        state = latest.state
        if latest.succeeded_at is None:
            return state.error or "the first poll has not ended"
        age = self._monotonic() - latest.succeeded_at
        if age > self._stale_after_s:
            return f"the data is {age:.0f} s old: {state.error or 'no poll has ended since'}"
        snapshot = self._until_now().without_older_than(self._stale_after_s).snapshot
        if snapshot is not None and not snapshot.groups and not snapshot.groups_complete:
            why = "; ".join(snapshot.errors) or "one may be starting"
            return f"no group is known, and the brokers have not listed all: {why}"
        return None

    def start(self, interval_s: float) -> None:
        """Poll now and then every `interval_s` seconds in the background."""
        self._choice = replace(self._choice, poll_interval_s=interval_s)
        self._every.start(interval_s)

    def stop(self) -> None:
        """Start no other poll; one that runs ends by itself, or when its source is closed."""
        self._stopping = True
        self._every.stop()

    def _next_state(self) -> State:
        started = self._monotonic()
        try:
            snapshot = self._source.poll()
            if not self._has_begun:
                self._take_up(snapshot)
            groups = self._analyst.measure(snapshot)
            if self._keeper is not None:
                self._guard.attempt("history", "", self._keep, self._keeper, snapshot)
        except UnreachableError as error:
            return self._failed_state(str(error))
        except Exception as error:  # noqa: BLE001  # whatever it is, it must not go on unseen
            cause = f"the monitor failed: {cause_of(error)}"
            if cause != self.latest.state.error and not self._stopping:
                _log.error("a fault of the monitor's own", cause=cause, exc_info=error)
            return self._failed_state(cause)
        asked = Counter(snapshot.requests)
        asked.update(self._source.take_request_counts())
        snapshot = replace(snapshot, requests=dict(asked))
        now = self._clock()
        reached = any(broker not in snapshot.broker_errors for broker in snapshot.brokers)
        return State(
            cluster=self._name_of(snapshot),
            polled_at=now,
            snapshot=snapshot,
            groups=groups,
            findings=self._analyst.findings,
            error=None if reached else _unreached(snapshot),
            succeeded_at=now if reached else self.latest.state.succeeded_at,
            duration_seconds=self._monotonic() - started,
            monotonic_at=self._monotonic(),
        )

    def _new_analyst(self) -> Analyst:
        return Analyst(
            self._source.offsets_for_times,
            self._source.look_at_logs,
            rules=self._rules,
            is_kept=self._keeper is not None,
        )

    def _take_up(self, snapshot: Snapshot) -> None:
        """Go on where the monitor before this one stood when it was stopped."""
        self._has_begun = True

        def restore(kept: Kept) -> None:
            reason = why_not(kept.polls, snapshot.cluster_id, snapshot.taken_at)
            if reason is not None:
                raise ValueError(reason)
            self._analyst.restore(kept, snapshot.wall_offset, snapshot.monotonic_at)

        if self._keeper and not self._keeper.take_up(self._name_of(snapshot), restore):
            self._analyst = self._new_analyst()  # some may have been taken up

    def _keep(self, keeper: Keeper, snapshot: Snapshot) -> None:
        keeper.keep(self._name_of(snapshot), self._analyst.export(snapshot))

    def _name_of(self, snapshot: Snapshot) -> str:
        return self._cluster or snapshot.cluster_id or "unknown"

    def _failed_state(self, error: str) -> State:
        """Return the last state as of now: it was not followed by another."""
        return replace(
            self.latest.state,
            polled_at=self._clock(),
            monotonic_at=self._monotonic(),
            error=error,
        )

    def _publish_overdue(self) -> None:
        """Publish that a poll does not end: what the last one saw ages."""
        if not self._publishing.acquire(blocking=False):
            return  # it is about to end
        try:
            latest = self.latest
            state = replace(latest.state, monotonic_at=self._monotonic())
            since = latest.succeeded_at
            if state.error is None and (
                since is None or state.monotonic_at - since > self._stale_after_s
            ):
                state = replace(state, error="a poll has begun and does not end")
            self._publish(state, since)
        finally:
            self._publishing.release()

    def _publish(self, state: State, succeeded_at: float | None) -> None:
        """Swap in a state and its page, and log what is new about it."""
        before, self.latest = self.latest.state, self._published(state, succeeded_at)
        if not self._stopping:
            self._guard.attempt("log", "", _tell, before, self.latest.state)
        self._tell_published()

    def _published(self, state: State, succeeded_at: float | None) -> Published:
        try:
            found = (
                *blocks(state, self._choice, self._guard),
                faults(
                    state.cluster,
                    lambda: {
                        **(state.snapshot.failures if state.snapshot else {}),
                        **state.findings.failures,
                        **self._guard.failures,
                    },
                ),
            )
            parts = self._renderer.parts(found, self._guard)
        except Exception as error:  # noqa: BLE001  # a page that says so is better than an old one
            cause = f"the monitor failed to make its page: {cause_of(error)}"
            _log.error("page failed", cause=cause, exc_info=error)
            state = replace(state, error=cause, snapshot=None, groups={})
            parts = self._renderer.parts(blocks(state, self._choice))
        oldest_at = state.without_older_than(self._stale_after_s).oldest_at
        return Published(state, parts, succeeded_at, oldest_at)


def _tell(before: State, now: State) -> None:
    for change in changes(before, now):
        _log.log(change.level, change.event, **change.fields)


def _unreached(snapshot: Snapshot) -> str:
    """Return why no broker answered."""
    if snapshot.errors:
        return "; ".join(snapshot.errors)
    causes = [
        f"{snapshot.brokers[broker].address}: {cause}"
        for broker, cause in snapshot.broker_errors.items()
        if broker in snapshot.brokers
    ]
    if not causes:
        return "the cluster's metadata names no broker"
    # where the addresses may be wrong, a cause says so: one that answered before has the right one
    return f"no broker answers: {'; '.join(causes[:MAX_CAUSES])}"
