"""Settings of topics, sizes of logs, stable offsets, offsets by time, filters: at the seam."""

from __future__ import annotations

from collections.abc import Mapping

from monitor.kafka.apis.describe_groups import DescribedGroup
from monitor.kafka.apis.list_groups import ListedGroup
from monitor.kafka.apis.offset_fetch import GroupCommits
from monitor.kafka.collector import Collector, Intervals
from monitor.model import CLASSIC, Member, Partition, Topic, TopicConfig
from tests.unit.monitor.fake_brokers import FakeBrokers


def rounds_of(brokers: FakeBrokers, api: str) -> list[int]:
    return [broker for round_ in brokers.asked for broker, name in round_ if name == api]


class Clock:
    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


def test_settings_are_read_again_after_their_interval_and_of_a_topic_made_anew_at_once() -> None:
    brokers, clock = FakeBrokers(), Clock()
    brokers.configs = {"t": TopicConfig(retention_ms=1)}
    collector = Collector(
        brokers, Intervals(metadata=1, topic_configs=600), clock=clock, monotonic=clock
    )
    assert collector.poll().topic_configs == {"t": TopicConfig(retention_ms=1)}
    brokers.configs["t"] = TopicConfig(retention_ms=2)
    clock.now += 590
    assert collector.poll().topic_configs["t"].retention_ms == 1
    brokers.topics["t"] = Topic("t", {0: Partition(1)}, id="another")
    clock.now += 2
    assert collector.poll().topic_configs["t"].retention_ms == 2
    brokers.configs["t"] = TopicConfig(retention_ms=3)
    clock.now += 1_000
    assert collector.poll().topic_configs["t"].retention_ms == 3
    brokers.configs.clear()
    clock.now += 1_000
    assert collector.poll().topic_configs == {}


def test_settings_that_may_not_be_read_are_absent_and_not_asked_for_at_every_poll() -> None:
    brokers = FakeBrokers()
    collector = Collector(brokers, Intervals(topic_configs=600))
    for _ in range(3):
        assert collector.poll().topic_configs == {}
    assert len(rounds_of(brokers, "DescribeTopicConfigs")) == 1


def test_settings_that_were_not_answered_are_asked_for_again() -> None:
    brokers = FakeBrokers(
        configs={"t": TopicConfig(retention_ms=1)}, refusing={"DescribeTopicConfigs"}
    )
    collector = Collector(brokers, Intervals(topic_configs=600))
    first = collector.poll()
    assert first.topic_configs == {}
    assert first.errors == ("broker 1: DescribeTopicConfigs refused",)
    brokers.refusing.clear()
    assert collector.poll().topic_configs == {"t": TopicConfig(retention_ms=1)}


def test_log_sizes_of_a_silent_broker_stay_with_their_time() -> None:
    brokers, clock = FakeBrokers(), Clock()
    brokers.log_dirs = {1: {"t": {0: 100, 1: 7}}, 2: {"t": {0: 99, 1: 200}}}
    collector = Collector(brokers, Intervals(log_sizes=10), clock=clock, monotonic=clock)
    assert collector.poll().log_bytes == {"t": {0: 100, 1: 200}}
    brokers.down = {2}
    brokers.log_dirs[1] = {"t": {0: 150, 1: 7}}
    brokers.now = clock.now = 1_020.0
    snapshot = collector.poll()
    assert snapshot.log_bytes == {"t": {0: 150, 1: 200}}
    assert snapshot.log_sizes[1].seen_at == 1_020.0
    assert snapshot.log_sizes[2].seen_at == 1_000.0


def test_nothing_is_asked_that_was_not_requested() -> None:
    brokers = FakeBrokers()
    snapshot = Collector(brokers, Intervals()).poll()
    assert rounds_of(brokers, "DescribeTopicConfigs") == []
    assert rounds_of(brokers, "DescribeLogDirs") == []
    assert snapshot.stable_offsets.values == {}
    assert snapshot.requests == {"ListGroups": 2, "ListOffsets": 4}


def test_stable_offsets_come_beside_the_high_watermarks_in_the_same_round() -> None:
    brokers = FakeBrokers(stable={("t", 0): 8, ("t", 1): 20})
    collector = Collector(brokers, Intervals(), read_committed=True)
    collector.poll()
    brokers.asked.clear()
    snapshot = collector.poll()
    assert brokers.asked[-1] == [(1, "ListOffsets"), (2, "ListOffsets")] * 2
    assert snapshot.end_offsets.values == {"t": {0: 10, 1: 20}}
    assert snapshot.stable_offsets.values == {"t": {0: 8, 1: 20}}


def test_offsets_by_time_go_to_each_leader_once_and_not_to_a_broker_that_failed() -> None:
    brokers = FakeBrokers(by_time={("t", 0): (4, 1_500), ("t", 1): (-1, -1)})
    collector = Collector(brokers, Intervals())
    assert collector.offsets_for_times({"t": {0: 1}}) == {}  # before the first poll
    collector.poll()
    brokers.asked.clear()
    collector.take_request_counts()
    wanted: Mapping[str, Mapping[int, int]] = {"t": {0: 1_000, 1: 2_000, 5: 1}, "gone": {0: 1}}
    assert collector.offsets_for_times(wanted) == {"t": {0: (4, 1_500), 1: (-1, -1)}}
    assert brokers.asked == [[(1, "ListOffsets"), (2, "ListOffsets")]]
    assert collector.take_request_counts() == {"ListOffsets": 2}
    brokers.down = {2}
    assert collector.offsets_for_times(wanted) == {"t": {0: (4, 1_500)}}
    brokers.asked.clear()
    assert collector.offsets_for_times(wanted) == {"t": {0: (4, 1_500)}}
    assert brokers.asked == [[(1, "ListOffsets")]]
    # it may have searched remote storage: for the next poll nothing speaks against it
    brokers.down = set()
    brokers.not_awaited.clear()
    assert collector.poll().broker_errors == {}
    assert not any(brokers.not_awaited)
    assert collector.offsets_for_times(wanted) == {"t": {0: (4, 1_500), 1: (-1, -1)}}


def test_what_is_not_wanted_is_not_asked_for_and_not_in_the_snapshot() -> None:
    brokers = FakeBrokers(
        groups={
            1: [
                ListedGroup("wanted", CLASSIC, "Stable", "consumer"),
                ListedGroup("other", CLASSIC, "Stable", "consumer"),
            ]
        },
        commits={"wanted": GroupCommits({"t": {0: 1}, "u": {0: 1}})},
        # no description of the other: to ask for it would be an error here
        described={"wanted": DescribedGroup("Stable", members=(Member("m", "c", "/h"),))},
    )
    brokers.topics["u"] = Topic("u", {0: Partition(1)})
    collector = Collector(
        brokers,
        Intervals(),
        wants_group=lambda group: group == "wanted",
        wants_topic=lambda topic: topic == "t",
    )
    snapshot = collector.poll()
    assert set(snapshot.groups) == {"wanted"}
    assert snapshot.groups["wanted"].commits == {"t": {0: 1}}
    assert set(snapshot.topics) == {"t"}
    assert set(snapshot.end_offsets.values) == {"t"}
    brokers.asked.clear()
    collector.poll()
    # a topic that is not wanted is not taken for one that is unknown
    assert rounds_of(brokers, "Metadata") == []
