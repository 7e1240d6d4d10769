from __future__ import annotations

from collections.abc import Callable

import pytest
from confluent_kafka.admin import AdminClient, NewTopic

from order_services.domain import topics
from order_services.domain.topics import Topic
from order_services.local.kafka import EmbeddedKafka
from order_services.local.ports import free_port
from order_services.messaging.client_settings import MAX_MESSAGE_BYTES
from order_services.operations import topic_admin
from order_services.operations.topic_admin import TopicError
from tests.support.waiting import wait_for


@pytest.fixture
def admin(kafka: EmbeddedKafka) -> AdminClient:
    return topic_admin.admin_client(kafka.bootstrap_servers)


def partitions(admin: AdminClient, name: str) -> int:
    return len(topic_admin.describe(admin, [name])[0].partitions)


def test_all_declared_topics_are_created_once(admin: AdminClient) -> None:
    topic_admin.create(admin)
    assert topic_admin.create(admin) == []
    wait_for("the topics", lambda: set(topic_admin.list_names(admin)) >= set(topics.TOPIC_OF_NAME))
    counts = {each.name: len(each.partitions) for each in topic_admin.describe(admin)}
    for topic in topics.TOPICS:
        assert counts[topic.name] == topic.partitions
    assert {name: counts[name] for name in ("orders", "payments", "orders-replay")} == {
        "orders": 6,
        "payments": 3,
        "orders-replay": 3,
    }


def test_creating_changes_no_topic_that_is_there(
    admin: AdminClient, unique: Callable[[str], str]
) -> None:
    name = unique("topic")
    assert topic_admin.create(admin, [Topic(name, 2)]) == [name]
    wait_for("the topic", lambda: name in topic_admin.list_names(admin))
    assert topic_admin.create(admin, [Topic(name, 5)]) == []
    assert partitions(admin, name) == 2


def test_a_topic_only_grows(admin: AdminClient, unique: Callable[[str], str]) -> None:
    name = unique("topic")
    topic_admin.create(admin, [Topic(name, 2)])
    wait_for("the topic", lambda: name in topic_admin.list_names(admin))
    assert topic_admin.alter(admin, name, 4) is True
    wait_for("four partitions", lambda: partitions(admin, name) == 4)
    assert topic_admin.alter(admin, name, 4) is False
    with pytest.raises(TopicError, match=r"cannot shrink .* from 4 to 3 .* without losing"):
        topic_admin.alter(admin, name, 3)
    assert partitions(admin, name) == 4


def test_an_unknown_topic_is_named(admin: AdminClient) -> None:
    with pytest.raises(TopicError, match="nothing-like-it does not exist"):
        topic_admin.describe(admin, ["nothing-like-it"])


def test_a_broker_that_is_away_is_an_error_not_a_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(topic_admin, "REQUEST_TIMEOUT_SECONDS", 1.0)
    away = topic_admin.admin_client(f"127.0.0.1:{free_port()}")
    with pytest.raises(TopicError, match="cannot reach Kafka"):
        topic_admin.list_names(away)


def test_each_group_has_a_dead_letter_topic_of_its_own() -> None:
    names = [group.dead_letter_topic for group in topics.GROUPS]
    assert len(set(names)) == len(names) == 5
    assert set(names) <= set(topics.TOPIC_OF_NAME)


def found(admin: AdminClient, topic: Topic) -> dict[str, str]:
    return {d.what: d.remedy for d in topic_admin.check(admin, [topic])}


def test_a_topic_is_created_as_it_is_declared(
    admin: AdminClient, unique: Callable[[str], str]
) -> None:
    wanted = Topic(unique("topic"), 2, retention_days=3, max_message_bytes=5_000)
    assert found(admin, wanted) == {"does not exist": "topics create"}
    topic_admin.create(admin, [wanted])
    wait_for("the topic", lambda: topic_admin.check(admin, [wanted]) == [])
    assert topic_admin._settings(admin, [wanted.name])[wanted.name].items() >= {
        ("retention.ms", "259200000"),
        ("max.message.bytes", "5000"),
        ("cleanup.policy", "delete"),
        ("min.insync.replicas", "1"),
    }


def test_each_difference_is_told_with_the_command_that_mends_it(
    admin: AdminClient, unique: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    name = unique("topic")
    by_hand = {"retention.ms": "3600000", "cleanup.policy": "compact", "max.message.bytes": "1000"}
    admin.create_topics([NewTopic(name, 1, 1, config=by_hand)])[name].result()
    wanted = Topic(name, 2)
    monkeypatch.setitem(topics.TOPIC_OF_NAME, name, wanted)
    settings = f"topics alter {name} --settings"
    expected = {
        "has 1 partitions, declared 2": f"topics alter {name} --partitions 2",
        "cleanup.policy is compact, declared delete": settings,
        "max.message.bytes is 1000, declared 1048588": settings,
        "retention.ms is 3600000, declared 604800000": settings,
    }
    wait_for("the topic", lambda: found(admin, wanted) == expected)
    topic_admin.alter(admin, name, 3)
    topic_admin.apply_settings(admin, name)
    # more partitions than declared are none: they only grow
    wait_for("no difference", lambda: topic_admin.check(admin, [wanted]) == [])
    with pytest.raises(TopicError, match="nothing-like-it is none of those that are declared"):
        topic_admin.apply_settings(admin, "nothing-like-it")


def test_an_acknowledged_message_is_on_two_brokers_where_there_are_two() -> None:
    for topic in topics.TOPICS:
        copies = [topic.settings(n)["min.insync.replicas"] for n in (1, 2, 3, 5)]
        assert copies == ["1", "2", "2", "2"]


def test_the_largest_message_of_a_topic_fits_into_its_dead_letter_topic() -> None:
    sizes = {topic.name: topic.max_message_bytes for topic in topics.TOPICS}
    for group in topics.GROUPS:
        largest = max(sizes[name] for name in group.topics)
        assert sizes[group.dead_letter_topic] >= largest + 64 * 1024
        # and the relay's producer does not refuse it before the broker can take it
        assert sizes[group.dead_letter_topic] <= MAX_MESSAGE_BYTES
