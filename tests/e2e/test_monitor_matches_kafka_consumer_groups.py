"""`monitor lag` and `/metrics` against Apache's own tool, number for number, on a quiet cluster."""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator

import pytest
from prometheus_client.parser import text_string_to_metric_families

from order_services.local.kafka import EmbeddedKafka
from order_services.local.ports import free_port
from tests.support.quiet_groups import Key, Scene, apache, quiet_groups, states, table_rows
from tests.support.waiting import wait_for


@pytest.fixture
def scene(kafka: EmbeddedKafka, unique: Callable[[str], str]) -> Iterator[Scene]:
    with quiet_groups(kafka, unique) as scene:
        yield scene


def monitor_lag(broker: EmbeddedKafka, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "monitor", "lag",
         "--bootstrap-servers", broker.bootstrap_servers, *arguments],
        capture_output=True, text=True, timeout=60, check=False,
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
    theirs = states(apache(scene.broker, "--state"), scene.groups)
    assert theirs.keys() == scene.groups
    assert {
        group: (ours[group]["state"], str(ours[group]["members"])) for group in scene.groups
    } == theirs
    assert scene.new_protocol is not None
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
        wait_for("answer that the monitor is ready", lambda: is_ready(port))
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
