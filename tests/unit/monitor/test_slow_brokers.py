"""Brokers that are slower than the others, for once or always: slow is not down."""

from __future__ import annotations

import pytest

from monitor.kafka.apis.list_groups import ListedGroup
from monitor.kafka.apis.offset_fetch import GroupCommits
from monitor.kafka.collector import Collector, Intervals
from monitor.model import CLASSIC
from tests.unit.monitor.fake_brokers import FakeBrokers

POLL_S = 15.0
TIMEOUT_S = 5.0


class Watched:
    """Two brokers, of which 2 coordinates "g" and leads t-1, and a collector that polls them."""

    def __init__(self, **latency: float) -> None:
        self.brokers = FakeBrokers(
            groups={2: [ListedGroup("g", CLASSIC, "Empty", "consumer")]},
            commits={"g": GroupCommits({"t": {1: 10}})},
            latency={int(name[1:]): seconds for name, seconds in latency.items()},
        )
        self.collector = Collector(
            self.brokers,
            Intervals(request_timeout=TIMEOUT_S),
            clock=lambda: self.brokers.now,
            monotonic=lambda: self.brokers.now,
        )

    def polls(self, count: int) -> list[set[int]]:
        """Return which brokers were told to be down in each of the next polls."""
        return [self.poll() for _ in range(count)]

    def poll(self) -> set[int]:
        self.brokers.now += POLL_S
        snapshot = self.collector.poll()
        down = set(snapshot.broker_errors)
        assert snapshot.groups["g"].is_silent == (2 in down)
        assert snapshot.end_offsets.is_silent("t", 1) == (2 in down)
        return down


@pytest.mark.parametrize("latency", [0.05, 0.15, 0.3, 4.0])
def test_a_slow_broker_that_was_silent_in_one_poll_is_well_again_soon_and_for_good(
    latency: float,
) -> None:
    watched = Watched(_2=latency)
    assert watched.polls(2) == [set()] * 2
    watched.brokers.down = {2}
    assert watched.poll() == {2}
    watched.brokers.down = set()
    watched.poll()  # nobody waits for it: it may be told down once more
    assert watched.polls(10) == [set()] * 10


def test_a_stretched_cluster_with_one_broker_far_away_is_never_down() -> None:
    watched = Watched(_1=0.01, _2=0.3)
    assert watched.polls(20) == [set()] * 20


def test_a_broker_that_was_slow_beyond_its_time_is_asked_again_and_is_back_when_it_is_faster() -> (
    None
):
    watched = Watched()
    assert watched.polls(2) == [set()] * 2
    watched.brokers.latency = {2: TIMEOUT_S + 1}
    assert watched.polls(3) == [{2}] * 3
    watched.brokers.latency = {2: 0.3}
    watched.poll()
    assert watched.polls(5) == [set()] * 5


def test_nobody_waits_for_a_broker_that_failed_in_the_last_poll() -> None:
    watched = Watched(_1=0.02)
    watched.polls(2)
    watched.brokers.latency[2] = 2 * TIMEOUT_S
    watched.poll()
    for _ in range(3):
        begun = watched.brokers.now + POLL_S
        assert watched.poll() == {2}
        assert watched.brokers.now - begun < 0.5


def test_a_suspect_that_answers_one_question_has_all_its_time_for_the_next() -> None:
    watched = Watched()
    watched.polls(2)
    watched.brokers.down = {2}
    watched.poll()
    watched.brokers.down = set()
    watched.brokers.asked.clear()
    watched.brokers.not_awaited.clear()
    assert watched.poll() == set()
    rounds = [{name for _, name in round_} for round_ in watched.brokers.asked]
    assert rounds == [{"Metadata"}, {"ListGroups"}, {"FetchCommits"}, {"ListOffsets"}]
    assert watched.brokers.not_awaited == [{2}, {2}, set(), set()]


def test_a_broker_that_searches_remote_storage_has_less_time_than_we_wait() -> None:
    watched = Watched()
    watched.poll()
    watched.collector.offsets_for_times({"t": {1: 1_000}})
    assert 0 < max(watched.brokers.timeouts) < TIMEOUT_S * 1_000
    assert min(watched.brokers.timeouts) > 0


def test_late_answers_by_time_cost_seconds_only() -> None:
    watched = Watched()
    watched.poll()
    watched.brokers.latency = {2: TIMEOUT_S + 3}
    assert watched.collector.offsets_for_times({"t": {0: 1, 1: 1}}).keys() == {"t"}
    assert watched.collector.look_at_logs({"t": {0: 1, 1: 1}})["t"].keys() == {0}
    watched.brokers.latency = {}
    watched.brokers.not_awaited.clear()
    assert watched.poll() == set()
    assert not any(watched.brokers.not_awaited)
