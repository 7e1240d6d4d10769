"""What is asked rarely or on request: settings, log sizes, stable offsets, offsets by time."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient, NewTopic

from monitor.kafka.collector import Collector, Intervals
from monitor.kafka.transport import KafkaWire
from monitor.model import Snapshot, TopicConfig
from monitor.settings import KafkaSettings
from order_services.local.kafka import EmbeddedKafka
from tests.support.waiting import wait_for


@pytest.fixture
def wire(kafka: EmbeddedKafka) -> Iterator[KafkaWire]:
    wire = KafkaWire(KafkaSettings(bootstrap_servers=(kafka.bootstrap_servers,)))
    yield wire
    wire.close()


def create(kafka: EmbeddedKafka, topic: str, partitions: int = 1, **config: str) -> None:
    admin = AdminClient({"bootstrap.servers": kafka.bootstrap_servers, "log_level": 0})
    named = {name.replace("_", "."): value for name, value in config.items()}
    admin.create_topics([NewTopic(topic, partitions, 1, config=named)])[topic].result()


def test_settings_of_topics_are_read_once_and_those_of_a_new_topic_at_once(
    kafka: EmbeddedKafka, wire: KafkaWire, unique: Callable[[str], str]
) -> None:
    kept, compacted, late = unique("kept"), unique("compacted"), unique("late")
    create(kafka, kept, retention_ms="1000", retention_bytes="5000")
    create(kafka, compacted, cleanup_policy="compact,delete")
    wanted = {kept, compacted, late}
    collector = Collector(
        wire, Intervals(metadata=0.001, topic_configs=600), wants_topic=wanted.__contains__
    )
    # a topic that was just created may not be in the broker's metadata yet
    wait_for("both topics", lambda: {kept, compacted} <= collector.poll().topic_configs.keys())
    collector = Collector(
        wire, Intervals(metadata=0.001, topic_configs=600), wants_topic=wanted.__contains__
    )
    first = collector.poll()
    assert first.requests["DescribeConfigs"] == 1
    assert first.topic_configs[kept] == TopicConfig(1_000, 5_000, frozenset({"delete"}))
    assert first.topic_configs[compacted] == TopicConfig(
        604_800_000, -1, frozenset({"compact", "delete"})
    )
    assert "DescribeConfigs" not in collector.poll().requests
    create(kafka, late, retention_ms="77")
    found = wait_for("the new topic", lambda: collector.poll().topic_configs.get(late))
    assert found.retention_ms == 77


def test_log_sizes_are_those_of_the_records_written(
    kafka: EmbeddedKafka, wire: KafkaWire, unique: Callable[[str], str]
) -> None:
    topic = unique("sizes")
    create(kafka, topic, 2)
    producer = Producer({"bootstrap.servers": kafka.bootstrap_servers, "log_level": 0})
    producer.produce(topic, bytes(10_000), partition=1)
    producer.flush(30)
    snapshot = Collector(
        wire, Intervals(log_sizes=60), wants_topic=lambda name: name == topic
    ).poll()
    assert set(snapshot.log_bytes) == {topic}
    assert snapshot.log_bytes[topic][0] == 0
    assert 10_000 < snapshot.log_bytes[topic][1] < 11_000


def test_a_transaction_that_is_open_holds_the_stable_offset_back_and_not_the_log_end(
    kafka: EmbeddedKafka, wire: KafkaWire, unique: Callable[[str], str]
) -> None:
    topic = unique("open")
    create(kafka, topic)
    collector = Collector(
        wire, Intervals(), wants_topic=lambda name: name == topic, read_committed=True
    )
    producer = Producer(
        {
            "bootstrap.servers": kafka.bootstrap_servers,
            "transactional.id": unique("writer"),
            "log_level": 0,
        }
    )
    producer.init_transactions(60)
    producer.begin_transaction()
    for _ in range(3):
        producer.produce(topic, b"x", partition=0)
    producer.flush(30)
    snapshot = collector.poll()
    assert snapshot.end_offsets.values[topic] == {0: 3}
    assert snapshot.stable_offsets.values[topic] == {0: 0}
    producer.commit_transaction(60)

    # three records and the marker, which is written after the commit was answered
    def committed() -> Snapshot | None:
        found = collector.poll()
        return found if found.end_offsets.values[topic] == {0: 4} else None

    snapshot = wait_for("marker", committed)
    assert snapshot.stable_offsets.values[topic] == {0: 4}


def test_offsets_at_times_come_with_the_records_own_time_in_one_request(
    kafka: EmbeddedKafka, wire: KafkaWire, unique: Callable[[str], str]
) -> None:
    topic = unique("times")
    create(kafka, topic, 3)
    producer = Producer({"bootstrap.servers": kafka.bootstrap_servers, "log_level": 0})
    for at in (1_000, 2_000, 3_000):
        for partition in (0, 1):
            producer.produce(topic, b"x", partition=partition, timestamp=1_700_000_000_000 + at)
    producer.flush(30)
    collector = Collector(wire, Intervals(), wants_topic=lambda name: name == topic)
    collector.poll()
    found = collector.offsets_for_times(
        {topic: {0: 1_700_000_001_500, 1: 1_700_000_003_001, 2: 0, 9: 0}, "no-such-topic": {0: 0}}
    )
    assert found == {topic: {0: (1, 1_700_000_002_000), 1: (-1, -1), 2: (-1, -1)}}
    assert collector.take_request_counts() == {"ListOffsets": 1}
    assert "ListOffsets" in collector.poll().requests
