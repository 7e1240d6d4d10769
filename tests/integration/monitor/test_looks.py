"""What a read_committed consumer can read, looked at on a real broker, by each version of Fetch."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient, NewTopic
from kafka.protocol.consumer import FetchRequest

from monitor.kafka import fetch
from monitor.kafka.collector import Collector, Intervals
from monitor.kafka.wire import KafkaWire
from monitor.model import LogLook
from monitor.settings import KafkaSettings
from order_services.local.kafka import EmbeddedKafka
from tests.support.waiting import wait_for


class Logs:
    """A topic of one partition, those who write to it, and a monitor that looks at it."""

    def __init__(self, kafka: EmbeddedKafka, name: str, wire: KafkaWire) -> None:
        self.name = name
        self._kafka = kafka
        self._collector = Collector(wire, Intervals(), wants_topic=name.__eq__)
        self._producers: list[Producer] = []

    def create(self, **config: str) -> None:
        admin = AdminClient({"bootstrap.servers": self._kafka.bootstrap_servers})
        topic = NewTopic(
            self.name, 1, 1, config={k.replace("_", "."): v for k, v in config.items()}
        )
        admin.create_topics([topic])[self.name].result()

    def producer(self, transactional_id: str | None = None, **options: object) -> Producer:
        settings = {
            "bootstrap.servers": self._kafka.bootstrap_servers,
            "log_level": 0,
            "linger.ms": 0,
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
        self._collector.poll()
        return self._collector.look_at_logs({self.name: {0: offset}}).get(self.name, {}).get(0)


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


def test_the_versions_that_are_tried_are_those_that_the_wire_can_ask() -> None:
    assert FetchRequest.min_version <= fetch.FETCH_VERSIONS[0]
    assert FetchRequest.max_version >= fetch.FETCH_VERSIONS[-1]
