from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from monitor.analysis.balance import assignment_excess, hottest, lag_excess, production_excess


@pytest.mark.parametrize(
    ("counts", "expected"),
    [
        ((2, 2, 1, 1), 0.0),  # six over four: no better is possible
        ((3, 3), 0.0),
        ((3, 2, 1), 0.5),
        ((6, 0, 0), 2.0),
        ((1, 1, 1, 0, 0), 0.0),  # more members than partitions: idle ones are no imbalance
        ((2, 1, 0), 1.0),
        ((5,), 0.0),
        ((), None),
        ((0, 0), None),
    ],
)
def test_assignment_against_the_best_possible(
    counts: tuple[int, ...], expected: float | None
) -> None:
    assert assignment_excess(counts) == expected


@given(st.integers(1, 200), st.integers(1, 50))
def test_an_even_assignment_is_balanced_whatever_the_numbers(partitions: int, members: int) -> None:
    counts = [len(range(m, partitions, members)) for m in range(members)]
    assert assignment_excess(counts) == 0


@given(st.lists(st.integers(0, 50), min_size=1, max_size=20))
def test_no_assignment_is_better_than_the_best(counts: list[int]) -> None:
    excess = assignment_excess(counts)
    assert excess is None or excess >= 0


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
