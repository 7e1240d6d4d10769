from __future__ import annotations

import random
import threading
from collections import deque
from typing import Any

import psycopg2
import pytest
from confluent_kafka import Producer, TopicPartition
from kafka.producer import KafkaProducer
from sqlalchemy.exc import OperationalError
from structlog.testing import capture_logs

from order_services.domain import topics
from order_services.domain.events import Event
from order_services.messaging.dead_letters import DeadLetterLimitError
from order_services.messaging.messages import ReceivedMessage
from order_services.operations import topic_admin
from order_services.process import instrumentation
from order_services.process.settings import GroupProtocol
from tests.integration.order_services.conftest import Lab, Notebook, order_created
from tests.support.waiting import wait_for


def away() -> OperationalError:
    return OperationalError("statement", None, psycopg2.OperationalError("gone"))


@pytest.mark.parametrize("protocol", list(GroupProtocol))
def test_every_event_is_handled_once_and_its_offset_committed(
    lab: Lab, protocol: GroupProtocol
) -> None:
    group = lab.group()
    lab.send(group.topics[0], [order_created() for _ in range(50)])
    consumer = lab.consumer(group, Notebook(), group_protocol=protocol)
    wait_for("committed offsets", lambda: lab.committed(group) == 50)
    assert lab.noted() == 50
    assert lab.number("SELECT count(*) FROM outbox") == 50
    assert consumer.not_ready() is None
    assert consumer.not_alive() is None


def test_nothing_is_written_or_committed_until_the_database_is_back(lab: Lab) -> None:
    group = lab.group()
    database_is_away = threading.Event()
    database_is_away.set()
    notebook = Notebook(lambda _event: away() if database_is_away.is_set() else None)
    lab.send(group.topics[0], [order_created() for _ in range(5)])
    lab.consumer(group, notebook, retry_first_seconds=0.01, retry_max_seconds=0.05)
    wait_for("retries", lambda: len(notebook.calls) > 3)
    assert (lab.noted(), lab.committed(group)) == (0, 0)
    # arrives while all is paused
    lab.send(group.topics[0], [order_created() for _ in range(5)])
    database_is_away.clear()
    wait_for("committed offsets", lambda: lab.committed(group) == 10)
    assert lab.noted() == 10


def test_an_event_delivered_again_changes_nothing(lab: Lab) -> None:
    group = lab.group()
    first, second = order_created(), order_created()
    lab.send(group.topics[0], [first, first, second])
    lab.consumer(group, Notebook())
    wait_for("committed offsets", lambda: lab.committed(group) == 3)
    lab.send(group.topics[0], [second, first])
    wait_for("committed offsets", lambda: lab.committed(group) == 5)
    assert lab.noted() == 2
    assert lab.number("SELECT count(*) FROM outbox") == 2


def test_messages_that_follow_a_batch_share_the_next_one(lab: Lab) -> None:
    group = lab.group(1)
    handled = Notebook()
    lab.consumer(group, handled, batch_linger_seconds=0, batch_interval_seconds=2)
    lab.send(group.topics[0], [order_created()])
    wait_for("the first message", lambda: lab.noted() == 1)
    for _ in range(5):
        lab.send(group.topics[0], [order_created()])
    wait_for("all messages", lambda: lab.noted() == 6)
    assert handled.calls == [1, 5]


def test_a_full_batch_does_not_wait(lab: Lab) -> None:
    group = lab.group(1)
    lab.send(group.topics[0], [order_created() for _ in range(60)])
    lab.consumer(group, Notebook(), batch_max_messages=5, batch_interval_seconds=5)
    # twelve batches: waiting would take a minute
    wait_for("all messages", lambda: lab.noted() == 60, timeout_s=40)


def test_a_poison_message_goes_to_the_dead_letters_and_the_others_are_handled(lab: Lab) -> None:
    group = lab.group(1)
    events = [order_created() for _ in range(20)]
    poison = events[7].event_id

    def fail(event: Event) -> Exception | None:
        return ValueError("cannot read\nthis") if event.event_id == poison else None

    lab.send(group.topics[0], [*events[:10], b"no json", *events[10:]])
    lab.consumer(group, Notebook(fail), batch_linger_seconds=1)
    wait_for("committed offsets", lambda: lab.committed(group, 1) == 21)
    assert lab.noted() == 19
    relay = lab.relay()
    wait_for("an empty outbox", lambda: relay.publish_once() == 0)
    letters = {letter.offset(): letter for letter in lab.read(group.dead_letter_topic, 2)}
    headers = [dict(letter.headers() or []) for letter in letters.values()]
    by_offset: dict[bytes, Any] = {h["dead-letter-offset"]: h for h in headers}  # type: ignore[misc]
    assert by_offset[b"7"]["dead-letter-error"] == b"ValueError: cannot read this"
    assert by_offset[b"7"]["dead-letter-topic"] == group.topics[0].encode()
    assert by_offset[b"7"]["event-type"] == b"ORDER_CREATED"
    assert int(by_offset[b"7"]["dead-letter-attempts"]) > 1
    assert b"not JSON" in by_offset[b"10"]["dead-letter-error"]
    assert {letter.value() for letter in letters.values()} == {events[7].encode(), b"no json"}


def test_a_dead_letter_that_is_sent_again_is_let_in(lab: Lab) -> None:
    group = lab.group(1)
    event = order_created()
    broken = threading.Event()
    broken.set()
    lab.send(group.topics[0], [event])
    lab.consumer(group, Notebook(lambda _e: ValueError("bug") if broken.is_set() else None))
    wait_for("committed offsets", lambda: lab.committed(group, 1) == 1)
    assert lab.noted() == 0
    broken.clear()
    lab.send(group.topics[0], [event])
    wait_for("the event handled", lambda: lab.noted() == 1)


def test_past_the_limit_of_dead_letters_the_consumer_stops_and_says_why(lab: Lab) -> None:
    group = lab.group(1)
    lab.send(group.topics[0], [order_created() for _ in range(30)])
    consumer = lab.consumer(group, Notebook(lambda _e: ValueError("bad deploy")), limit=3)
    reason = wait_for("a stop", lambda: (r := consumer.not_ready()) and "stopped" in r and r)
    assert "DEAD_LETTER_LIMIT" in str(reason)
    assert consumer.not_alive() is None
    assert lab.committed(group, 1) == 0
    assert lab.number("SELECT count(*) FROM outbox") == 0


@pytest.mark.parametrize("good", [0, 1, 30])
@pytest.mark.parametrize(("malformed", "poison"), [(30, 0), (0, 30), (3, 3), (6, 1)])
def test_the_limit_of_dead_letters_holds_for_any_mix(
    lab: Lab, malformed: int, poison: int, good: int
) -> None:
    group = lab.group(1)
    limit = 5
    bad = [order_created() for _ in range(poison)]
    ids = {event.event_id for event in bad}
    batch: list[Event | bytes] = [
        *bad,
        *[b"no json"] * malformed,
        *[order_created() for _ in range(good)],
    ]
    random.Random(8).shuffle(batch)
    notebook = Notebook(lambda e: ValueError("bad deploy") if e.event_id in ids else None)
    processor = lab.processor(group, notebook, limit=limit)
    received = [
        ReceivedMessage(group.topics[0], 0, number, None, value, ())
        for number, value in enumerate(
            each if isinstance(each, bytes) else each.encode() for each in batch
        )
    ]
    for _ in range(3):
        with pytest.raises(DeadLetterLimitError):
            processor.process(received)
    assert lab.number("SELECT count(*) FROM outbox") == lab.noted() == 0
    # and across batches: some of these get in, and no more than the limit
    with pytest.raises(DeadLetterLimitError):
        deque((processor.process([each]) for each in received), maxlen=0)
    assert lab.number("SELECT count(*) FROM outbox WHERE topic LIKE '%dead-letters'") <= limit


def test_a_header_name_that_is_not_utf8_stops_nobody(lab: Lab) -> None:
    group = lab.group(1)
    event, later = order_created(), order_created()
    producer = KafkaProducer(bootstrap_servers=lab.kafka.bootstrap_servers)

    class Latin(str):
        __slots__ = ()

        def encode(self, *_arguments: object) -> bytes:
            return str.encode(self, "latin-1")

    odd = [(Latin("caf\xe9"), b"1"), ("event-type", b"ORDER_CREATED")]
    # often enough for the interpreter to take its short way
    for value in (*[event.encode()] * 50, b"no json"):
        producer.send(group.topics[0], value=value, key=b"k", headers=odd)
    producer.close()
    lab.send(group.topics[0], [later])
    consumer = lab.consumer(group, Notebook())
    wait_for("committed offsets", lambda: lab.committed(group, 1) == 52)
    # an event is what its value says; what is none goes to the dead letters
    assert lab.noted() == 2
    assert consumer.not_alive() is None
    relay = lab.relay()
    wait_for("an empty outbox", lambda: relay.publish_once() == 0)
    [letter] = lab.read(group.dead_letter_topic, 1)
    assert letter.value() == b"no json"


def test_headers_survive_into_the_dead_letter_byte_for_byte_and_as_often_as_they_came(
    lab: Lab,
) -> None:
    group = lab.group(1)
    headers: Any = [
        ("a", bytes(range(256))),
        ("a", b""),
        ("\u00e9", b"\xff"),
        ("a", None),
        ("b", b"2"),
    ]
    producer = Producer({"bootstrap.servers": lab.kafka.bootstrap_servers})
    producer.produce(group.topics[0], b"no json", headers=headers)
    assert producer.flush(20) == 0
    lab.consumer(group, Notebook())
    wait_for("a committed offset", lambda: lab.committed(group, 1) == 1)
    relay = lab.relay()
    wait_for("an empty outbox", lambda: relay.publish_once() == 0)
    [letter] = lab.read(group.dead_letter_topic, 1)
    found: Any = letter.headers()
    assert found[: len(headers)] == headers


def test_transitions_are_counted_once_after_the_commit(lab: Lab) -> None:
    group = lab.group(1)
    events = [order_created() for _ in range(20)]
    poison, last, once = events[7].event_id, events[-1].event_id, iter([away()])

    def fail(event: Event) -> Exception | None:
        if event.event_id == last:
            return next(once, None)
        return ValueError("no") if event.event_id == poison else None

    processor = lab.processor(group, Notebook(fail))
    received = [
        ReceivedMessage(group.topics[0], 0, number, None, event.encode(), ())
        for number, event in enumerate(events)
    ]
    counter = instrumentation.TRANSITIONS.labels("payment", "processed")._value
    before = counter.get()
    # halves have been handled by then, and all of it is undone
    with pytest.raises(OperationalError):
        processor.process(received)
    assert counter.get() == before
    processor.process(received)
    assert counter.get() == before + 19
    assert processor.process(received[:7]).duplicates
    assert counter.get() == before + 19


def test_members_that_join_and_leave_lose_nothing_and_handle_nothing_twice(lab: Lab) -> None:
    group = lab.group(3)
    topic = group.topics[0]
    small_batches = {"batch_max_messages": 10}
    first = lab.consumer(group, Notebook(), **small_batches)
    lab.send(topic, [order_created() for _ in range(300)])
    wait_for("a first batch", lambda: lab.noted() > 0)
    second = lab.consumer(group, Notebook(), **small_batches)
    lab.send(topic, [order_created() for _ in range(300)])
    wait_for("a second member", lambda: second.not_ready() is None)
    lab.send(topic, [order_created() for _ in range(300)])
    assert first.stop(10)
    wait_for("all events", lambda: lab.committed(group) == 900)
    assert lab.noted() == 900
    assert lab.number("SELECT count(DISTINCT event_id) FROM notebook") == 900


def test_a_stop_commits_what_was_handled(lab: Lab) -> None:
    group = lab.group()
    consumer = lab.consumer(group, Notebook(), batch_max_messages=5)
    lab.send(group.topics[0], [order_created() for _ in range(200)])
    wait_for("a first batch", lambda: lab.noted() > 0)
    assert consumer.stop(10)
    assert lab.noted() == lab.committed(group)


def test_replays_and_events_for_others_are_passed_over(lab: Lab) -> None:
    group = lab.group(1)
    event = order_created()
    replay = order_created(isReplay=True)
    other = event.follow(event.event_type.ORDER_CANCELLED, {}, "gateway")
    lab.send(group.topics[0], [replay, other, event])
    lab.consumer(group, Notebook())
    wait_for("committed offsets", lambda: lab.committed(group, 1) == 3)
    assert lab.noted() == 1


def test_a_topic_that_is_created_late_is_found(lab: Lab) -> None:
    group = lab.group(1)
    late = type(group)(group.group_id, (lab.unique("late"),))
    consumer = lab.consumer(late, Notebook())
    assert "not a member" in str(consumer.not_ready())
    admin = topic_admin.admin_client(lab.kafka.bootstrap_servers)
    topic_admin.create(admin, [topics.Topic(late.topics[0], 1)])
    lab.send(late.topics[0], [order_created()])
    wait_for("the event handled", lambda: lab.noted() == 1)


def lost(topic: str) -> float:
    return float(instrumentation.RECORDS_LOST.labels(topic)._value.get())


@pytest.mark.parametrize("protocol", list(GroupProtocol))
@pytest.mark.parametrize("kept", [5, 0])
def test_records_that_retention_took_before_they_were_read_are_told_once(
    lab: Lab, protocol: GroupProtocol, kept: int
) -> None:
    group = lab.group(1)
    topic = group.topics[0]
    lab.send(topic, [order_created() for _ in range(10)])
    consumer = lab.consumer(group, Notebook(), group_protocol=protocol)
    wait_for("committed offsets", lambda: lab.committed(group, 1) == 10)
    assert consumer.stop(20)
    assert lost(topic) == 0
    lab.send(topic, [order_created() for _ in range(20)])
    delete_until(lab, topic, 30 - kept)
    with capture_logs() as told:
        consumer = lab.consumer(group, Notebook(), group_protocol=protocol)
        wait_for("committed offsets", lambda: lab.committed(group, 1) == 30)
        assert consumer.stop(20)
    assert lost(topic) == 20 - kept
    [line] = [each for each in told if each["event"].startswith("retention has taken")]
    assert (line["records"], line["topic"], line["offset"]) == (20 - kept, topic, 10)
    assert lab.noted() == 10 + kept
    # it is known by now, and nothing more is lost
    lab.send(topic, [order_created()])
    consumer = lab.consumer(group, Notebook(), group_protocol=protocol)
    wait_for("committed offsets", lambda: lab.committed(group, 1) == 31)
    assert lost(topic) == 20 - kept
    assert lab.noted() == 11 + kept


def test_records_that_retention_takes_from_a_consumer_that_is_behind_are_told(lab: Lab) -> None:
    group = lab.group(1)
    topic = group.topics[0]
    go_on = threading.Event()

    def wait(_event: Event) -> None:
        assert go_on.wait(60)

    notebook = Notebook(wait)
    lab.send(topic, [order_created() for _ in range(3)])
    # it fetches little ahead of what it handles
    lab.consumer(group, notebook, batch_max_messages=1)
    wait_for("a batch", lambda: notebook.calls)
    large = [order_created(note="x" * 100_000) for _ in range(400)]
    lab.send(topic, large)
    delete_until(lab, topic, 403)
    lab.send(topic, [order_created()])
    go_on.set()
    wait_for("committed offsets", lambda: lab.committed(group, 1) == 404)
    assert lab.noted() + lost(topic) == 404


def test_a_topic_that_is_made_anew_is_read_from_its_start(lab: Lab) -> None:
    group = lab.group(1)
    topic = group.topics[0]
    lab.send(topic, [order_created() for _ in range(10)])
    consumer = lab.consumer(group, Notebook())
    wait_for("committed offsets", lambda: lab.committed(group, 1) == 10)
    assert consumer.stop(20)
    admin = topic_admin.admin_client(lab.kafka.bootstrap_servers)
    for future in admin.delete_topics([topic]).values():
        future.result()
    wait_for("its end", lambda: topic not in topic_admin.list_names(admin))
    topic_admin.create(admin, [topics.Topic(topic, 1)])
    lab.send(topic, [order_created() for _ in range(3)])
    # the old offset was of the old topic
    lab.consumer(group, Notebook())
    wait_for("all of it", lambda: lab.noted() == 13)
    assert lost(topic) == 0


def delete_until(lab: Lab, topic: str, offset: int) -> None:
    """Have the broker do what retention does."""
    admin = topic_admin.admin_client(lab.kafka.bootstrap_servers)
    for future in admin.delete_records([TopicPartition(topic, 0, offset)]).values():
        future.result()
