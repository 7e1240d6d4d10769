"""`monitor lag` and `/metrics` against Apache's own tool, number for number, on a quiet cluster."""

from __future__ import annotations

import json
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest
from confluent_kafka import Consumer, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic
from prometheus_client.parser import text_string_to_metric_families

from order_services.local.kafka import EmbeddedKafka
from order_services.local.ports import free_port

CONSUMER_GROUPS = "org.apache.kafka.tools.consumer.group.ConsumerGroupCommand"

Key = tuple[str, str, str]


@dataclass(frozen=True)
class Scene:
    broker: EmbeddedKafka
    with_members: str
    without_members: str
    uncommitted: str
    deleted_topic: str
    new_protocol: str

    @property
    def groups(self) -> set[str]:
        return {
            self.with_members,
            self.without_members,
            self.uncommitted,
            self.deleted_topic,
            self.new_protocol,
        }


def wait_until(met: Callable[[], bool], what: str, timeout_s: float = 60) -> None:
    deadline = time.monotonic() + timeout_s
    while not met():
        assert time.monotonic() < deadline, f"not within {timeout_s} s: {what}"
        time.sleep(0.05)


def make_topic(broker: EmbeddedKafka, name: str, partitions: int, per_partition: int) -> None:
    admin = AdminClient({"bootstrap.servers": broker.bootstrap_servers})
    admin.create_topics([NewTopic(name, partitions, 1)])[name].result()
    producer = Producer({"bootstrap.servers": broker.bootstrap_servers})
    for partition in range(partitions):
        for number in range(per_partition + partition):
            producer.produce(name, value=str(number), partition=partition)
    assert producer.flush(30) == 0


def member(broker: EmbeddedKafka, group: str, topic: str, **options: object) -> Consumer:
    consumer = Consumer(
        {
            "bootstrap.servers": broker.bootstrap_servers,
            "group.id": group,
            "client.id": f"client-of-{group}",
            "enable.auto.commit": False,
            "auto.offset.reset": "earliest",
            **options,
        }
    )
    consumer.subscribe([topic])
    return consumer


def join(*consumers: Consumer) -> None:
    def assigned() -> bool:
        for consumer in consumers:
            consumer.poll(0.05)
        return all(consumer.assignment() for consumer in consumers)

    wait_until(assigned, "every consumer has an assignment")
    for consumer in consumers:
        consumer.pause(consumer.assignment())


def commit(consumer: Consumer, topic: str, offsets: dict[int, int]) -> None:
    wanted = [TopicPartition(topic, partition, at) for partition, at in offsets.items()]

    def committed() -> bool:
        try:
            # a member may be between two epochs: it is told to try again
            done = consumer.commit(offsets=wanted, asynchronous=False)
        except KafkaException:
            consumer.poll(0.05)
            return False
        return all(partition.error is None for partition in done or ())

    wait_until(committed, "the commit is accepted")


@pytest.fixture
def scene(kafka: EmbeddedKafka, unique: Callable[[str], str]) -> Iterator[Scene]:
    topic, doomed = unique("quiet-topic"), unique("doomed-topic")
    make_topic(kafka, topic, partitions=3, per_partition=10)
    make_topic(kafka, doomed, partitions=2, per_partition=5)
    names = Scene(kafka, *(unique(n) for n in ("live", "empty", "fresh", "orphaned", "kip848")))
    live = [member(kafka, names.with_members, topic) for _ in range(2)]
    join(*live)
    commit(live[0], topic, {p.partition: 4 for p in live[0].assignment()})
    commit(live[1], topic, {p.partition: 7 for p in live[1].assignment()})
    left = member(kafka, names.without_members, topic)
    join(left)
    commit(left, topic, {0: 3, 1: 11, 2: 0})
    left.close()
    fresh = member(kafka, names.uncommitted, topic)
    join(fresh)
    commit(fresh, topic, {1: 5})
    orphan = member(kafka, names.deleted_topic, doomed)
    join(orphan)
    commit(orphan, doomed, {0: 2, 1: 2})
    orphan.close()
    new = member(kafka, names.new_protocol, topic, **{"group.protocol": "consumer"})
    join(new)
    commit(new, topic, {0: 1, 1: 2, 2: 3})
    admin = AdminClient({"bootstrap.servers": kafka.bootstrap_servers})
    admin.delete_topics([doomed])[doomed].result()
    wait_until(lambda: doomed not in admin.list_topics(timeout=10).topics, "the topic is gone")
    yield names
    for consumer in (*live, fresh, new):
        consumer.close()


def table_rows(printed: str, groups: set[str]) -> dict[Key, tuple[str, ...]]:
    """(group, topic, partition) -> the other cells, of the tool's table or of ours."""
    rows = {}
    for line in printed.splitlines():
        cells = line.split()
        if len(cells) == 9 and cells[0] in groups:
            rows[cells[0], cells[1], cells[2]] = tuple(cells[3:])
    return rows


def monitor_lag(broker: EmbeddedKafka, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "monitor", "lag",
         "--bootstrap-servers", broker.bootstrap_servers, *arguments],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip


def apache(broker: EmbeddedKafka, *arguments: str) -> str:
    return broker.run_tool(
        CONSUMER_GROUPS, "--bootstrap-server", broker.bootstrap_servers, "--describe",
        "--all-groups", *arguments,
    )  # fmt: skip


def test_lag_is_the_same_number_for_number(scene: Scene) -> None:
    theirs = table_rows(apache(scene.broker), scene.groups)
    printed = monitor_lag(scene.broker)
    ours = table_rows(printed.stdout, scene.groups)

    assert ours == theirs
    seen = {group for group, _, _ in theirs}
    # none of the kinds may drop out of the comparison unseen
    assert {
        scene.with_members,
        scene.without_members,
        scene.uncommitted,
        scene.new_protocol,
    } <= seen
    assert sum(row[0] == "-" for row in theirs.values()) >= 2, "uncommitted partitions are compared"

    for group in scene.groups:
        assert f"{group}: total lag" in printed.stdout


def test_members_and_state_are_the_same(scene: Scene) -> None:
    answer = json.loads(monitor_lag(scene.broker, "--output", "json").stdout)
    ours = {group["group"]: group for group in answer["groups"]}
    states: dict[str, tuple[str, str]] = {}
    for line in apache(scene.broker, "--state").splitlines():
        cells = line.split()
        if cells and cells[0] in scene.groups:
            states[cells[0]] = (cells[-2], cells[-1])
    assert states.keys() == scene.groups
    assert {
        group: (ours[group]["state"], str(ours[group]["members"])) for group in scene.groups
    } == states
    assert ours[scene.new_protocol]["type"] == "consumer"
    assert ours[scene.with_members]["type"] == "classic"


def test_metrics_hold_the_same_numbers(scene: Scene) -> None:
    theirs = table_rows(apache(scene.broker), scene.groups)
    port = free_port()
    server = subprocess.Popen(
        [sys.executable, "-m", "monitor", "serve", "--port", str(port),
         "--bootstrap-servers", scene.broker.bootstrap_servers],
        stdout=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        wait_until(lambda: is_ready(port), "the monitor is ready")
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
            page = answer.read().decode()
    finally:
        server.terminate()
        assert server.wait(20) == 0
    samples: dict[str, dict[Key, str]] = {}
    for family in text_string_to_metric_families(page):
        for sample in family.samples:
            labels = sample.labels
            if labels.get("consumergroup") in scene.groups and "partition" in labels:
                key = labels["consumergroup"], labels["topic"], labels["partition"]
                samples.setdefault(sample.name, {})[key] = f"{sample.value:.0f}"
    known = {key: row for key, row in theirs.items() if row[0] != "-"}
    assert samples["kafka_consumergroup_current_offset"] == {k: r[0] for k, r in known.items()}
    assert samples["kafka_consumergroup_lag"] == {k: r[2] for k, r in known.items() if r[2] != "-"}


def is_ready(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/ready", timeout=5) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False
