"""Empty groups of the newer types: their epoch tells who came and went between two polls."""

from __future__ import annotations

import pytest

from monitor.analysis.analyst import Analyst
from monitor.kafka.apis.describe_groups import DescribedGroup
from monitor.kafka.apis.list_groups import ListedGroup
from monitor.kafka.apis.offset_fetch import GroupCommits
from monitor.kafka.collector import Collector, Intervals
from monitor.model import CLASSIC, CONSUMER, SHARE, STREAMS, Member
from tests.unit.monitor.fake_brokers import FakeBrokers

METADATA_S = 60.0
POLL_S = 15.0
DESCRIBES = {
    CLASSIC: "DescribeClassicGroups",
    CONSUMER: "DescribeConsumerGroups",
    SHARE: "DescribeShareGroups",
    STREAMS: "DescribeStreamsGroups",
}


class Watched:
    """The group "g" of broker 1, as two fake brokers have it and a monitor measures it."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.brokers = FakeBrokers(commits={"g": GroupCommits({"t": {0: 10}})})
        self.now = 1_000.0
        collector = Collector(
            self.brokers,
            Intervals(metadata=METADATA_S),
            clock=lambda: self.now,
            monotonic=lambda: self.now,
        )
        self.analyst = Analyst()
        self.snapshots = iter(collector.poll, None)

    def be(self, epoch: int | None, *members: Member) -> None:
        state = "Stable" if members else "Empty"
        self.brokers.groups = {1: [ListedGroup("g", self.kind, state, "consumer")]}
        self.brokers.described = {"g": DescribedGroup(state, "uniform", epoch, members)}

    def poll(self) -> int | None:
        """Return the rebalances that the page shows of the group."""
        self.now += POLL_S
        self.brokers.asked.clear()
        return self.analyst.measure(next(self.snapshots))["g"].rebalances

    @property
    def described(self) -> int:
        asked = [name for round_ in self.brokers.asked for _, name in round_]
        return asked.count(DESCRIBES[self.kind])

    def until_at_rest(self) -> None:
        for _ in range(12):
            self.poll()


@pytest.fixture(params=[CONSUMER, SHARE, STREAMS])
def newer(request: pytest.FixtureRequest) -> Watched:
    return Watched(request.param)


A = Member("a", "client", "/host", {"t": (0,)})


def test_a_member_that_comes_and_goes_between_two_polls_is_counted_while_the_group_is_at_rest(
    newer: Watched,
) -> None:
    newer.be(4)
    newer.until_at_rest()
    newer.be(6)  # came, and left
    counts = [newer.poll() for _ in range(int(METADATA_S / POLL_S))]
    assert counts[-1] == 2


def test_empty_groups_are_described_as_often_as_the_metadata_is_read(newer: Watched) -> None:
    newer.be(4)
    newer.poll()
    assert newer.described == 1
    described = []
    for _ in range(8):
        newer.poll()
        described.append(newer.described)
    assert sum(described) == 2


def test_the_last_member_that_leaves_is_counted_at_once_and_once(newer: Watched) -> None:
    newer.be(4, A)
    newer.poll()
    newer.be(5)
    assert [newer.poll() for _ in range(10)] == [1] * 10


def test_an_epoch_that_stands_leaves_the_group_at_rest(newer: Watched) -> None:
    newer.be(4)
    newer.until_at_rest()
    before = newer.analyst.measure(next(newer.snapshots))["g"]
    for _ in range(5):
        newer.now += POLL_S
        assert newer.analyst.measure(next(newer.snapshots))["g"] is before


def test_what_joined_just_after_the_list_is_a_member(newer: Watched) -> None:
    newer.be(4)
    newer.brokers.described = {"g": DescribedGroup("Stable", "uniform", 5, (A,))}
    group = next(newer.snapshots).groups["g"]
    assert (group.state, group.members) == ("Stable", (A,))


def test_an_empty_group_whose_description_is_refused_has_no_members_and_is_not_asked_at_every_poll(
    newer: Watched,
) -> None:
    newer.be(None)
    newer.brokers.described = {"g": DescribedGroup(error="GROUP_ID_NOT_FOUND")}
    assert next(newer.snapshots).groups["g"].members == ()
    newer.poll()
    assert newer.described == 0


def test_empty_classic_groups_tell_no_epoch_and_are_not_described() -> None:
    classic = Watched(CLASSIC)
    classic.be(None)
    for _ in range(6):
        classic.poll()
        assert classic.described == 0
