from __future__ import annotations

import random
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
from confluent_kafka import Consumer, TopicPartition

from order_services.domain import topics
from order_services.local.ports import free_port
from order_services.messaging.lanes import partition_of
from order_services.messaging.publishing import Reports
from order_services.messaging.relay import SUSPECTS_PER_CYCLE, PublishError, Relay
from order_services.operations import topic_admin
from order_services.storage.outbox import Message, write, write_messages
from order_services.storage.outbox_slice import Row
from tests.integration.order_services.conftest import Lab, order_created
from tests.support.cluster import Cluster
from tests.support.waiting import wait_for


def put(lab: Lab, topic: str, *values: bytes, key: bytes | None = b"key") -> None:
    with lab.database.begin() as connection:
        write_messages(connection, "test", [Message(topic, key, value) for value in values])


def waiting(lab: Lab) -> int:
    return lab.number("SELECT count(*) FROM outbox")


def test_messages_are_published_as_written_in_order_and_then_gone(lab: Lab) -> None:
    topic = lab.group().topics[0]
    values = [b"%d" % number for number in range(100)]
    put(lab, topic, *values)
    assert lab.relay().publish_once() == 100
    assert waiting(lab) == 0
    read = lab.read(topic, 100)
    assert [message.value() for message in read] == values
    assert {message.key() for message in read} == {b"key"}


def test_an_event_carries_its_headers(lab: Lab) -> None:
    event = order_created()
    with lab.database.begin() as connection:
        assert write(connection, "test", [event]) == 1
        stored = connection.exec_driver_sql("SELECT headers::json, value, key FROM outbox").one()
    assert stored[0]["correlation-id"] == "corr-1"
    assert stored[0] == {name: value.decode() for name, value in event.headers()}
    assert (bytes(stored[1]), bytes(stored[2])) == (event.encode(), event.key())


def test_a_transaction_that_is_rolled_back_publishes_nothing(lab: Lab) -> None:
    topic = lab.group().topics[0]

    def fails() -> None:
        with lab.database.begin() as connection:
            write_messages(connection, "test", [Message(topic, None, b"never")])
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fails()
    assert lab.relay().publish_once() == 0


def test_while_kafka_is_away_every_row_stays(lab: Lab) -> None:
    put(lab, "anything", b"1", b"2")
    relay = lab.relay(kafka_brokers=f"127.0.0.1:{free_port()}", relay_delivery_timeout_seconds=1)
    with pytest.raises(PublishError):
        relay.publish_once()
    assert waiting(lab) == 2


@pytest.mark.parametrize("too_large", [100_000, 3_000_000], ids=["for the topic", "for any"])
def test_a_message_that_kafka_never_takes_is_set_aside_and_the_others_go(
    lab: Lab, too_large: int
) -> None:
    topic = lab.unique("small")
    wanted = topics.Topic(topic, 1, max_message_bytes=50000)
    topic_admin.create(topic_admin.admin_client(lab.kafka.bootstrap_servers), [wanted])
    # noise: it must be too large when compressed, too
    put(lab, topic, b"1", random.Random(1).randbytes(too_large), b"2")
    relay = lab.relay()
    # not an error, after which the relay would wait and try again
    assert relay.publish_once() == 3
    assert waiting(lab) == 0
    assert relay.publish_once() == 0
    assert {message.value() for message in lab.read(topic, 2)} == {b"1", b"2"}
    kept = lab.query("SELECT slice, topic, length(value), reason FROM outbox_refused")
    assert [tuple(row)[:3] for row in kept] == [("test", topic, too_large)]
    assert "MSG_SIZE_TOO_LARGE" in kept[0][3]


def test_rows_are_deleted_only_after_their_delivery_report(lab: Lab) -> None:
    topic = lab.group().topics[0]
    put(lab, topic, b"1")

    class Unheard(Relay):
        """Publishes, and hears of no delivery."""

        def _publish(self, rows: Sequence[Row]) -> None:
            super()._publish(rows)
            reports = self._publisher.reports if self._publisher else Reports()
            reports.flying = {row.row_id: row for row in reports.delivered}
            reports.delivered = []

    relay = Unheard("test", lab.kafka_settings, lab.database)
    with pytest.raises(PublishError):
        relay.publish_once()
    assert waiting(lab) == 1


def test_two_relays_never_publish_a_slice_at_the_same_time(lab: Lab) -> None:
    topic = lab.group().topics[0]
    put(lab, topic, b"1")
    publishing, go_on = threading.Event(), threading.Event()

    class Slow(Relay):
        def _publish(self, rows: Sequence[Row]) -> None:
            publishing.set()
            assert go_on.wait(20)
            super()._publish(rows)

    slow = Slow("test", lab.kafka_settings, lab.database)
    thread = threading.Thread(target=slow.publish_once)
    thread.start()
    assert publishing.wait(20)
    other = lab.relay()
    assert other.publish_once() is None
    go_on.set()
    thread.join(20)
    assert other.publish_once() == 0
    assert len(lab.read(topic, 2, timeout_s=3)) == 1


def test_a_row_that_is_committed_after_a_higher_id_is_published(lab: Lab) -> None:
    topic = lab.group().topics[0]
    relay = lab.relay()
    with lab.database.begin() as slow:
        write_messages(slow, "test", [Message(topic, b"a", b"low id, late commit")])
        put(lab, topic, b"high id")
        assert relay.publish_once() == 1
    assert relay.publish_once() == 1
    assert waiting(lab) == 0


def test_a_relay_takes_over_when_the_other_ends(lab: Lab) -> None:
    topic = lab.group().topics[0]
    first, second = lab.relay(), lab.relay()
    first.start()
    second.start()
    put(lab, topic, b"1")
    first.wake()
    wait_for("an empty outbox", lambda: waiting(lab) == 0)
    assert first.stop(10)
    put(lab, topic, b"2")
    wait_for("an empty outbox", lambda: waiting(lab) == 0)
    assert second.not_alive() is None


def test_a_relay_that_is_woken_for_its_rows_does_not_look_for_others_after_each(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    topic = lab.group().topics[0]
    relay = lab.relay()
    cycles: list[int | None] = []
    publish_once = relay.publish_once

    def counted() -> int | None:
        cycles.append(publish_once())
        return cycles[-1]

    monkeypatch.setattr(relay, "publish_once", counted)
    relay.start()
    # another replica's, of which it is not told
    put(lab, topic, b"1")
    wait_for("an empty outbox", lambda: waiting(lab) == 0)
    wait_for("an idle relay", lambda: cycles[-4:] == [0] * 4)
    cycles.clear()
    for _ in range(5):
        put(lab, topic, b"2")
        relay.wake()
        time.sleep(0.3)
    assert sum(filter(None, cycles)) == 5
    assert len(cycles) <= 8


def test_a_stop_publishes_what_is_left(lab: Lab) -> None:
    topic = lab.group().topics[0]
    relay = lab.relay(relay_batch_max_messages=10)
    put(lab, topic, *[b"x"] * 35)
    relay.start()
    assert relay.stop(20)
    assert waiting(lab) == 0


def test_a_key_has_the_partition_that_the_client_gives_it(lab: Lab) -> None:
    topic = lab.group(7).topics[0]
    choice = random.Random(4)
    keys = [choice.randbytes(choice.randint(1, 40)) for _ in range(200)]
    with lab.database.begin() as connection:
        write_messages(connection, "test", [Message(topic, key, b"") for key in keys])
    assert lab.relay().publish_once() == len(keys)
    found = {message.key(): message.partition() for message in lab.read(topic, len(keys))}
    assert found == {key: partition_of(key, 7) for key in keys}


def test_a_topic_that_is_missing_holds_up_no_other_however_much_waits_for_it(lab: Lab) -> None:
    missing, there = lab.unique("missing"), lab.group().topics[0]
    relay = lab.relay(
        relay_batch_max_messages=20, relay_delivery_timeout_seconds=3, retry_max_seconds=1
    )
    values = [b"%d" % number for number in range(500)]
    put(lab, missing, *values)
    relay.start()
    for number in range(1, 4):
        put(lab, there, *[b"x"] * 50)
        wait_for("the topic that is there", lambda: waiting(lab) == 500)
        # also a transaction that has begun before those, and ends after them
        with lab.database.begin() as late:
            write_messages(late, "test", [Message(there, b"late", b"late")])
            put(lab, there, b"early")
            wait_for("the early one", lambda: waiting(lab) == 500)
        wait_for("the late one", lambda: waiting(lab) == 500)
        assert len(lab.read(there, 52 * number)) == 52 * number
    topic_admin.create(
        topic_admin.admin_client(lab.kafka.bootstrap_servers), [topics.Topic(missing, 1)]
    )
    wait_for("an empty outbox", lambda: waiting(lab) == 0)
    assert [message.value() for message in lab.read(missing, 500)] == values


@pytest.mark.heavy
def test_a_partition_without_a_leader_holds_up_no_other_and_keeps_its_order(
    lab: Lab, tmp_path: Path
) -> None:
    cluster = Cluster(tmp_path)
    try:
        topic = lab.unique("split")
        cluster.create_topic(topic)
        names = [b"key-%d" % number for number in range(40)]
        stuck = [name for name in names if partition_of(name, 2) == 1]
        healthy = [name for name in names if partition_of(name, 2) == 0]
        relay = lab.relay(
            kafka_brokers=cluster.bootstrap_servers,
            relay_batch_max_messages=50,
            relay_delivery_timeout_seconds=3,
            retry_max_seconds=1,
        )
        put(lab, topic, b"first", key=stuck[0])
        put(lab, topic, b"first", key=healthy[0])
        relay.start()
        wait_for("both partitions", lambda: waiting(lab) == 0)
        cluster.second.kill()
        wait_for("no leader", lambda: cluster.leaders(topic)[1] == -1)
        for number in range(20):
            for key in stuck:
                put(lab, topic, b"%d" % number, key=key)
        held = 20 * len(stuck)
        for number in range(5):
            for key in healthy:
                put(lab, topic, b"%d" % number, key=key)
            wait_for("the healthy partition", lambda: waiting(lab) == held)
        cluster.revive_second()
        wait_for("an empty outbox", lambda: waiting(lab) == 0)
        found: dict[bytes, list[int]] = {}
        settings = {"bootstrap.servers": cluster.bootstrap_servers, "group.id": "reader"}
        reader = Consumer(settings)
        reader.assign([TopicPartition(topic, 1, 0)])
        wait_for("all of them", lambda: _read_into(found, reader) >= held)
        reader.close()
        # at least once, and each number after those before it
        assert {key: list(dict.fromkeys(numbers)) for key, numbers in found.items()} == {
            key: list(range(20)) for key in stuck
        }
    finally:
        cluster.stop()


def _read_into(found: dict[bytes, list[int]], reader: Consumer) -> int:
    for message in reader.consume(1000, 0.5):
        key, value = message.key(), message.value()
        if message.error() is None and key is not None and value not in (None, b"first"):
            found.setdefault(bytes(key), []).append(int(value))
    return sum(len(set(numbers)) for numbers in found.values())


def test_many_that_kafka_refuses_cost_a_cycle_no_more_than_a_few_and_the_others_go(
    lab: Lab,
) -> None:
    small, there = lab.unique("small"), lab.group().topics[0]
    wanted = topics.Topic(small, 1, max_message_bytes=5000)
    topic_admin.create(topic_admin.admin_client(lab.kafka.bootstrap_servers), [wanted])
    noise = random.Random(1)
    put(lab, small, *[noise.randbytes(8_000) for _ in range(70)])
    put(lab, there, b"1")
    relay = lab.relay()
    assert relay.publish_once() == SUSPECTS_PER_CYCLE + 1
    assert [message.value() for message in lab.read(there, 1)] == [b"1"]
    counts = [relay.publish_once() for _ in range(4)]
    assert counts == [SUSPECTS_PER_CYCLE, SUSPECTS_PER_CYCLE, 70 - 3 * SUSPECTS_PER_CYCLE, 0]
    assert lab.number("SELECT count(*) FROM outbox_refused") == 70
    assert waiting(lab) == 0
