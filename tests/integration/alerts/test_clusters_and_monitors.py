"""Each rule about groups, brokers and monitors, with one or two clusters and one or two monitors.

The hand-written course of events of each alert (`alerts/tests`) is told by a second monitor as well, in a
cluster that has a name, and beside a cluster in which the same ids are in health: the same must fire,
no sooner, no later, nothing doubled, and nothing of the other cluster.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from monitor.exposition.series import Level
from tests.support import rule_tests
from tests.support.rule_tests import Series, Test, firing, series_of, with_series

TESTS = rule_tests.RULES.parent / "tests"
# alerts about one monitor, whatever the other one says
OF_ONE_MONITOR = {"KafkaMonitorDown", "KafkaMonitorDataStale"}
# about all of them: with another one there is somebody
OF_ALL_MONITORS = {"KafkaMonitorAbsent"}
ACTIVE, MEMBERS = "kafka_consumergroup_active", "kafka_consumergroup_members"


def _tests() -> Iterator[dict[str, Any]]:
    for name in rule_tests.ABOUT_KAFKA:
        for test in rule_tests.load(TESTS / f"{name}.yml"):
            if test["name"].startswith("Kafka") and test["name"] not in OF_ALL_MONITORS:
                yield test


ALL = list(_tests())


def _cases(test: Test) -> Iterator[tuple[str, list[dict[str, str]]]]:
    """Yield the times of a test and the labels of what fires then."""
    for case in test["alert_rule_test"]:
        labels = [dict(alert["exp_labels"]) for alert in case["exp_alerts"]]
        yield case["eval_time"], labels


def _expecting(test: Test, title: str, series: list[Series], **labels: str) -> dict[str, Any]:
    """Return the test with other series, and with these labels in what it expects."""
    name = test["name"]
    expected = [
        firing(name, at, [{**one, **labels} for one in alerts]) for at, alerts in _cases(test)
    ]
    changed = with_series(test, series)
    del changed["alert_rule_test"]
    return {**changed, "name": f"{name}: {title}", "promql_expr_test": expected}


def _of_cluster(series: list[Series], cluster: str) -> list[Series]:
    return [one.labelled(cluster=cluster) for one in series]


def _by_second_monitor(series: list[Series]) -> list[Series]:
    return [one.labelled(instance="second:9308") for one in series]


def test_a_pair_of_monitors_tells_what_one_does_word_for_word(tmp_path: Path) -> None:
    tests = []
    for test in ALL:
        if test["name"] in OF_ONE_MONITOR:
            continue
        series = series_of(test)
        tests.append(with_series(test, [*series, *_by_second_monitor(series)]))
    assert rule_tests.failures(tests, tmp_path) == ""


def test_of_a_pair_of_monitors_the_one_that_is_ill_is_told(tmp_path: Path) -> None:
    tests = []
    for test in ALL:
        if test["name"] in OF_ONE_MONITOR:
            series = series_of(test)
            healthy = [one.at_rest() for one in _by_second_monitor(series)]
            tests.append(with_series(test, [*series, *healthy]))
    assert rule_tests.failures(tests, tmp_path) == ""


@pytest.mark.parametrize("monitors", [pytest.param(1, marks=pytest.mark.heavy), 2])
def test_a_named_cluster_is_told_by_its_name_and_the_healthy_one_beside_it_not(
    tmp_path: Path, monitors: int
) -> None:
    tests = []
    for test in ALL:
        if test["name"] in OF_ONE_MONITOR:
            continue
        series = series_of(test)
        ill, well = _of_cluster(series, "a"), _of_cluster([one.at_rest() for one in series], "b")
        of_others = [one.labelled(instance="of-b:9308") for one in well]
        alone = [*ill, *(_by_second_monitor(ill) if monitors == 2 else [])]
        beside = [*alone, *of_others]
        if monitors == 2:
            beside += [one.labelled(instance="of-b-too:9308") for one in well]
        tests.append(_expecting(test, "in a cluster with a name", alone, cluster="a"))
        tests.append(_expecting(test, "beside a healthy cluster", beside, cluster="a"))
    assert rule_tests.failures(tests, tmp_path) == ""


def test_both_clusters_are_told_where_both_are_ill(tmp_path: Path) -> None:
    tests = []
    for test in ALL:
        if test["name"] in OF_ONE_MONITOR:
            continue
        series = series_of(test)
        both = [*_of_cluster(series, "a"), *_of_cluster(series, "b")]
        changed = _expecting(test, "in both", both)
        for case in changed["promql_expr_test"]:
            case["exp_samples"] = [
                {**one, "labels": _in(one["labels"], cluster)}
                for one in case["exp_samples"]
                for cluster in ("a", "b")
            ]
        tests.append(changed)
    assert rule_tests.failures(tests, tmp_path) == ""


def _in(selector: str, cluster: str) -> str:
    series = Series.parse({"series": selector, "values": "0"}).labelled(cluster=cluster)
    return series.entry()["series"]


def test_half_a_fault_in_each_of_two_clusters_is_none(tmp_path: Path) -> None:
    tests = []
    for test in ALL:
        series = series_of(test)
        moving = {one.name for one in series if one.varies}
        # a group loses its members and its activity by them at once
        linked = {ACTIVE: MEMBERS} if {ACTIVE, MEMBERS} <= moving else {}
        moving -= linked.keys()
        if len(moving) < 2:
            continue
        for name in sorted(moving):
            halves = [
                (
                    one
                    if (linked.get(one.name, one.name) == name) == (cluster == "a")
                    else one.at_rest()
                ).labelled(cluster=cluster)
                for one in series
                for cluster in ("a", "b")
            ]
            changed = _expecting(test, f"{name} in a, the rest in b", halves)
            for case in changed["promql_expr_test"]:
                case["exp_samples"] = []
            tests.append(changed)
    assert {test["name"].partition(":")[0] for test in tests} >= {
        "KafkaConsumerGroupWithoutMembers",
        "KafkaConsumerNotCatchingUp",
        "KafkaConsumerRetentionRisk",
    }
    assert rule_tests.failures(tests, tmp_path) == ""


@pytest.mark.parametrize("level", [pytest.param(Level.TOPIC, marks=pytest.mark.heavy), Level.GROUP])
def test_each_rule_works_at_each_level_of_detail(tmp_path: Path, level: Level) -> None:
    tests = []
    for test in ALL:
        series = series_of(test)
        changed = _expecting(test, f"at level {level}", rule_tests.rolled_up(series, level))
        if level is Level.GROUP and "consumergroup" in str(test["input_series"]):
            for case in changed["promql_expr_test"]:
                for one in case["exp_samples"]:
                    one["labels"] = one["labels"].replace(', topic="orders"', "")
        tests.append(changed)
    assert rule_tests.failures(tests, tmp_path) == ""


def test_what_fires_too_soon_would_be_noticed(tmp_path: Path) -> None:
    test = next(one for one in ALL if one["name"] == "KafkaConsumerGroupRebalanceStorm")
    series = [*series_of(test), *_by_second_monitor(series_of(test))]
    rules = tmp_path / "rules"
    rules.mkdir()
    for path in rule_tests.RULES.glob("*.yml"):
        text = path.read_text()
        summed = text.replace(
            "max by (cluster, consumergroup) (increase(kafka_consumergroup_rebalances_total",
            "sum by (cluster, consumergroup) (increase(kafka_consumergroup_rebalances_total",
        )
        (rules / path.name).write_text(summed)
    found = rule_tests.failures([with_series(test, series)], tmp_path, rules=rules)
    assert "about 22 times" in found
