"""What a read_committed consumer can read, looked at on a real broker, by each version of Fetch."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import (
    AclBinding,
    AclOperation,
    AclPermissionType,
    AdminClient,
    NewTopic,
    ResourcePatternType,
    ResourceType,
)
from kafka.protocol.consumer import FetchRequest

from monitor.kafka.apis import fetch
from monitor.kafka.collector import Collector, Intervals
from monitor.kafka.transport import KafkaWire
from monitor.model import LogLook
from monitor.settings import KafkaSettings
from order_services.local.kafka import EmbeddedKafka
from tests.support.waiting import wait_for


class Logs:
    """A topic, mostly of one partition, those who write to it, and a monitor that looks at it."""

    def __init__(self, kafka: EmbeddedKafka, name: str, wire: KafkaWire) -> None:
        self.name = name
        self._kafka = kafka
        self.collector = Collector(wire, Intervals(), wants_topic=name.__eq__)
        self._producers: list[Producer] = []

    def create(self, partitions: int = 1, **config: str) -> None:
        admin = AdminClient({"bootstrap.servers": self._kafka.bootstrap_servers})
        topic = NewTopic(
            self.name, partitions, 1, config={k.replace("_", "."): v for k, v in config.items()}
        )
        admin.create_topics([topic])[self.name].result()

    def producer(self, transactional_id: str | None = None, **options: object) -> Producer:
        settings = {
            "bootstrap.servers": self._kafka.bootstrap_servers,
            "log_level": 0,
            # what one call writes is one batch: a look ends behind the first batch that it can read
            "linger.ms": 5_000,
            **{key.replace("_", "."): value for key, value in options.items()},
        }
        if transactional_id is None:
            return Producer(settings)
        producer = Producer({**settings, "transactional.id": transactional_id})
        producer.init_transactions()
        self._producers.append(producer)
        return producer

    def write(self, producer: Producer, count: int = 1, value: bytes = b"x") -> None:
        for number in range(count):
            producer.produce(self.name, value, key=str(number))
        assert producer.flush(30) == 0

    def end_at(self, stable_end: int) -> None:
        """Wait for the last marker: the transaction's end is told before it is written."""

        def ends() -> bool:
            found = self.look(0)
            return found is not None and found.stable_end == stable_end

        wait_for(f"end at {stable_end}", ends)

    def look(self, offset: int) -> LogLook | None:
        """Return the look that a monitor has now."""
        self.collector.poll()
        return self.collector.look_at_logs({self.name: {0: offset}}).get(self.name, {}).get(0)


@pytest.fixture
def logs(kafka: EmbeddedKafka, unique: Callable[[str], str]) -> Iterator[Logs]:
    wire = KafkaWire(KafkaSettings(bootstrap_servers=(kafka.bootstrap_servers,)))
    yield Logs(kafka, unique("looks"), wire)
    wire.close()


@pytest.mark.parametrize("version", fetch.FETCH_VERSIONS)
def test_markers_and_aborted_records_are_not_readable(
    logs: Logs, version: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetch, "FETCH_VERSIONS", range(4, version + 1))
    logs.create()
    transactional = logs.producer(logs.name)
    transactional.begin_transaction()
    logs.write(transactional, 3)
    transactional.commit_transaction()
    logs.end_at(4)
    assert logs.look(0) == LogLook(0, 3, 4)
    assert logs.look(2) == LogLook(2, 3, 4)
    assert logs.look(3) == LogLook(None, 4, 4)  # the marker
    transactional.begin_transaction()
    logs.write(transactional, 5)
    transactional.abort_transaction()
    logs.end_at(10)
    assert logs.look(3) == LogLook(None, 10, 10)
    assert logs.look(6) == LogLook(None, 10, 10)
    assert logs.look(10) == LogLook(None, 10, 10)
    logs.write(logs.producer())
    assert logs.look(3) == LogLook(10, 11, 11)


def test_records_that_an_open_transaction_holds_back_are_not_readable(logs: Logs) -> None:
    logs.create()
    logs.write(logs.producer(), 2)
    transactional = logs.producer(logs.name)
    transactional.begin_transaction()
    logs.write(transactional)
    logs.write(logs.producer(), 3)  # of others, behind it
    logs.end_at(2)
    assert logs.look(0) == LogLook(0, 2, 2)
    assert logs.look(2) == LogLook(None, 2, 2)
    # a consumer that reads uncommitted records has gone on
    assert logs.look(4) == LogLook(None, 4, 2)
    transactional.commit_transaction()
    logs.end_at(7)
    assert logs.look(2) == LogLook(2, 3, 7)
    assert logs.look(6) == LogLook(None, 7, 7)


def test_many_aborted_transactions_are_looked_at_over_several_calls(logs: Logs) -> None:
    logs.create()
    transactional = logs.producer(logs.name)
    value = random.Random(1).randbytes(40_000)
    for _ in range(20):
        transactional.begin_transaction()
        logs.write(transactional, 1, value)
        transactional.abort_transaction()
    logs.write(logs.producer())
    logs.end_at(41)
    offset, calls = 0, 0
    while True:
        look = logs.look(offset)
        calls += 1
        assert look is not None
        assert look.stable_end == 41
        if look.readable_at is not None:
            break
        assert look.looked_to > offset
        offset = look.looked_to
    assert look.readable_at == 40
    assert 1 < calls < 10


def test_a_producer_that_aborts_and_commits_in_turn_is_told_apart(logs: Logs) -> None:
    logs.create()
    first, second = logs.producer(f"{logs.name}-1"), logs.producer(f"{logs.name}-2")
    first.begin_transaction()
    second.begin_transaction()
    logs.write(first)  # 0
    logs.write(second)  # 1
    first.abort_transaction()  # 2
    second.commit_transaction()  # 3
    first.begin_transaction()
    logs.write(first)  # 4
    first.commit_transaction()  # 5
    logs.end_at(6)
    readable = [look.readable_at for offset in range(6) if (look := logs.look(offset))]
    assert readable == [1, 1, 4, 4, 4, None]


@pytest.mark.parametrize("codec", ["none", "gzip", "lz4", "zstd", "snappy"])
def test_batches_are_looked_at_however_they_are_compressed(logs: Logs, codec: str) -> None:
    logs.create()
    producer = logs.producer(compression_type=codec, linger_ms=50)
    logs.write(producer, 200, b"value" * 20)
    begin = logs.look(0)
    assert begin is not None
    assert begin.readable_at == 0
    middle = logs.look(77)
    assert middle is not None
    assert middle.readable_at == 77
    assert logs.look(200) == LogLook(None, 200, 200)


def test_records_that_compaction_removed_are_not_readable(logs: Logs) -> None:
    logs.create(
        cleanup_policy="compact",
        segment_ms="100",
        min_cleanable_dirty_ratio="0.001",
        max_compaction_lag_ms="100",
        delete_retention_ms="0",
    )
    producer = logs.producer()

    def compacted() -> bool:
        # each write may roll a segment, and what was written before is cleaned then
        logs.write(producer)  # the key is the same each time
        look = logs.look(0)
        return look is not None and (look.readable_at or 0) > 0

    wait_for("compaction", compacted, timeout_s=120)
    look = logs.look(0)
    assert look is not None
    assert look.readable_at is not None
    assert 0 < look.readable_at < look.stable_end


def test_a_reply_has_one_whole_batch_at_most_however_large_and_tells_of_all_partitions(
    logs: Logs,
) -> None:
    logs.create(partitions=5, max_message_bytes="2000000")
    value = random.Random(1).randbytes(fetch.MAX_BYTES + 200_000)
    producer = logs.producer(message_max_bytes=2_000_000)
    for partition in range(5):
        producer.produce(logs.name, value, partition=partition)
    assert producer.flush(60) == 0
    collector = logs.collector
    collector.poll()
    received = []
    read = fetch.LookAtLogs.read

    def counting(question: fetch.LookAtLogs, replies: Sequence[Any]) -> Any:
        parts = [part for topic in replies[0].responses for part in topic.partitions]
        received.append(sum(len(part.records or b"") for part in parts))
        return read(question, replies)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fetch.LookAtLogs, "read", counting)
        found: dict[int, LogLook] = {}
        wanted = dict.fromkeys(range(5), 0)
        while wanted:
            for index, look in collector.look_at_logs({logs.name: wanted})[logs.name].items():
                assert look.stable_end == 1
                found[index] = look
            wanted = {index: 0 for index, look in found.items() if look.readable_at is None}
    assert found == dict.fromkeys(range(5), LogLook(0, 1, 1))
    assert max(received) < len(value) + 10_000


def test_a_topic_that_may_not_be_read_is_absent_and_disturbs_nothing(
    tmp_path: Path, unique: Callable[[str], str]
) -> None:
    broker = EmbeddedKafka(
        tmp_path / "kafka",
        overrides={
            "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
            "allow.everyone.if.no.acl.found": "true",
        },
        heap_mb=256,
    )
    broker.start()
    wire = KafkaWire(KafkaSettings(bootstrap_servers=(broker.bootstrap_servers,)))
    try:
        admin = AdminClient({"bootstrap.servers": broker.bootstrap_servers, "log_level": 0})
        for name in ("open", "closed"):
            admin.create_topics([NewTopic(name, 1, 1)])[name].result()
            producer = Producer({"bootstrap.servers": broker.bootstrap_servers, "log_level": 0})
            producer.produce(name, b"x")
            assert producer.flush(30) == 0
        describe_only = [
            AclBinding(
                ResourceType.TOPIC,
                "closed",
                ResourcePatternType.LITERAL,
                "User:ANONYMOUS",
                "*",
                operation,
                permission,
            )
            for operation, permission in (
                (AclOperation.READ, AclPermissionType.DENY),
                (AclOperation.DESCRIBE, AclPermissionType.ALLOW),
            )
        ]
        for created in admin.create_acls(describe_only).values():
            created.result()
        collector = Collector(wire, Intervals(), wants_topic={"open", "closed"}.__contains__)
        collector.poll()

        def refused() -> bool:
            found = collector.look_at_logs({"open": {0: 0}, "closed": {0: 0}})
            assert found["open"] == {0: LogLook(0, 1, 1)}
            return "closed" not in found

        wait_for("refusal", refused)
        snapshot = collector.poll()
        assert snapshot.broker_errors == {}
        assert snapshot.end_offsets.get("closed", 0) == 1
        assert snapshot.unreadable == {"closed": {0: "TOPIC_AUTHORIZATION_FAILED"}}
    finally:
        wire.close()
        broker.stop()


def test_the_versions_that_are_tried_are_those_that_the_wire_can_ask() -> None:
    assert FetchRequest.min_version <= fetch.FETCH_VERSIONS[0]
    assert FetchRequest.max_version >= fetch.FETCH_VERSIONS[-1]
