"""Produce, consume and commit rates, lag velocity, and the time to catch up, over the last polls.

All are differences between polls that were made, divided by the monotonic time between them: a
missed poll makes the window's step longer, a wall clock that jumps changes nothing, and nothing is
guessed for what a broker did not answer. A log end that moved back starts the produce rate anew; a
committed offset that moved back (rewind, reset) starts the consume rate anew at that commit, so a
rate is never negative.
"""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING, Final, Literal, NamedTuple, TypeAlias

from monitor.analysis.windows import is_single, progress

if TYPE_CHECKING:
    from array import array
    from collections.abc import Mapping

    from monitor.analysis.topic import EndWindow, TopicLog
    from monitor.analysis.windows import CommitWindows, PartitionOffsets

NEVER: Final = "never"
CatchUp: TypeAlias = float | Literal["never"] | None
"""Seconds until nothing is unread; NEVER at this rate; None when the rates are not known."""


# Equal rates differ in their last digits: that was told as millions of years.
LEAST_GAIN: Final = 1e-6

_NO_UNREAD: Mapping[str, Mapping[int, int]] = {}


class TopicRates(NamedTuple):
    """What a group does on one topic, summed over the partitions it has committed.

    Rates are messages (commits) per second over the window, None until two polls saw the topic. What is
    consumed counts since the last rebalance in it, once that is `POLLS_TO_SETTLE` ago; until then
    nobody knows when a lag is gone that grew in the window. `commit_rate` counts at most one commit per
    partition and poll.
    """

    produced: float | None
    consumed: float | None
    lag_velocity: float | None
    commit_rate: float | None
    catch_up: CatchUp


def produce_rates(window: EndWindow) -> dict[int, float]:
    """Return partition -> messages appended per second; without partitions seen only once."""
    rates = {}
    for partition, packed in window.packed().items():
        elapsed = packed[-2] - packed[0]
        if elapsed > 0:
            rates[partition] = (packed[-1] - packed[1]) * 1000 / elapsed
    return rates


def produced_messages(window: EndWindow) -> dict[int, int]:
    """Return partition -> messages appended within the window, to be compared with each other.

    Empty where partitions were not seen over the same time: one without a leader, or a new one, got
    less only because nobody saw it.
    """
    seen = window.packed()
    if len({(packed[0], packed[-2]) for packed in seen.values()}) > 1:
        return {}
    return {p: packed[-1] - packed[1] for p, packed in seen.items()}


def group_rates(
    commits: PartitionOffsets,
    log_ends: PartitionOffsets,
    commit_windows: CommitWindows,
    topics: Mapping[str, TopicLog],
    *,
    now: float,
    produced: Mapping[str, Mapping[int, float]],
    unread: PartitionOffsets = _NO_UNREAD,
    since: float = -inf,
    is_settled: bool = True,
) -> dict[str, TopicRates]:
    """Return the rates of a group by topic, after this poll's ends and commits were observed.

    `produced` holds `produce_rates` of each topic: reckoned once, used by all its groups. `unread`
    has what can be read of partitions where that is not all up to the log end. Those who
    read now have done so `since` then, and for `POLLS_TO_SETTLE` if it `is_settled`.
    """
    now_ms = int(now * 1000)
    since_ms = int(since * 1000) if is_settled and since > -inf else 0
    found = {
        topic: _topic_rates(
            partitions,
            log_ends.get(topic, {}),
            commit_windows.packed(topic),
            topics[topic].ends.packed() if topic in topics else {},
            produced.get(topic, {}),
            unread=unread.get(topic, {}),
            now_ms=now_ms,
            since_ms=since_ms,
        )
        for topic, partitions in commits.items()
        if partitions
    }
    if is_settled:
        return found
    return {
        topic: rates._replace(catch_up=None) if rates.catch_up == NEVER else rates
        for topic, rates in found.items()
    }


def _topic_rates(
    commits: Mapping[int, int],
    log_ends: Mapping[int, int],
    windows: Mapping[int, array[int]],
    end_windows: Mapping[int, array[int]],
    produced: Mapping[int, float],
    *,
    unread: Mapping[int, int],
    now_ms: int,
    since_ms: int,
) -> TopicRates:
    sum_produced = sum_consumed = commit_rate = velocity = 0.0
    known = 0
    catch_up: CatchUp = 0.0
    for partition, committed in commits.items():
        packed = windows.get(partition)
        if packed is None:
            continue
        changed = packed[-3]
        rate = produced.get(partition)
        end = log_ends.get(partition)
        lag = None if end is None else unread.get(partition, end - committed)
        if rate is None or end is None or lag is None:
            if lag is None or lag > 0:
                catch_up = _slower(catch_up, None)
            continue
        known += 1
        sum_produced += rate
        consumed = 0.0
        seen = end_windows[partition]
        began = seen[0]
        since = max(began, since_ms)
        if changed > since and not is_single(packed):
            messages, commits_seen, counted_from = progress(packed, since)
            if now_ms > counted_from:
                elapsed = (now_ms - counted_from) / 1000
                consumed = messages / elapsed
                sum_consumed += consumed
                commit_rate += commits_seen / elapsed
        if lag > 0:
            interval = (seen[-2] - began) / 1000 / (len(seen) // 2 - 1)
            catch_up = _slower(catch_up, time_to_catch_up(lag, rate, consumed, interval))
        if lag > 0 or end <= committed:  # what nobody can read is no lag that grows
            velocity += rate - consumed
    if not known:
        return TopicRates(None, None, None, None, catch_up)
    return TopicRates(sum_produced, sum_consumed, velocity, commit_rate, catch_up)


def time_to_catch_up(lag: int, produced: float, consumed: float, interval: float) -> CatchUp:
    """Return the seconds until a partition's lag is gone at these rates (messages per second).

    A consumer that keeps pace always has some messages in flight: a lag that it works off within
    one poll interval counts as that time, not as never.
    """
    if not lag:
        return 0.0
    if consumed > 0 and lag <= consumed * interval:
        return lag / consumed
    gain = consumed - produced
    return lag / gain if gain > consumed * LEAST_GAIN else NEVER


def _slower(one: CatchUp, other: CatchUp) -> CatchUp:
    """Return the later of two: a topic is caught up when its last partition is."""
    if NEVER in (one, other):
        return NEVER
    if one is None or other is None:
        return None
    return max(float(one), float(other))
