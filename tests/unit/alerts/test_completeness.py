"""Every alert is whole: tests, runbook and a place in the routes; nothing is left over."""

from __future__ import annotations

import re
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest
import yaml

from order_services.domain.services import SERVICES
from order_services.domain.topics import GROUPS
from tests.support.rule_lint import Rule, load_rules

HEADINGS = ["## What it means", "## How to confirm", "## What to do", "## What not to do"]
FIRST_PORT = 4000
# every part of what is promised to be watched, and an alert that watches it
WATCHED = {
    "lag in messages": "KafkaConsumerLagHigh",
    "lag in seconds": "KafkaConsumerLagTimeHigh",
    "lag that grows": "KafkaConsumerNotCatchingUp",
    "stuck consumer": "KafkaConsumerStuck",
    "no members": "KafkaConsumerGroupWithoutMembers",
    "rewound": "KafkaConsumerGroupRewound",
    "lost messages": "KafkaConsumerMessagesLost",
    "retention": "KafkaConsumerRetentionRisk",
    "rebalances": "KafkaConsumerGroupRebalanceStorm",
    "balance": "KafkaConsumerGroupImbalanced",
    "unassigned": "KafkaConsumerGroupUnassignedPartitions",
    "no commits": "KafkaConsumerCommitsStopped",
    "never active": "KafkaConsumerGroupsNeverActive",
    "past the end": "KafkaConsumerCommitPastEnd",
    "open transaction": "KafkaOpenTransaction",
    "own fault": "KafkaMonitorInternalError",
    "own settings": "KafkaMonitorConfigReloadFailed",
    "processing time": "OrderServiceProcessingSlow",
    "error rate": "OrderServiceErrorRateHigh",
    "success objective": "OrderSuccessBudgetBurn",
    "latency objective": "OrderLatencyBudgetBurn",
    "dead letters": "OrderServiceDeadLetters",
    "dead-letter limit": "OrderServiceConsumerStopped",
    "outbox delay": "OrderOutboxDelayed",
    "pool use": "DatabasePoolBusy",
    "pool waiters": "DatabasePoolWaiters",
    "connections": "PostgresConnectionsHigh",
    "PgBouncer": "PgBouncerClientsWaiting",
    "monitor down": "KafkaMonitorDown",
    "stale data": "KafkaMonitorDataStale",
    "target down": "OrderServiceDown",
    "absent series": "KafkaLagSeriesAbsent",
}
BURN_RATES = {("1h", "5m", "14.4"), ("6h", "30m", "6"), ("1d", "2h", "3"), ("3d", "6h", "1")}


@pytest.fixture(scope="module")
def alerts(repository: Path) -> list[Rule]:
    return [rule for rule in load_rules(repository / "alerts" / "rules") if rule.is_alert]


def load(path: Path) -> Any:
    return yaml.safe_load(path.read_text())


def test_all_that_is_promised_is_watched(alerts: list[Rule]) -> None:
    assert set(WATCHED.values()) <= {rule.name for rule in alerts}


def test_each_alert_is_tested_before_while_and_after_it_fires(
    alerts: list[Rule], repository: Path
) -> None:
    tested: dict[str, int] = defaultdict(int)
    for path in (repository / "alerts" / "tests").glob("*.yml"):
        for test in load(path)["tests"]:
            phases: dict[str, list[tuple[float, bool]]] = defaultdict(list)
            for case in test.get("alert_rule_test", []):
                minutes = float(case["eval_time"].removesuffix("m"))
                phases[case["alertname"]].append((minutes, bool(case["exp_alerts"])))
            for name, seen in phases.items():
                tested[name] += [fires for _, fires in sorted(seen)] == [False, True, False]
    needed: dict[str, int] = defaultdict(int)
    for rule in alerts:
        needed[rule.name] += 1
    assert {name: tested[name] for name in needed} == dict(needed)


def test_each_alert_has_a_runbook_and_each_runbook_an_alert(
    alerts: list[Rule], repository: Path
) -> None:
    runbooks = {path.stem: path.read_text() for path in (repository / "alerts/runbooks").glob("*")}
    assert set(runbooks) == {rule.name for rule in alerts}
    for rule in alerts:
        lines = runbooks[rule.name].splitlines()
        assert lines[0] == f"# {rule.name}"
        assert rule.annotations["summary"] in lines
        assert [line for line in lines if line.startswith("## ")] == HEADINGS
        assert "```sh" in lines


def test_runbooks_name_only_alerts_that_exist(alerts: list[Rule], repository: Path) -> None:
    names = {rule.name for rule in alerts}
    pattern = re.compile(
        r"\b(?:Kafka(?:Consumer|Broker|Cluster|Monitor|Partitions|Lag)|Order(?:S|O|L)|DatabasePool|PgBouncer|Postgres)[A-Z]?[a-z]+[A-Z]\w+"
    )
    for path in (repository / "alerts/runbooks").glob("*.md"):
        assert set(pattern.findall(path.read_text())) <= names, path.name


def test_objectives_have_all_four_burn_rates(alerts: list[Rule]) -> None:
    for name in ("OrderSuccessBudgetBurn", "OrderLatencyBudgetBurn"):
        found = set()
        for rule in alerts:
            if rule.name == name:
                long, short = rule.labels["long_window"], rule.labels["short_window"]
                rates = re.findall(r"ratio_rate(\w+) > ([\d.]+) \*", rule.expression)
                assert [window for window, _ in rates] == [long, short]
                assert rates[0][1] == rates[1][1]
                found.add((long, short, rates[0][1]))
        assert found == BURN_RATES


def test_each_service_is_missed_when_it_is_absent(alerts: list[Rule]) -> None:
    rule = next(rule for rule in alerts if rule.name == "OrderServiceAbsent")
    assert re.findall(r'service="(\w+)"', rule.expression) == list(SERVICES)


def test_targets_are_the_services_at_their_ports(repository: Path) -> None:
    groups = load(repository / "prometheus/targets/order-services.yml")
    found = {group["labels"]["service"]: group["targets"] for group in groups}
    assert found == {
        service: [f"127.0.0.1:{FIRST_PORT + index}"] for index, service in enumerate(SERVICES)
    }


def test_routes_and_inhibitions_name_alerts_labels_and_groups_that_exist(
    alerts: list[Rule], repository: Path
) -> None:
    values = {
        "alertname": {rule.name for rule in alerts},
        "component": {rule.labels["component"] for rule in alerts},
        "severity": {rule.labels["severity"] for rule in alerts},
        "service": set(SERVICES),
        "consumergroup": {group.group_id for group in GROUPS},
    }
    config = load(repository / "prometheus/alertmanager.yml")
    lists = [route["matchers"] for route in config["route"]["routes"]]
    for rule in config["inhibit_rules"]:
        lists += [rule["source_matchers"], rule["target_matchers"]]
    for matcher in (one for matchers in lists for one in matchers):
        label, operator, pattern = re.fullmatch(r'(\w+)(=~|=)"(.*)"', matcher).groups()  # type: ignore[union-attr]  # a mismatch is the failure
        if label == "cluster":
            assert (operator, pattern) == ("=", ""), "what clusters are called is not ours"
            continue
        if operator == "=":
            assert pattern in values[label], matcher
            continue
        for alternative in _alternatives(pattern):
            assert any(re.fullmatch(alternative, value) for value in values[label]), matcher


def _alternatives(pattern: str) -> list[str]:
    """Spell out `a(b|c)d` and `a|b`, so that each part is held to something that exists."""
    inner = re.fullmatch(r"(.*)\((.*)\)(.*)", pattern)
    if inner:
        return [f"{inner[1]}{part}{inner[3]}" for part in inner[2].split("|")]
    return pattern.split("|")


def test_what_speaks_for_alerts_about_others_outlasts_them(
    alerts: list[Rule], repository: Path
) -> None:
    # after the repair a consequence is seen for some polls more, and would be told then
    keep = {rule.name: rule.keep for rule in alerts if rule.keep}
    sources: set[str] = set()
    for rule in load(repository / "prometheus/alertmanager.yml")["inhibit_rules"]:
        if not {"consumergroup", "service", "alertname"} & set(rule.get("equal", ())):
            matcher = next(one for one in rule["source_matchers"] if one.startswith("alertname"))
            sources.update(_alternatives(matcher.partition('"')[2].rstrip('"')))
    # what one look of the monitor tells: a scrape that fails while it is restarted must end none of it
    of_one_look = {
        rule.name
        for rule in alerts
        if rule.file in {"brokers.yml", "consumer-groups.yml", "databases.yml"}
    } | {"KafkaLagSeriesAbsent", "KafkaMonitorInternalError"}
    assert keep == {
        **dict.fromkeys(of_one_look, "30s"),
        **dict.fromkeys(sources, "3m"),
        # it speaks for a stuck group, and is itself spoken for by a service that is down
        "KafkaConsumerGroupWithoutMembers": "1m30s",
        # of several reasons for it one may end just when another begins
        "KafkaMonitorAbsent": "2m",
        "KafkaMonitorDataStale": "2m",
    }


def test_what_is_held_back_is_of_the_same_cluster(repository: Path) -> None:
    for rule in load(repository / "prometheus/alertmanager.yml")["inhibit_rules"]:
        # of one monitor, of one job, of one objective; or of what has no cluster's name on it
        narrow = {"cluster", "instance", "job", "alertname"} & set(rule.get("equal", ()))
        assert narrow or 'cluster=""' in rule["target_matchers"], rule


def test_a_service_that_is_down_speaks_for_its_own_group(repository: Path) -> None:
    config = load(repository / "prometheus/alertmanager.yml")
    found = {}
    for rule in config["inhibit_rules"]:
        text = " ".join([*rule["source_matchers"], *rule["target_matchers"]])
        named = re.search(r'service="(\w+)".*consumergroup="([\w-]+)"', text)
        if named:
            found[named[1]] = named[2]
    group_of = {"gateway": "order-status-group"}
    assert found == {
        service: group_of.get(service, f"{service}-service-group") for service in SERVICES
    }
