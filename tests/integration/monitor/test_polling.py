"""The collector on a real broker: what it costs, and what a frozen or restarted broker does to it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from confluent_kafka import Consumer, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from monitor.kafka.brokers import UnreachableError
from monitor.kafka.collector import Collector, Intervals
from monitor.kafka.coordinators import GROUPS_TOPIC
from monitor.kafka.transport import KafkaWire
from monitor.model import ANSWERED, Refused, Snapshot
from monitor.settings import KafkaSettings
from order_services.local.kafka import EmbeddedKafka
from tests.support.waiting import wait_for

REQUEST_TIMEOUT_S = 2.0


@pytest.fixture
def wire(kafka: EmbeddedKafka) -> Iterator[KafkaWire]:
    wire = KafkaWire(KafkaSettings(bootstrap_servers=(kafka.bootstrap_servers,)))
    yield wire
    wire.close()


@pytest.fixture
def own_broker(tmp_path: Path) -> Iterator[EmbeddedKafka]:
    broker = EmbeddedKafka(tmp_path / "kafka")
    broker.start()
    yield broker
    broker.stop()


def fill(broker: EmbeddedKafka, topic: str, group: str) -> None:
    admin = AdminClient({"bootstrap.servers": broker.bootstrap_servers, "log_level": 0})
    admin.create_topics([NewTopic(topic, 2, 1)])[topic].result()
    producer = Producer({"bootstrap.servers": broker.bootstrap_servers, "log_level": 0})
    for number in range(10):
        producer.produce(topic, str(number), partition=number % 2)
    producer.flush(30)
    commit(broker, group, TopicPartition(topic, 0, 2))


def commit(broker: EmbeddedKafka, group: str, *wanted: TopicPartition) -> None:
    consumer = Consumer(
        {"bootstrap.servers": broker.bootstrap_servers, "group.id": group, "log_level": 0}
    )
    deadline = time.monotonic() + 60
    try:
        while True:
            try:
                consumer.commit(offsets=list(wanted), asynchronous=False)
            except KafkaException:
                # a new broker is nobody's coordinator for a moment
                assert time.monotonic() < deadline
                time.sleep(0.1)
            else:
                return
    finally:
        consumer.close()


def poll_until(collector: Collector, met: Callable[[Snapshot], bool]) -> Snapshot:
    deadline = time.monotonic() + 60
    while True:
        snapshot = collector.poll()
        if met(snapshot):
            return snapshot
        assert time.monotonic() < deadline, snapshot
        time.sleep(0.1)


def test_the_first_poll_costs_six_requests_and_the_second_three(
    kafka: EmbeddedKafka, wire: KafkaWire, unique: Callable[[str], str]
) -> None:
    topic, group = unique("few-requests"), unique("few-requests")
    fill(kafka, topic, group)
    collector = Collector(
        wire, Intervals(topic_configs=300.0), wants_group=lambda name: name == group
    )
    first = collector.poll()
    # half of them are asked rarely: the metadata, log start offsets (the protocol takes a partition
    # only once in a request) and topic settings
    assert first.requests == {
        "Metadata": 1,
        "ListGroups": 1,
        "OffsetFetch": 1,
        "ListOffsets": 2,
        "DescribeConfigs": 1,
    }
    second = collector.poll()
    assert second.requests == {"ListGroups": 1, "OffsetFetch": 1, "ListOffsets": 1}
    assert second.end_offsets.values[topic] == {0: 5, 1: 5}
    assert second.start_offsets.values[topic] == {0: 0, 1: 0}
    assert second.groups[group].commits == {topic: {0: 2}}
    assert second.topics is first.topics


def test_the_first_group_of_a_new_cluster_is_there_with_its_first_commit(
    own_broker: EmbeddedKafka,
) -> None:
    servers = own_broker.bootstrap_servers
    admin = AdminClient({"bootstrap.servers": servers, "log_level": 0})
    admin.create_topics([NewTopic("t", 1, 1)])["t"].result()
    wire = KafkaWire(KafkaSettings(bootstrap_servers=(servers,)))
    try:
        collector = Collector(wire, Intervals())
        # the metadata are from before the groups' topic, which comes with the first group
        assert GROUPS_TOPIC not in collector.poll().topics
        committing = threading.Thread(
            target=commit, args=(own_broker, "g", TopicPartition("t", 0, 0))
        )
        committing.start()
        while committing.is_alive():
            collector.poll()
        group = collector.poll().groups["g"]
        assert (group.commits, group.answer) == ({"t": {0: 0}}, ANSWERED)
        assert GROUPS_TOPIC in collector.poll().topics
    finally:
        wire.close()


@pytest.mark.heavy
def test_a_broker_that_freezes_leaves_stale_numbers_in_bounded_time_and_recovers(
    own_broker: EmbeddedKafka,
) -> None:
    fill(own_broker, "t", "g")
    wire = KafkaWire(KafkaSettings(bootstrap_servers=(own_broker.bootstrap_servers,)))
    collector = Collector(wire, Intervals(request_timeout=REQUEST_TIMEOUT_S))
    try:
        before = collector.poll()
        own_broker.pause()
        try:
            for _ in range(2):
                started = time.monotonic()
                frozen = collector.poll()
                # a bound, not a speed: it may not hang for the sum of all its questions
                assert time.monotonic() - started < 5 * REQUEST_TIMEOUT_S
                assert 1 in frozen.broker_errors
                assert frozen.end_offsets.values == before.end_offsets.values
                assert frozen.end_offsets.is_silent("t", 0)
                assert frozen.end_offsets.time_of("t", 0) == before.end_offsets.seen_at
                assert frozen.groups["g"].is_silent
                assert frozen.groups["g"].commits == {"t": {0: 2}}
        finally:
            own_broker.resume()
        poll_until(collector, lambda s: not s.broker_errors and not s.end_offsets.silent)
        own_broker.kill()
        assert 1 in collector.poll().broker_errors
        own_broker.start()
        back = poll_until(
            collector,
            lambda s: not s.broker_errors and "g" in s.groups and not s.groups["g"].is_silent,
        )
        assert back.end_offsets.values["t"] == {0: 5, 1: 5}
    finally:
        wire.close()


@pytest.mark.heavy
def test_a_broker_that_restarts_deletes_no_group_and_says_so_of_its_lists(
    own_broker: EmbeddedKafka,
) -> None:
    fill(own_broker, "t", "g")
    wire = KafkaWire(KafkaSettings(bootstrap_servers=(own_broker.bootstrap_servers,)))
    collector = Collector(wire, Intervals(request_timeout=REQUEST_TIMEOUT_S))
    try:
        before = poll_until(collector, lambda s: "g" in s.groups)
        assert before.groups_complete
        own_broker.kill()
        assert collector.poll().groups["g"].is_silent
        # its list is empty and without an error for a while after it has started
        with polled(collector) as snapshots:
            own_broker.start()
            wait_for("group", lambda: not snapshots[-1].groups["g"].is_silent)
        assert all(s.groups["g"].commits == {"t": {0: 2}} for s in snapshots)
        assert not snapshots[-1].groups_complete  # of others nothing is known so soon
        admin = AdminClient({"bootstrap.servers": own_broker.bootstrap_servers, "log_level": 0})
        admin.delete_consumer_groups(["g"])["g"].result(60)
        poll_until(collector, lambda s: "g" not in s.groups)
    finally:
        wire.close()


@contextmanager
def polled(collector: Collector) -> Iterator[list[Snapshot]]:
    """Poll in the background, again and again, and collect the snapshots."""
    snapshots = [collector.poll()]
    ended = threading.Event()

    def poll() -> None:
        while not ended.wait(0.1):
            snapshots.append(collector.poll())

    thread = threading.Thread(target=poll)
    thread.start()
    try:
        yield snapshots
    finally:
        ended.set()
        thread.join()


def test_a_reply_that_is_larger_than_a_client_takes_is_asked_for_in_parts(
    kafka: EmbeddedKafka, unique: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    topic = unique("large")
    groups = [unique("large") for _ in range(9)]
    fill(kafka, topic, groups[0])
    metadata = "m" * 3_000
    for group in groups[:8]:
        commit(kafka, group, TopicPartition(topic, 0, 2, metadata))
    # no client that counts takes the last one
    commit(
        kafka, groups[8], *(TopicPartition(topic, index, 2, metadata[:2_900]) for index in (0, 1))
    )
    monkeypatch.setattr("monitor.kafka.connecting.MAX_REPLY_BYTES", 5_000)
    wire = KafkaWire(KafkaSettings(bootstrap_servers=(kafka.bootstrap_servers,)))
    try:
        collector = Collector(
            wire,
            Intervals(),
            wants_group=groups.__contains__,
            wants_topic=topic.__eq__,
        )
        for _ in range(3):
            snapshot = collector.poll()
            assert snapshot.broker_errors == {}
            for group in groups[:8]:
                assert snapshot.groups[group].answer == ANSWERED
                assert snapshot.groups[group].commits == {topic: {0: 2}}
            too_large = snapshot.groups[groups[8]]
            assert too_large.answer == Refused("its commits do not fit into one reply")
    finally:
        wire.close()


def test_an_old_broker_gets_one_request_per_group_and_the_same_numbers(
    kafka: EmbeddedKafka, unique: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    topic = unique("old")
    groups = [unique("old"), unique("old")]
    fill(kafka, topic, groups[0])
    commit(kafka, groups[1], TopicPartition(topic, 1, 3))
    # the versions that a broker of Kafka 2.8 offers
    options = "monitor.kafka.transport.connection_options"
    from monitor.kafka.connecting import connection_options  # noqa: PLC0415

    monkeypatch.setattr(
        options, lambda *given: connection_options(*given) | {"api_version": (2, 8)}
    )
    wire = KafkaWire(KafkaSettings(bootstrap_servers=(kafka.bootstrap_servers,)))
    try:
        snapshot = Collector(wire, Intervals(), wants_group=groups.__contains__).poll()
    finally:
        wire.close()
    assert snapshot.requests["OffsetFetch"] == 2
    assert snapshot.groups[groups[0]].commits == {topic: {0: 2}}
    assert snapshot.groups[groups[1]].commits == {topic: {1: 3}}


def test_a_port_where_nobody_listens_is_told_with_its_cause() -> None:
    wire = KafkaWire(KafkaSettings(bootstrap_servers=("127.0.0.1:1",)))
    try:
        with pytest.raises(UnreachableError, match=r"127\.0\.0\.1:1: connection refused"):
            wire.find_cluster(5)
    finally:
        wire.close()
