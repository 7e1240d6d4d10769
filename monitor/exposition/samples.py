"""The samples of each metric, taken from a state.

Samples are mappings of label values -> value: a second sample with the same labels replaces the
first, so a scrape can hold no duplicate series. A group or partition that is stale for longer than
`stale_after_s` is left out: an old number must not be taken for a current one for ever.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from importlib import metadata as package_metadata
from typing import Final, TypeAlias

from monitor.exposition import metrics as m
from monitor.exposition.metrics import Metric
from monitor.model import Group, Offsets, Snapshot, Topic
from monitor.state import State

Series: TypeAlias = Mapping[tuple[str, ...], float]


@dataclass(frozen=True, slots=True)
class Block:
    """Samples that change together.

    `source` is what they are made of: a block whose source is the very same object as at the last
    poll, and not None, has the same samples, and need not make them.
    """

    source: object
    samples: Callable[[], Mapping[Metric, Series]]


_VERSION: Final = package_metadata.version("kafka-lag-monitor")


def blocks(state: State, stale_after_s: float) -> Iterator[Block]:
    """Yield all samples of a state, in blocks that change at different times."""
    snapshot = state.snapshot
    if snapshot is not None:
        topics = snapshot.topics
        yield Block(topics, lambda: _topics(topics))
        for metric, offsets in (
            (m.PARTITION_OLDEST_OFFSET, snapshot.start_offsets),
            (m.PARTITION_CURRENT_OFFSET, snapshot.end_offsets),
        ):
            yield _offsets_block(metric, offsets, state.polled_at - stale_after_s)
        yield Block(None, lambda: _brokers(snapshot))
        yield Block(None, lambda: _groups(state, snapshot, stale_after_s))
    yield Block(None, lambda: _monitor(state))


def _offsets_block(metric: Metric, offsets: Offsets, oldest: float) -> Block:
    # a stale offset is dropped when its time comes, though no new one arrives: no fixed source
    source = None if offsets.seen_earlier else offsets.values
    return Block(source, lambda: {metric: _offsets(offsets, oldest)})


def _topics(topics: Mapping[str, Topic]) -> Mapping[Metric, Series]:
    counts: Series = {(topic.name,): len(topic.partitions) for topic in topics.values()}
    found: dict[Metric, dict[tuple[str, ...], float]] = {
        m.PARTITION_LEADER: {},
        m.PARTITION_REPLICAS: {},
        m.PARTITION_IN_SYNC_REPLICAS: {},
        m.PARTITION_LEADER_IS_PREFERRED: {},
        m.PARTITION_UNDER_REPLICATED: {},
    }
    leader, replicas, in_sync, preferred, under = found.values()
    for topic in topics.values():
        for index, partition in topic.partitions.items():
            labels = (topic.name, str(index))
            if partition.leader is not None:
                leader[labels] = partition.leader
            replicas[labels] = len(partition.replicas)
            in_sync[labels] = len(partition.isr)
            preferred[labels] = int(partition.leader_is_preferred)
            under[labels] = int(partition.under_replicated)
    return {m.TOPIC_PARTITIONS: counts, **found}


def _offsets(offsets: Offsets, oldest: float) -> Series:
    return {
        (topic, str(index)): offset
        for topic, partitions in offsets.values.items()
        for index, offset in partitions.items()
        if topic not in offsets.seen_earlier
        or not offsets.is_stale(topic, index)
        or offsets.time_of(topic, index) >= oldest
    }


def _brokers(snapshot: Snapshot) -> Mapping[Metric, Series]:
    return {
        m.BROKERS: {(): len(snapshot.brokers)},
        m.BROKER_INFO: {(str(b.id), b.address): 1 for b in snapshot.brokers.values()},
        m.MONITOR_BROKER_UP: {
            (str(broker),): int(broker not in snapshot.broker_errors) for broker in snapshot.brokers
        },
    }


def _groups(state: State, snapshot: Snapshot, stale_after_s: float) -> Mapping[Metric, Series]:
    current: dict[tuple[str, ...], float] = {}
    current_sum: dict[tuple[str, ...], float] = {}
    lag: dict[tuple[str, ...], float] = {}
    lag_sum: dict[tuple[str, ...], float] = {}
    members: dict[tuple[str, ...], float] = {}
    for group in snapshot.groups.values():
        if group.stale and state.polled_at - group.seen_at > stale_after_s:
            continue
        if group.members is not None:
            members[group.id,] = len(group.members)
        lags = state.lag.get(group.id)
        for topic, commits in group.commits.items():
            current_sum[group.id, topic] = sum(commits.values())
            topic_lags = lags.partitions.get(topic) if lags is not None else None
            if topic_lags is None:
                for index, committed in commits.items():
                    current[group.id, topic, str(index)] = committed
                continue
            for index, committed in commits.items():
                labels = (group.id, topic, str(index))
                current[labels] = committed
                if index in topic_lags:
                    lag[labels] = topic_lags[index]
            lag_sum[group.id, topic] = sum(topic_lags.values())
    return {
        m.GROUP_CURRENT_OFFSET: current,
        m.GROUP_CURRENT_OFFSET_SUM: current_sum,
        m.GROUP_LAG: lag,
        m.GROUP_LAG_SUM: lag_sum,
        m.GROUP_MEMBERS: members,
    }


def _monitor(state: State) -> Mapping[Metric, Series]:
    cluster = (state.cluster,)
    found: defaultdict[Metric, dict[tuple[str, ...], float]] = defaultdict(dict)
    found[m.MONITOR_BUILD_INFO][_VERSION,] = 1
    found[m.MONITOR_UP][cluster] = int(state.up)
    if state.succeeded_at is not None:
        found[m.MONITOR_LAST_POLL][cluster] = state.succeeded_at
    snapshot = state.snapshot
    if snapshot is None:
        return found
    found[m.MONITOR_POLL_DURATION][cluster] = snapshot.duration_seconds
    for api, count in snapshot.requests.items():
        found[m.MONITOR_POLL_REQUESTS][state.cluster, api] = count
    ends = snapshot.end_offsets
    found[m.MONITOR_STALE_PARTITIONS][cluster] = sum(map(len, ends.seen_earlier.values()))
    stale = [group for group in snapshot.groups.values() if group.stale]
    found[m.MONITOR_STALE_GROUPS][cluster] = len(stale)
    found[m.MONITOR_GROUP_ERRORS][cluster] = sum(
        group.error is not None for group in snapshot.groups.values()
    )
    found[m.MONITOR_DATA_AGE][cluster] = max(0.0, state.polled_at - _oldest(snapshot, stale))
    return found


def _oldest(snapshot: Snapshot, stale: list[Group]) -> float:
    ends = snapshot.end_offsets
    times = [snapshot.taken_at, *(group.seen_at for group in stale)]
    times += [seen for partitions in ends.seen_earlier.values() for seen in partitions.values()]
    if ends.values:
        times.append(ends.seen_at)
    return min(times)
