"""Replies that are larger than a client takes: less is asked for at once, and that is remembered."""

from __future__ import annotations

import struct
import tracemalloc
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest

from monitor.kafka.apis.describe_groups import (
    DescribeClassicGroups,
    DescribedGroup,
    decode_assignment,
    decode_subscription,
)
from monitor.kafka.apis.list_groups import ListedGroup
from monitor.kafka.apis.offset_fetch import FetchCommits, GroupCommits
from monitor.kafka.batches import MAX_GROUPS, MAX_UNDER_WAY, MEANT_BYTES, Batches
from monitor.kafka.collector import Collector, Intervals
from monitor.kafka.questions import Ask, Failure
from monitor.model import ANSWERED, CLASSIC, Refused
from tests.unit.monitor.fake_brokers import FakeBrokers

LIMIT = 10 * MEANT_BYTES  # of a reply


@dataclass
class Limited(FakeBrokers):
    """Closes the connection where a reply would be larger than LIMIT: all questions on it fail.

    The one that is blamed is the one before, as its reply is lost too.
    """

    bytes_of: dict[str, int] = field(default_factory=dict)
    members_bytes_of: dict[str, int] = field(default_factory=dict)
    batches: list[int] = field(default_factory=list)

    def ask(
        self, asks: Sequence[Ask[Any]], timeout_s: float, not_awaited: Collection[int] = ()
    ) -> None:
        super().ask(asks, timeout_s, not_awaited)
        closed: set[int] = set()
        before: dict[int, Ask[Any]] = {}
        for ask in asks:
            match ask.question:
                case FetchCommits(asked):
                    self.batches.append(len(asked))
                    size = sum(self.bytes_of.get(group, 0) for group in asked)
                case DescribeClassicGroups(asked):
                    size = sum(self.members_bytes_of.get(group, 0) for group in asked)
                case _:
                    continue
            if ask.broker in closed:
                ask.answer, ask.failure = None, Failure("lost", lost=True)
            elif size > LIMIT:
                closed.add(ask.broker)
                ask.answer, ask.failure = None, Failure("lost", lost=True)
                blamed = before.get(ask.broker, ask)
                blamed.answer, blamed.failure = None, Failure("too large", too_large=True)
            before[ask.broker] = ask


def groups(count: int, **sizes: int) -> Limited:
    names = [f"g{number}" for number in range(count)]
    return Limited(
        groups={1: [ListedGroup(name, CLASSIC, "Stable", "consumer") for name in names]},
        commits={name: GroupCommits({"t": {0: 1}}, size=sizes.get(name, 10)) for name in names},
        described={name: DescribedGroup("Stable", members=()) for name in names},
        bytes_of=dict(sizes),
    )


def test_unknown_groups_are_asked_about_in_small_batches_which_grow_with_what_is_known() -> None:
    brokers = groups(4_000)
    collector = Collector(brokers, Intervals())
    assert len(collector.poll().groups) == 4_000
    assert max(brokers.batches) <= 200
    brokers.batches.clear()
    collector.poll()
    assert brokers.batches == [4_000]


def test_no_broker_has_many_replies_under_way_at_once_and_nobody_is_left_out() -> None:
    brokers = groups(4_000)
    found = Collector(brokers, Intervals()).poll().groups
    assert all(group.commits == {"t": {0: 1}} for group in found.values())
    rounds = [sum(broker == 1 for broker, _ in asked) for asked in brokers.asked]
    assert max(rounds) == MAX_UNDER_WAY
    assert sum(rounds) > 25


def test_a_reply_that_is_too_large_is_asked_for_in_parts_in_the_same_poll_and_remembered() -> None:
    brokers = groups(64, **{f"g{number}": LIMIT // 4 for number in range(64)})
    collector = Collector(brokers, Intervals())
    for _ in range(3):
        snapshot = collector.poll()
        assert all(group.answer == ANSWERED for group in snapshot.groups.values())
        assert all(group.commits == {"t": {0: 1}} for group in snapshot.groups.values())
        assert snapshot.broker_errors == {}
        assert snapshot.errors == ()


def test_what_was_halved_is_not_tried_whole_again() -> None:
    brokers = groups(64)
    brokers.members_bytes_of = {f"g{number}": LIMIT // 4 for number in range(64)}
    collector = Collector(brokers, Intervals())

    def describes() -> int:
        brokers.asked.clear()
        assert all(g.members == () for g in collector.poll().groups.values())
        return sum(
            name == "DescribeClassicGroups" for round_ in brokers.asked for _, name in round_
        )

    first = describes()
    later = [describes() for _ in range(5)]
    assert max(later) < first
    assert len(set(later)) == 1


def test_one_group_that_does_not_fit_at_all_is_refused_and_the_others_are_read() -> None:
    brokers = groups(50, g7=2 * LIMIT)
    collector = Collector(
        brokers, Intervals(), clock=lambda: brokers.now, monotonic=lambda: brokers.now
    )
    for number in range(3):
        brokers.batches.clear()
        found = collector.poll().groups
        assert found["g7"].answer == Refused("its commits do not fit into one reply")
        assert all(group.answer == ANSWERED for name, group in found.items() if name != "g7")
        assert number == 0 or brokers.batches == [49]
    # it is tried again as often as the metadata is read
    brokers.bytes_of = {}
    brokers.now += 3_600
    assert collector.poll().groups["g7"].answer == ANSWERED


def test_a_group_that_becomes_too_large_to_describe_keeps_its_commits() -> None:
    brokers = groups(8)
    collector = Collector(brokers, Intervals())
    collector.poll()
    brokers.members_bytes_of = {"g3": 2 * LIMIT}
    group = collector.poll().groups["g3"]
    assert group.answer == Refused("its members do not fit into one reply")
    assert group.members is None
    assert group.commits == {"t": {0: 1}}


@pytest.mark.parametrize("count", [1, 2, 3, 100, MAX_GROUPS, 2 * MAX_GROUPS + 1])
def test_halving_ends_at_one_group(count: int) -> None:
    batches = Batches(1)
    names = [str(number) for number in range(count)]
    largest = names
    for _ in range(20):
        largest = max(batches.cut(names), key=len)
        if len(largest) == 1:
            break
        assert largest
        batches.halve(largest)
    assert [name for batch in batches.cut(names) for name in batch] == names
    for batch in batches.cut(names):
        assert len(batch) <= MAX_GROUPS


def test_batches_are_bounded_in_bytes() -> None:
    batches = Batches(1)
    batches.learn({str(number): MEANT_BYTES // 10 for number in range(100)})
    assert {len(batch) for batch in batches.cut(map(str, range(100)))} == {10}


def test_assignments_are_not_kept_by_the_bytes_that_members_put_into_them() -> None:
    """Kafka Streams puts 30 kB into each member's assignment, new at every rebalance."""
    topics = struct.pack(">hih1sii", 0, 1, 1, b"t", 1, 7)
    tracemalloc.start()
    try:
        for number in range(1_000):
            user_data = struct.pack(">ii", 30_000, number) + bytes(30_000)
            assert decode_assignment(topics + user_data) == {"t": (7,)}
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert held < 1_000_000
    assert decode_assignment(topics) is decode_assignment(bytes(topics))


def test_subscriptions_are_one_object_for_all_members_whatever_they_add() -> None:
    topics = struct.pack(">hih1sh1s", 3, 2, 1, b"t", 1, b"u")
    found = decode_subscription(topics)
    assert found == frozenset({"t", "u"})
    # the cooperative-sticky assignor adds what the member held
    assert decode_subscription(topics + struct.pack(">i9s", 9, b"was given")) is found


@pytest.mark.parametrize(
    "data",
    [b"", b"\0", struct.pack(">hih1s", 1, 1, 5, b"t"), struct.pack(">hih1s", 1, 2, 1, b"t"),
     struct.pack(">hih1s", 1, 1, 1, b"\xff"), struct.pack(">hih", 1, 1, -1)],
)  # fmt: skip
def test_a_subscription_that_cannot_be_read_is_not_known(data: bytes) -> None:
    assert decode_subscription(data) is None
