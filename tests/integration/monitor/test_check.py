"""`monitor check` on a real broker, beside groups of which no lag can be told."""

from __future__ import annotations

from collections.abc import Iterator
from uuid import uuid4

import pytest
from click.testing import CliRunner, Result
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from monitor.commands import main
from order_services.local.kafka import EmbeddedKafka
from tests.support.waiting import wait_for


class Groups:
    """Topics and groups that have a name of their own in common, and a plugin that checks these."""

    def __init__(self, kafka: EmbeddedKafka) -> None:
        self._address: dict[str, str | int | float | bool] = {
            "bootstrap.servers": kafka.bootstrap_servers
        }
        self.name = f"check-{uuid4().hex[:8]}"
        self._consumers: list[Consumer] = []

    def topic(self, end: str) -> str:
        name = f"{self.name}-{end}"
        admin = AdminClient(self._address)
        admin.create_topics([NewTopic(name, 1, 1)])[name].result()
        producer = Producer(self._address)
        producer.produce(name, b"x")
        assert producer.flush(30) == 0
        return name

    def consumer(self, end: str, **options: object) -> Consumer:
        named = {name.replace("_", "."): value for name, value in options.items()}
        group = {"group.id": f"{self.name}-{end}", "enable.auto.commit": False, "log_level": 0}
        self._consumers.append(Consumer({**self._address, **group, **named}))
        return self._consumers[-1]

    def commit(self, end: str, topic: str) -> None:
        self.consumer(end).commit(offsets=[TopicPartition(topic, 0, 1)], asynchronous=False)

    def check(self, *more: str) -> Result:
        named = ["--group-regex", f"{self.name}-.*", "--timeout", "60", *more]
        address = str(self._address["bootstrap.servers"])
        return CliRunner().invoke(main, ["check", "--bootstrap-servers", address, *named])

    def close(self) -> None:
        for consumer in self._consumers:
            consumer.close()


@pytest.fixture
def groups(kafka: EmbeddedKafka) -> Iterator[Groups]:
    groups = Groups(kafka)
    yield groups
    groups.close()


def test_groups_of_which_no_lag_can_be_told_are_named_and_make_nothing_unknown(
    groups: Groups, monkeypatch: pytest.MonkeyPatch
) -> None:
    orders, shared = groups.topic("orders"), groups.topic("shared")
    groups.commit("well", orders)
    groups.commit("denied", shared)
    groups.consumer("early", group_protocol="consumer").subscribe([f"^{groups.name}-nothing.*"])
    elsewhere = groups.consumer("elsewhere", auto_offset_reset="earliest")
    elsewhere.subscribe([orders])
    wait_for("a message", lambda: elsewhere.poll(0.1) is not None)
    monkeypatch.setenv("MONITOR_TOPICS_DENY", shared)
    wait_for("its member", lambda: "early: its members hold no part" in groups.check().stdout)
    result = groups.check()
    assert result.exit_code == 0
    assert result.stdout.startswith("KAFKA LAG OK - 1 group, the furthest is ")
    for end, why in (
        ("early", "its members hold no partition and it has committed no offset"),
        ("elsewhere", "it holds 1 partition and has committed no offset"),
        ("denied", "it has no members and no committed offset, but for topics that are left out"),
    ):
        assert f"Not judged: {groups.name}-{end}: {why}" in result.stdout
        assert groups.check("--group", f"{groups.name}-{end}").exit_code == 3
