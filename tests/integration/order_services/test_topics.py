from __future__ import annotations

from collections.abc import Callable

import pytest
from confluent_kafka.admin import AdminClient

from order_services import topics
from order_services.local.kafka import EmbeddedKafka
from order_services.local.ports import free_port
from order_services.topics import Topic, TopicError
from tests.support.waiting import wait_for


@pytest.fixture
def admin(kafka: EmbeddedKafka) -> AdminClient:
    return topics.admin_client(kafka.bootstrap_servers)


def partitions(admin: AdminClient, name: str) -> int:
    return len(topics.describe(admin, [name])[0].partitions)


def test_all_declared_topics_are_created_once(admin: AdminClient) -> None:
    topics.create(admin)
    assert topics.create(admin) == []
    wait_for("the topics", lambda: set(topics.list_names(admin)) >= set(topics.TOPIC_OF_NAME))
    found = {each.name: len(each.partitions) for each in topics.describe(admin)}
    for topic in topics.TOPICS:
        assert found[topic.name] == topic.partitions
    assert {name: found[name] for name in ("orders", "payments", "orders-replay")} == {
        "orders": 6,
        "payments": 3,
        "orders-replay": 3,
    }


def test_creating_changes_no_topic_that_is_there(
    admin: AdminClient, unique: Callable[[str], str]
) -> None:
    name = unique("topic")
    assert topics.create(admin, [Topic(name, 2)]) == [name]
    wait_for("the topic", lambda: name in topics.list_names(admin))
    assert topics.create(admin, [Topic(name, 5)]) == []
    assert partitions(admin, name) == 2


def test_a_topic_only_grows(admin: AdminClient, unique: Callable[[str], str]) -> None:
    name = unique("topic")
    topics.create(admin, [Topic(name, 2)])
    wait_for("the topic", lambda: name in topics.list_names(admin))
    assert topics.alter(admin, name, 4) is True
    wait_for("four partitions", lambda: partitions(admin, name) == 4)
    assert topics.alter(admin, name, 4) is False
    with pytest.raises(TopicError, match=r"cannot shrink .* from 4 to 3 .* without losing"):
        topics.alter(admin, name, 3)
    assert partitions(admin, name) == 4


def test_an_unknown_topic_is_named(admin: AdminClient) -> None:
    with pytest.raises(TopicError, match="nothing-like-it does not exist"):
        topics.describe(admin, ["nothing-like-it"])


def test_a_broker_that_is_away_is_an_error_not_a_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(topics, "REQUEST_TIMEOUT_SECONDS", 1.0)
    away = topics.admin_client(f"127.0.0.1:{free_port()}")
    with pytest.raises(TopicError, match="cannot reach Kafka"):
        topics.list_names(away)


def test_each_group_has_a_dead_letter_topic_of_its_own() -> None:
    names = [group.dead_letter_topic for group in topics.GROUPS]
    assert len(set(names)) == len(names) == 5
    assert set(names) <= set(topics.TOPIC_OF_NAME)
