"""Rebalances of KIP-848 groups on the real broker, seen by polls that come too late for members."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from confluent_kafka import Consumer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from monitor.analysis.analyst import Analyst
from monitor.analysis.measures import GroupMeasures
from monitor.kafka.collector import Collector, Intervals
from monitor.kafka.transport import KafkaWire
from monitor.model import CONSUMER, Snapshot
from monitor.settings import KafkaSettings
from order_services.local.kafka import EmbeddedKafka
from tests.support.waiting import wait_for


@pytest.fixture
def wire(kafka: EmbeddedKafka) -> Iterator[KafkaWire]:
    wire = KafkaWire(KafkaSettings(bootstrap_servers=(kafka.bootstrap_servers,)))
    yield wire
    wire.close()


def test_a_member_that_came_and_went_between_two_polls_is_counted(
    kafka: EmbeddedKafka, wire: KafkaWire, unique: Callable[[str], str]
) -> None:
    topic, group = unique("short"), unique("visited")
    admin = AdminClient({"bootstrap.servers": kafka.bootstrap_servers, "log_level": 0})
    admin.create_topics([NewTopic(topic, 2, 1)])[topic].result()

    def visit() -> None:
        consumer = Consumer(
            {
                "bootstrap.servers": kafka.bootstrap_servers,
                "group.id": group,
                "group.protocol": "consumer",
                "log_level": 0,
            }
        )
        consumer.subscribe([topic])
        wait_for("assignment", lambda: consumer.poll(0.1) or consumer.assignment())
        consumer.commit(offsets=[TopicPartition(topic, 0, 0)], asynchronous=False)
        consumer.close()

    collector = Collector(wire, Intervals(metadata=0.001), wants_group=lambda name: name == group)
    analyst = Analyst()

    def empty() -> Snapshot | None:
        snapshot = collector.poll()
        found = snapshot.groups.get(group)
        return snapshot if found is not None and found.state == "Empty" else None

    def at_rest() -> GroupMeasures | None:
        snapshot = collector.poll()
        assert snapshot.groups[group].type == CONSUMER
        measures = analyst.measure(snapshot)[group]
        return measures if measures.measured_at < analyst.findings.resting_since else None

    visit()
    wait_for("empty group", empty)
    before = wait_for("a group at rest", at_rest)
    visit()
    after = analyst.measure(wait_for("empty group", empty))[group]
    assert after.facts.members == before.facts.members == 0
    assert before.rebalances is not None
    assert after.rebalances is not None
    assert after.rebalances >= before.rebalances + 2  # it joined, and it left
