"""Rebalances of KIP-848 groups on the real broker, seen by polls that come too late for members."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from confluent_kafka import Consumer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from monitor.analysis.measures import Analyst
from monitor.kafka.collector import Collector, Intervals
from monitor.kafka.wire import KafkaWire
from monitor.model import CONSUMER, Snapshot
from monitor.settings import KafkaSettings
from order_services.local.kafka import EmbeddedKafka
from tests.support.waiting import wait_for

POLLS_UNTIL_AT_REST = 11


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

    visit()
    wait_for("empty group", empty)
    for _ in range(POLLS_UNTIL_AT_REST):
        snapshot = collector.poll()
        before = analyst.measure(snapshot)[group]
    assert before.at_rest
    assert snapshot.groups[group].type == CONSUMER
    visit()
    after = analyst.measure(wait_for("empty group", empty))[group]
    assert after.facts.members == before.facts.members == 0
    assert before.rebalances is not None
    assert after.rebalances is not None
    assert after.rebalances >= before.rebalances + 2  # it joined, and it left
