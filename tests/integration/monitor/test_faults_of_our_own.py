"""A fault of our own in what asks a real broker, and reads its replies, is no broker's.

Every function of the kafka layer that a poll runs is made to raise in its turn, on whichever thread it
runs; `tests/unit/monitor/test_collector_isolation.py` has what each step may cost.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import pytest
from confluent_kafka import Consumer, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic
from structlog.testing import capture_logs

import monitor.kafka
from monitor.kafka.collector import Collector, Intervals
from monitor.kafka.transport import KafkaWire
from monitor.model import Snapshot
from monitor.settings import KafkaSettings
from order_services.local.kafka import EmbeddedKafka
from tests.support.breaking import Functions, broken
from tests.support.waiting import wait_for

PACKAGE: Final = str(Path(monitor.kafka.__file__).parent)
# What kafka-python calls while it keeps a connection: a fault there is a lost connection, which is
# the broker's to us, whoever is to blame. It is told with its cause, and what it costs is silent.
OF_THE_CONNECTION: Final = frozenset({"connecting.py", "encoded.py", "logins.py"})


@contextmanager
def connected(kafka: EmbeddedKafka, topic: str, group: str) -> Iterator[Collector]:
    wire = KafkaWire(KafkaSettings(bootstrap_servers=(kafka.bootstrap_servers,)))
    try:
        yield Collector(
            wire,
            Intervals(
                request_timeout=2,
                metadata=0.0,
                start_offsets=0.0,
                topic_configs=0.001,
                log_sizes=0.001,
            ),
            wants_group=group.__eq__,
            wants_topic=topic.__eq__,
            read_committed=True,
        )
    finally:
        wire.close()


def what_is_told(snapshot: Snapshot) -> dict[str, object]:
    """Return the figures; nothing moves, so they are the same at every poll."""
    return {
        "starts": snapshot.start_offsets.values,
        "ends": snapshot.end_offsets.values,
        "stable": snapshot.stable_offsets.values,
        "groups": {name: (of.commits, of.members) for name, of in snapshot.groups.items()},
        "configs": snapshot.topic_configs,
        "sizes": snapshot.log_bytes,
    }


@pytest.mark.heavy
def test_no_fault_of_our_own_makes_a_broker_down_or_a_figure_wrong(
    kafka: EmbeddedKafka, unique: Callable[[str], str]
) -> None:
    topic, group = unique("ours"), unique("ours")
    admin = AdminClient({"bootstrap.servers": kafka.bootstrap_servers, "log_level": 0})
    admin.create_topics([NewTopic(topic, 2, 1)])[topic].result()
    producer = Producer({"bootstrap.servers": kafka.bootstrap_servers, "log_level": 0})
    for partition in (0, 1):
        producer.produce(topic, "x", partition=partition)
    assert producer.flush(30) == 0
    consumer = Consumer(
        {"bootstrap.servers": kafka.bootstrap_servers, "group.id": group, "log_level": 0}
    )

    def commit() -> bool:
        try:
            consumer.commit(offsets=[TopicPartition(topic, 0, 1)], asynchronous=False)
        except KafkaException:  # the coordinator of a new cluster is not ready at once
            return False
        return True

    wait_for("the commit", commit)
    consumer.close()
    functions = Functions(PACKAGE)
    with functions.seen(), connected(kafka, topic, group) as collector:
        collector.poll()
        right = what_is_told(collector.poll())
    assert right["groups"] == {group: ({topic: {0: 1}}, ())}
    tried = functions.by_name()
    assert {"FetchCommits.requests", "EncodedRequest.encode", "KafkaWire._send"} <= tried.keys()
    for name, function in sorted(tried.items()):
        with connected(kafka, topic, group) as collector, capture_logs():
            collector.poll()
            with broken(function):
                try:
                    told = collector.poll()
                except ZeroDivisionError:
                    continue  # nothing was asked: the poll is published as failed
            figures = what_is_told(told)
            for kind, figure in figures.items():
                assert figure in (right[kind], {}) or kind == "groups", (name, kind)
            assert group in told.groups, name
            assert told.groups[group].commits == {topic: {0: 1}}, name
            if Path(function.__code__.co_filename).name not in OF_THE_CONNECTION:
                assert told.broker_errors == {}, name
            healed = [collector.poll() for _ in range(2)][-1]
            assert what_is_told(healed) == right, name
            assert not healed.failures, name
            assert not healed.broker_errors, name
