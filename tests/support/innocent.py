"""What clusters do for weeks without anybody being to blame, as the monitor shows it, minute by minute.

Each state is a function of the minute and of the minute in which the monitor was started, since it forgets
at a restart: counters begin at 0, activity at "never", a group's rhythm at "not known".
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

from tests.support.rule_tests import STALE, Series, Value

DAY: Final = 24 * 60
HOUR: Final = 60
# the monitor's, for a group of which no commit was seen to move
UNKNOWN_PATIENCE_S: Final = 5_400.0
SHORTEST_PATIENCE_S: Final = 60.0
# a release: it misses some scrapes, for less than a minute
DOWN_MINUTES: Final = 1

Sample: TypeAlias = tuple[str, Mapping[str, str], float]
Samples: TypeAlias = Iterable[Sample]
State: TypeAlias = Callable[[int, int], Samples]
"""(minute, minute of the monitor's start) -> samples about groups and topics."""


@dataclass(frozen=True, slots=True)
class Monitor:
    """A monitor of a cluster, None if that has no name, with the minutes in which it is restarted."""

    instance: str
    cluster: str | None
    restarts: Sequence[int] = ()
    clock_is_set: Mapping[int, int] | None = None
    """From which minute on its wall clock is wrong, by how many seconds."""

    def started(self, minute: int) -> int | None:
        """Return when it was started, None while it is down."""
        before = [at for at in self.restarts if at <= minute]
        if not before:
            return 0
        return before[-1] + DOWN_MINUTES if minute >= before[-1] + DOWN_MINUTES else None


def _of(group: str, topic: str | None = None, **labels: str) -> dict[str, str]:
    named = {"consumergroup": group, **({} if topic is None else {"topic": topic})}
    return {**named, **labels}


def _metric(name: str) -> str:
    return f"kafka_consumergroup_{name}"


def _group(group: str, *, members: int, patience: float = SHORTEST_PATIENCE_S) -> Iterator[Sample]:
    yield _metric("members"), _of(group), members
    yield (
        _metric("info"),
        _of(group, type="classic", assignor="range", coordinator="1"),
        1,
    )
    yield _metric("rebalances_total"), _of(group), 0
    yield _metric("commit_patience_seconds"), _of(group), patience


def _lag(
    group: str,
    topic: str,
    *,
    readable: float,
    seconds: float | None,
    lag: float | None = None,
    lost: float = 0,
    produced: float = 1,
) -> Iterator[Sample]:
    by_topic, by_partition = _of(group, topic), _of(group, topic, partition="0")
    yield _metric("current_offset_sum"), by_topic, 1000
    yield _metric("readable_lag"), by_topic, readable
    yield _metric("lag_sum"), by_topic, readable if lag is None else lag
    yield _metric("messages_lost_total"), by_topic, lost
    yield _metric("produced_messages_per_second"), by_topic, produced
    if seconds is not None:
        yield _metric("lag_seconds"), by_partition, seconds
        yield _metric("lag_seconds_max"), _of(group), seconds


def _with_members(group: str) -> Iterator[Sample]:
    yield _metric("active"), _of(group, by="members"), 1


def busy(minute: int, started: int) -> Samples:
    """A service as it should be, whose ten members are rolled over every day at noon."""
    rolling = 12 * HOUR <= minute % DAY < 12 * HOUR + 8
    for sample in _group("busy", members=9 if rolling else 10):
        if sample[0] == _metric("rebalances_total"):
            yield sample[0], sample[1], _rollings(minute) - _rollings(started)
        else:
            yield sample
    yield from _with_members("busy")
    yield from _lag(
        "busy", "orders", readable=900 if rolling else 40, seconds=45 if rolling else 0.3
    )
    yield _metric("stuck_partitions"), _of("busy", "orders"), 0
    yield _metric("rewinds_total"), _of("busy", "orders"), 0
    if not rolling:
        yield _metric("unassigned_partitions"), _of("busy"), 0
        yield _metric("imbalance_ratio"), _of("busy", "orders", kind="assignment"), 0.0


def _rollings(minute: int) -> int:
    """Return the rebalances of all roll-outs until then: each member leaves once and comes once."""
    whole, rest = divmod(minute - 12 * HOUR, DAY)
    return 20 * max(whole, 0) + (max(0, min(20, rest * 20 // 8)) if whole >= 0 else 0)


def behind_a_marker(minute: int, started: int) -> Samples:
    """All is read; the marker of the last transaction is left, for ever."""
    yield from _group("transactional", members=2)
    yield from _with_members("transactional")
    yield from _lag("transactional", "payments", readable=0, lag=3, seconds=0, produced=0)
    yield _metric("stuck_partitions"), _of("transactional", "payments"), 0


def held_back(minute: int, started: int) -> Samples:
    """A read_committed group at rest behind a transaction that is open for up to ten minutes."""
    minutes = minute % 30
    open_for = minutes if minutes <= 10 else 0
    yield from _group("committed-only", members=1)
    yield from _with_members("committed-only")
    yield from _lag("committed-only", "batches", readable=0, lag=600 * open_for, seconds=0)
    if open_for:
        where = {"topic": "batches", "partition": "0"}
        yield "kafka_topic_partition_open_transaction_seconds", where, 60 * open_for
        yield "kafka_topic_partition_open_transaction_records", where, 600 * open_for


def assigned(minute: int, started: int) -> Samples:
    """A stream processor that reads without membership, with a checkpoint every minute."""
    yield from _group("flink", members=0, patience=120)
    if minute - started >= 2:
        yield _metric("active"), _of("flink", by="commits"), 1
    yield from _lag("flink", "clicks", readable=4_900, seconds=70)
    # it goes back to its last checkpoint when it is restarted, at nine
    yield _metric("rewinds_total"), _of("flink", "clicks"), _days(minute, 9) - _days(started, 9)


def _days(minute: int, hour: int) -> int:
    return max(0, (minute - hour * HOUR) // DAY + 1)


def mirrored(minute: int, started: int) -> Samples:
    """A group of another cluster, whose offsets are synchronised: no members, ever; silent at night."""
    by_day = 8 * HOUR <= minute % DAY < 20 * HOUR
    silent_minutes = 0 if by_day else (minute % DAY - 20 * HOUR) % DAY
    yield from _group("mirrored", members=0, patience=120)
    if minute - started >= 2 and (by_day or minute - started > silent_minutes):
        yield _metric("active"), _of("mirrored", by="commits"), int(by_day or silent_minutes < 2)
    trailing = 110.0 if by_day else 60.0 * silent_minutes + 110
    yield from _lag("mirrored", "orders", readable=10, seconds=trailing, produced=int(by_day))
    yield _metric("rewinds_total"), _of("mirrored", "orders"), _days(minute, 7) - _days(started, 7)
    # the literal offset of the other cluster, on a topic that is shorter here
    where = _of("mirrored", "shorter", partition="0")
    yield _metric("commit_past_end_messages"), where, 5_000_000


def abandoned(minute: int, started: int, *, number: int) -> Samples:
    """A console reader that was looked through for ten minutes on some day, and left for ever."""
    came = 30 + number * 67
    if minute < came:
        return
    group = f"console-consumer-{40_000 + number}"
    reads = minute < came + 10
    yield from _group(group, members=int(reads), patience=60 if reads else UNKNOWN_PATIENCE_S)
    if started < came + 10:
        yield _metric("active"), _of(group, by="members"), int(reads)
    behind = 0 if reads else minute - came - 10
    # retention takes what it has not read, from the second hour on
    lost = max(0, 60 * (behind - 120)) - max(0, 60 * (started - came - 10 - 120))
    yield from _lag(
        group,
        "orders",
        readable=60 * min(behind, 120),
        seconds=60.0 * min(behind, 120),
        lost=max(0, lost),
    )


def seldom(minute: int, started: int, *, waits: Sequence[int]) -> Samples:
    """A sink that commits when its file is full: `waits` are the minutes that it takes, in turn."""
    group = f"sink-{waits[0]}"
    commits = [0]
    for wait in itertools.islice(itertools.cycle(waits), minute // min(waits) + 2):
        commits.append(commits[-1] + wait)
    since = max(at for at in commits if at <= minute)
    whole = [b - a for a, b in itertools.pairwise(commits) if a > started and b <= minute]
    patience = 120.0 * max(whole) if whole else UNKNOWN_PATIENCE_S
    behind = minute - since
    yield from _group(group, members=1, patience=patience)
    yield from _with_members(group)
    yield from _lag(group, "orders", readable=300 * behind, seconds=60.0 * behind)
    yield _metric("stuck_partitions"), _of(group, "orders"), 0
    yield _metric("imbalance_ratio"), _of(group, "orders", kind="lag"), 0.1


def moved_on(minute: int, started: int) -> Samples:
    """A service that reads `new` and no longer `old`, where its commits lie until they expire."""
    yield from _group("moved-on", members=2)
    yield from _with_members("moved-on")
    yield from _lag("moved-on", "new", readable=3, seconds=0.2)
    yield from _lag("moved-on", "old", readable=6_296 + minute, seconds=None, lost=minute - started)
    old = _of("moved-on", "old")
    yield _metric("not_consumed"), old, 1
    yield _metric("lag_seconds"), {**old, "partition": "0"}, 60.0 * minute
    yield _metric("retention_remaining_seconds"), {**old, "partition": "0"}, 10
    yield _metric("imbalance_ratio"), {**old, "kind": "lag"}, 2.0


def emptied(minute: int, started: int) -> Samples:
    """Retention emptied the log before the group came back; nothing is there to be read."""
    yield from _group("emptied", members=1)
    yield from _with_members("emptied")
    yield from _lag("emptied", "archive", readable=0, lag=20_000, seconds=0, produced=0)
    yield _metric("unread_deleted_messages"), _of("emptied", "archive"), 20_000
    yield _metric("stuck_partitions"), _of("emptied", "archive"), 0


def workers(minute: int, started: int) -> Samples:
    """Connect's workers: members that commit nothing."""
    yield from _group("connect-cluster", members=3, patience=UNKNOWN_PATIENCE_S)
    yield from _with_members("connect-cluster")


def retired(minute: int, started: int) -> Samples:
    """A group that nobody has read for since before the monitor came, and whose topic goes on."""
    yield from _group("retired", members=0, patience=UNKNOWN_PATIENCE_S)
    yield from _lag("retired", "orders", readable=50_000 + minute, seconds=86_400.0)


def rolled(minute: int, started: int) -> Samples:
    """Three brokers that are restarted one after another, each night at two: 50 s, 4 minutes apart."""
    night = minute % DAY - 2 * HOUR
    for broker in (1, 2, 3):
        down = night == 5 * broker
        yield "kafka_monitor_broker_up", {"broker": str(broker)}, int(not down)
    out_of_sync = any(5 * broker <= night < 5 * broker + 4 for broker in (1, 2, 3))
    where = {"topic": "orders", "partition": "0"}
    yield "kafka_topic_partition_under_replicated_partition", where, int(out_of_sync)


_CONSOLES: Final = 20


def _abandoned(number: int) -> State:
    def state(minute: int, started: int) -> Samples:
        return abandoned(minute, started, number=number)

    return state


def _seldom(*waits: int) -> State:
    def state(minute: int, started: int) -> Samples:
        return seldom(minute, started, waits=waits)

    return state


STATES: Final[tuple[State, ...]] = (
    busy,
    behind_a_marker,
    held_back,
    assigned,
    mirrored,
    moved_on,
    emptied,
    workers,
    retired,
    rolled,
    _seldom(60),
    _seldom(15),
    _seldom(31, 60, 45),
    *(_abandoned(number) for number in range(_CONSOLES)),
)


def seen_by(monitor: Monitor, states: Iterable[State], minutes: int) -> list[Series]:
    """Return what Prometheus scrapes of a monitor in the course of that many minutes."""
    columns: dict[tuple[str, tuple[tuple[str, str], ...]], list[Value]] = defaultdict(
        lambda: [None] * minutes
    )
    states = tuple(states)
    target = {"job": "kafka-monitor", "instance": monitor.instance}
    named = {} if monitor.cluster is None else {"cluster": monitor.cluster}
    of_monitor = {**target, "cluster": monitor.cluster or f"id-of-{monitor.instance}"}

    def put(metric: str, labels: Mapping[str, str], minute: int, value: float) -> None:
        columns[metric, tuple(sorted(labels.items()))][minute] = float(value)

    for minute in range(minutes):
        started = monitor.started(minute)
        put("up", target, minute, int(started is not None))
        if started is None:
            continue
        put("kafka_monitor_up", of_monitor, minute, 1)
        put("kafka_monitor_data_age_seconds", of_monitor, minute, 12)
        put("kafka_monitor_poll_interval_seconds", of_monitor, minute, 15)
        wrong = [s for at, s in (monitor.clock_is_set or {}).items() if at <= minute]
        polled = 60 * minute - 12 + (wrong[-1] if wrong else 0)
        put("kafka_monitor_last_poll_timestamp_seconds", of_monitor, minute, polled)
        for state in states:
            for metric, labels, value in state(minute, started):
                put(metric, {**target, **named, **labels}, minute, value)
    return [
        Series(metric, dict(labels), _with_ends(values))
        for (metric, labels), values in columns.items()
    ]


def _with_ends(values: Sequence[Value]) -> list[Value]:
    """Mark where a series ends: a scrape that brings it no more says so."""
    found = list(values)
    for index in range(1, len(found)):
        if values[index] is None and values[index - 1] is not None:
            found[index] = STALE
    return found
