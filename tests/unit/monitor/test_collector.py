from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from typing import Any

import pytest

from monitor.kafka.apis.describe_groups import DescribedGroup
from monitor.kafka.apis.list_groups import ListedGroup
from monitor.kafka.apis.list_offsets import EARLIEST, FoundOffsets, ListOffsets
from monitor.kafka.apis.offset_fetch import GroupCommits
from monitor.kafka.brokers import UnreachableError
from monitor.kafka.collector import Collector, Intervals
from monitor.kafka.questions import Ask
from monitor.model import (
    CLASSIC,
    CONSUMER,
    SHARE,
    STREAMS,
    LogLook,
    Member,
    Partition,
    Refused,
    Silent,
    Topic,
)
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
    assert sum(snapshot.requests.values()) == 7
    assert snapshot.groups["a"].members == ()
    assert snapshot.groups["b"].members == (Member("m", "c", "/h", {"t": (1,)}),)
    assert snapshot.end_offsets.values == {"t": {0: 10, 1: 20}}
    assert not any(group.is_silent for group in snapshot.groups.values())


def test_log_starts_are_read_before_commits_and_log_ends_after_them() -> None:
    brokers = cluster()
    Collector(brokers, Intervals()).poll()
    assert [{name for _, name in round_} for round_ in brokers.asked] == [
        {"ListOffsets"},
        {"ListGroups"},
        {"FetchCommits", "DescribeClassicGroups"},
        {"ListOffsets"},
    ]


class Streams(FakeBrokers):
    """A reader that appends and commits after every question, and deletes what it has read."""

    def ask(
        self, asks: Sequence[Ask[Any]], timeout_s: float, not_awaited: Collection[int] = ()
    ) -> None:
        super().ask(asks, timeout_s, not_awaited)
        self.ends["t", 0] += 7
        self.commits["a"] = GroupCommits({"t": {0: self.ends["t", 0]}})

    def _offsets(self, question: ListOffsets) -> FoundOffsets:
        found = super()._offsets(question)
        if question.wanted.get("t", {}).get(0) == EARLIEST:
            found.offsets["t"][0] = self.commits["a"].offsets["t"][0]
        return found


def test_a_reader_that_deletes_what_it_committed_is_told_no_loss_and_no_commit_past_the_end() -> (
    None
):
    brokers = Streams(**vars(cluster()))
    collector = Collector(brokers, Intervals(start_offsets=0.0))
    for _ in range(5):
        snapshot = collector.poll()
        start, end = snapshot.start_offsets.get("t", 0), snapshot.end_offsets.get("t", 0)
        assert start is not None
        assert end is not None
        assert start <= snapshot.groups["a"].commits["t"][0] <= end


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
    assert snapshot.end_offsets.is_silent("t", 1)
    assert snapshot.end_offsets.time_of("t", 1) == 1_000.0
    assert snapshot.end_offsets.time_of("t", 0) == 1_015.0
    assert snapshot.groups["b"].is_silent
    assert snapshot.groups["b"].commits == {"t": {1: 15}}
    assert snapshot.groups["b"].silent_since == 1_000.0
    assert not snapshot.groups["a"].is_silent


def with_groups_topic(brokers: FakeBrokers) -> FakeBrokers:
    """Have group "a" coordinated by broker 1 and "b" by broker 2, as their names hash."""
    brokers.topics["__consumer_offsets"] = Topic(
        "__consumer_offsets", {0: Partition(2), 1: Partition(1)}, internal=True
    )
    brokers.ends |= {("__consumer_offsets", 0): 0, ("__consumer_offsets", 1): 0}
    return brokers


@pytest.mark.parametrize("wants_topic", [None, {"t"}.__contains__])
@pytest.mark.parametrize("hidden", [False, True], ids=["groups topic seen", "groups topic hidden"])
def test_the_groups_of_a_broker_that_left_the_metadata_stay_stale_until_it_is_back(
    hidden: bool,  # noqa: FBT001  # a parameter of the test
    wants_topic: Callable[[str], bool] | None,
) -> None:
    brokers = cluster() if hidden else with_groups_topic(cluster())
    clock = Clock()
    collector = Collector(
        brokers, Intervals(), clock=clock, monotonic=clock, wants_topic=wants_topic
    )
    collector.poll()
    brokers.fenced = brokers.down = {2}
    for _ in range(5):
        brokers.now = clock.now = clock.now + 15
        snapshot = collector.poll()
        assert snapshot.groups["b"].is_silent
        assert snapshot.groups["b"].silent_since == 1_000.0
        assert snapshot.groups["b"].commits == {"t": {1: 15}}
        assert not snapshot.groups["a"].is_silent
    for offsets in (snapshot.start_offsets, snapshot.end_offsets):
        assert offsets.refused["t"] == {1: "no leader"}
        assert offsets.get("t", 1) is None
    assert set(snapshot.brokers) == {1}
    brokers.fenced = brokers.down = set()
    brokers.now = clock.now = clock.now + 60
    collector.poll()
    back = collector.poll()
    assert not back.groups["b"].is_silent
    assert not back.end_offsets.silent
    assert not back.end_offsets.refused
    assert back.end_offsets.get("t", 1) == 20


def test_a_group_that_another_broker_lists_is_no_longer_stale() -> None:
    brokers = with_groups_topic(cluster())
    collector = Collector(brokers, Intervals())
    collector.poll()
    brokers.fenced = brokers.down = {2}
    collector.poll()
    collector.poll()
    brokers.groups[1].append(brokers.groups[2].pop())
    moved = collector.poll().groups["b"]
    assert not moved.is_silent
    assert moved.coordinator == 1


def test_a_partition_without_a_leader_is_looked_at_again_soon_but_not_at_every_poll() -> None:
    brokers = cluster()
    brokers.fenced = {2}
    clock = Clock()
    collector = Collector(brokers, Intervals(metadata=60.0), clock=clock, monotonic=clock)
    asked_at = []
    for second in range(300):
        clock.now = 1_000.0 + second
        brokers.asked.clear()
        collector.poll()
        if any(api == "Metadata" for round_ in brokers.asked for _, api in round_):
            asked_at.append(second)
    assert asked_at == [1, 2, 4, 8, 16, 32, 64, 124, 184, 244]
    brokers.fenced = set()
    clock.now = 1_304.0
    assert collector.poll().end_offsets.get("t", 1) == 20


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
    assert not recovered.groups["b"].is_silent
    assert not recovered.end_offsets.silent
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


def test_a_group_that_may_no_longer_be_read_loses_its_commits_at_once_and_is_not_silent() -> None:
    brokers = cluster()
    collector = Collector(brokers, Intervals())
    collector.poll()
    brokers.commits["b"] = GroupCommits(error="GROUP_AUTHORIZATION_FAILED")
    for _ in range(3):
        group = collector.poll().groups["b"]
        assert group.answer == Refused("GROUP_AUTHORIZATION_FAILED")
        assert group.commits == {}
        assert group.state == "Stable"
        assert group.members == (Member("m", "c", "/h", {"t": (1,)}),)


@pytest.mark.parametrize(
    "error",
    [
        "COORDINATOR_LOAD_IN_PROGRESS",
        "COORDINATOR_NOT_AVAILABLE",
        "NOT_COORDINATOR",
        "UNSTABLE_OFFSET_COMMIT",
        "t-1: UNSTABLE_OFFSET_COMMIT",
    ],
)
def test_an_error_of_a_group_that_passes_leaves_it_silent_with_its_last_commits(error: str) -> None:
    brokers = cluster()
    clock = Clock()
    collector = Collector(brokers, Intervals(), clock=clock, monotonic=clock)
    collector.poll()
    brokers.commits["b"] = GroupCommits(error=error)
    clock.now = 1_015.0
    group = collector.poll().groups["b"]
    assert group.answer == Silent(1_000.0, error)
    assert group.commits == {"t": {1: 15}}


def test_a_snapshot_says_whether_it_has_all_groups() -> None:
    brokers = cluster()
    collector = Collector(brokers, Intervals())
    assert collector.poll().groups_complete
    brokers.down = {2}
    assert not collector.poll().groups_complete
    brokers.down = set()
    brokers.refusing = {"ListGroups"}
    assert not collector.poll().groups_complete


def test_a_log_is_looked_at_where_it_is_led_and_a_failure_makes_no_broker_down() -> None:
    brokers = cluster()
    brokers.looks["t", 0] = LogLook(None, 10, 10)
    collector = Collector(brokers, Intervals())
    collector.poll()
    assert collector.look_at_logs({"t": {0: 4, 1: 5, 7: 1}, "gone": {0: 0}}) == {
        "t": {0: LogLook(None, 10, 10), 1: LogLook(5, 20, 20)}
    }
    brokers.look_errors["t", 1] = "TOPIC_AUTHORIZATION_FAILED"
    assert collector.look_at_logs({"t": {1: 5}}) == {}
    brokers.down = {2}
    assert collector.look_at_logs({"t": {0: 4, 1: 5}}) == {"t": {0: LogLook(None, 10, 10)}}
    brokers.down = set()
    brokers.not_awaited.clear()
    assert collector.poll().broker_errors == {}
    assert not any(brokers.not_awaited)


def test_the_next_snapshot_says_which_logs_may_not_be_looked_into_and_why() -> None:
    brokers = cluster()
    collector = Collector(brokers, Intervals())
    assert collector.poll().unreadable == {}
    brokers.look_errors = {
        ("t", 0): "NOT_LEADER_OR_FOLLOWER",
        ("t", 1): "TOPIC_AUTHORIZATION_FAILED",
    }
    collector.look_at_logs({"t": {0: 4, 1: 5}})
    snapshot = collector.poll()
    # a leader that moved is another's by the next look
    assert snapshot.unreadable == {"t": {1: "TOPIC_AUTHORIZATION_FAILED"}}
    assert (snapshot.broker_errors, snapshot.errors) == ({}, ())
    assert snapshot.end_offsets.get("t", 1) == 20
    # nobody looked
    assert collector.poll().unreadable == {}
    collector.look_at_logs({"t": {1: 5}})
    brokers.look_errors.clear()
    collector.look_at_logs({"t": {1: 5}})
    assert collector.poll().unreadable == {}


@pytest.mark.parametrize(
    ("error", "lasts"),
    [
        ("TOPIC_AUTHORIZATION_FAILED", True),
        ("KAFKA_STORAGE_ERROR", True),
        ("error 87", True),
        ("OFFSET_OUT_OF_RANGE", False),
        ("UNKNOWN_TOPIC_OR_PARTITION", False),
        ("OFFSET_NOT_AVAILABLE", False),
    ],
)
def test_only_what_does_not_pass_by_itself_is_told_of_a_look(error: str, *, lasts: bool) -> None:
    brokers = cluster()
    collector = Collector(brokers, Intervals())
    collector.poll()
    brokers.look_errors["t", 0] = error
    assert collector.look_at_logs({"t": {0: 4}}) == {}
    assert collector.poll().unreadable == ({"t": {0: error}} if lasts else {})


def test_a_log_of_which_a_reply_has_no_room_to_tell_is_asked_first_the_next_time() -> None:
    brokers = cluster()
    brokers.topics["t"] = Topic("t", dict.fromkeys(range(3), Partition(1)))
    brokers.ends["t", 2] = 10
    collector = Collector(brokers, Intervals())
    collector.poll()
    brokers.first_only = True
    everywhere = {"t": dict.fromkeys(range(3), 0)}
    found = collector.look_at_logs(everywhere)["t"]
    assert {look.readable_at for look in found.values()} == {0}


def test_a_look_goes_on_where_the_last_reply_ended() -> None:
    brokers = cluster()
    brokers.looks["t", 0] = LogLook(None, 6, 10)
    collector = Collector(brokers, Intervals())
    collector.poll()
    brokers.asked.clear()
    assert collector.look_at_logs({"t": {0: 4}}) == {"t": {0: LogLook(None, 6, 10)}}
    assert brokers.looked_from == [{"t": {0: 4}}, *[{"t": {0: 6}}] * 3]


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
    for offsets in (snapshot.start_offsets, snapshot.end_offsets):
        assert offsets.refused == {"t": {1: "no leader"}}
        assert offsets.get("t", 0) is not None
        assert offsets.get("t", 1) is None


@pytest.mark.parametrize(
    "error", ["LEADER_NOT_AVAILABLE", "KAFKA_STORAGE_ERROR", "TOPIC_AUTHORIZATION_FAILED"]
)
def test_a_partition_that_is_refused_has_its_error_and_no_value(error: str) -> None:
    brokers = cluster()
    collector = Collector(brokers, Intervals(start_offsets=0.0))
    collector.poll()
    brokers.errors["t", 0] = error
    snapshot = collector.poll()
    for offsets in (snapshot.start_offsets, snapshot.end_offsets):
        assert offsets.refused == {"t": {0: error}}
        assert offsets.get("t", 0) is None
        assert offsets.get("t", 1) is not None
        assert not offsets.silent
    brokers.errors.clear()
    back = collector.poll()
    assert not back.end_offsets.refused
    assert back.end_offsets.get("t", 0) == 10


@pytest.mark.parametrize("error", ["NOT_LEADER_OR_FOLLOWER", "REQUEST_TIMED_OUT"])
def test_an_error_of_a_partition_that_passes_leaves_it_silent_with_its_last_value(
    error: str,
) -> None:
    brokers = cluster()
    clock = Clock()
    collector = Collector(brokers, Intervals(), clock=clock, monotonic=clock)
    collector.poll()
    brokers.errors["t", 0] = error
    brokers.now = clock.now = 1_015.0
    snapshot = collector.poll()
    assert snapshot.end_offsets.get("t", 0) == 10
    assert snapshot.end_offsets.silent == {"t": {0: 1_000.0}}
    assert not snapshot.end_offsets.refused
    assert snapshot.broker_errors == {}


def test_a_leader_that_moved_has_the_metadata_refreshed_at_the_next_poll() -> None:
    brokers = cluster()
    collector = Collector(brokers, Intervals())
    collector.poll()
    brokers.errors["t", 0] = "NOT_LEADER_OR_FOLLOWER"
    stale = collector.poll()
    assert stale.end_offsets.is_silent("t", 0)
    brokers.errors.clear()
    brokers.asked.clear()
    collector.poll()
    assert "Metadata" in {api for round_ in brokers.asked for _, api in round_}


def test_a_deleted_topic_takes_its_offsets_with_it_and_costs_one_refresh_only() -> None:
    brokers = cluster()
    collector = Collector(brokers, Intervals(metadata=0.0))
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
    brokers.described["n"] = DescribedGroup("Empty", epoch=2, members=())
    groups = Collector(brokers, Intervals()).poll().groups
    assert (groups["s"].type, groups["s"].epoch, groups["s"].members) == (SHARE, 3, ())
    assert groups["s"].commits == {"t": {0: 2}}
    assert groups["s"].lags == {"t": {0: 5}}
    assert groups["s"].error is None
    assert groups["k"].commits == {"t": {0: 1}}
    assert groups["k"].members == (Member("m", "c", "/h", {"t": (1,)}),)
    assert groups["n"].members == ()
    assert {(1, "DescribeShareGroups"), (1, "DescribeStreamsGroups")} <= set(brokers.asked[2])


def test_the_cluster_going_away_leaves_everything_stale_and_nothing_zero() -> None:
    brokers = cluster()
    collector = Collector(brokers, Intervals())
    first = collector.poll()
    brokers.down = {1, 2}
    collector.poll()
    gone = collector.poll()
    assert set(gone.broker_errors) == {1, 2}
    assert gone.end_offsets.values == first.end_offsets.values
    assert all(group.is_silent for group in gone.groups.values())
    assert gone.groups["a"].commits == first.groups["a"].commits


def test_a_cluster_that_was_never_reached_is_an_error_with_its_address() -> None:
    brokers = replace(cluster(), down={1, 2})
    with pytest.raises(UnreachableError, match="one:9092: connection refused"):
        Collector(brokers, Intervals()).poll()
