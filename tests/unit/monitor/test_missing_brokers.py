"""Brokers that a partition names as a replica and the metadata no longer lists."""

from __future__ import annotations

from monitor.analysis.analyst import Analyst
from monitor.exposition.blocks import Choice, blocks
from monitor.exposition.render import Renderer
from monitor.kafka.collector import Collector, Intervals
from monitor.model import Partition, Snapshot, Topic
from monitor.state import State
from monitor.web.overview import overview
from tests.unit.monitor.fake_brokers import FakeBrokers

AT_ONCE = Intervals(metadata=0.0)


def broker_up(snapshot: Snapshot) -> dict[str, str]:
    """Return broker -> value, as scraped."""
    state = State("c", 100.0, snapshot, Analyst().measure(snapshot), None, 100.0)
    page = Renderer().render(blocks(state, Choice(45))).plain.decode()
    name = 'kafka_monitor_broker_up{broker="'
    lines = [line.removeprefix(name) for line in page.splitlines() if line.startswith(name)]
    return dict(line.split('"} ') for line in lines)


def test_a_fenced_broker_is_down_from_a_monitors_first_poll_on_and_until_it_is_back() -> None:
    brokers = FakeBrokers(fenced={2})
    collector = Collector(brokers, AT_ONCE)
    for _ in range(3):
        snapshot = collector.poll()
        assert snapshot.broker_errors == {}
        assert broker_up(snapshot) == {"1": "1", "2": "0"}
    brokers.fenced.clear()
    assert broker_up(collector.poll()) == {"1": "1", "2": "1"}


def test_a_broker_that_is_taken_out_of_the_cluster_leaves_the_page() -> None:
    brokers = FakeBrokers()
    collector = Collector(brokers, AT_ONCE)
    collector.poll()
    brokers.topics["t"] = Topic("t", {0: Partition(1, (1,), (1,)), 1: Partition(1, (1,), (1,))})
    brokers.fenced = {2}
    assert broker_up(collector.poll()) == {"1": "1"}


def test_replicas_of_topics_that_are_not_watched_count_too() -> None:
    brokers = FakeBrokers(fenced={2})
    brokers.topics["other"] = Topic("other", {0: Partition(1, (1, 3), (1,))})
    collector = Collector(brokers, AT_ONCE, wants_topic=lambda name: name == "t")
    assert collector.poll().missing_brokers == {2, 3}


def test_the_status_page_names_it() -> None:
    snapshot = Collector(FakeBrokers(fenced={2}), AT_ONCE).poll()
    page = overview(State("c", 100.0, snapshot, Analyst().measure(snapshot), None, 100.0))
    assert [broker for broker, _ in page.brokers_down] == ["2"]
