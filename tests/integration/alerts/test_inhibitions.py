"""What speaks for what, asked of a real Alertmanager with the shipped configuration.

Alerts are given to it as Prometheus would; it says of each whether it is held back.
"""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from order_services.local.ports import LOOPBACK, free_port
from order_services.local.process import ManagedProcess
from tests.support.programs import program
from tests.support.rule_lint import load_rules
from tests.support.waiting import wait_for

Labels = Mapping[str, str]


class Alertmanager:
    """Takes alerts, and says which of them it holds back."""

    def __init__(self, url: str, rules: Path) -> None:
        self.url = url
        self._fixed = {rule.name: dict(rule.labels) for rule in load_rules(rules) if rule.is_alert}

    def alert(self, name: str, **labels: str) -> Labels:
        """Return an alert's labels as Prometheus would send them."""
        return {**self._fixed[name], "alertname": name, **labels}

    def held_back(self, alerts: Iterable[Labels]) -> list[str]:
        """Return the names of those that others speak for, in the order given."""
        alerts = [dict(one) for one in alerts]
        self._send(alerts, timedelta(hours=1))
        try:
            wait_for("alerts", lambda: len(self._alerts()) == len(alerts))
            # it judges anew when it is asked: twice, as the last to come may speak for the first
            self._alerts()
            state = {
                tuple(sorted(one["labels"].items())): one["status"]["state"]
                for one in self._alerts()
            }
            return [
                one["alertname"]
                for one in alerts
                if state[tuple(sorted(one.items()))] == "suppressed"
            ]
        finally:
            self._send(alerts, timedelta(seconds=-1))
            wait_for("end of alerts", lambda: not self._alerts())

    def _send(self, alerts: Iterable[Labels], lasts: timedelta) -> None:
        ends = (datetime.now(UTC) + lasts).isoformat()
        begins = (datetime.now(UTC) - timedelta(minutes=1)).isoformat()
        body = [{"labels": one, "startsAt": begins, "endsAt": ends} for one in alerts]
        request = urllib.request.Request(
            f"{self.url}/api/v2/alerts",
            json.dumps(body).encode(),
            {"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=10):
            pass

    def _alerts(self) -> list[dict[str, Any]]:
        with urllib.request.urlopen(f"{self.url}/api/v2/alerts", timeout=10) as answer:
            found: list[dict[str, Any]] = json.load(answer)
        return found


@pytest.fixture(scope="module")
def manager(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Alertmanager]:
    directory, port = tmp_path_factory.mktemp("alertmanager"), free_port()
    process = ManagedProcess(
        "alertmanager",
        [
            program("prometheus-alertmanager", "prometheus-alertmanager"),
            f"--config.file={repository / 'prometheus' / 'alertmanager.yml'}",
            f"--storage.path={directory / 'data'}",
            f"--web.listen-address={LOOPBACK}:{port}",
            "--cluster.listen-address=",
        ],
        directory / "alertmanager.log",
    )
    process.start()
    url = f"http://{LOOPBACK}:{port}"

    def ready() -> bool:
        assert process.running, process.log_tail()
        try:
            with urllib.request.urlopen(f"{url}/-/ready", timeout=1):
                return True
        except (urllib.error.URLError, ConnectionError):
            return False

    try:
        wait_for("Alertmanager", ready)
        yield Alertmanager(url, repository / "alerts" / "rules")
    finally:
        process.stop()


def about_a_group(manager: Alertmanager, group: str = "g", **labels: str) -> list[Labels]:
    """Return every kind of alert about one group."""
    return [
        manager.alert(f"KafkaConsumer{name}", consumergroup=group, **labels)
        for name in ("Stuck", "LagHigh", "LagTimeHigh", "LagTimeCritical", "NotCatchingUp")
    ]


CONSEQUENCES = [
    f"KafkaConsumer{name}"
    for name in ("Stuck", "LagHigh", "LagTimeHigh", "LagTimeCritical", "NotCatchingUp")
]


@pytest.mark.parametrize("named", [{}, {"cluster": "a"}])
def test_a_dead_broker_speaks_for_every_group_of_its_cluster(
    manager: Alertmanager, named: Labels
) -> None:
    down = manager.alert("KafkaBrokerDown", broker="1", **named)
    absent = manager.alert("KafkaLagSeriesAbsent", **named)
    under = manager.alert("KafkaPartitionsUnderReplicated", topic="t", **named)
    held = manager.held_back([down, absent, under, *about_a_group(manager, **named)])
    assert held == ["KafkaLagSeriesAbsent", "KafkaPartitionsUnderReplicated", *CONSEQUENCES]


@pytest.mark.parametrize(
    "cause", ["KafkaBrokerDown", "KafkaClusterUnreachable", "PostgresDown", "PgBouncerDown"]
)
def test_nothing_of_one_cluster_speaks_for_another(manager: Alertmanager, cause: str) -> None:
    of_b = [
        *about_a_group(manager, "payment-service-group", cluster="b")[:1],
        manager.alert("KafkaPartitionsUnderReplicated", topic="t", cluster="b"),
        manager.alert("KafkaLagSeriesAbsent", cluster="b"),
        manager.alert("KafkaMonitorDataStale", cluster="b", job="kafka-monitor", instance="m:1"),
        manager.alert("OrderOutboxDelayed", service="payment", slice="payment", cluster="b"),
        manager.alert("DatabasePoolTimeouts", service="payment", cluster="b"),
    ]
    assert manager.held_back([manager.alert(cause, cluster="a"), *of_b]) == []


def test_a_cluster_without_a_name_is_spoken_for_by_its_monitor(manager: Alertmanager) -> None:
    # what is about the monitor has the cluster's id, what is about groups no label
    away = manager.alert("KafkaClusterUnreachable", cluster="Xo7bQ2")
    rest = [
        manager.alert("KafkaBrokerDown", broker="1"),
        manager.alert("KafkaMonitorDataStale", cluster="Xo7bQ2", instance="m:1"),
        *about_a_group(manager),
    ]
    held = manager.held_back([away, *rest])
    assert held == ["KafkaBrokerDown", "KafkaMonitorDataStale", *CONSEQUENCES]


@pytest.mark.parametrize("cause", ["KafkaMonitorDown", "KafkaMonitorDataStale"])
def test_one_monitor_of_two_that_is_ill_silences_no_group(
    manager: Alertmanager, cause: str
) -> None:
    ill = manager.alert(cause, job="kafka-monitor", instance="m:1", cluster="a")
    assert (
        manager.held_back(
            [ill, manager.alert("KafkaConsumerStuck", consumergroup="g", cluster="a")]
        )
        == []
    )


def test_a_monitor_that_is_down_speaks_for_itself(manager: Alertmanager) -> None:
    down = manager.alert("KafkaMonitorDown", job="kafka-monitor", instance="m:1")
    stale = [
        manager.alert("KafkaMonitorDataStale", job="kafka-monitor", instance=one, cluster="a")
        for one in ("m:1", "m:2")
    ]
    absent = manager.alert("KafkaMonitorAbsent", job="kafka-monitor")
    assert manager.held_back([down, absent, *stale]) == [
        "KafkaMonitorAbsent",
        "KafkaMonitorDataStale",
    ]


@pytest.mark.parametrize("named", [{}, {"cluster": "a"}])
def test_in_a_group_the_cause_speaks_for_its_consequences(
    manager: Alertmanager, named: Labels
) -> None:
    cause = manager.alert("KafkaConsumerGroupWithoutMembers", consumergroup="g", **named)
    alerts = [cause, *about_a_group(manager, **named)]
    assert manager.held_back(alerts) == CONSEQUENCES


@pytest.mark.parametrize(
    "other", [{"consumergroup": "h", "cluster": "a"}, {"consumergroup": "g", "cluster": "b"}]
)
def test_a_group_speaks_for_no_other_and_not_for_its_namesake(
    manager: Alertmanager, other: Labels
) -> None:
    alerts = [
        manager.alert("KafkaConsumerGroupWithoutMembers", consumergroup="g", cluster="a"),
        manager.alert("KafkaConsumerStuck", **other),
        manager.alert("KafkaConsumerLagTimeCritical", consumergroup="i", cluster="a"),
        manager.alert("KafkaConsumerLagHigh", **other),
    ]
    # its own wedged partition speaks for its own lag, and nobody else does
    assert manager.held_back(alerts) == ["KafkaConsumerLagHigh"]
    assert manager.held_back([alerts[0], alerts[1], alerts[2]]) == []


@pytest.mark.parametrize("named", [{}, {"cluster": "a"}])
def test_a_service_that_is_down_speaks_for_its_own_group(
    manager: Alertmanager, named: Labels
) -> None:
    down = manager.alert("OrderServiceDown", service="payment", instance="p:1", **named)
    without = [
        manager.alert("KafkaConsumerGroupWithoutMembers", consumergroup=group, cluster=cluster)
        for group, cluster in (
            ("payment-service-group", named.get("cluster", "")),
            ("payment-service-group", "another"),
            ("shipping-service-group", named.get("cluster", "")),
        )
    ]
    without = [{name: value for name, value in one.items() if value} for one in without]
    assert manager.held_back([down, *without]) == ["KafkaConsumerGroupWithoutMembers"]
    assert manager.held_back([down, *without[1:]]) == []


@pytest.mark.parametrize("cause", ["KafkaBrokerDown", "PostgresDown"])
def test_services_whose_targets_name_no_cluster_are_spoken_for_by_any(
    manager: Alertmanager, cause: str
) -> None:
    delayed = manager.alert("OrderOutboxDelayed", service="payment", slice="payment")
    assert manager.held_back([manager.alert(cause, cluster="a"), delayed]) == ["OrderOutboxDelayed"]
