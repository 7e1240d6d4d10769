"""Every family renders, from one state, under the names and labels that its dashboards ask for."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from monitor.analysis.analyst import Analyst
from monitor.analysis.time_questions import TimeReplies, Times
from monitor.exposition.blocks import Choice, blocks
from monitor.exposition.catalogue import ALL_METRICS, CHOICES, DEFAULT_FAMILIES, FAMILIES
from monitor.exposition.docs import document
from monitor.exposition.families import measures
from monitor.exposition.render import Renderer
from monitor.exposition.series import Level
from monitor.model import (
    Broker,
    Group,
    LogSizes,
    Member,
    Offsets,
    Partition,
    Snapshot,
    Topic,
    TopicConfig,
)
from monitor.settings import MonitorSettings
from monitor.state import State

Labels = dict[str, str]


def state() -> State:
    def times(wanted: Times) -> TimeReplies:
        return {"t": {0: (0, 99_000) if wanted["t"][0] <= 99_000 else (-1, -1)}}

    analyst = Analyst(times)
    for number in range(3):
        snapshot = Snapshot(
            "cluster-id",
            taken_at=100.0 + 15 * number,
            monotonic_at=1.0 + 15 * number,
            controller=1,
            brokers={1: Broker(1, "one", 9092, "rack")},
            topics={"t": Topic("t", {p: Partition(1, (1,), (1,)) for p in range(2)})},
            start_offsets=Offsets({"t": {0: 0, 1: 0}}, 100.0),
            end_offsets=Offsets({"t": {0: 10 + number, 1: 20}}, 100.0 + 15 * number),
            groups={
                "g": Group(
                    "g",
                    state="Stable",
                    protocol_type="consumer",
                    assignor="range",
                    coordinator=1,
                    members=(Member("id-1", "client", "/host", {"t": (0,)}),),
                    commits={"t": {0: 4, 1: 20}},
                )
            },
            topic_configs={"t": TopicConfig(3_600_000, -1, frozenset({"delete"}))},
            log_sizes={1: LogSizes({"t": {0: 100, 1: 200}}, 100.0)},
        )
        groups = analyst.measure(snapshot)
    return State("cluster", snapshot.taken_at, snapshot, groups, None, snapshot.taken_at, 0.5)


def scrape(
    families: Collection[str], level: Level = Level.PARTITION
) -> dict[str, list[tuple[Labels, float]]]:
    choice = Choice(45, level, families)
    page = Renderer().render(blocks(state(), choice)).plain.decode()
    found = defaultdict(list)
    for family in text_string_to_metric_families(page):
        for sample in family.samples:
            found[sample.name].append((sample.labels, sample.value))
    return dict(found)


@pytest.mark.parametrize("family", CHOICES)
def test_a_family_has_its_declared_names_and_labels_and_no_others(family: str) -> None:
    found = scrape([family])
    (declaring,) = (each for each in FAMILIES if each.name == family)
    declared = {metric.name: metric for metric in declaring.metrics}
    shown = {name for name in found if not name.startswith("kafka_monitor_")}
    assert shown <= declared.keys()
    assert shown >= {name for name, metric in declared.items() if not metric.when}
    for name in shown:
        assert all(tuple(labels) == declared[name].labels for labels, _ in found[name])


def test_kminion_names_and_labels() -> None:
    found = scrape(["kminion"])
    assert found["kminion_kafka_consumer_group_topic_partition_lag"] == [
        ({"group_id": "g", "topic_name": "t", "partition_id": "0"}, 8.0),
        ({"group_id": "g", "topic_name": "t", "partition_id": "1"}, 0.0),
    ]
    assert found["kminion_kafka_topic_info"] == [
        (
            {
                "topic_name": "t",
                "partition_count": "2",
                "replication_factor": "1",
                "cleanup_policy": "delete",
            },
            1.0,
        )
    ]
    group = {
        "group_id": "g",
        "protocol": "range",
        "protocol_type": "consumer",
        "state": "Stable",
        "coordinator_id": "1",
    }
    assert found["kminion_kafka_consumer_group_info"] == [(group, 1.0)]
    assert found["kminion_kafka_topic_log_dir_size_total_bytes"] == [({"topic_name": "t"}, 300.0)]


def test_kafka_lag_exporter_names_and_labels() -> None:
    found = scrape(["kafka-lag-exporter"])
    group = {"cluster_name": "cluster", "group": "g"}
    owned = {
        **group,
        "topic": "t",
        "partition": "0",
        "member_host": "/host",
        "consumer_id": "id-1",
        "client_id": "client",
    }
    assert found["kafka_consumergroup_group_lag"][0] == (owned, 8.0)
    assert found["kafka_consumergroup_group_lag"][1][0]["member_host"] == "unknown"
    assert found["kafka_consumergroup_group_max_lag"] == [(group, 8.0)]
    assert found["kafka_partition_latest_offset"][0][1] == 12
    assert found["kafka_consumergroup_poll_time_ms"] == [({"cluster_name": "cluster"}, 500.0)]


def test_burrow_names_and_labels() -> None:
    found = scrape(["burrow"])
    group = {"cluster": "cluster", "consumer_group": "g"}
    assert found["burrow_kafka_consumer_lag_total"] == [(group, 8.0)]
    assert found["burrow_kafka_consumer_status"] == [(group, 1.0)]
    assert found["burrow_kafka_topic_partition_status"][1] == (
        {**group, "topic": "t", "partition": "1"},
        1.0,
    )


def test_at_a_higher_level_the_same_names_have_fewer_labels_and_joined_values() -> None:
    families = DEFAULT_FAMILIES
    by_topic, by_group = scrape(families, Level.TOPIC), scrape(families, Level.GROUP)
    topic = {"consumergroup": "g", "topic": "t"}
    assert by_topic["kafka_consumergroup_lag"] == [(topic, 8.0)]
    assert by_group["kafka_consumergroup_lag"] == [({"consumergroup": "g"}, 8.0)]
    assert by_group["kafka_consumergroup_lag_sum"] == [({"consumergroup": "g"}, 8.0)]
    assert by_topic["kafka_consumergroup_messages_lost_total"] == [(topic, 0.0)]
    assert "kafka_consumergroup_current_offset" not in by_topic
    assert by_group["kafka_consumergroup_status"] == [({"consumergroup": "g", "status": "OK"}, 1.0)]
    kinds = {labels["kind"] for labels, _ in by_group["kafka_consumergroup_imbalance_ratio"]}
    assert "assignment" in kinds
    # topics are not consumer groups: they keep their partitions
    assert by_group["kafka_topic_partition_current_offset"][0][0] == {
        "topic": "t",
        "partition": "0",
    }


def test_exactly_one_of_ok_warn_and_err_is_one() -> None:
    statuses = scrape([measures.FAMILY.name])["kafka_consumergroup_status"]
    assert [(labels["status"], value) for labels, value in statuses] == [("OK", 1.0)]


def test_ours_go_down_to_topics_only_where_the_others_go_down_to_partitions() -> None:
    choice = Choice(45, measures_level=Level.TOPIC)
    page = Renderer().render(blocks(state(), choice)).plain.decode()
    labels = {
        sample.name: set(sample.labels)
        for family in text_string_to_metric_families(page)
        for sample in family.samples
    }
    assert "partition" in labels["kafka_consumergroup_lag"]
    of_groups = {m.name for m in measures.FAMILY.metrics if "consumergroup" in m.labels}
    told = of_groups & labels.keys() - {"kafka_consumergroup_partition_status"}
    assert "kafka_consumergroup_lag_seconds" in told
    assert all("partition" not in labels[name] for name in told)


def test_the_age_of_each_partitions_commit_is_told_at_the_level_of_partitions_only() -> None:
    name = "kafka_consumergroup_partition_commit_age_seconds"
    assert {labels["partition"] for labels, _ in scrape(DEFAULT_FAMILIES)[name]} == {"0", "1"}
    assert name not in scrape(DEFAULT_FAMILIES, Level.TOPIC)


def test_no_value_is_infinite_or_not_a_number() -> None:
    for name, samples in scrape(CHOICES).items():
        for _, value in samples:
            assert abs(value) < float("inf"), name


def test_settings_name_exactly_the_families_that_there_are() -> None:
    settings = MonitorSettings(families=", ".join(CHOICES))  # type: ignore[arg-type]  # as from the environment
    assert settings.families == CHOICES


def test_the_document_is_what_the_declarations_say(repository: Path) -> None:
    written = (repository / "docs" / "metrics.md").read_text()
    assert written == document(), "run: python -m monitor.exposition.docs > docs/metrics.md"
    for metric in ALL_METRICS:
        assert f"| `{metric.name}` | {metric.kind} |" in written
