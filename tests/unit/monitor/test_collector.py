from __future__ import annotations

from dataclasses import replace

import pytest

from monitor.kafka.collector import Collector, Intervals
from monitor.kafka.questions import DescribedGroup, GroupCommits, ListedGroup, UnreachableError
from monitor.model import CLASSIC, CONSUMER, SHARE, STREAMS, Member, Partition, Topic
from tests.unit.monitor.fake_brokers import FakeBrokers


def cluster() -> FakeBrokers:
    return FakeBrokers(
        groups={
            1: [ListedGroup("a", CLASSIC, "Empty", "consumer")],
            2: [ListedGroup("b", CLASSIC, "Stable", "consumer")],
        },
        commits={"a": GroupCommits({"t": {0: 4}}), "b": GroupCommits({"t": {1: 15}})},
        described={"b": DescribedGroup("Stable", members=(Member("m", "c", "/h", {"t": (1,)}),))},
    )


class Clock:
    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


def test_a_poll_sends_one_request_per_api_and_broker_and_describes_only_groups_with_members() -> (
    None
):
    brokers = cluster()
    collector = Collector(brokers, Intervals())
    collector.poll()
    brokers.asked.clear()
    snapshot = collector.poll()
    assert brokers.asked == [
        [(1, "ListGroups"), (2, "ListGroups")],
        [(1, "FetchCommits"), (2, "FetchCommits"), (2, "DescribeClassicGroups")],
        [(1, "ListOffsets"), (2, "ListOffsets")],
    ]
    assert snapshot.request_count == 7
    assert snapshot.groups["a"].members == ()
    assert snapshot.groups["b"].members == (Member("m", "c", "/h", {"t": (1,)}),)
    assert snapshot.end_offsets.values == {"t": {0: 10, 1: 20}}
    assert not any(group.stale for group in snapshot.groups.values())


def test_a_silent_broker_makes_its_own_partitions_and_groups_stale_and_no_others() -> None:
    brokers = cluster()
    clock = Clock()
    collector = Collector(brokers, Intervals(), clock=clock, monotonic=clock)
    collector.poll()
    brokers.down = {2}
    brokers.ends["t", 0] = 11
    brokers.now = clock.now = 1_015.0
    snapshot = collector.poll()
    assert snapshot.broker_errors == {2: "timed out"}
    assert snapshot.end_offsets.values == {"t": {0: 11, 1: 20}}
    assert snapshot.end_offsets.is_stale("t", 1)
    assert snapshot.end_offsets.time_of("t", 1) == 1_000.0
    assert snapshot.end_offsets.time_of("t", 0) == 1_015.0
    assert snapshot.groups["b"].stale
    assert snapshot.groups["b"].commits == {"t": {1: 15}}
    assert snapshot.groups["b"].seen_at == 1_000.0
    assert not snapshot.groups["a"].stale


def test_a_broker_that_failed_is_asked_once_per_poll_and_not_waited_for_next_time() -> None:
    brokers = cluster()
    collector = Collector(brokers, Intervals())
    collector.poll()
    brokers.down = {2}
    brokers.asked.clear()
    collector.poll()
    assert sum(broker == 2 for round_ in brokers.asked for broker, _ in round_) == 1
    brokers.not_awaited.clear()
    collector.poll()
    assert brokers.not_awaited[0] == {2}
    brokers.down = set()
    recovered = collector.poll()
    assert not recovered.groups["b"].stale
    assert not recovered.end_offsets.seen_earlier
    assert collector.poll().broker_errors == {}


def test_a_group_that_may_not_be_read_keeps_its_error_to_itself() -> None:
    brokers = cluster()
    brokers.groups[1].append(ListedGroup("secret", CLASSIC, "Stable", "consumer"))
    brokers.commits["secret"] = GroupCommits(error="GROUP_AUTHORIZATION_FAILED")
    brokers.described["secret"] = DescribedGroup(error="GROUP_AUTHORIZATION_FAILED")
    snapshot = Collector(brokers, Intervals()).poll()
    secret = snapshot.groups["secret"]
    assert secret.error == "GROUP_AUTHORIZATION_FAILED"
    assert secret.members is None
    assert secret.commits == {}
    assert snapshot.groups["a"].error is None
    assert snapshot.groups["a"].commits == {"t": {0: 4}}
    assert snapshot.broker_errors == {}


def test_a_group_whose_coordinator_moved_is_found_and_read_in_the_same_poll() -> None:
    brokers = cluster()
    brokers.coordinators = {"a": 2}
    snapshot = Collector(brokers, Intervals()).poll()
    assert snapshot.groups["a"].commits == {"t": {0: 4}}
    assert snapshot.groups["a"].coordinator == 2
    assert snapshot.groups["a"].error is None


def test_a_partition_without_a_leader_is_not_asked_for_and_has_no_offset() -> None:
    brokers = cluster()
    brokers.topics = {"t": Topic("t", {0: Partition(1), 1: Partition(None)})}
    snapshot = Collector(brokers, Intervals()).poll()
    assert snapshot.end_offsets.get("t", 0) == 10
    assert snapshot.end_offsets.get("t", 1) is None


def test_a_leader_that_moved_has_the_metadata_refreshed_at_the_next_poll() -> None:
    brokers = cluster()
    collector = Collector(brokers, Intervals())
    collector.poll()
    brokers.errors["t", 0] = "NOT_LEADER_OR_FOLLOWER"
    stale = collector.poll()
    assert stale.end_offsets.is_stale("t", 0)
    brokers.errors.clear()
    brokers.asked.clear()
    collector.poll()
    assert "Metadata" in {api for round_ in brokers.asked for _, api in round_}


def test_a_deleted_topic_takes_its_offsets_with_it_and_costs_one_refresh_only() -> None:
    brokers = cluster()
    collector = Collector(brokers, Intervals(metadata=0.0001))
    collector.poll()
    brokers.topics = {}
    snapshot = collector.poll()
    assert snapshot.end_offsets.values == {}
    assert snapshot.groups["a"].commits == {"t": {0: 4}}


def test_commits_on_an_unknown_topic_cost_one_metadata_request_and_not_one_per_poll() -> None:
    brokers = cluster()
    collector = Collector(brokers, Intervals())
    collector.poll()
    brokers.commits["a"] = GroupCommits({"gone": {0: 1}})
    brokers.asked.clear()
    for _ in range(4):
        collector.poll()
    assert sum(api == "Metadata" for round_ in brokers.asked for _, api in round_) == 1


def test_each_type_of_group_is_described_in_its_own_way() -> None:
    brokers = cluster()
    brokers.groups[1] += [
        ListedGroup("s", SHARE, "Stable", "share"),
        ListedGroup("k", STREAMS, "Stable", "streams"),
        ListedGroup("n", CONSUMER, "Empty", "consumer"),
    ]
    brokers.commits["s"] = GroupCommits({"t": {0: 2}}, lags={"t": {0: 5}})
    brokers.commits["k"] = GroupCommits({"t": {0: 1}})
    # two topics are read by the same tasks: there is no partition 7 of this one
    brokers.described["k"] = DescribedGroup(
        "Stable", members=(Member("m", "c", "/h", {"t": (1, 7)}),)
    )
    brokers.described["s"] = DescribedGroup("Stable", epoch=3, members=())
    groups = Collector(brokers, Intervals()).poll().groups
    assert (groups["s"].type, groups["s"].epoch, groups["s"].members) == (SHARE, 3, ())
    assert groups["s"].commits == {"t": {0: 2}}
    assert groups["s"].lags == {"t": {0: 5}}
    assert groups["s"].error is None
    assert groups["k"].commits == {"t": {0: 1}}
    assert groups["k"].members == (Member("m", "c", "/h", {"t": (1,)}),)
    assert groups["n"].members == ()
    assert {(1, "DescribeShareGroups"), (1, "DescribeStreamsGroups")} <= set(brokers.asked[1])


def test_the_cluster_going_away_leaves_everything_stale_and_nothing_zero() -> None:
    brokers = cluster()
    collector = Collector(brokers, Intervals())
    first = collector.poll()
    brokers.down = {1, 2}
    collector.poll()
    gone = collector.poll()
    assert set(gone.broker_errors) == {1, 2}
    assert gone.end_offsets.values == first.end_offsets.values
    assert all(group.stale for group in gone.groups.values())
    assert gone.groups["a"].commits == first.groups["a"].commits


def test_a_cluster_that_was_never_reached_is_an_error_with_its_address() -> None:
    brokers = replace(cluster(), down={1, 2})
    with pytest.raises(UnreachableError, match="one:9092: connection refused"):
        Collector(brokers, Intervals()).poll()
