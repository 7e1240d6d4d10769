from __future__ import annotations

import random
from collections import Counter
from itertools import pairwise
from math import ceil

import pytest
from hypothesis import given
from hypothesis import strategies as st

from monitor.analysis.balance import (
    assignment_excess,
    hottest,
    is_judged,
    lag_excess,
    production_excess,
)
from monitor.model import CLASSIC, CONSUMER, SHARE, STREAMS, Assignment, Group, Member

THREE_OF_FOUR = {"a": 4, "b": 4, "c": 4}
"""Three topics of four partitions."""


def subscribed(subscription: object, *assignments: Assignment) -> list[Member]:
    """Return members that all subscribe to the same."""
    topics = None if subscription is None else frozenset(subscription)  # type: ignore[call-overload]  # any names
    return [Member("m", "c", "/h", held, subscription=topics) for held in assignments]


def ranged(topics: dict[str, int], members: int) -> list[Assignment]:
    """Assign as RangeAssignor does: each topic by itself, the first members take what is left over."""
    assignments: list[dict[str, tuple[int, ...]]] = [{} for _ in range(members)]
    for topic, partitions in topics.items():
        share, over = divmod(partitions, members)
        first = 0
        for number, assignment in enumerate(assignments):
            last = first + share + (number < over)
            if last > first:
                assignment[topic] = tuple(range(first, last))
            first = last
    return list(assignments)


def in_turn(topics: dict[str, int], members: int) -> list[Assignment]:
    """Assign as RoundRobinAssignor does: all partitions in turn."""
    assignments: list[dict[str, tuple[int, ...]]] = [{} for _ in range(members)]
    every = [(topic, n) for topic, partitions in topics.items() for n in range(partitions)]
    for turn, (topic, n) in enumerate(every):
        held = assignments[turn % members]
        held[topic] = (*held.get(topic, ()), n)
    return list(assignments)


@pytest.mark.parametrize(
    "members",
    [
        # the cooperative-sticky and the uniform (KIP-848) assignor, as the members came one by one
        subscribed("abc", {"a": (0, 1, 2, 3)}, {"b": (0, 1, 2, 3)}, {"c": (0, 1, 2, 3)}),
        subscribed("abc", {"a": (0, 1), "c": (2, 3)}, {"b": (0, 1, 2), "a": (2,)},
                   {"c": (0, 1), "b": (3,), "a": (3,)}),
        subscribed("abc", *in_turn(THREE_OF_FOUR, 3)),
        # six over four are 2, 2, 1, 1: no better is possible
        subscribed("a", *in_turn({"a": 6}, 4)),
        # more members than partitions: idle ones are no imbalance
        subscribed("a", *in_turn({"a": 3}, 5)),
        subscribed("ab", {"a": (0,)}, {"b": (0,)}, {}, {}),
        # a topic has fewer partitions than there are members, the other topic evens it out
        subscribed("ab", {"b": (0, 1)}, {"b": (2, 3)}, {"a": (0,), "b": (4,)}),
        subscribed("a", {"a": (0, 1, 2)}),
        # nothing is told of subscriptions
        subscribed(None, {"a": (0, 1, 2, 3)}, {"b": (0, 1, 2, 3)}, {"c": (0, 1, 2, 3)}),
        subscribed(None, {"a": (0, 1)}, {"a": (2,)}, {}),
    ],
)  # fmt: skip
def test_a_balanced_group_is_balanced_in_every_topic(members: list[Member]) -> None:
    held = {topic for member in members for topic in member.assignment}
    assert assignment_excess(members) == dict.fromkeys(held, 0.0)


@pytest.mark.parametrize("is_told", [True, False], ids=["told", "not told"])
def test_a_listener_for_each_topic_can_take_nothing_from_the_others(*, is_told: bool) -> None:
    members = [
        *subscribed("a" if is_told else None, {"a": tuple(range(12))}),
        *subscribed("b" if is_told else None, {"b": (0,)}),
        *subscribed("c" if is_told else None, {"c": (0, 1)}, {"c": (2, 3)}),
    ]
    assert assignment_excess(members) == {"a": 0.0, "b": 0.0, "c": 0.0}


def test_range_gives_the_first_member_more_of_every_topic() -> None:
    members = subscribed("abc", *ranged(THREE_OF_FOUR, 3))
    assert [member.partition_count for member in members] == [6, 3, 3]
    assert assignment_excess(members) == {"a": 0.5, "b": 0.5, "c": 0.5}
    assert assignment_excess(subscribed(None, *ranged(THREE_OF_FOUR, 3))) == {
        "a": 0.5, "b": 0.5, "c": 0.5,
    }  # fmt: skip


def test_range_gives_all_of_many_small_topics_to_one_member() -> None:
    topics = {f"t{n}": 1 for n in range(20)}
    found = assignment_excess(subscribed(topics, *ranged(topics, 3)))
    assert found == dict.fromkeys(topics, 20 / 7 - 1)


def test_only_the_topics_of_who_has_too_much_are_uneven() -> None:
    members = [
        *subscribed("a", {"a": (0, 1, 2)}, {"a": (3,)}),
        *subscribed("b", {"b": (0, 1)}, {"b": (2,)}),
    ]
    assert assignment_excess(members) == {"a": 0.5, "b": 0.0}


def test_who_is_subscribed_could_take_from_others_though_it_holds_nothing_of_the_topic() -> None:
    assert assignment_excess(subscribed("a", {"a": (0, 1)}, {"a": (2,)}, {})) == {"a": 1.0}
    # to give one away helps, but somebody will have two
    assert assignment_excess(subscribed("a", {"a": (0, 1)}, {"a": (2, 3)}, {})) == {"a": 0.0}


def test_what_only_one_member_is_subscribed_to_is_its_own() -> None:
    first, second = frozenset("ab"), frozenset("a")
    b = tuple(range(10))
    best = [
        Member("1", "c", "/h", {"b": b}, subscription=first),
        Member("2", "c", "/h", {"a": (0, 1, 2, 3)}, subscription=second),
    ]
    assert assignment_excess(best) == {"a": 0.0, "b": 0.0}
    of_range = [
        Member("1", "c", "/h", {"a": (0, 1), "b": b}, subscription=first),
        Member("2", "c", "/h", {"a": (2, 3)}, subscription=second),
    ]
    # 12 could become 10, not the 7 of an even spread
    assert assignment_excess(of_range) == pytest.approx({"a": 0.2, "b": 0.2})


def test_partitions_could_go_from_hand_to_hand() -> None:
    members = [
        Member("1", "c", "/h", {"a": (0, 1, 2, 3)}, subscription=frozenset("a")),
        Member("2", "c", "/h", {"b": (0, 1, 2)}, subscription=frozenset("ab")),
        Member("3", "c", "/h", {}, subscription=frozenset("b")),
    ]
    assert assignment_excess(members)["a"] == pytest.approx(1 / 3)


def test_who_holds_nothing_says_nothing() -> None:
    assert assignment_excess([]) == {}
    assert assignment_excess(subscribed("a", {}, {})) == {}


@given(st.dictionaries(st.sampled_from("abcdef"), st.integers(1, 20)), st.integers(1, 12))
def test_partitions_in_turn_are_balanced_whatever_the_numbers(
    topics: dict[str, int], members: int
) -> None:
    assert set(assignment_excess(subscribed(topics, *in_turn(topics, members))).values()) <= {0.0}


@given(st.dictionaries(st.sampled_from("abcdef"), st.integers(1, 20)), st.integers(1, 12))
def test_with_one_subscription_it_is_the_largest_total_over_an_even_one(
    topics: dict[str, int], members: int
) -> None:
    group = subscribed(topics, *ranged(topics, members))
    totals = [member.partition_count for member in group]
    worst = max(assignment_excess(group).values(), default=0.0)
    assert worst == pytest.approx(
        max(totals) / max(1, ceil(sum(totals) / members)) - 1 if topics else 0.0
    )


@given(st.lists(st.dictionaries(st.sampled_from("abc"), st.integers(1, 6)), max_size=6), st.data())
def test_no_assignment_that_cannot_be_evened_out_is_uneven(
    counts: list[dict[str, int]], data: st.DataObject
) -> None:
    subscriptions = [
        data.draw(st.frozensets(st.sampled_from("abc"))) | frozenset(held) for held in counts
    ]
    held = [Counter(of) for of in counts]
    while (path := worth_it(held, subscriptions)) is not None:
        for (giver, topic), (taker, _) in pairwise(path):
            held[giver][topic] -= 1
            held[taker][topic] += 1
    members = [
        Member("m", "c", "/h", {t: tuple(range(n)) for t, n in of.items()}, subscription=topics)
        for of, topics in zip(held, subscriptions, strict=True)
    ]
    assert set(assignment_excess(members).values()) <= {0.0}


def worth_it(
    held: list[Counter[str]], subscriptions: list[frozenset[str]]
) -> list[tuple[int, str]] | None:
    """Return (member, topic that it gives to the next) to one who holds two less than the first."""
    for first in range(len(held)):
        paths = [[(first, "")]]
        seen = {first}
        for path in paths:
            last = path[-1][0]
            if held[last].total() <= held[first].total() - 2:
                return path
            for taker, topics in enumerate(subscriptions):
                given_away = [topic for topic in topics if held[last][topic]]
                if taker not in seen and given_away:
                    seen.add(taker)
                    paths.append([*path[:-1], (last, given_away[0]), (taker, "")])
    return None


@pytest.mark.parametrize(
    ("group", "judged"),
    [
        (Group("g", CLASSIC, "Stable", assignor="range"), True),
        (Group("g", CONSUMER, "Stable", assignor="uniform"), True),
        (Group("g", CLASSIC, "PreparingRebalance"), False),
        (Group("g", CONSUMER, "Reconciling"), False),
        (Group("g", CLASSIC, "Stable", assignor="stream"), False),
        (Group("g", STREAMS, "Stable"), False),
        (Group("g", SHARE, "Stable"), False),
    ],
)
def test_whose_partitions_are_to_be_spread_evenly(group: Group, *, judged: bool) -> None:
    assert is_judged(group) is judged


def test_a_hot_key_shows_in_production() -> None:
    excess = production_excess([600, 80, 80, 80, 80, 80])
    assert excess is not None
    assert excess > 2


def test_few_messages_tell_nothing() -> None:
    assert production_excess([3, 1, 0, 0, 2, 1]) is None
    assert production_excess([]) is None
    assert production_excess([500]) == 0


@pytest.mark.parametrize("messages", [60, 300, 3000])
def test_random_keys_stay_below_the_limit_of_a_fifth(messages: int) -> None:
    rng = random.Random(messages)
    alarms = 0
    for _ in range(200):
        counts = [0] * 6
        for _ in range(messages):
            counts[rng.randrange(6)] += 1
        excess = production_excess(counts)
        alarms += excess is not None and excess > 0.2
    assert alarms <= 2


def test_skew_beyond_chance_converges_to_the_true_one() -> None:
    excess = production_excess([200_000, 100_000, 100_000, 100_000])
    assert excess == pytest.approx(0.6, abs=0.01)


def test_lag_on_one_partition_shows() -> None:
    excess = lag_excess([9000, 100, 100, 100])
    assert excess is not None
    assert excess > 2


def test_what_is_in_flight_is_no_skew() -> None:
    assert lag_excess([900, 100, 0, 0], in_flight_per_partition=1000.0) == 0
    assert lag_excess([0, 0, 0]) == 0
    assert lag_excess([4, 0, 0]) is None
    assert lag_excess([]) is None


def test_the_hottest_partition_and_its_share() -> None:
    assert hottest([(0, 20.0), (3, 60.0), (4, 20.0)]) == (3, 0.6)
    assert hottest([(1, 5.0), (0, 5.0)]) == (0, 0.5)
    assert hottest([(0, 0.0)]) is None
