from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from monitor.analysis.rates import (
    NEVER,
    TopicRates,
    group_rates,
    produce_rates,
    produced_messages,
    time_to_catch_up,
)
from monitor.analysis.topic import TopicLog, fresh
from monitor.analysis.windows import CommitWindows


class Polls:
    def __init__(self) -> None:
        self.commits, self.topics, self.now = CommitWindows(), {"t": TopicLog()}, 1000.0
        self.times: list[float] = []

    def poll(
        self, committed: dict[int, int], ends: dict[int, int], *, seconds: float = 15.0
    ) -> TopicRates:
        self.now += seconds
        self.times = [*self.times, self.now][-10:]
        self.topics["t"].ends.see(ends, self.now, self.times[0])
        self.commits.observe({"t": committed}, {"t": ends}, self.now, len(self.times))
        produced = {"t": produce_rates(self.topics["t"].ends)}
        return group_rates(
            {"t": committed},
            {"t": ends},
            self.commits,
            self.topics,
            now=self.now,
            produced=produced,
        )["t"]


def test_rates_are_unknown_until_two_polls_saw_the_topic() -> None:
    rates = Polls().poll({0: 0}, {0: 100})
    assert (rates.produced, rates.consumed, rates.lag_velocity, rates.commit_rate) == (None,) * 4
    assert rates.catch_up is None


def test_rates_over_the_window() -> None:
    polls = Polls()
    for i in range(20):
        rates = polls.poll({0: 150 * i, 1: 0}, {0: 300 * i + 9, 1: 30 * i})
    assert rates.produced == pytest.approx(20 + 2)
    assert rates.consumed == pytest.approx(10)
    assert rates.lag_velocity == pytest.approx(12)
    assert rates.commit_rate == pytest.approx(1 / 15)
    assert rates.catch_up == NEVER
    assert produced_messages(polls.topics["t"].ends) == {0: 2700, 1: 270}


def test_a_missed_poll_only_makes_the_step_longer() -> None:
    polls = Polls()
    polls.poll({0: 0}, {0: 0})
    rates = polls.poll({0: 600}, {0: 1200}, seconds=60)
    assert rates.produced == pytest.approx(20)
    assert rates.consumed == pytest.approx(10)


def test_a_rewind_starts_the_consume_rate_anew() -> None:
    polls = Polls()
    for committed in (1000, 1150, 1300, 200):
        rates = polls.poll({0: committed}, {0: 5000})
    assert rates.consumed == 0
    for committed in (350, 500):
        rates = polls.poll({0: committed}, {0: 5000})
    assert rates.consumed == pytest.approx(10)
    assert rates.catch_up == pytest.approx(450)


def test_a_truncation_starts_the_produce_rate_anew() -> None:
    polls = Polls()
    for end in (1000, 1150, 100):
        rates = polls.poll({0: 100}, {0: end})
    assert rates.produced is None
    assert polls.poll({0: 100}, {0: 400}).produced == pytest.approx(20)


def test_commit_age_counts_from_the_last_change_of_any_commit() -> None:
    polls = Polls()
    for _ in range(4):
        polls.poll({0: 5, 1: 7}, {0: 9, 1: 9})
    assert polls.commits.changed_at("t") == pytest.approx(polls.now - 45)
    polls.poll({0: 6, 1: 7}, {0: 9, 1: 9})
    assert polls.commits.changed_at("t") == pytest.approx(polls.now)


def test_a_consumer_that_stopped_has_no_consume_rate_once_the_window_passed() -> None:
    polls = Polls()
    for i in range(5):
        polls.poll({0: 100 * i}, {0: 500})
    for _ in range(12):
        rates = polls.poll({0: 400}, {0: 500})
    assert rates.consumed == 0
    assert rates.catch_up == NEVER


def test_the_slowest_partition_decides_when_the_topic_is_caught_up() -> None:
    polls = Polls()
    for i in range(3):
        rates = polls.poll({0: 150 * i, 1: 300 * i}, {0: 3000, 1: 3000})
    assert rates.catch_up == pytest.approx(2700 / 10)


def test_without_lag_it_is_caught_up_whatever_the_rates() -> None:
    polls = Polls()
    assert polls.poll({0: 5}, {0: 5}).catch_up == 0


def test_an_end_that_was_not_seen_leaves_the_time_unknown() -> None:
    polls = Polls()
    polls.poll({0: 5, 1: 5}, {0: 5, 1: 9})
    assert polls.poll({0: 5, 1: 5}, {0: 5}).catch_up is None


@pytest.mark.parametrize(
    ("lag", "produced", "consumed", "expected"),
    [
        (0, 10.0, 0.0, 0.0),
        (1000, 10.0, 20.0, 100.0),
        (100, 10.0, 0.0, NEVER),
        (10_000, 10.0, 10.0, NEVER),
        (100, 10.0, 10.0, 10.0),  # in flight: worked off within an interval
        (150, 10.0, 10.0, 15.0),
        (151, 10.0, 10.0, NEVER),
        (100, 0.0, 0.0, NEVER),
        (10_000, 30 / 5.9, 60 / 11.8 + 1e-15, NEVER),  # equal, but for how they were reckoned
        (10_000, 0.0, 1e-4, 1e8),  # a slow one that gains is not one that never does
    ],
)
def test_time_to_catch_up(
    lag: int, produced: float, consumed: float, expected: float | str
) -> None:
    assert time_to_catch_up(lag, produced, consumed, interval=15.0) == expected


@given(
    st.lists(
        st.tuples(st.integers(0, 10**6), st.integers(0, 10**6), st.floats(0.5, 600)),
        min_size=1,
        max_size=30,
    )
)
def test_no_rate_is_ever_negative(steps: list[tuple[int, int, float]]) -> None:
    polls = Polls()
    for committed, end, seconds in steps:
        rates = polls.poll({0: committed}, {0: end}, seconds=seconds)
        assert (rates.produced or 0) >= 0
        assert (rates.consumed or 0) >= 0
        assert rates.catch_up in {NEVER, None} or float(rates.catch_up) >= 0


def test_stale_partitions_are_left_out() -> None:
    offsets = {"a": {0: 1, 1: 2}, "b": {0: 3}}
    assert fresh(offsets, {"a": {1: 40.0}}) == {"a": {0: 1}, "b": {0: 3}}
    assert fresh(offsets, {}) is offsets
