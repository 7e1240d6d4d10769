"""Groups as real assignors spread them: which are even, and which are not."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Final

import pytest
from confluent_kafka import Consumer
from confluent_kafka.admin import AdminClient, NewTopic

from monitor.analysis.analyst import Analyst
from monitor.kafka.collector import Collector, Intervals
from monitor.kafka.transport import KafkaWire
from monitor.settings import KafkaSettings
from order_services.local.kafka import EmbeddedKafka
from tests.support.waiting import wait_for

pytestmark = pytest.mark.heavy

TOPICS: Final = 3
PARTITIONS: Final = 4


@pytest.fixture
def wire(kafka: EmbeddedKafka) -> Iterator[KafkaWire]:
    wire = KafkaWire(KafkaSettings(bootstrap_servers=(kafka.bootstrap_servers,)))
    yield wire
    wire.close()


@pytest.fixture
def topics(kafka: EmbeddedKafka, unique: Callable[[str], str]) -> list[str]:
    names = [unique("spread") for _ in range(TOPICS)]
    admin = AdminClient({"bootstrap.servers": kafka.bootstrap_servers, "log_level": 0})
    for created in admin.create_topics([NewTopic(t, PARTITIONS, 1) for t in names]).values():
        created.result()
    return names


def imbalance(
    kafka: EmbeddedKafka,
    wire: KafkaWire,
    group: str,
    subscriptions: list[list[str]],
    **options: str,
) -> dict[str, float]:
    """Return topic -> excess of a group, once its members, who come one by one, hold all there is."""
    collector = Collector(wire, Intervals(), wants_group=lambda name: name == group)
    analyst = Analyst()
    with ExitStack() as stack:
        consumers: list[Consumer] = []

        def settled() -> dict[str, float] | None:
            for consumer in consumers:
                consumer.poll(0.05)
            snapshot = collector.poll()
            measures = analyst.measure(snapshot).get(group)
            if measures is None or not measures.group.members or measures.facts.unassigned != ():
                return None
            if measures.facts.idle or len(measures.group.members) < len(consumers):
                return None
            held = {topic for member in measures.group.members for topic in member.assignment}
            if held != {topic for topics in subscriptions[: len(consumers)] for topic in topics}:
                return None
            assert all(member.subscription is not None for member in measures.group.members)
            found = {topic: of["assignment"] for topic, of in measures.imbalance.items()}
            return found if found.keys() == held else None

        for subscription in subscriptions:
            consumer = Consumer(
                {
                    "bootstrap.servers": kafka.bootstrap_servers,
                    "group.id": group,
                    "log_level": 0,
                    **options,
                }
            )
            stack.callback(consumer.close)
            consumer.subscribe(subscription)
            consumers.append(consumer)
            found = wait_for("assignment of all partitions", settled)
        return found


@pytest.mark.parametrize(
    "options",
    [
        {"partition.assignment.strategy": "cooperative-sticky"},
        {"group.protocol": "consumer", "group.remote.assignor": "uniform"},
    ],
    ids=["cooperative-sticky", "uniform"],
)
def test_who_evens_out_totals_is_even_in_every_topic(
    kafka: EmbeddedKafka,
    wire: KafkaWire,
    topics: list[str],
    unique: Callable[[str], str],
    options: dict[str, str],
) -> None:
    found = imbalance(kafka, wire, unique("even"), [topics] * 3, **options)
    assert found == dict.fromkeys(topics, 0.0)


def test_a_listener_for_each_topic_is_even(
    kafka: EmbeddedKafka, wire: KafkaWire, topics: list[str], unique: Callable[[str], str]
) -> None:
    found = imbalance(kafka, wire, unique("listeners"), [[topic] for topic in topics])
    assert found == dict.fromkeys(topics, 0.0)


def test_who_spreads_each_topic_by_itself_is_uneven(
    kafka: EmbeddedKafka, wire: KafkaWire, topics: list[str], unique: Callable[[str], str]
) -> None:
    options = {"partition.assignment.strategy": "range"}
    found = imbalance(kafka, wire, unique("ranged"), [topics] * 3, **options)
    assert found == dict.fromkeys(topics, 0.5)  # 6, 3 and 3 of 12
