"""Topics and consumer groups that are not the order system's: alerts about groups hold for any."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import TracebackType
from typing import Final, Self

from confluent_kafka import (
    Consumer,
    ConsumerGroupTopicPartitions,
    KafkaException,
    Producer,
    TopicPartition,
)
from confluent_kafka.admin import AdminClient, NewTopic

from tests.support.waiting import wait_for

COMMIT_EVERY_S: Final = 1.0


def admin_client(servers: str) -> AdminClient:
    """Return a client for what follows."""
    return AdminClient({"bootstrap.servers": servers, "log_level": 0})


@contextmanager
def topic(
    servers: str,
    name: str,
    *,
    partitions: int = 1,
    messages: int = 0,
    age_s: float = 0,
    settings: Mapping[str, str] | None = None,
) -> Iterator[AdminClient]:
    """Have a topic inside the block, with messages in partition 0 that were written `age_s` ago."""
    admin = admin_client(servers)
    admin.create_topics([NewTopic(name, partitions, config=dict(settings or {}))])[name].result()
    try:
        producer = Producer({"bootstrap.servers": servers, "log_level": 0})
        written_ms = int((time.time() - age_s) * 1000)
        for number in range(messages):
            producer.produce(name, str(number), partition=0, timestamp=written_ms)
        producer.flush(10)
        yield admin
    finally:
        admin.delete_topics([name])[name].result()


@dataclass
class Reader:
    """The only member of `group` inside its block; the group is deleted at the end.

    It commits `offset` of partition 0 every second, and one more each time: it lives, and is as slow
    as that. With no offset it commits nothing. `settings` are the Kafka client's.
    """

    servers: str
    group: str
    topic: str
    offset: int | None = None
    settings: Mapping[str, str | int] = field(default_factory=dict)
    _assigned: threading.Event = field(default_factory=threading.Event)
    _ended: threading.Event = field(default_factory=threading.Event)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def rewind(self, offset: int) -> None:
        """Go on at another offset."""
        with self._lock:
            self.offset = offset

    def __enter__(self) -> Self:
        self._thread = threading.Thread(target=self._run, name=self.group, daemon=True)
        self._thread.start()
        try:
            wait_for(f"member of {self.group} with partitions", self._assigned.is_set, 30)
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._end()
        delete_group(self.servers, self.group)

    def _end(self) -> None:
        self._ended.set()
        self._thread.join(30)

    def _run(self) -> None:
        consumer = member(self.servers, self.group, self.settings)
        consumer.subscribe([self.topic])
        due = 0.0
        while not self._ended.is_set():
            consumer.poll(0.1)
            if not self._assigned.is_set() and consumer.assignment():
                self._assigned.set()
            if self._assigned.is_set() and time.monotonic() >= due:
                due = time.monotonic() + COMMIT_EVERY_S
                self._commit(consumer)
        consumer.close()

    def _commit(self, consumer: Consumer) -> None:
        with self._lock:
            if self.offset is None:
                return
            reached, self.offset = self.offset, self.offset + 1
        consumer.commit(offsets=[TopicPartition(self.topic, 0, reached)], asynchronous=True)


def member(servers: str, group: str, settings: Mapping[str, str | int] | None = None) -> Consumer:
    """Return a consumer of a group that commits nothing by itself."""
    return Consumer(
        {
            "bootstrap.servers": servers,
            "group.id": group,
            "enable.auto.commit": False,
            "log_level": 0,
            **(settings or {}),
        }
    )


def commit(admin: AdminClient, group: str, topic: str, offset: int) -> None:
    """Commit an offset of partition 0 for a group without members, as an operator or a mirror does."""
    request = ConsumerGroupTopicPartitions(group, [TopicPartition(topic, 0, offset)])

    def committed() -> bool:
        # a coordinator that is just coming refuses a partition, not the request
        answer = admin.alter_consumer_group_offsets([request])[group].result()
        return not any(partition.error for partition in answer.topic_partitions)

    wait_for(f"commit of {group}", committed, 30)


def delete_group(servers: str, group: str) -> None:
    """Delete a group, whose members have just left."""
    admin = admin_client(servers)

    def deleted() -> bool:
        try:
            admin.delete_consumer_groups([group])[group].result()
        except KafkaException:
            return group not in {
                one.group_id for one in admin.list_consumer_groups().result().valid
            }
        return True

    wait_for(f"end of {group}", deleted, 30)
