"""A quiet cluster with a group of each kind, and what Apache's own tool tells of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from confluent_kafka import Consumer, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from order_services.local.kafka import EmbeddedKafka
from tests.support.waiting import wait_for

CONSUMER_GROUPS: Final = "org.apache.kafka.tools.consumer.group.ConsumerGroupCommand"
# The records of a partition carry times that are so far apart, the first so long ago.
APART_S: Final = 10
AGE_S: Final = 3_600
# nobody polls while the monitor and Apache's tool are asked: no member may be thrown out for it
MAX_POLL_INTERVAL_MS: Final = 3_600_000

Key = tuple[str, str, str]


@dataclass(frozen=True)
class Scene:
    """Group ids by kind; `new_protocol` is None where the broker does not offer KIP-848.

    The record at offset N was appended at `began_at` + N * APART_S, by its time stamp.
    """

    broker: EmbeddedKafka
    began_at: int
    with_members: str
    without_members: str
    uncommitted: str
    deleted_topic: str
    new_protocol: str | None

    @property
    def groups(self) -> set[str]:
        """Return all ids."""
        of_old = (self.with_members, self.without_members, self.uncommitted, self.deleted_topic)
        return {*of_old, *([self.new_protocol] if self.new_protocol else [])}

    def appended_at(self, offset: int) -> int:
        """Return the time stamp of the record at an offset."""
        return self.began_at + offset * APART_S


@contextmanager
def quiet_groups(
    broker: EmbeddedKafka, unique: Callable[[str], str], *, new_protocol: bool = True
) -> Iterator[Scene]:
    """Have such a cluster inside the block; its members hold their partitions and read nothing."""
    topic, doomed = unique("quiet-topic"), unique("doomed-topic")
    began_at = int(time.time()) - AGE_S
    _make_topic(broker, topic, 3, 10, began_at)
    _make_topic(broker, doomed, 2, 5, began_at)
    live, empty, fresh, orphaned = (unique(n) for n in ("live", "empty", "fresh", "orphaned"))
    kip848 = unique("kip848") if new_protocol else None
    names = Scene(broker, began_at, live, empty, fresh, orphaned, kip848)
    staying: list[Consumer] = []
    try:
        staying += (members := [_member(broker, live, topic) for _ in range(2)])
        _join(*members)
        _commit(members[0], topic, {p.partition: 4 for p in members[0].assignment()})
        _commit(members[1], topic, {p.partition: 7 for p in members[1].assignment()})
        left = _member(broker, empty, topic)
        _join(left)
        _commit(left, topic, {0: 3, 1: 11, 2: 0})
        left.close()
        staying.append(uncommitted := _member(broker, fresh, topic))
        _join(uncommitted)
        _commit(uncommitted, topic, {1: 5})
        orphan = _member(broker, orphaned, doomed)
        _join(orphan)
        _commit(orphan, doomed, {0: 2, 1: 2})
        orphan.close()
        if kip848 is not None:
            staying.append(new := _member(broker, kip848, topic, **{"group.protocol": "consumer"}))
            _join(new)
            _commit(new, topic, {0: 1, 1: 2, 2: 3})
        admin = AdminClient({"bootstrap.servers": broker.bootstrap_servers, "log_level": 0})
        admin.delete_topics([doomed])[doomed].result()
        wait_for("end of the topic", lambda: doomed not in admin.list_topics(timeout=10).topics)
        yield names
    finally:
        for consumer in staying:
            consumer.close()


def _make_topic(
    broker: EmbeddedKafka, name: str, partitions: int, per_partition: int, began_at: int
) -> None:
    admin = AdminClient({"bootstrap.servers": broker.bootstrap_servers, "log_level": 0})
    admin.create_topics([NewTopic(name, partitions, 1)])[name].result()
    producer = Producer({"bootstrap.servers": broker.bootstrap_servers, "log_level": 0})
    for partition in range(partitions):
        for number in range(per_partition + partition):
            at_ms = (began_at + number * APART_S) * 1_000
            producer.produce(name, value=str(number), partition=partition, timestamp=at_ms)
    assert producer.flush(30) == 0


def _member(broker: EmbeddedKafka, group: str, topic: str, **options: object) -> Consumer:
    consumer = Consumer(
        {
            "bootstrap.servers": broker.bootstrap_servers,
            "group.id": group,
            "client.id": f"client-of-{group}",
            "enable.auto.commit": False,
            "auto.offset.reset": "earliest",
            "max.poll.interval.ms": MAX_POLL_INTERVAL_MS,
            "log_level": 0,
            **options,
        }
    )
    consumer.subscribe([topic])
    return consumer


def _join(*consumers: Consumer) -> None:
    def assigned() -> bool:
        for consumer in consumers:
            consumer.poll(0.05)
        return all(consumer.assignment() for consumer in consumers)

    wait_for("assignment of every consumer", assigned)
    for consumer in consumers:
        consumer.pause(consumer.assignment())


def _commit(consumer: Consumer, topic: str, offsets: dict[int, int]) -> None:
    wanted = [TopicPartition(topic, partition, at) for partition, at in offsets.items()]

    def committed() -> bool:
        try:
            # a member may be between two epochs: it is told to try again
            done = consumer.commit(offsets=wanted, asynchronous=False)
        except KafkaException:
            consumer.poll(0.05)
            return False
        return all(partition.error is None for partition in done or ())

    wait_for("commit that is accepted", committed)


def apache(broker: EmbeddedKafka, *arguments: str) -> str:
    """Return what kafka-consumer-groups describes of all groups."""
    return broker.run_tool(
        CONSUMER_GROUPS, "--bootstrap-server", broker.bootstrap_servers, "--describe",
        "--all-groups", *arguments,
    )  # fmt: skip


def table_rows(printed: str, groups: set[str]) -> dict[Key, tuple[str, ...]]:
    """Return (group, topic, partition) -> the other cells, of the tool's table or of ours."""
    rows = {}
    for line in printed.splitlines():
        cells = line.split()
        if len(cells) == 9 and cells[0] in groups:
            rows[cells[0], cells[1], cells[2]] = tuple(cells[3:])
    return rows


def states(printed: str, groups: set[str]) -> dict[str, tuple[str, str]]:
    """Return group -> its state and its number of members, of the tool's table of states."""
    found = {}
    for line in printed.splitlines():
        cells = line.split()
        if cells and cells[0] in groups:
            found[cells[0]] = (cells[-2], cells[-1])
    return found
