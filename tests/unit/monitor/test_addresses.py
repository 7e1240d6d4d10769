"""Brokers that advertise addresses which are wrong from here, or the same for all."""

from __future__ import annotations

import pytest

from monitor.kafka.apis.metadata import ClusterMetadata
from monitor.kafka.brokers import UnreachableError
from monitor.kafka.collector import Collector, Intervals
from monitor.model import Broker
from tests.unit.monitor.fake_brokers import FakeBrokers


class Advertised(FakeBrokers):
    """Answers at its bootstrap address whatever else is down."""

    bootstrap_down = False
    addresses: tuple[Broker, ...] = (Broker(1, "kafka", 1), Broker(2, "kafka", 2))

    def find_cluster(self, timeout_s: float) -> ClusterMetadata:
        if self.bootstrap_down:
            raise UnreachableError({"one:9092": "connection refused", "kafka:2": "no route"})
        down, self.down = self.down, set()
        found = super().find_cluster(timeout_s)
        self.down = down
        return found

    def _metadata(self) -> ClusterMetadata:
        found = super()._metadata()
        found.brokers.clear()  # type: ignore[attr-defined]  # a dictionary of ours
        found.brokers.update({b.id: b for b in self.addresses})  # type: ignore[attr-defined]
        return found


def test_addresses_that_cannot_be_reached_are_told_with_what_advertises_them() -> None:
    brokers = Advertised(down={1, 2})
    collector = Collector(brokers, Intervals())
    for _ in range(3):
        errors = collector.poll().broker_errors
        assert errors.keys() == {1, 2}
        for broker, address in ((1, "kafka:1"), (2, "kafka:2")):
            assert errors[broker].startswith("timed out; ")
            for told in ("bootstrap:9092", address, "advertised.listeners"):
                assert told in errors[broker]


def test_a_broker_that_is_down_among_others_is_not_told_to_have_a_wrong_address() -> None:
    collector = Collector(Advertised(down={2}), Intervals())
    assert collector.poll().broker_errors == {2: "timed out"}


def test_a_cluster_that_goes_away_later_is_not_told_to_have_wrong_addresses() -> None:
    brokers = Advertised()
    collector = Collector(brokers, Intervals())
    collector.poll()
    brokers.down = {1, 2}
    assert set(collector.poll().broker_errors.values()) == {"timed out"}


def test_that_nobody_can_be_reached_any_more_is_told_and_no_exception() -> None:
    brokers = Advertised()
    collector = Collector(brokers, Intervals())
    collector.connect(5)
    brokers.down = {1, 2}
    brokers.bootstrap_down = True
    collector.poll()
    for _ in range(2):
        snapshot = collector.poll()
        assert snapshot.broker_errors == {1: "timed out", 2: "no route"}
        assert snapshot.errors == ("one:9092: connection refused; kafka:2: no route",)
        assert not snapshot.groups_complete


def test_brokers_at_one_address_are_told() -> None:
    brokers = Advertised()
    brokers.addresses = (Broker(1, "lb", 9092), Broker(2, "lb", 9092))
    (error,) = Collector(brokers, Intervals()).poll().errors
    assert error.startswith("brokers 1, 2 are all said to be at lb:9092")
    assert "advertised.listeners" in error


def test_a_cluster_that_was_never_reached_is_an_exception() -> None:
    brokers = Advertised()
    brokers.bootstrap_down = True
    collector = Collector(brokers, Intervals())
    for call in (collector.poll, lambda: collector.connect(5)):
        with pytest.raises(UnreachableError, match="one:9092: connection refused"):
            call()
