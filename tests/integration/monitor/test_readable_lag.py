"""What of a lag can be read, and how long it is kept, measured on a real broker."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import pytest
from confluent_kafka import Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from monitor.analysis.analyst import Analyst
from monitor.analysis.measures import GroupMeasures
from monitor.kafka.collector import Collector, Intervals
from monitor.kafka.transport import KafkaWire
from monitor.settings import KafkaSettings
from order_services.local.kafka import EmbeddedKafka
from tests.support import foreign
from tests.support.waiting import wait_for

DAY_S = 86_400


class Scene:
    """A topic of one partition, a group that commits without members, and a monitor of both."""

    def __init__(self, kafka: EmbeddedKafka, name: str, wire: KafkaWire) -> None:
        self.name = name
        self._servers: dict[str, str | int | float | bool] = {
            "bootstrap.servers": kafka.bootstrap_servers
        }
        self._admin = AdminClient(self._servers)
        self._collector = Collector(
            wire,
            Intervals(start_offsets=0.01, topic_configs=60.0),
            wants_group=name.__eq__,
            wants_topic=name.__eq__,
        )
        self.analyst = Analyst(self._collector.offsets_for_times, self._collector.look_at_logs)

    def create(self, **config: str) -> None:
        topic = NewTopic(
            self.name, 1, 1, config={key.replace("_", "."): v for key, v in config.items()}
        )
        self._admin.create_topics([topic])[self.name].result()

    def producer(self, *, transactional: bool = False) -> Producer:
        if not transactional:
            return Producer({**self._servers, "linger.ms": 0})
        producer = Producer({**self._servers, "transactional.id": self.name, "log_level": 0})
        producer.init_transactions()
        return producer

    def write(self, producer: Producer, count: int, *, stamped_ago: float = 0.0) -> None:
        at = int((time.time() - stamped_ago) * 1000)
        for _ in range(count):
            producer.produce(self.name, b"x", timestamp=at)
        assert producer.flush(30) == 0

    def commit(self, offset: int) -> None:
        foreign.commit(self._admin, self.name, self.name, offset)

    def delete_before(self, offset: int) -> None:
        where = TopicPartition(self.name, 0, offset)
        self._admin.delete_records([where])[where].result()

    def poll(self) -> GroupMeasures | None:
        """Return the group's measures, None before its coordinator lists it."""
        snapshot = self._collector.poll()
        self.now = snapshot.seen_at
        found = self.analyst.measure(snapshot).get(self.name)
        assert self.analyst.findings.failures == {}
        return found

    def until(self, what: str, met: Callable[[GroupMeasures], object]) -> GroupMeasures:
        def probe() -> GroupMeasures | None:
            found = self.poll()
            return found if found is not None and met(found) else None

        return wait_for(what, probe)


@pytest.fixture
def scene(kafka: EmbeddedKafka, unique: Callable[[str], str]) -> Iterator[Scene]:
    wire = KafkaWire(KafkaSettings(bootstrap_servers=(kafka.bootstrap_servers,)))
    yield Scene(kafka, unique("readable"), wire)
    wire.close()


def test_markers_and_aborted_records_are_lag_as_apache_has_it_and_nothing_to_read(
    scene: Scene,
) -> None:
    scene.create()
    producer = scene.producer(transactional=True)
    producer.begin_transaction()
    scene.write(producer, 3)
    producer.commit_transaction(30)
    scene.commit(3)
    found = scene.until("the marker", lambda found: found.lag.total == 1)
    assert found.lag.readable_sum(scene.name) == 0
    assert (found.behind(scene.now), found.behind_by_partition(scene.name, scene.now)) == (
        0,
        {0: 0},
    )
    producer.begin_transaction()
    scene.write(producer, 5)
    producer.abort_transaction(30)
    found = scene.until("the aborted records", lambda found: found.lag.total == 7)
    found = scene.until("their marker", lambda f: not f.lag.readable_sum(scene.name))
    assert found.behind(scene.now) == 0
    scene.write(scene.producer(), 1)
    found = scene.until("a record", lambda found: found.lag.total == 8)
    assert found.lag.readable_sum(scene.name) == 8
    assert 0 < (found.behind(scene.now) or 0.0) < 30


def test_an_open_transaction_is_told_and_not_taken_for_a_slow_consumer(scene: Scene) -> None:
    scene.create()
    scene.write(scene.producer(), 10)
    scene.commit(10)
    began = time.monotonic()
    producer = scene.producer(transactional=True)
    producer.begin_transaction()
    scene.write(producer, 4)
    scene.write(scene.producer(), 20)
    found = scene.until("records after it", lambda found: found.lag.total == 24)
    assert found.lag.readable_sum(scene.name) == 0
    assert found.behind(scene.now) == 0
    assert [advice.cause for advice in found.advice] == ["open_transaction"]
    held = scene.analyst.findings.open_transactions[scene.name][0]
    assert held.records == 24
    assert held.since >= began - 2
    producer.commit_transaction(30)
    found = scene.until("its end", lambda found: found.lag.readable_sum(scene.name))
    assert found.lag.readable_sum(scene.name) == 25
    assert scene.analyst.findings.open_transactions == {}


def test_a_log_that_was_emptied_before_a_group_is_a_loss_and_no_lag_in_seconds(
    scene: Scene,
) -> None:
    scene.create()
    scene.write(scene.producer(), 20)
    scene.commit(5)
    assert scene.until("the group", lambda _: True).lost == {scene.name: 0}
    scene.delete_before(20)
    found = scene.until("the deletion", lambda found: found.unread_deleted[scene.name])
    assert (found.lost, found.unread_deleted) == ({scene.name: 15}, {scene.name: 15})
    assert (found.lag.total, found.lag.readable_sum(scene.name)) == (15, 0)
    assert (found.behind(scene.now), found.behind_by_partition(scene.name, scene.now)) == (
        0,
        {0: 0},
    )


def test_mirrored_records_are_kept_by_the_time_that_they_carry(scene: Scene) -> None:
    scene.create(retention_ms=str(10 * DAY_S * 1000))
    scene.commit(0)
    scene.until("the group", lambda _: True)
    scene.write(scene.producer(), 50, stamped_ago=10 * DAY_S - 3_600)
    found = scene.until("the records", lambda found: found.lag.total == 50)
    remaining = found.retention[scene.name][0].deleted_at
    assert remaining is not None
    assert remaining - scene.now == pytest.approx(3_600, abs=30)
    assert "retention_risk" in [advice.cause for advice in found.advice]
