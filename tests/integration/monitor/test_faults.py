"""Brokers, topics and groups that fail in the middle of a poll, on real brokers."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Consumer, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import (
    AclBinding,
    AclOperation,
    AclPermissionType,
    AdminClient,
    NewTopic,
    ResourcePatternType,
    ResourceType,
)
from prometheus_client.parser import text_string_to_metric_families

from monitor.analysis.analyst import Analyst
from monitor.exposition.blocks import Choice, blocks
from monitor.exposition.families.monitor import BROKER_UP
from monitor.exposition.render import Renderer
from monitor.kafka.apis.list_offsets import ListOffsets
from monitor.kafka.collector import Collector, Intervals
from monitor.kafka.coordinators import GROUPS_TOPIC, partition_of
from monitor.kafka.questions import Ask
from monitor.kafka.transport import KafkaWire
from monitor.model import Snapshot
from monitor.settings import KafkaSettings
from monitor.state import State
from order_services.local.kafka import EmbeddedKafka
from tests.support.cluster import Cluster, bounded
from tests.support.waiting import wait_for

REQUEST_TIMEOUT_S = 2.0
# rounds that may each wait for a broker that has just failed, and the second pair of them
POLL_LIMIT_S = 5 * REQUEST_TIMEOUT_S


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    cluster = Cluster(tmp_path_factory.mktemp("cluster"))
    yield cluster
    cluster.stop()


class InterruptedWire(KafkaWire):
    """Does something just before the log ends are asked for: after the groups were read."""

    def __init__(self, bootstrap_servers: str) -> None:
        super().__init__(KafkaSettings(bootstrap_servers=(bootstrap_servers,)))
        self.interruption: Callable[[], None] | None = None

    def ask(
        self, asks: Sequence[Ask[Any]], timeout_s: float, not_awaited: Collection[int] = ()
    ) -> None:
        if self.interruption and any(isinstance(ask.question, ListOffsets) for ask in asks):
            interruption, self.interruption = self.interruption, None
            interruption()
        super().ask(asks, timeout_s, not_awaited)


@contextmanager
def watching(
    bootstrap_servers: str, topics: Collection[str], groups: Collection[str]
) -> Iterator[tuple[Collector, InterruptedWire]]:
    wire = InterruptedWire(bootstrap_servers)
    try:
        yield (
            Collector(
                wire,
                Intervals(request_timeout=REQUEST_TIMEOUT_S),
                wants_topic=topics.__contains__,
                wants_group=groups.__contains__,
            ),
            wire,
        )
    finally:
        wire.close()


def produce(bootstrap_servers: str, topic: str, counts: dict[int, int]) -> None:
    producer = Producer({"bootstrap.servers": bootstrap_servers, "log_level": 0})
    for partition, count in counts.items():
        for _ in range(count):
            producer.produce(topic, b"x", partition=partition)
    assert producer.flush(30) == 0


def commit(bootstrap_servers: str, group: str, offsets: list[TopicPartition]) -> None:
    consumer = Consumer({"bootstrap.servers": bootstrap_servers, "group.id": group, "log_level": 0})

    def committed() -> bool:
        try:
            consumer.commit(offsets=offsets, asynchronous=False)
        except KafkaException:  # a new broker is nobody's coordinator for a moment
            return False
        return True

    try:
        wait_for("commit", committed)
    finally:
        consumer.close()


def one_group_per_coordinator(
    cluster: Cluster, topic: str, unique: Callable[[str], str]
) -> dict[int, str]:
    """Return coordinator -> group with commits on both partitions of the topic."""
    found: dict[int, str] = {}
    while len(found) < 2:
        group = unique("g")
        commit(
            cluster.bootstrap_servers,
            group,
            [TopicPartition(topic, 0, 1), TopicPartition(topic, 1, 1)],
        )
        described = cluster.admin.describe_consumer_groups([group])[group].result()
        leaders = cluster.leaders(GROUPS_TOPIC)
        assert leaders[partition_of(group, len(leaders))] == described.coordinator.id
        found.setdefault(described.coordinator.id, group)
    return found


@pytest.fixture
def topic(cluster: Cluster, unique: Callable[[str], str]) -> str:
    name = unique("faults")
    cluster.create_topic(name)
    produce(cluster.bootstrap_servers, name, {0: 3, 1: 5})
    return name


def broker_up(snapshot: Snapshot) -> dict[str, float]:
    """Return broker -> kafka_monitor_broker_up, as it is scraped."""
    state = State("c", snapshot.taken_at, snapshot, Analyst().measure(snapshot))
    page = Renderer().render(blocks(state, Choice(stale_after_s=45))).plain.decode()
    return {
        sample.labels["broker"]: sample.value
        for family in text_string_to_metric_families(page)
        for sample in family.samples
        if sample.name == BROKER_UP.name
    }


def whole(collector: Collector, topic: str) -> Snapshot:
    """Poll until all is seen: a broker that has just started needs a moment."""

    def probe() -> Snapshot | None:
        snapshot = collector.poll()
        seen = snapshot.end_offsets.values.get(topic, {}).keys() == {0, 1}
        stale = snapshot.end_offsets.silent or any(g.is_silent for g in snapshot.groups.values())
        return snapshot if seen and not stale and not snapshot.broker_errors else None

    return wait_for("whole snapshot", probe)


@pytest.mark.parametrize("fault", ["killed", "paused"])
def test_a_broker_lost_in_the_middle_of_a_poll_costs_only_its_own_numbers(
    fault: str, cluster: Cluster, topic: str, unique: Callable[[str], str]
) -> None:
    groups = one_group_per_coordinator(cluster, topic, unique)
    with watching(cluster.bootstrap_servers, {topic}, set(groups.values())) as (collector, wire):
        before = whole(collector, topic)
        assert before.groups[groups[2]].coordinator == 2
        produce(cluster.bootstrap_servers, topic, {0: 4, 1: 4})
        try:
            wire.interruption = cluster.second.kill if fault == "killed" else cluster.second.pause
            with bounded(POLL_LIMIT_S):
                during = collector.poll()
            assert set(during.broker_errors) == {2}
            # what was read before the fault is fresh, and so is all of the other broker
            assert not during.groups[groups[1]].is_silent
            assert not during.groups[groups[2]].is_silent
            ends = during.end_offsets
            assert ends.values[topic] == {0: 7, 1: 5}
            assert ends.is_silent(topic, 1)
            assert not ends.is_silent(topic, 0)
            assert ends.time_of(topic, 1) == before.end_offsets.time_of(topic, 1)
            assert ends.time_of(topic, 0) > before.monotonic_at

            with bounded(REQUEST_TIMEOUT_S):  # nobody waits for it again
                later = collector.poll()
            assert not later.groups[groups[1]].is_silent
            assert later.groups[groups[2]].is_silent
            assert later.groups[groups[2]].commits == {topic: {0: 1, 1: 1}}
            silent_since = later.groups[groups[2]].silent_since
            assert silent_since is not None
            assert before.monotonic_at < silent_since <= during.monotonic_at
            assert later.end_offsets.time_of(topic, 0) > during.monotonic_at

            # the controller fences it: it leaves the metadata, and its numbers stay as they were
            def fenced() -> Snapshot | None:
                with bounded(POLL_LIMIT_S):
                    found = collector.poll()
                assert found.groups[groups[2]].is_silent
                assert found.groups[groups[2]].commits == {topic: {0: 1, 1: 1}}
                ends = found.end_offsets
                if found.topics[topic].partitions[1].leader is None:
                    assert ends.refused[topic] == {1: "no leader"}
                    assert ends.get(topic, 1) is None
                else:
                    assert ends.is_silent(topic, 1)
                    assert ends.get(topic, 1) == 5
                return None if 2 in found.brokers else found

            gone = wait_for("fenced broker", fenced)
            assert gone.groups[groups[2]].silent_since == silent_since
            assert not gone.groups[groups[1]].is_silent
            assert not collector.poll().broker_errors  # nobody is silent any more
            assert fenced()
            # it is not forgotten, nor by a monitor that never saw it: it should hold replicas
            assert gone.missing_brokers == {2}
            with watching(cluster.bootstrap_servers, {topic}, ()) as (new, _):
                first = new.poll()
                assert broker_up(first) == {"1": 1, "2": 0}
        finally:
            if fault == "killed":
                cluster.revive_second()
            else:
                cluster.second.resume()
        after = whole(collector, topic)
        assert broker_up(after) == {"1": 1, "2": 1}
        assert after.end_offsets.values[topic] == {0: 7, 1: 9}
        assert after.groups[groups[2]].commits == {topic: {0: 1, 1: 1}}


def test_a_partition_without_a_leader_has_that_as_its_error_and_no_offset(
    cluster: Cluster, topic: str
) -> None:
    with watching(cluster.bootstrap_servers, {topic}, ()) as (collector, _):
        whole(collector, topic)
        cluster.second.stop()
        try:
            wait_for("lost leader", lambda: cluster.leaders(topic)[1] == -1)
            produce(cluster.bootstrap_servers, topic, {0: 1})

            def leaderless() -> Snapshot | None:
                with bounded(POLL_LIMIT_S):
                    found = collector.poll()
                return found if found.topics[topic].partitions[1].leader is None else None

            snapshot = wait_for("leaderless partition", leaderless)
            assert snapshot.end_offsets.values[topic] == {0: 4}
            assert snapshot.end_offsets.refused[topic] == {1: "no leader"}
            assert not snapshot.end_offsets.is_silent(topic, 0)
            with watching(cluster.bootstrap_servers, {topic}, ()) as (new, _):
                first = new.poll().end_offsets
                assert first.values[topic] == {0: 4}
                assert first.refused[topic] == {1: "no leader"}
        finally:
            cluster.revive_second()


def test_a_topic_deleted_in_the_middle_of_a_poll_disappears_and_disturbs_nothing_else(
    cluster: Cluster, topic: str, unique: Callable[[str], str]
) -> None:
    doomed, group = unique("doomed"), unique("g")
    cluster.create_topic(doomed)
    produce(cluster.bootstrap_servers, doomed, {0: 2, 1: 2})
    commit(
        cluster.bootstrap_servers,
        group,
        [TopicPartition(doomed, 0, 1), TopicPartition(topic, 0, 2)],
    )

    def delete() -> None:
        cluster.admin.delete_topics([doomed])[doomed].result()
        # a broker names the topic no more a moment before it gives its log up, and answers
        # for the log until then
        wait_for("deletion", lambda: not cluster.logs(doomed))

    with watching(cluster.bootstrap_servers, {topic, doomed}, {group}) as (collector, wire):
        # in the very first poll: there is nothing to fall back on
        wire.interruption = delete
        with bounded(POLL_LIMIT_S + 10):  # the deletion itself included
            during = collector.poll()
        assert during.broker_errors == {}
        assert during.end_offsets.values[topic] == {0: 3, 1: 5}
        assert not during.end_offsets.values.get(doomed)
        assert during.groups[group].commits[topic] == {0: 2}

        def gone() -> Snapshot | None:
            found = collector.poll()
            return found if doomed not in found.topics else None

        after = wait_for("new metadata", gone)
        assert doomed not in after.end_offsets.values
        assert after.end_offsets.values[topic] == {0: 3, 1: 5}
        assert after.groups[group].error is None


def test_a_group_that_may_not_be_read_says_so_and_the_others_are_read(
    tmp_path: Path, unique: Callable[[str], str]
) -> None:
    broker = EmbeddedKafka(
        tmp_path / "kafka",
        overrides={
            "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
            "allow.everyone.if.no.acl.found": "true",
        },
        heap_mb=256,
    )
    broker.start()
    try:
        admin = AdminClient({"bootstrap.servers": broker.bootstrap_servers, "log_level": 0})
        admin.create_topics([NewTopic("t", 1, 1)])["t"].result()
        for group in ("secret", "public"):
            commit(broker.bootstrap_servers, group, [TopicPartition("t", 0, 0)])
        deny = AclBinding(
            ResourceType.GROUP,
            "secret",
            ResourcePatternType.LITERAL,
            "User:ANONYMOUS",
            "*",
            AclOperation.DESCRIBE,
            AclPermissionType.DENY,
        )
        admin.create_acls([deny])[deny].result()
        with watching(broker.bootstrap_servers, {"t"}, {"secret", "public"}) as (collector, _):

            def refused() -> Snapshot | None:
                with bounded(POLL_LIMIT_S):
                    found = collector.poll()
                return found if found.groups["secret"].error else None

            snapshot = wait_for("refusal", refused)
            assert snapshot.groups["secret"].error == "GROUP_AUTHORIZATION_FAILED"
            assert snapshot.broker_errors == {}
            assert snapshot.groups["public"].error is None
            assert snapshot.groups["public"].commits == {"t": {0: 0}}
        # a monitor that never was allowed to read it has no number for it
        with watching(broker.bootstrap_servers, {"t"}, {"secret", "public"}) as (new, _):
            secret = new.poll().groups["secret"]
            assert secret.commits == {}
            assert not secret.is_silent
    finally:
        broker.stop()
