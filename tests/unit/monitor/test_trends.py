"""The small curve of a group's row has a gap where its lag was not known."""

from __future__ import annotations

import pytest

from monitor.kafka.apis.list_groups import ListedGroup
from monitor.kafka.apis.offset_fetch import GroupCommits
from monitor.kafka.collector import Collector, Intervals
from monitor.model import CLASSIC
from monitor.poller import Poller
from monitor.web.trends import POINTS, Trends
from tests.unit.monitor.fake_brokers import FakeBrokers

PATIENCE_S = 45.0


class Watched:
    """A poller of groups that are behind, whose polls are recorded."""

    def __init__(self) -> None:
        self.brokers = FakeBrokers(
            groups={1: [ListedGroup("g", CLASSIC, "Empty", "consumer")]},
            commits={"g": GroupCommits({"t": {0: 4}})},
        )
        self.trends = Trends(PATIENCE_S)

        def clock() -> float:
            return self.brokers.now

        self.poller = Poller(
            Collector(self.brokers, Intervals(), clock=clock, monotonic=clock),
            stale_after_s=PATIENCE_S,
            cluster="c",
            clock=clock,
            monotonic=clock,
            published=lambda: self.trends.record(self.poller.latest.state),
        )
        self.began = self.brokers.now + 15

    def poll(self, times: int = 1) -> None:
        for _ in range(times):
            self.brokers.now += 15
            self.poller.poll()

    def commit(self, offset: int) -> None:
        self.brokers.commits["g"] = GroupCommits({"t": {0: offset}})

    def told(self) -> list[tuple[int, float | None]]:
        """Return seconds since the first poll, and lags."""
        return [(round(at - self.began), lag) for at, lag in self.trends.of("c", "g")]


@pytest.fixture
def watched() -> Watched:
    return Watched()


def test_a_lag_holds_until_it_changes(watched: Watched) -> None:
    watched.poll(3)
    watched.commit(7)
    watched.poll(2)
    assert watched.told() == [(0, 6), (45, 3)]
    assert watched.trends.of("c", "unknown") == watched.trends.of("other", "g") == ()


@pytest.mark.parametrize("how", ["no broker answers", "no poll ends"])
def test_nothing_holds_while_nobody_looked(watched: Watched, how: str) -> None:
    watched.poll(3)
    if how == "no broker answers":
        watched.brokers.down = {1, 2}
        watched.poll(10)
        watched.brokers.down = set()
    else:
        watched.brokers.now += 150
    watched.poll(2)
    # though the lag is as it was
    assert watched.told() == [(0, 6), (30, None), (195, 6)]


def test_a_poll_that_is_missed_is_no_gap(watched: Watched) -> None:
    watched.poll(2)
    watched.brokers.down = {1, 2}
    watched.poll(2)
    watched.brokers.down = set()
    watched.commit(7)
    watched.poll()
    assert watched.told() == [(0, 6), (60, 3)]


def test_nothing_holds_while_the_coordinator_is_silent(watched: Watched) -> None:
    watched.poll(2)
    watched.brokers.down = {1}
    watched.poll(8)
    assert watched.told() == [(0, 6), (75, None)]
    watched.brokers.down = set()
    watched.poll(3)  # it is asked again after a moment
    assert [lag for _, lag in watched.told()] == [6, None, 6]


def test_of_a_group_that_is_deleted_nothing_is_left(watched: Watched) -> None:
    watched.poll(2)
    watched.brokers.delete_group("g")
    watched.poll()
    assert watched.told() == []


def test_the_last_points_are_kept(watched: Watched) -> None:
    for offset in range(POINTS + 5):
        watched.commit(offset % 10)
        watched.poll()
    told = watched.told()
    assert len(told) == POINTS
    assert told[-1] == (15 * (POINTS + 4), 10 - (POINTS + 4) % 10)
