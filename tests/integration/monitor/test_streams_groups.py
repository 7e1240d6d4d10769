"""Streams groups (KIP-1071), with Apache's word count on the Java client."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient, NewTopic

from monitor.analysis.lag import lag_of_group
from monitor.kafka.collector import Collector, Intervals
from monitor.kafka.transport import KafkaWire
from monitor.model import STREAMS, Snapshot
from monitor.settings import KafkaSettings
from order_services.local.kafka import EmbeddedKafka
from tests.support.java import java_program, streams_classpath
from tests.support.waiting import wait_for

# the names that the example program has
INPUT, OUTPUT = "streams-plaintext-input", "streams-wordcount-output"


@pytest.fixture
def wire(kafka: EmbeddedKafka) -> Iterator[KafkaWire]:
    wire = KafkaWire(KafkaSettings(bootstrap_servers=(kafka.bootstrap_servers,)))
    yield wire
    wire.close()


def produce(kafka: EmbeddedKafka, count: int) -> None:
    producer = Producer({"bootstrap.servers": kafka.bootstrap_servers, "log_level": 0})
    for number in range(count):
        producer.produce(INPUT, f"word{number % 5}", partition=number % 3)
    producer.flush(30)


def lag_as_apache_sees_it(kafka: EmbeddedKafka, group: str) -> dict[tuple[str, int], int]:
    table = kafka.run_tool(
        "org.apache.kafka.tools.streams.StreamsGroupCommand",
        "--bootstrap-server", kafka.bootstrap_servers, "--describe", "--group", group,
    )  # fmt: skip
    rows = re.findall(rf"^{group} +(\S+) +(\d+) +(\d+)", table, re.MULTILINE)
    return {(topic, int(partition)): int(lag) for topic, partition, lag in rows}


def all_read_is_committed(snapshot: Snapshot, group: str) -> bool:
    """Say whether there is a commit on each partition that holds records, of both topics.

    Apache's tool counts a partition without a commit as unread; here it has no lag.
    """
    commits, ends = snapshot.groups[group].commits, snapshot.end_offsets.values
    read = [topic for topic in ends if topic == INPUT or topic.endswith("-repartition")]
    return len(read) == 2 and all(
        index in commits.get(topic, {})
        for topic in read
        for index, end in ends[topic].items()
        if end
    )


@pytest.mark.heavy
def test_members_tasks_and_lag_are_those_of_the_running_topology(
    kafka: EmbeddedKafka, wire: KafkaWire, unique: Callable[[str], str], tmp_path: Path
) -> None:
    group = unique("count")
    admin = AdminClient({"bootstrap.servers": kafka.bootstrap_servers, "log_level": 0})
    for created in admin.create_topics([NewTopic(INPUT, 3, 1), NewTopic(OUTPUT, 1, 1)]).values():
        created.result()
    settings = tmp_path / "streams.properties"
    settings.write_text(
        f"bootstrap.servers={kafka.bootstrap_servers}\napplication.id={group}\n"
        f"client.id=counter\ngroup.protocol=streams\ncommit.interval.ms=200\n"
        f"state.dir={tmp_path / 'state'}\n"
        "dsl.store.suppliers.class="
        "org.apache.kafka.streams.state.BuiltInDslStoreSuppliers$InMemoryDslStoreSuppliers\n"
    )
    produce(kafka, 30)
    collector = Collector(wire, Intervals(metadata=0.001), wants_group=lambda name: name == group)

    def polled(met: Callable[[Snapshot, dict[str, int]], bool]) -> Callable[[], Snapshot | None]:
        def probe() -> Snapshot | None:
            snapshot = collector.poll()
            if group not in snapshot.groups:
                return None
            lag = lag_of_group(snapshot.groups[group], snapshot)
            return snapshot if met(snapshot, dict(lag.topics)) else None

        return probe

    counting = java_program(
        tmp_path / "streams.log",
        "org.apache.kafka.streams.examples.wordcount.WordCountDemo",
        str(settings),
        jars=streams_classpath(),
    )
    with counting as program:
        snapshot = wait_for(
            "streams group that has read all",
            polled(
                lambda s, lag: (
                    s.groups[group].commits.get(INPUT) == {0: 10, 1: 10, 2: 10}
                    and len(lag) == 2
                    and not any(lag.values())
                )
            ),
        )
        found = snapshot.groups[group]
        assert (found.type, found.state, found.error) == (STREAMS, "Stable", None)
        (repartitioned,) = set(found.commits) - {INPUT}
        assert repartitioned.startswith(f"{group}-KSTREAM")
        assert found.members is not None
        (member,) = found.members
        assert member.client_id.startswith("counter-")
        assert member.host == "/127.0.0.1"
        assert member.assignment == {INPUT: (0, 1, 2), repartitioned: (0, 1, 2)}
        assert member.assignment == member.target
        assert found.epoch is not None

        # the tool shows nothing of a group without members: one that stands still is compared
        program.pause()
        produce(kafka, 6)
        behind = wait_for("lag", polled(lambda _, lag: lag[INPUT] == 6))
        lags = lag_of_group(behind.groups[group], behind).partitions
        assert lags[INPUT] == {0: 2, 1: 2, 2: 2}
        theirs = lag_as_apache_sees_it(kafka, group)
        for topic, of in lags.items():
            assert of == {index: theirs[topic, index] for index in of}
        program.resume()
        wait_for("reading on", polled(lambda _, lag: not any(lag.values())))

    left = wait_for(
        "empty streams group", polled(lambda s, _: s.groups[group].state == "Empty")
    ).groups[group]
    assert left.members == ()
    assert left.commits[INPUT] == {0: 12, 1: 12, 2: 12}
