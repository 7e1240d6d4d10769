from __future__ import annotations

import random
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from confluent_kafka import Consumer as KafkaConsumer
from confluent_kafka import TopicPartition
from sqlalchemy import text

from order_services import replay, topics
from order_services.analytics.rebuild import Rebuild, add, count_live
from order_services.analytics.service import Analytics
from order_services.analytics.settings import AnalyticsSettings
from order_services.events import Event, EventType, decode, new_id
from order_services.gateway.following import _APPEND, _history_row, _json
from order_services.local.ports import free_port
from order_services.replay import Publisher, Replay, ReplayError, ReplayState
from order_services.runtime import inbox
from order_services.runtime.service import run_until
from order_services.topics import ConsumerGroup
from tests.integration.order_services.conftest import Lab, Notebook, order_created
from tests.integration.order_services.test_analytics_service import is_ready
from tests.support.waiting import wait_for

TODAY = datetime.now(UTC).replace(hour=0, minute=0, second=1, microsecond=0)
OWNER = "test"


@contextmanager
def analytics(lab: Lab, group: ConsumerGroup, client_id: str = "analytics") -> Iterator[None]:
    settings = AnalyticsSettings(
        **lab.kafka_settings.model_dump(exclude={"port", "kafka_client_id", "batch_max_messages"}),
        port=free_port(),
        kafka_client_id=client_id,
        batch_max_messages=20,
    )
    stop = threading.Event()
    service = Analytics(settings, group).service()
    thread = threading.Thread(target=run_until, args=(stop, service, settings))
    thread.start()
    try:
        wait_for("readiness", lambda: is_ready(f"127.0.0.1:{settings.port}"))
        yield
    finally:
        stop.set()
        thread.join(30)


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
        connection.exec_driver_sql(_APPEND, (_json(_history_row(e) for e in events),))


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


def begin(lab: Lab, days: int = 3) -> Replay:
    topics.create(topics.admin_client(lab.kafka.bootstrap_servers))
    with lab.database.begin() as connection:
        return replay.begin(connection, days, OWNER)


def publisher(lab: Lab, group: ConsumerGroup, **options: Any) -> Publisher:
    return Publisher(
        lab.kafka_settings,
        lab.database,
        owner=OWNER,
        counting_group=group.group_id,
        events_per_second=options.pop("events_per_second", 1_000_000),
        **options,
    )


def fetch(lab: Lab, begun: Replay) -> Replay:
    with lab.database.begin() as connection:
        found = replay.get(connection, begun.replay_id)
    assert found is not None
    return found


def sent(lab: Lab, begun: Replay) -> list[Event]:
    messages = lab.read(topics.ORDERS_REPLAY, end_of(lab, topics.ORDERS_REPLAY))
    events = [decode(message.value()) for message in messages]
    return [event for event in events if event.payload[replay.REPLAY_ID] == begun.replay_id]


def test_counts_agree_to_the_order_after_a_rebuild_under_live_traffic(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replay, "PAGE_EVENTS", 40)
    group = lab.group()
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
        wait_for(
            "the past",
            lambda: lab.number("SELECT coalesce(sum(events), 0) FROM analytics_daily") == 400,
        )
        assert counted(lab) == expected(lab)
        # never counted, in the history only; and counts that are wrong
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
            publisher(lab, group, events_per_second=300).publish(begun)
            done = wait_for("the rebuild", lambda: over(lab, begun))
            at_swap = len(live)
            wait_for("traffic after the swap", lambda: len(live) > at_swap + 20)
        finally:
            stop.set()
            thread.join(20)
        # the lost ones come late: the rebuild has counted them already
        lab.send(topic, lost)
        wait_for("quiet", lambda: settled(lab, group, [*past, *live, *lost]))
        assert (done.state, done.counted) == (ReplayState.DONE, done.events)
        since = begun.since.date()
        assert [r for r in counted(lab) if r[0] >= since] == [
            r for r in expected(lab) if r[0] >= since
        ]
        assert [r for r in counted(lab) if r[0] < since] == before_the_window
        wait_for(
            "cleaning up", lambda: not lab.number("SELECT count(*) FROM analytics_rebuild_events")
        )


def over(lab: Lab, begun: Replay) -> Replay | None:
    found = fetch(lab, begun)
    return found if found.over else None


def settled(lab: Lab, group: ConsumerGroup, events: Sequence[Event]) -> bool:
    return lab.number(
        "SELECT count(*) FROM inbox WHERE consumer_group = :g", g=group.group_id
    ) == len(events) and lab.committed(group) == end_of(lab, group.topics[0])


def end_of(lab: Lab, topic: str) -> int:
    client = KafkaConsumer({"bootstrap.servers": lab.kafka.bootstrap_servers, "group.id": "ends"})
    try:
        ends = [
            client.get_watermark_offsets(TopicPartition(topic, n), timeout=10) for n in range(3)
        ]
    finally:
        client.close()
    return sum(high for _, high in ends)


def test_a_replay_ends_while_orders_come_faster_than_it_publishes(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replay, "PAGE_EVENTS", 8)
    write_history(lab, [event for _ in range(5) for event in story(TODAY)])
    begun = begin(lab)

    def order_more(published: int) -> None:
        assert published <= 20, "it runs after what has happened since"
        write_history(lab, [event for _ in range(3) for event in story(TODAY)])

    publisher(lab, lab.group(), on_progress=order_more).publish(begun)
    assert fetch(lab, begun).events == 20


def test_a_replay_that_dies_half_way_leaves_the_counts_and_the_next_one_works(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replay, "PAGE_EVENTS", 8)
    group = lab.group()
    past = [event for _ in range(10) for event in story(TODAY)]
    with analytics(lab, group):
        write_history(lab, past)
        lab.send(group.topics[0], past)
        wait_for(
            "the past",
            lambda: lab.number("SELECT coalesce(sum(events), 0) FROM analytics_daily") == 40,
        )
        right = counted(lab)
        dead = begin(lab)

        def die(_events: int) -> None:
            raise SystemExit  # as a process that is killed: nothing is tidied up

        with pytest.raises(SystemExit):
            publisher(lab, group, on_progress=die).publish(dead)
        assert fetch(lab, dead).state is ReplayState.PUBLISHING
        with pytest.raises(replay.ReplayRunningError, match=dead.replay_id):
            begin(lab)
        with lab.database.begin() as connection:
            connection.execute(text("UPDATE replays SET lease_until = now() - interval '1 s'"))
        wait_for("giving it up", lambda: over(lab, dead))
        assert fetch(lab, dead).state is ReplayState.FAILED
        assert counted(lab) == right

        begun = begin(lab)
        publisher(lab, group).publish(begun)
        assert wait_for("the rebuild", lambda: over(lab, begun)).state is ReplayState.DONE
        assert counted(lab) == right


def test_a_rebuild_goes_on_where_a_killed_replica_stopped(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    group = lab.group()
    write_history(lab, [event for _ in range(30) for event in story(TODAY)])
    begun = begin(lab)
    publisher(lab, group).publish(begun)
    monkeypatch.setattr("order_services.analytics.rebuild.BATCH_EVENTS", 20)
    first = Rebuild(lab.kafka_settings, lab.database, group.group_id)
    wait_for("a part", lambda: first.step() and fetch(lab, begun).counted)
    part = fetch(lab, begun).counted
    assert 0 < part < 120
    second = Rebuild(lab.kafka_settings, lab.database, group.group_id)
    assert second.step() is False  # the first holds the lease
    assert counted(lab) == []
    with lab.database.begin() as connection:
        connection.execute(text("UPDATE replays SET lease_until = now() - interval '1 s'"))
    wait_for("the rest", lambda: second.step() and over(lab, begun))
    assert counted(lab) == expected(lab)
    assert first.step() is False
    first._stop_reading()


def test_what_was_published_and_did_not_come_stops_the_swap(lab: Lab) -> None:
    group = lab.group()
    write_history(lab, story(TODAY))
    begun = begin(lab)
    publisher(lab, group).publish(begun)
    with lab.database.begin() as connection:
        connection.execute(text("UPDATE replays SET events = events + 1"))
    rebuild = Rebuild(lab.kafka_settings, lab.database, group.group_id)
    wait_for("the end", lambda: rebuild.step() and over(lab, begun))
    assert fetch(lab, begun).reason == "5 events were published, 4 came"
    assert counted(lab) == []
    rebuild._stop_reading()


def test_a_copy_follows_its_order_and_is_told_from_the_original(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replay, "PAGE_EVENTS", 6)
    group = lab.group()
    stories = [story(TODAY) for _ in range(7)]
    # begun before the days that are replayed, and going on in them
    long = story(TODAY - timedelta(days=3))
    old_id = "0" * 8 + long[0].order_id[8:]
    long = [
        Event(e.event_type, old_id, e.payload, e.source, "c", timestamp=at)
        for e, at in zip(long, [e.timestamp for e in long[:2]] + [TODAY, TODAY], strict=True)
    ]
    events = [event for each in [*stories, long] for event in each]
    write_history(lab, random.sample(events, len(events)))
    begun = begin(lab, days=1)
    publisher(lab, group).publish(begun)
    copies = sent(lab, begun)
    assert all(copy.is_replay for copy in copies)
    wanted = {event.event_id for event in events} - {event.event_id for event in long[:2]}
    assert Counter(c.payload[replay.ORIGINAL_ID] for c in copies) == Counter(wanted)
    assert not {copy.event_id for copy in copies} & {event.event_id for event in events}
    for each in stories:
        mine = [c.payload[replay.ORIGINAL_ID] for c in copies if c.order_id == each[0].order_id]
        assert mine == [event.event_id for event in each]
    assert fetch(lab, begun).events == len(copies) == 30
    assert fetch(lab, begun).orders == 8


def test_no_other_service_acts_on_a_copy(lab: Lab) -> None:
    group = lab.group()
    copy = replay.copy_of(order_created(), new_id())
    lab.consumer(group, Notebook())
    lab.send(group.topics[0], [copy, order_created()])
    wait_for("both", lambda: lab.committed(group) == 2)
    assert lab.noted() == 1
    subscribed = {each.group_id for each in topics.GROUPS if topics.ORDERS_REPLAY in each.topics}
    assert subscribed == set()


def test_a_history_that_lacks_what_was_counted_stops_the_replay(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replay, "HISTORY_TIMEOUT_SECONDS", 0.0)
    group = lab.group()
    event = order_created()
    with lab.database.begin() as connection:
        inbox.admit(connection, group.group_id, [event])
        count_live([event], connection)
    begun = begin(lab)
    with pytest.raises(ReplayError, match="1 events that analytics has counted"):
        publisher(lab, group).publish(begun)
    assert fetch(lab, begun).state is ReplayState.FAILED
    assert [tuple(row[1:3]) for row in counted(lab)] == [("ORDER_CREATED", 1)]


def test_the_fresh_table_takes_each_event_once(lab: Lab) -> None:
    begun = begin(lab)
    event = order_created()
    for _ in range(2):
        with lab.database.begin() as connection:
            add(connection, begun.replay_id, {event.event_id: event})
    assert lab.number("SELECT sum(events) FROM analytics_rebuild_daily") == 1
