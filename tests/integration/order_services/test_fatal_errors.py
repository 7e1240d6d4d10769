"""Errors after which a Kafka client does nothing any more: another one takes over, or somebody is told."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from confluent_kafka import Consumer as KafkaConsumer
from confluent_kafka import KafkaError, Producer
from confluent_kafka.admin import (
    AclBinding,
    AclBindingFilter,
    AclOperation,
    AclPermissionType,
    AdminClient,
    ResourcePatternType,
    ResourceType,
)

from order_services.local.kafka import EmbeddedKafka
from order_services.messaging.consumer import Consumer
from order_services.messaging.kafka_errors import MAX_FATAL_IN_A_ROW, FatalClientError
from order_services.messaging.publishing import Publisher
from order_services.process import instrumentation
from order_services.process.settings import GroupProtocol, ServiceSettings
from order_services.storage.outbox import Message, write_messages
from tests.integration.order_services.conftest import Lab, Notebook, order_created
from tests.integration.order_services.test_consumer import away
from tests.support.apart import ran_apart
from tests.support.fatal import raise_fatal
from tests.support.waiting import wait_for

# what can be forbidden, and members of the newer protocol that are not missed for 45 s
OVERRIDES = {
    "group.consumer.session.timeout.ms": "6000",
    "group.consumer.heartbeat.interval.ms": "1000",
    "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
    "allow.everyone.if.no.acl.found": "true",
}


class Broker:
    """A broker of our own, on which things can be forbidden."""

    def __init__(self, kafka: EmbeddedKafka) -> None:
        self.kafka = kafka
        self._admin = AdminClient({"bootstrap.servers": kafka.bootstrap_servers})

    def forbid(self, kind: ResourceType, name: str, operation: AclOperation) -> None:
        acl = AclBinding(
            *(kind, name, ResourcePatternType.LITERAL, "User:ANONYMOUS", "*", operation),
            AclPermissionType.DENY,
        )
        for future in self._admin.create_acls([acl]).values():
            future.result()

    def allow(self, kind: ResourceType, name: str) -> None:
        everything = AclBindingFilter(
            kind,
            name,
            ResourcePatternType.LITERAL,
            None,  # type: ignore[arg-type]  # whoever it is for
            None,  # type: ignore[arg-type]
            AclOperation.ANY,
            AclPermissionType.ANY,
        )
        for future in self._admin.delete_acls([everything]).values():
            future.result()


pytestmark = pytest.mark.heavy


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    kafka = EmbeddedKafka(tmp_path_factory.mktemp("guarded"), overrides=OVERRIDES)
    kafka.start()
    yield Broker(kafka)
    kafka.stop()


@pytest.fixture
def lab(lab: Lab, broker: Broker) -> Lab:
    lab.start_kafka = lambda: broker.kafka
    return lab


def left_behind() -> float:
    return float(instrumentation.CLIENTS_LEFT_BEHIND._value.get())


@pytest.mark.parametrize("protocol", list(GroupProtocol))
def test_a_fatal_consumer_is_left_behind_for_another(
    lab: Lab, protocol: GroupProtocol, request: pytest.FixtureRequest
) -> None:
    # librdkafka never ends a client that met such an error on request and holds partitions: its main
    # thread takes a whole core of this process (a fenced one, as in the tests below, ends)
    if ran_apart(request):
        return
    group = lab.group()
    consumer = lab.consumer(group, Notebook(), group_protocol=protocol)
    lab.send(group.topics[0], [order_created() for _ in range(10)])
    wait_for("committed offsets", lambda: lab.committed(group) == 10)
    before, client = left_behind(), consumer._kafka
    assert client is not None
    raise_fatal(client, KafkaError.UNKNOWN_MEMBER_ID)
    wait_for("another client", lambda: consumer._kafka not in (None, client))
    lab.send(group.topics[0], [order_created() for _ in range(10)])
    wait_for("committed offsets", lambda: lab.committed(group) == 20)
    assert left_behind() == before + 1
    assert lab.noted() == 20
    assert consumer.not_ready() is None
    assert consumer.not_alive() is None


def test_a_fatal_error_ends_the_wait_for_the_database_too(
    lab: Lab, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    if ran_apart(request):  # as above
        return
    group = lab.group(1)
    is_away = threading.Event()
    notebook = Notebook(lambda _event: away() if is_away.is_set() else None)
    consumer = lab.consumer(group, notebook, retry_first_seconds=0.01, retry_max_seconds=0.05)
    wait_for("a member", lambda: consumer.not_ready() is None)
    first = consumer._kafka
    assert first is not None
    monkeypatch.setattr(consumer._processor, "database_away", is_away.is_set)
    is_away.set()
    lab.send(group.topics[0], [order_created()])
    wait_for("a paused consumer", lambda: consumer._paused)
    raise_fatal(first, KafkaError.UNKNOWN_MEMBER_ID)
    wait_for("another client", lambda: consumer._kafka not in (None, first))
    is_away.clear()
    wait_for("a committed offset", lambda: lab.committed(group, 1) == 1)
    assert lab.noted() == 1


def test_a_member_whose_instance_id_another_process_uses_is_not_alive_and_says_which(
    lab: Lab,
) -> None:
    group = lab.group()
    first = lab.consumer(group, Notebook(), instance_id="7")
    wait_for("a member", lambda: first.not_ready() is None)
    second = lab.consumer(group, Notebook(), instance_id="7")
    reason = wait_for("the end of the first", first.not_alive)
    assert "INSTANCE_ID '7'" in str(reason)
    assert "KAFKA_CLIENT_ID 'lab'" in str(reason)
    assert "INSTANCE_ID '7'" in str(first.not_ready())
    assert instrumentation.CONSUMER_STOPPED._value.get() == 1
    # who came later has it all, and is not fenced in turn
    lab.send(group.topics[0], [order_created() for _ in range(10)])
    wait_for("committed offsets", lambda: lab.committed(group) == 10)
    assert second.not_alive() is None
    assert second.not_ready() is None


def test_a_static_member_of_the_newer_protocol_waits_until_the_other_has_gone(lab: Lab) -> None:
    group = lab.group()
    same: dict[str, Any] = {"instance_id": "7", "group_protocol": GroupProtocol.CONSUMER}
    first = lab.consumer(group, Notebook(), **same)
    wait_for("a member", lambda: first.not_ready() is None)
    second = lab.consumer(group, Notebook(), **same)
    wait_for("the reason", lambda: "INSTANCE_ID '7'" in str(second.not_ready()))
    assert second.not_alive() is None
    assert first.not_ready() is None
    assert first.stop(20)
    wait_for("its successor", lambda: second.not_ready() is None)
    lab.send(group.topics[0], [order_created() for _ in range(10)])
    wait_for("committed offsets", lambda: lab.committed(group) == 10)


@pytest.mark.parametrize("protocol", list(GroupProtocol))
def test_a_group_that_may_read_again_is_joined_again(
    lab: Lab, broker: Broker, protocol: GroupProtocol
) -> None:
    group = lab.group()
    consumer: Consumer = lab.consumer(
        group, Notebook(), group_protocol=protocol, session_timeout_seconds=6
    )
    wait_for("a member", lambda: consumer.not_ready() is None)
    broker.forbid(ResourceType.GROUP, group.group_id, AclOperation.READ)
    wait_for("the reason", lambda: "Group authorization failed" in str(consumer.not_ready()))
    assert consumer.not_alive() is None
    lab.send(group.topics[0], [order_created() for _ in range(10)])
    broker.allow(ResourceType.GROUP, group.group_id)
    wait_for("committed offsets", lambda: lab.committed(group) == 10)
    assert lab.noted() == 10
    assert consumer.not_ready() is None


def put(lab: Lab, topic: str, *values: bytes) -> None:
    with lab.database.begin() as connection:
        write_messages(connection, "test", [Message(topic, b"key", value) for value in values])


def may_write(lab: Lab, topic: str) -> bool:
    errors: list[KafkaError | None] = []
    producer = Producer({"bootstrap.servers": lab.kafka.bootstrap_servers})
    producer.produce(topic, b"may I?", b"key", on_delivery=lambda error, _: errors.append(error))
    assert producer.flush(20) == 0
    return errors[0] is None


def waiting(lab: Lab) -> int:
    return lab.number("SELECT count(*) FROM outbox")


@pytest.mark.parametrize(
    "code", [KafkaError.OUT_OF_ORDER_SEQUENCE_NUMBER, KafkaError.CLUSTER_AUTHORIZATION_FAILED]
)
def test_a_fatal_producer_is_replaced_and_everything_is_published(lab: Lab, code: int) -> None:
    topic = lab.group().topics[0]
    relay = lab.relay()
    replaced = instrumentation.OUTBOX_PRODUCERS_REPLACED.labels("test")._value
    before = replaced.get()
    put(lab, topic, b"1")
    relay.start()
    wait_for("an empty outbox", lambda: waiting(lab) == 0)
    assert relay._publisher is not None
    raise_fatal(relay._publisher._producer, code)
    put(lab, topic, b"2", b"3")
    relay.wake()
    wait_for("an empty outbox", lambda: waiting(lab) == 0)
    assert replaced.get() == before + 1
    assert relay.not_alive() is None
    assert [message.value() for message in lab.read(topic, 3)] == [b"1", b"2", b"3"]


def test_a_fatal_error_while_messages_are_under_way_loses_none(lab: Lab) -> None:
    topic = lab.group().topics[0]
    put(lab, topic, *[b"%d" % number for number in range(50)])
    relay = lab.relay()
    publisher = relay._publisher = Publisher(lab.kafka_settings)
    listen = publisher.listen

    def fail(*arguments: Any) -> None:
        raise_fatal(publisher._producer, KafkaError.OUT_OF_ORDER_SEQUENCE_NUMBER)
        listen(*arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(publisher, "listen", fail)
        with pytest.raises(FatalClientError, match="on purpose"):
            relay.publish_once()
    assert waiting(lab) == 50
    assert relay.publish_once() == 50
    assert {message.value() for message in lab.read(topic, 50)} == {
        b"%d" % number for number in range(50)
    }


def test_fatal_producers_in_a_row_make_the_relay_not_alive_and_it_says_why(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    topic = lab.group().topics[0]
    is_ill = threading.Event()

    def new(settings: ServiceSettings) -> Publisher:
        publisher = Publisher(settings)
        if is_ill.is_set():
            raise_fatal(publisher._producer, KafkaError.CLUSTER_AUTHORIZATION_FAILED)
        return publisher

    monkeypatch.setattr("order_services.messaging.relay.Publisher", new)
    relay = lab.relay(instance_id="7", retry_first_seconds=0.01, retry_max_seconds=0.01)
    for _ in range(2):
        # what was published in between is no row
        is_ill.set()
        put(lab, topic, b"1")
        for _ in range(MAX_FATAL_IN_A_ROW - 1):
            with pytest.raises(FatalClientError):
                relay.publish_once()
        is_ill.clear()
        assert relay.fatal() is None
        assert relay.publish_once() == 1
        relay._publisher = None
    is_ill.set()
    put(lab, topic, b"2")
    relay.start()
    reason = str(wait_for("the reason", relay.fatal))
    assert re.match(r"relay: \d\d+ Kafka clients in a row met a fatal error, the last: ", reason)
    assert "on purpose" in reason
    assert reason.endswith("(KAFKA_CLIENT_ID 'lab', INSTANCE_ID '7')")


def test_fatal_consumers_in_a_row_make_it_not_alive_and_it_says_why(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    group = lab.group()

    class Ill(KafkaConsumer):
        def subscribe(self, *topics: Any, **callbacks: Any) -> None:
            super().subscribe(*topics, **callbacks)
            raise_fatal(self, KafkaError.UNKNOWN_MEMBER_ID)

    monkeypatch.setattr("order_services.messaging.consumer.KafkaConsumer", Ill)
    consumer = lab.consumer(
        group, Notebook(), instance_id="7", retry_first_seconds=0.01, retry_max_seconds=0.01
    )
    reason = str(wait_for("the reason", consumer.not_alive))
    assert re.match(r"consumer: \d\d+ Kafka clients in a row met a fatal error, the last: ", reason)
    assert "on purpose" in reason
    assert reason.endswith("(KAFKA_CLIENT_ID 'lab', INSTANCE_ID '7')")


def test_a_topic_that_may_not_be_written_to_holds_up_no_other_and_is_caught_up(
    lab: Lab, broker: Broker
) -> None:
    closed, open_ = lab.group().topics[0], lab.group().topics[0]
    relay = lab.relay(relay_batch_max_messages=10, retry_max_seconds=2)
    relay.start()
    broker.forbid(ResourceType.TOPIC, closed, AclOperation.WRITE)
    # it holds a moment after it was said
    let_in = 0
    while may_write(lab, closed):
        let_in += 1
    put(lab, closed, *[b"%d" % number for number in range(100)])
    for _ in range(3):
        put(lab, open_, *[b"x"] * 30)
        wait_for("the open topic", lambda: waiting(lab) == 100)
    assert instrumentation.OUTBOX_LANES_CLOSED.labels("test")._value.get() == 1
    broker.allow(ResourceType.TOPIC, closed)
    wait_for("an empty outbox", lambda: waiting(lab) == 0)
    values = [message.value() for message in lab.read(closed, let_in + 100)]
    assert values[let_in:] == [b"%d" % number for number in range(100)]
    assert lab.number("SELECT count(*) FROM outbox_refused") == 0
