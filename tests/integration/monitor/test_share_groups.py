"""Share groups (KIP-932), with Apache's console share consumer."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient, NewTopic

from monitor.kafka.collector import Collector, Intervals
from monitor.kafka.transport import KafkaWire
from monitor.model import SHARE, Group
from monitor.settings import KafkaSettings
from order_services.local.kafka import EmbeddedKafka
from tests.support.java import java_program
from tests.support.waiting import wait_for

TOOLS = "org.apache.kafka.tools.consumer"


@pytest.fixture
def wire(kafka: EmbeddedKafka) -> Iterator[KafkaWire]:
    wire = KafkaWire(KafkaSettings(bootstrap_servers=(kafka.bootstrap_servers,)))
    yield wire
    wire.close()


def produce(kafka: EmbeddedKafka, topic: str, count: int) -> None:
    producer = Producer({"bootstrap.servers": kafka.bootstrap_servers, "log_level": 0})
    for number in range(count):
        producer.produce(topic, str(number), partition=number % 2)
    producer.flush(30)


def as_apache_sees_it(kafka: EmbeddedKafka, group: str) -> dict[int, tuple[int, int]]:
    """Return partition -> (start offset, lag)."""
    table = kafka.run_tool(
        f"{TOOLS}.group.ShareGroupCommand",
        "--bootstrap-server", kafka.bootstrap_servers, "--describe", "--group", group,
    )  # fmt: skip
    rows = re.findall(rf"^{group} +\S+ +(\d+) +(\d+) +(\d+)", table, re.MULTILINE)
    return {int(partition): (int(start), int(lag)) for partition, start, lag in rows}


@pytest.mark.heavy
def test_start_offsets_lag_and_members_are_those_that_apaches_tool_shows(
    kafka: EmbeddedKafka, wire: KafkaWire, unique: Callable[[str], str], tmp_path: Path
) -> None:
    topic, group = unique("shared"), unique("sharers")
    admin = AdminClient({"bootstrap.servers": kafka.bootstrap_servers, "log_level": 0})
    admin.create_topics([NewTopic(topic, 2, 1)])[topic].result()
    collector = Collector(wire, Intervals(metadata=0.001), wants_group=lambda name: name == group)

    def polled(met: Callable[[Group], bool]) -> Callable[[], Group | None]:
        def probe() -> Group | None:
            found = collector.poll().groups.get(group)
            return found if found is not None and met(found) else None

        return probe

    kafka.run_tool(
        "kafka.admin.ConfigCommand",
        "--bootstrap-server", kafka.bootstrap_servers, "--alter", "--group", group,
        "--add-config", "share.auto.offset.reset=earliest",
    )  # fmt: skip
    produce(kafka, topic, 10)
    consumer = java_program(
        tmp_path / "consumer.log",
        f"{TOOLS}.ConsoleShareConsumer",
        "--bootstrap-server", kafka.bootstrap_servers, "--topic", topic, "--group", group,
    )  # fmt: skip
    with consumer:
        read = wait_for(
            "share group that has read all", polled(lambda g: g.lags == {topic: {0: 0, 1: 0}})
        )
        assert (read.type, read.state, read.error) == (SHARE, "Stable", None)
        # the start offset moves on later than the deliveries: end minus start is not the lag
        assert {name: set(starts) for name, starts in read.commits.items()} == {topic: {0, 1}}
        assert read.members is not None
        (member,) = read.members
        assert member.client_id == "console-share-consumer"
        assert member.host == "/127.0.0.1"
        assert member.assignment == {topic: (0, 1)}
        assert read.epoch is not None

    left = wait_for("empty share group", polled(lambda g: g.state == "Empty"))
    assert left.members == ()
    produce(kafka, topic, 6)
    behind = wait_for("lag", polled(lambda g: g.lags == {topic: {0: 3, 1: 3}}))
    assert as_apache_sees_it(kafka, group) == {
        index: (start, behind.lags[topic][index]) for index, start in behind.commits[topic].items()
    }
