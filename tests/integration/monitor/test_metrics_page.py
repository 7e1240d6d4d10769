"""What `monitor serve` shows of a real cluster: every declared metric, and nothing else."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import urllib.request
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic
from prometheus_client.parser import text_string_to_metric_families

from monitor.exposition.catalogue import ALL_METRICS, CHOICES, FAMILIES
from order_services.local.kafka import EmbeddedKafka
from order_services.local.ports import free_port
from tests.conftest import Database
from tests.support.collector import standing_in

Samples = dict[str, dict[tuple[tuple[str, str], ...], float]]

BEHIND_S = 120
# Conditions that this cluster does not meet.
NOT_HERE = (
    "a partition's leader does not answer",
    "the group's coordinator does not answer",
    "a partition is WARN, STOP, STALL or REWIND",
    "the last poll failed",
    "the last poll was not answered in full",
    "the lag ends at the present rates",
    "a part of the monitor's own work fails",
    "a broker refuses a part of the group",
    "a broker refuses a partition's offsets or a look into its log, or it has no leader",
    "an open transaction holds a group back",
    "the group's members hold nothing of a topic that it has commits on",
)


@dataclass(frozen=True)
class Scene:
    topic: str
    classic: str
    consumer: str
    quiet: str
    past_end: str


def wait_until(met: Callable[[], bool], what: str, timeout_s: float = 60) -> None:
    deadline = time.monotonic() + timeout_s
    while not met():
        assert time.monotonic() < deadline, f"not within {timeout_s} s: {what}"
        time.sleep(0.05)


def consumer(kafka: EmbeddedKafka, group: str, **options: object) -> Consumer:
    return Consumer(
        {
            "bootstrap.servers": kafka.bootstrap_servers,
            "group.id": group,
            "client.id": f"client-of-{group}",
            "enable.auto.commit": False,
            "auto.offset.reset": "earliest",
            **options,
        }
    )


@pytest.fixture
def scene(kafka: EmbeddedKafka, unique: Callable[[str], str]) -> Iterator[Scene]:
    """Two live groups, two minutes behind on one of two partitions; one at rest; one past the end."""
    names = Scene(*map(unique, ("measured", "classic", "kip848", "quiet", "past-end")))
    admin = AdminClient({"bootstrap.servers": kafka.bootstrap_servers})
    admin.create_topics([NewTopic(names.topic, 2, 1)])[names.topic].result()
    producer = Producer({"bootstrap.servers": kafka.bootstrap_servers})
    now_ms = int(time.time() * 1000)
    for number in range(20):
        # record n is (20 - n) x 12 s old: the first unread one, 10, is two minutes old
        at = now_ms - (20 - number) * 12_000
        producer.produce(names.topic, b"x", partition=0, timestamp=at)
        producer.produce(names.topic, b"x", partition=1, timestamp=at)
    assert producer.flush(30) == 0
    live = [
        consumer(kafka, names.classic),
        consumer(kafka, names.consumer, **{"group.protocol": "consumer"}),
    ]
    for each in live:
        each.subscribe([names.topic])

    def assigned() -> bool:
        for each in live:
            each.poll(0.05)
        return all(each.assignment() for each in live)

    wait_until(assigned, "every consumer has an assignment")
    behind = [TopicPartition(names.topic, 0, 10), TopicPartition(names.topic, 1, 20)]
    for each in live:
        each.pause(each.assignment())
        each.commit(offsets=behind, asynchronous=False)
    for group, offset in ((names.quiet, 20), (names.past_end, 99)):
        left = consumer(kafka, group)
        left.commit(
            offsets=[TopicPartition(names.topic, p, offset) for p in (0, 1)], asynchronous=False
        )
        left.close()
    yield names
    for each in live:
        each.close()


@contextmanager
def serving(kafka: EmbeddedKafka, **settings: str) -> Iterator[str]:
    """Yield the address of a running monitor."""
    port = free_port()
    environment = {**os.environ, **{f"MONITOR_{k.upper()}": v for k, v in settings.items()}}
    server = subprocess.Popen(
        [sys.executable, "-m", "monitor", "serve", "--port", str(port), "--poll-interval", "1",
         "--bootstrap-servers", kafka.bootstrap_servers],
        stdout=subprocess.DEVNULL, env=environment,
    )  # fmt: skip
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        server.terminate()
        assert server.wait(20) == 0


def get(url: str) -> str:
    with urllib.request.urlopen(url, timeout=10) as answer:
        return str(answer.read().decode())


def scrape(address: str) -> Samples:
    found: defaultdict[str, dict[tuple[tuple[str, str], ...], float]] = defaultdict(dict)
    for family in text_string_to_metric_families(get(f"{address}/metrics")):
        for sample in family.samples:
            found[sample.name][tuple(sorted(sample.labels.items()))] = sample.value
    return dict(found)


def scrape_when(address: str, met: Callable[[Samples], bool], what: str) -> Samples:
    last: Samples = {}

    def is_met() -> bool:
        nonlocal last
        try:
            last = scrape(address)
        except OSError:
            return False
        return met(last)

    wait_until(is_met, what)
    return last


def test_every_declared_metric_is_shown_and_no_other(
    kafka: EmbeddedKafka, scene: Scene, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    with standing_in() as collector:
        monkeypatch.setenv("OTEL_METRICS_EXPORTER", "otlp")
        monkeypatch.setenv("OTEL_METRIC_EXPORT_INTERVAL", "1000")
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
        with serving(
            kafka,
            families=",".join(CHOICES),
            measures_level="partition",
            log_sizes="true",
            database_url=database.url,
            history_url=database.url,
        ) as address:
            found = scrape_when(
                address,
                lambda s: (
                    "kafka_consumergroup_consumed_messages_per_second" in s
                    and "pg_up" in s
                    and "kafka_monitor_history_last_write_timestamp_seconds" in s
                    and "kafka_monitor_otlp_last_push_timestamp_seconds" in s
                ),
                "two polls, a look at the database, and a push",
            )
    pushed = collector.points()
    assert ({"consumergroup": scene.classic}, 10) in pushed["kafka_consumergroup_lag"]
    assert pushed.keys() <= {metric.name for metric in ALL_METRICS}
    declared = {metric.name: metric for metric in ALL_METRICS}
    assert found.keys() <= declared.keys()
    for name, samples in found.items():
        labels = set(declared[name].labels)
        assert all({key for key, _ in sample} == labels for sample in samples), name
    expected = {
        metric.name
        for family in FAMILIES
        # pools of services and PgBouncer are not part of this cluster
        if family.name != "database"
        for metric in family.metrics
        if metric.when not in NOT_HERE
    }
    assert expected - found.keys() == set()
    assert found["pg_up"][()] == 1


def test_the_measures_are_those_of_the_cluster(kafka: EmbeddedKafka, scene: Scene) -> None:
    with serving(kafka, measures_level="partition") as address:
        found = scrape_when(address, lambda s: "kafka_consumergroup_lag" in s, "the first poll")
        page = get(address)

    def value(name: str, **labels: str) -> float | None:
        return found.get(name, {}).get(tuple(sorted(labels.items())))

    for group in (scene.classic, scene.consumer):
        where = {"consumergroup": group, "topic": scene.topic}
        assert value("kafka_consumergroup_lag", partition="0", **where) == 10
        seconds = value("kafka_consumergroup_lag_seconds", partition="0", **where)
        assert seconds is not None
        assert BEHIND_S <= seconds < BEHIND_S + 60
        assert value("kafka_consumergroup_lag_seconds", partition="1", **where) == 0
        assert value("kafka_consumergroup_lag_seconds_max", consumergroup=group) == seconds
        assert value("kafka_consumergroup_members", consumergroup=group) == 1
        assert value("kafka_consumergroup_idle_members", consumergroup=group) == 0
        assert value("kafka_consumergroup_unassigned_partitions", consumergroup=group) == 0
        assert value("kafka_consumergroup_imbalance_ratio", kind="assignment", **where) == 0
        assert value("kafka_consumergroup_state", consumergroup=group, state="Stable") == 1
        assert value("kafka_consumergroup_messages_lost_total", **where) == 0
        assert value("kafka_consumergroup_unread_deleted_messages", **where) == 0
        assert value("kafka_consumergroup_readable_lag", **where) == 10
        assert value("kafka_consumergroup_stuck_partitions", **where) == 0
        assert value("kafka_consumergroup_active", by="members", consumergroup=group) == 1
        remaining = value("kafka_consumergroup_retention_remaining_seconds", partition="0", **where)
        assert remaining is not None
        assert remaining > 3_600
        assert group in page
    assert value("kafka_consumergroup_lag_seconds_max", consumergroup=scene.quiet) == 0
    for partition in ("0", "1"):
        where = {"consumergroup": scene.past_end, "topic": scene.topic, "partition": partition}
        assert value("kafka_consumergroup_commit_past_end_messages", **where) == 99 - 20
        assert value("kafka_consumergroup_lag", **where) == 0
    statuses = found["kafka_consumergroup_status"]
    of_quiet = {dict(k)["status"]: v for k, v in statuses.items() if (
        "consumergroup", scene.quiet) in k}  # fmt: skip
    assert of_quiet == {}  # it is OK, and nobody was seen to read with it
    of_classic = {dict(k)["status"]: v for k, v in statuses.items() if (
        "consumergroup", scene.classic) in k}  # fmt: skip
    assert of_classic == {"OK": 1}


def test_the_api_burrows_and_the_command_say_the_same(kafka: EmbeddedKafka, scene: Scene) -> None:
    with serving(kafka) as address:
        scrape_when(address, lambda s: "kafka_consumergroup_lag" in s, "the first poll")
        told = {
            group: json.loads(get(f"{address}/api/v1/groups/{group}"))
            for group in (scene.classic, scene.consumer, scene.past_end)
        }
        (cluster,) = json.loads(get(f"{address}/v3/kafka"))["clusters"]
        burrows = json.loads(get(f"{address}/v3/kafka/{cluster}/consumer/{scene.classic}/lag"))
    command = [sys.executable, "-m", "monitor", "lag", "--output", "json"]
    command += ["--bootstrap-servers", kafka.bootstrap_servers]
    for group in told:
        command += ["--group", group]
    printed = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)["groups"]
    for group in printed:
        other = told[group["group"]]
        assert group.keys() == other.keys()
        for name in ("members", "total_lag", "state", "type", "coordinator", "member_list"):
            assert group[name] == other[name], name
        offsets = ("topic", "partition", "current_offset", "log_end_offset", "lag", "consumer_id")
        assert [[p[name] for name in offsets] for p in group["partitions"]] == [
            [p[name] for name in offsets] for p in other["partitions"]
        ]
    assert burrows["status"]["totallag"] == told[scene.classic]["total_lag"] == 10
    assert {p["owner"] for p in burrows["status"]["partitions"]} == {
        p["host"] for p in told[scene.classic]["partitions"]
    }


def test_filters_and_level_keep_the_page_small(kafka: EmbeddedKafka, scene: Scene) -> None:
    with serving(kafka, level="group", groups_allow=scene.classic, topics_allow=scene.topic) as at:
        found = scrape_when(at, lambda s: "kafka_consumergroup_lag" in s, "the first poll")
    assert found["kafka_consumergroup_lag"] == {(("consumergroup", scene.classic),): 10}
    assert found["kafka_consumergroup_lag_sum"] == {(("consumergroup", scene.classic),): 10}
    assert found["kafka_topic_partitions"] == {(("topic", scene.topic),): 2}


def test_a_database_that_does_not_answer_costs_only_its_own_metrics(
    kafka: EmbeddedKafka, scene: Scene
) -> None:
    nowhere = f"postgresql://u:p@127.0.0.1:{free_port()}/none"
    with serving(kafka, database_url=nowhere) as address:
        found = scrape_when(
            address,
            lambda s: "pg_up" in s and "kafka_consumergroup_lag" in s,
            "both were looked at",
        )
    assert found["pg_up"][()] == 0
    assert time.time() - found["db_pools_last_look_timestamp_seconds"][()] < 60
    assert "pg_settings_max_connections" not in found
    assert next(iter(found["kafka_monitor_up"].values())) == 1
