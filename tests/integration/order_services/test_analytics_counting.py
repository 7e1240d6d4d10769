"""Each event counts once, however often and however late it comes; a replay adds what was missed."""

from __future__ import annotations

import random
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest
from confluent_kafka import Consumer as KafkaConsumer
from confluent_kafka import TopicPartition
from sqlalchemy import text
from sqlalchemy.exc import OperationalError

from order_services.analytics import counting
from order_services.analytics.service import build
from order_services.analytics.settings import AnalyticsSettings
from order_services.domain import topics
from order_services.domain.events import Event, EventType, decode
from order_services.domain.topics import ConsumerGroup
from order_services.gateway.following import append
from order_services.local.ports import free_port
from order_services.messaging.messages import ReceivedMessage
from order_services.operations import replay, replay_publisher, topic_admin
from order_services.operations.recount import recount
from order_services.operations.replay import Replay, ReplayState
from order_services.operations.replay_publisher import Publisher, copy_of
from order_services.process import instrumentation
from order_services.service.run import run_until
from order_services.storage.rings import ANALYTICS_EVENTS
from tests.integration.order_services.conftest import Lab, Notebook, order_created
from tests.integration.order_services.test_analytics_service import is_ready
from tests.support.waiting import wait_for

TODAY = datetime.now(UTC).replace(hour=0, minute=0, second=1, microsecond=0)


@contextmanager
def analytics(lab: Lab, group: ConsumerGroup, client_id: str = "analytics") -> Iterator[None]:
    settings = AnalyticsSettings(
        **lab.kafka_settings.model_dump(exclude={"port", "kafka_client_id", "batch_max_messages"}),
        port=free_port(),
        kafka_client_id=client_id,
        batch_max_messages=20,
    )
    stop = threading.Event()
    service = replace(build(settings), group=group)
    thread = threading.Thread(target=run_until, args=(stop, service))
    thread.start()
    try:
        wait_for("readiness", lambda: is_ready(f"127.0.0.1:{settings.port}"))
        yield
    finally:
        stop.set()
        thread.join(30)


def replaying_group(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> ConsumerGroup:
    """Return a group of analytics with a topic of its own for replays, which tests must not share."""
    group = lab.group()
    name = lab.unique("replays")
    topic_admin.create(
        topic_admin.admin_client(lab.kafka.bootstrap_servers), [topics.Topic(name, 3)]
    )
    monkeypatch.setattr(topics, "ORDERS_REPLAY", name)
    return replace(group, topics=(*group.topics, name))


def story(at: datetime) -> list[Event]:
    """Return what happens to one order, from `at` on."""
    created = order_created(totalCents=random.randint(1, 9_999))
    kinds = [
        (EventType.ORDER_CREATED, dict(created.payload)),
        (EventType.PAYMENT_PROCESSED, {"amountCents": 1000}),
        (EventType.INVENTORY_RESERVED, {}),
        (EventType.SHIPMENT_DISPATCHED, {"trackingNumber": "T"}),
    ]
    return [
        Event(kind, created.order_id, payload, "test", "c", timestamp=at + timedelta(seconds=n))
        for n, (kind, payload) in enumerate(kinds)
    ]


def write_history(lab: Lab, events: Sequence[Event]) -> None:
    with lab.database.begin() as connection:
        append(connection, events)


def expected(lab: Lab) -> list[Any]:
    """Count the orders' history, which is what analytics is to agree with."""
    return lab.query(
        """SELECT (event_time AT TIME ZONE 'UTC')::date, event_type, count(*),
               sum(coalesce((payload->>'totalCents')::bigint,
                   CASE WHEN event_type LIKE 'PAYMENT%' THEN (payload->>'amountCents')::bigint END,
                   0))::bigint
           FROM order_events GROUP BY 1, 2 ORDER BY 1, 2"""
    )


def counted(lab: Lab) -> list[Any]:
    return lab.query(
        "SELECT day, event_type, events, amount_cents FROM analytics_daily ORDER BY 1, 2"
    )


def total(lab: Lab) -> int:
    return lab.number("SELECT coalesce(sum(events), 0) FROM analytics_daily")


def begin(lab: Lab, days: int = 3) -> Replay:
    with lab.database.begin() as connection:
        return replay.begin(connection, days)


def publisher(lab: Lab, group: ConsumerGroup, **options: Any) -> Publisher:
    rate = options.pop("events_per_second", 1_000_000)
    return Publisher(
        lab.kafka_settings,
        lab.database,
        group_id=group.group_id,
        events_per_second=rate,
        **options,
    )


def fetch(lab: Lab, begun: Replay) -> Replay:
    with lab.database.begin() as connection:
        found = replay.get(connection, begun.replay_id)
    assert found is not None
    return found


def end_of(lab: Lab, topic: str) -> int:
    client = KafkaConsumer({"bootstrap.servers": lab.kafka.bootstrap_servers, "group.id": "ends"})
    try:
        ends = [
            client.get_watermark_offsets(TopicPartition(topic, n), timeout=10) for n in range(3)
        ]
    finally:
        client.close()
    return sum(high for _, high in ends)


def count(lab: Lab, events: Sequence[Event]) -> list[Event]:
    with lab.database.begin() as connection:
        each_once = list({event.event_id: event for event in events}.values())
        repeated = counting.count(each_once, connection).repeated
        return [event for event in each_once if event.event_id not in repeated]


def messages_of(events: Sequence[Event]) -> list[ReceivedMessage]:
    return [
        ReceivedMessage("any", 0, n, e.key(), e.encode(), e.headers()) for n, e in enumerate(events)
    ]


@pytest.mark.parametrize("days_ago", [0, 8, 20, 29])
def test_an_event_that_comes_back_counts_once(lab: Lab, days_ago: int) -> None:
    """As a dead letter of another group does, which is sent back to the topic that all read."""
    group = ConsumerGroup("analytics-service-group", ("orders",))
    processor = lab.processor(group, counting.count, handles=counting.HANDLES)
    events = story(datetime.now(UTC) - timedelta(days=days_ago))
    assert len(processor.process(messages_of([*events, events[0]])).handled) == 4
    before = counted(lab)
    outcome = processor.process(messages_of(events))
    assert (len(outcome.handled), len(outcome.duplicates)) == (0, 4)
    assert counted(lab) == before
    assert total(lab) == 4


def test_what_is_counted_is_what_the_statement_gave_back(lab: Lab) -> None:
    first, second = story(TODAY), story(TODAY)
    assert count(lab, [*first, *first]) == first
    assert count(lab, [first[1], *second, first[0]]) == second
    write_history(lab, [*first, *second])
    assert counted(lab) == expected(lab)


def test_two_that_count_the_same_events_at_once_count_each_once(lab: Lab) -> None:
    events = [event for _ in range(50) for event in story(TODAY)]
    failed: list[Exception] = []

    def work() -> None:
        for n in range(0, len(events), 20):
            page = events[n : n + 20]
            try:
                count(lab, random.sample(page, len(page)))
            except OperationalError as error:
                failed.append(error)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    write_history(lab, events)
    assert (counted(lab), failed) == (expected(lab), [])


def test_an_event_from_the_future_is_an_error_and_one_of_a_slow_clock_is_none(lab: Lab) -> None:
    [ahead, far, *_] = [order_created(), order_created()]
    ahead.timestamp = datetime.now(UTC) + timedelta(hours=20)
    far.timestamp = datetime.now(UTC) + timedelta(days=2)
    assert count(lab, [ahead]) == [ahead]
    with pytest.raises(ValueError, match=r"ORDER_CREATED of .* has yet to happen"):
        count(lab, [far])


def test_archived_events_stay_counted_and_count_no_more(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, young = story(TODAY - timedelta(days=120)), story(TODAY - timedelta(days=80))
    assert count(lab, [*old, *young]) == [*old, *young]
    before = counted(lab)

    def archive() -> list[str]:
        with lab.database.begin() as connection:
            return counting.archive(connection, 90)

    # closed first; the rows go when nobody can be left who saw the day open
    assert archive() == []
    assert lab.number("SELECT count(*) FROM analytics_events") == 8
    assert count(lab, story(TODAY - timedelta(days=120))) == []
    monkeypatch.setattr(counting, "CLOSED_FOR_SECONDS", 0)
    assert archive() == [ANALYTICS_EVENTS.partition(ANALYTICS_EVENTS.slot(old[0].timestamp.date()))]
    assert lab.number("SELECT count(*) FROM analytics_events") == 4
    assert (archive(), count(lab, [*old, *young]), counted(lab)) == ([], [], before)
    with lab.database.begin() as connection:
        recount(connection, TODAY - timedelta(days=200))
    assert counted(lab) == before


def test_an_event_whose_day_is_closed_is_told(lab: Lab) -> None:
    group = lab.group()
    with lab.database.begin() as connection:
        counting.archive(connection, 90)
    told = instrumentation.EVENTS_OF_CLOSED_DAYS._value
    before, open_ = told.get(), story(TODAY)
    with analytics(lab, group):
        lab.send(group.topics[0], [*open_, *story(TODAY - timedelta(days=120)), *open_])
        wait_for("committed offsets", lambda: lab.committed(group) == 12)
    assert told.get() == before + 4
    assert total(lab) == 4


def test_the_rows_of_every_day_that_is_open_have_a_place_of_their_own(lab: Lab) -> None:
    longest = AnalyticsSettings.model_fields["analytics_events_retention_days"].metadata
    most = next(each.le for each in longest if hasattr(each, "le"))
    least = next(each.ge for each in longest if hasattr(each, "ge"))
    assert least > topics.DEAD_LETTER_RETENTION_DAYS
    for n in range(14):
        today = date(2026, 1, 1) + timedelta(days=n)
        with lab.database.begin() as connection:
            ANALYTICS_EVENTS.forget(
                connection, first_kept=today - timedelta(days=most + 6), today=today
            )


def test_a_replay_under_live_traffic_makes_the_counts_agree_to_the_event(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replay_publisher, "PAGE_EVENTS", 40)
    group = replaying_group(lab, monkeypatch)
    topic = group.topics[0]
    past = [
        event
        for day in (0, 0, 1, 2, 5)
        for _ in range(20)
        for event in story(TODAY - timedelta(days=day))
    ]
    with analytics(lab, group), analytics(lab, group, "second"):
        write_history(lab, past)
        lab.send(topic, past)
        wait_for("the past", lambda: total(lab) == 400)
        assert counted(lab) == expected(lab)
        # never counted, in the history only; and counts that somebody has changed
        lost = [event for _ in range(5) for event in story(TODAY)]
        write_history(lab, lost)
        with lab.database.begin() as connection:
            connection.execute(text("UPDATE analytics_daily SET events = events + 7"))
        before_the_window = [row for row in counted(lab) if row[0] < (TODAY - timedelta(2)).date()]

        stop, live = threading.Event(), []

        def traffic() -> None:
            while not stop.is_set():
                events = story(TODAY)
                live.extend(events)
                # a relay that is late, a gateway that is late, and a delivery that comes twice
                if random.random() < 0.5:
                    write_history(lab, events)
                    lab.send(topic, [*events, *events[:2]])
                else:
                    lab.send(topic, events)
                    write_history(lab, events)

        thread = threading.Thread(target=traffic)
        thread.start()
        try:
            wait_for("live traffic", lambda: len(live) > 40)
            begun = begin(lab)
            work = publisher(lab, group, events_per_second=300)
            work.publish(begun)
            assert fetch(lab, begun).state is ReplayState.PUBLISHED
            assert work.wait_until_read(begun)
        finally:
            stop.set()
            thread.join(20)
        # the lost ones come late: the replay has brought them already
        lab.send(topic, lost)
        wait_for("quiet", lambda: all(lab.committed(each) == end_of(lab, each.topics[0])
                                      for each in (replace(group, topics=(t,)) for t in group.topics)))  # fmt: skip
        assert fetch(lab, begun).state is ReplayState.DONE
        since = begun.since.date()
        assert [r for r in counted(lab) if r[0] >= since] == [
            r for r in expected(lab) if r[0] >= since
        ]
        assert [r for r in counted(lab) if r[0] < since] == before_the_window


def test_a_recount_beside_batches_loses_and_doubles_nothing(lab: Lab) -> None:
    stop, done = threading.Event(), []

    def batches() -> None:
        while not stop.is_set():
            events = [event for _ in range(3) for event in story(TODAY)]
            count(lab, events)
            done.extend(events)

    threads = [threading.Thread(target=batches) for _ in range(2)]
    for thread in threads:
        thread.start()
    for _ in range(40):
        with lab.database.begin() as connection:
            recount(connection, TODAY.replace(second=0))
    stop.set()
    for thread in threads:
        thread.join(20)
    write_history(lab, done)
    assert counted(lab) == expected(lab)
    assert len(done) > 100


def test_a_replay_ends_while_orders_come_faster_than_it_publishes(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replay_publisher, "PAGE_EVENTS", 8)
    group = replaying_group(lab, monkeypatch)
    write_history(lab, [event for _ in range(5) for event in story(TODAY)])
    begun = begin(lab)

    def order_more(published: int) -> None:
        assert published <= 20, "it runs after what has happened since"
        write_history(lab, [event for _ in range(3) for event in story(TODAY)])

    publisher(lab, group, on_progress=order_more).publish(begun)
    assert fetch(lab, begun).events == 20


def test_a_replay_that_dies_half_way_harms_nothing_and_the_next_one_works(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replay_publisher, "PAGE_EVENTS", 8)
    group = replaying_group(lab, monkeypatch)
    past = [event for _ in range(10) for event in story(TODAY)]
    write_history(lab, past)
    count(lab, past[:30])
    dead = begin(lab)

    def die(_events: int) -> None:
        raise SystemExit  # as a process that is killed: nothing is tidied up

    with pytest.raises(SystemExit):
        publisher(lab, group, on_progress=die).publish(dead)
    assert fetch(lab, dead).state is ReplayState.PUBLISHING
    with pytest.raises(replay.ReplayRunningError, match=dead.replay_id):
        begin(lab)
    with lab.database.begin() as connection:
        connection.execute(text("UPDATE history_replays SET updated_at = now() - interval '61 s'"))
    assert fetch(lab, dead).state is ReplayState.FAILED
    begun = begin(lab)
    work = publisher(lab, group)
    work.publish(begun)
    with analytics(lab, group):
        assert work.wait_until_read(begun)
    assert counted(lab) == expected(lab)


def test_one_order_of_many_pages_is_replayed_to_its_end(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a producer makes it that uses one order id for all: the first version ended there."""
    monkeypatch.setattr(replay_publisher, "PAGE_EVENTS", 10)
    group = replaying_group(lab, monkeypatch)
    monster = order_created()
    events = [
        monster,
        *(monster.follow(EventType.PAYMENT_PROCESSING, {}, "test") for _ in range(34)),
        *story(TODAY),
    ]
    write_history(lab, events)
    begun = begin(lab)
    publisher(lab, group).publish(begun)
    assert (fetch(lab, begun).events, fetch(lab, begun).orders) == (39, 2)
    sent = [decode(m.value()).event_id for m in lab.read(topics.ORDERS_REPLAY, 39)]
    assert sorted(sent) == sorted(event.event_id for event in events)


def test_a_copy_is_its_original_marked_and_follows_its_order(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replay_publisher, "PAGE_EVENTS", 6)
    group = replaying_group(lab, monkeypatch)
    stories = [story(TODAY) for _ in range(7)]
    # begun before the days that are replayed, and going on in them
    long = story(TODAY - timedelta(days=3))
    old_id = "0" * 8 + long[0].order_id[8:]
    times = [*(e.timestamp for e in long[:2]), TODAY, TODAY]
    long = [replace(e, order_id=old_id, timestamp=at) for e, at in zip(long, times, strict=True)]
    events = [event for each in [*stories, long] for event in each]
    write_history(lab, random.sample(events, len(events)))
    begun = begin(lab, days=1)
    publisher(lab, group).publish(begun)
    assert (fetch(lab, begun).events, fetch(lab, begun).orders) == (30, 8)
    copies = [decode(message.value()) for message in lab.read(topics.ORDERS_REPLAY, 30)]
    assert all(copy.is_replay for copy in copies)
    assert Counter(c.event_id for c in copies) == Counter(
        event.event_id for event in events if event not in long[:2]
    )
    for each in stories:
        mine = [c.event_id for c in copies if c.order_id == each[0].order_id]
        assert mine == [event.event_id for event in each]


def test_only_analytics_reads_replays_and_no_other_service_acts_on_a_copy(lab: Lab) -> None:
    group = lab.group()
    event = order_created()
    lab.consumer(group, Notebook())
    lab.send(group.topics[0], [copy_of(event, "any"), event])
    wait_for("both", lambda: lab.committed(group) == 2)
    # the original is handled: the copy, which has its id, left no trace
    assert lab.noted() == 1
    subscribed = {each.group_id for each in topics.GROUPS if topics.ORDERS_REPLAY in each.topics}
    assert subscribed == {topics.ANALYTICS_GROUP.group_id}
