"""Times in a snapshot when somebody sets the wall clock."""

from __future__ import annotations

import pytest

from monitor.kafka.apis.list_groups import ListedGroup
from monitor.kafka.apis.offset_fetch import GroupCommits
from monitor.kafka.collector import Collector, Intervals
from monitor.model import CLASSIC
from tests.unit.monitor.fake_brokers import FakeBrokers


class Clocks:
    """A monotonic clock, and a wall clock that can be set."""

    def __init__(self, brokers: FakeBrokers) -> None:
        self._brokers = brokers
        self.ahead = 1_700_000_000.0
        brokers.now = 1_000.0

    def monotonic(self) -> float:
        return self._brokers.now

    def wall(self) -> float:
        return self._brokers.now + self.ahead

    def pass_by(self, seconds: float) -> None:
        self._brokers.now += seconds


@pytest.mark.parametrize("set_by", [-3_600.0, 3_600.0, -0.5])
def test_what_is_stale_keeps_its_age_when_the_clock_is_set(set_by: float) -> None:
    brokers = FakeBrokers(
        groups={2: [ListedGroup("g", CLASSIC, "Empty", "consumer")]},
        commits={"g": GroupCommits({"t": {1: 15}})},
        log_dirs={2: {"t": {1: 500}}},
    )
    clocks = Clocks(brokers)
    collector = Collector(
        brokers, Intervals(log_sizes=60), clock=clocks.wall, monotonic=clocks.monotonic
    )
    first = collector.poll()
    assert first.end_offsets.time_of("t", 1) == brokers.now
    told_at = brokers.now
    brokers.down = {2}
    clocks.pass_by(15)
    collector.poll()
    clocks.ahead += set_by
    clocks.pass_by(15)
    last = collector.poll()
    assert last.taken_at == pytest.approx(clocks.wall())
    assert last.monotonic_at == clocks.monotonic() == told_at + 30
    assert last.end_offsets.time_of("t", 0) == told_at + 30
    assert last.end_offsets.time_of("t", 1) == told_at
    assert last.start_offsets.seen_at == told_at  # not due yet
    assert last.groups["g"].silent_since == told_at
    assert last.log_sizes[2].seen_at == told_at
    assert last.groups["g"].commits == {"t": {1: 15}}


def test_refreshes_stay_due_when_the_clock_is_set_back() -> None:
    brokers = FakeBrokers()
    clocks = Clocks(brokers)
    collector = Collector(
        brokers, Intervals(start_offsets=60), clock=clocks.wall, monotonic=clocks.monotonic
    )
    collector.poll()
    clocks.ahead -= 86_400
    clocks.pass_by(61)
    before = collector.poll()
    assert before.requests["Metadata"] == 1
    assert before.requests["ListOffsets"] == 4
