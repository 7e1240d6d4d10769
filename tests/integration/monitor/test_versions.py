"""Brokers of every version: the numbers that Apache's tool has, and what an old one cannot tell."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from prometheus_client.parser import text_string_to_metric_families

from monitor.commands import main
from monitor.exposition.series import Level
from monitor.kafka.collector import Collector, Intervals
from monitor.kafka.transport import KafkaWire
from monitor.poller import Poller
from monitor.settings import KafkaSettings
from monitor.state import State
from monitor.web.app import create_app
from order_services.local.kafka import EmbeddedKafka
from tests.support.asgi import Client
from tests.support.foreign import admin_client
from tests.support.quiet_groups import AGE_S, Key, Scene, apache, quiet_groups, states, table_rows
from tests.support.versions import VERSIONS, Version, broker_of
from tests.support.waiting import wait_for

# the moment at which the oldest unread record was appended is searched no finer
TOLERANCE_S = 1.0


@pytest.fixture(params=VERSIONS, ids=str)
def version(request: pytest.FixtureRequest) -> Version:
    found: Version = request.param
    return found


@pytest.fixture
def scene(version: Version, tmp_path: Path) -> Iterator[Scene]:
    numbers = itertools.count()
    with (
        broker_of(tmp_path, version) as broker,
        quiet_groups(
            broker, lambda stem: f"{stem}-{next(numbers)}", new_protocol=version.new_protocol
        ) as scene,
    ):
        yield scene


@pytest.mark.heavy
@pytest.mark.timeout(900)
def test_every_version_is_read_as_apaches_tool_reads_it(version: Version, scene: Scene) -> None:
    listed = scene.groups if version.keeps_emptied_groups else scene.groups - {scene.deleted_topic}
    wait_for("end of the group whose topic was deleted", lambda: listed == groups_on(scene.broker))
    theirs = table_rows(apache(scene.broker), scene.groups)
    # each kind is compared, not nothing; of a deleted topic Apache's tool has no row with an end
    assert {group for group, _, _ in theirs} >= scene.groups - {scene.deleted_topic}
    told_states = states(apache(scene.broker, "--state"), scene.groups)
    assert told_states.keys() == listed

    answer = printed(scene.broker)
    groups = {group["group"]: group for group in answer["groups"]}
    assert groups.keys() == listed
    assert {
        name: (group["state"], str(group["members"])) for name, group in groups.items()
    } == told_states
    assert rows_of(groups.values()) == {key: row[:3] for key, row in theirs.items()}
    assert {
        (group["group"], member["client_id"])
        for group in groups.values()
        for member in group["member_list"]
    } == {(group, row[5]) for (group, _, _), row in theirs.items() if row[5] != "-"}
    behind = [
        row | {"seen_at": answer["seen_at"]} for one in groups.values() for row in one["partitions"]
    ]
    assert any(row["lag"] for row in behind)
    for row in behind:
        if row["lag"]:
            assert row["seen_at"] - row["lag_seconds"] == pytest.approx(
                scene.appended_at(row["current_offset"]), abs=TOLERANCE_S
            )
        elif row["lag"] == 0:
            assert row["lag_seconds"] == 0
    assert {groups[name]["type"] for name in listed - {scene.new_protocol}} == {"classic"}
    if scene.new_protocol is not None:
        assert groups[scene.new_protocol]["type"] == "consumer"

    with polled(scene.broker) as (state, page):
        assert_nothing_is_missing(state, version, scene)
        assert "kafka_monitor_poll_errors{" not in page
        committed = {key: float(row[0]) for key, row in theirs.items() if row[0] != "-"}
        lag = {key: float(row[2]) for key, row in theirs.items() if row[2] != "-"}
        assert by_partition(page, "kafka_consumergroup_current_offset") == committed
        assert by_partition(page, "kafka_consumergroup_lag") == lag
        seconds = by_partition(page, "kafka_consumergroup_lag_seconds")
        assert seconds.keys() == lag.keys()
        assert all((seconds[key] > AGE_S / 2) == (lag[key] > 0) for key in lag)


def assert_nothing_is_missing(state: State, version: Version, scene: Scene) -> None:
    """Compare what one poll learned, and by how many requests, with what this version can tell."""
    snapshot = state.snapshot
    assert snapshot is not None
    assert (state.error, snapshot.errors, snapshot.broker_errors) == (None, (), {})
    assert snapshot.requests["OffsetFetch"] == (1 if version.many_groups else len(snapshot.groups))
    assert all(group.error is None for group in snapshot.groups.values())
    assert all(topic.id is not None for topic in snapshot.topics.values())
    (topic,) = {topic for topic in snapshot.topics if topic.startswith("quiet-topic")}
    assert set(snapshot.log_sizes[1].partitions[topic]) == {0, 1, 2}


def groups_on(broker: EmbeddedKafka) -> set[str]:
    """Return the groups that the broker lists."""
    admin = admin_client(broker.bootstrap_servers)
    return {group.group_id for group in admin.list_consumer_groups().result(60).valid}


def printed(broker: EmbeddedKafka) -> Mapping[str, Any]:
    """Return what `monitor lag --output json` prints."""
    result = CliRunner().invoke(
        main, ["lag", "--bootstrap-servers", broker.bootstrap_servers, "--output", "json"]
    )
    assert result.exit_code == 0, result.output
    found: Mapping[str, Any] = json.loads(result.stdout)
    return found


def rows_of(groups: Iterable[Mapping[str, Any]]) -> dict[Key, tuple[str, ...]]:
    """Return (group, topic, partition) -> committed offset, log end offset and lag, as Apache prints."""
    return {
        (group["group"], row["topic"], str(row["partition"])): tuple(
            "-" if row[name] is None else str(row[name])
            for name in ("current_offset", "log_end_offset", "lag")
        )
        for group in groups
        for row in group["partitions"]
    }


@contextmanager
def polled(broker: EmbeddedKafka) -> Iterator[tuple[State, str]]:
    """Poll twice: gives what the second poll saw, and the page of metrics."""
    wire = KafkaWire(KafkaSettings(bootstrap_servers=(broker.bootstrap_servers,)))
    try:
        collector = Collector(wire, Intervals(topic_configs=60.0, log_sizes=60.0, rights=60.0))
        poller = Poller(collector, stale_after_s=3_600, measures_level=Level.PARTITION)
        poller.poll()
        state = poller.poll()
        yield state, Client(create_app(poller)).get("/metrics").text
    finally:
        wire.close()


def by_partition(page: str, metric: str) -> dict[Key, float]:
    """Return a metric's values by group, topic and partition."""
    return {
        (labels["consumergroup"], labels["topic"], labels["partition"]): sample.value
        for family in text_string_to_metric_families(page)
        for sample in family.samples
        if sample.name == metric and (labels := sample.labels)
    }
