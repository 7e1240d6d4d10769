from __future__ import annotations

import random
import threading
from collections.abc import Sequence
from typing import Any

import pytest

from order_services import topics
from order_services.local.ports import free_port
from order_services.runtime.outbox import Message, write, write_messages
from order_services.runtime.relay import PublishError, Relay
from tests.integration.order_services.conftest import Lab, order_created
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
    topics.create(topics.admin_client(lab.kafka.bootstrap_servers), [wanted])
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

        def _publish(self, rows: Sequence[Any], cycle: Any) -> None:
            super()._publish(rows, type(cycle)())

    relay = Unheard("test", lab.kafka_settings, lab.database)
    with pytest.raises(PublishError):
        relay.publish_once()
    assert waiting(lab) == 1


def test_two_relays_never_publish_a_slice_at_the_same_time(lab: Lab) -> None:
    topic = lab.group().topics[0]
    put(lab, topic, b"1")
    publishing, go_on = threading.Event(), threading.Event()

    class Slow(Relay):
        def _publish(self, rows: Sequence[Any], cycle: Any) -> None:
            publishing.set()
            assert go_on.wait(20)
            super()._publish(rows, cycle)

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


def test_a_stop_publishes_what_is_left(lab: Lab) -> None:
    topic = lab.group().topics[0]
    relay = lab.relay(relay_batch_max_messages=10)
    put(lab, topic, *[b"x"] * 35)
    relay.start()
    assert relay.stop(20)
    assert waiting(lab) == 0
