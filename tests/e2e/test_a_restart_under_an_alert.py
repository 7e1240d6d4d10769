"""A monitor that is stopped and started anew under a firing alert: a real Prometheus tells nobody of it.

The monitor is `serve` as it is without settings of a history, on a real broker. Its group has a member
that commits nothing. That a partition stands still is known by its monitor only, which has watched it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any, Final

import pytest
from confluent_kafka import TopicPartition

from order_services.local.kafka import EmbeddedKafka
from tests.support.alert_pace import Pace
from tests.support.alerting import Alerting, targets_of
from tests.support.foreign import commit, delete_group, member, topic
from tests.support.waiting import wait_for
from tests.support.watched_system import Monitor

# Prometheus, Alertmanager, and a minute in which a group stands still
pytestmark = pytest.mark.heavy

STUCK: Final = "KafkaConsumerStuck"
# Its oldest record waits for longer than a minute, too, where that is how long this takes.
TRUE: Final = {STUCK, "KafkaConsumerLagTimeHigh"}
MESSAGES: Final = 50
SCRAPES: Final = 10
QUICK: Final = Pace(factor=60, keep_factor=30.0)


@dataclass(frozen=True, slots=True)
class Patient(Pace):
    """How long a monitor may be away is not shortened, but made longer: its start is not as much faster.

    On a busy machine it takes longer than the rules are patient, and a scrape takes longer than it may.
    """

    def _rule(self, rule: Mapping[str, Any]) -> dict[str, Any]:
        if rule.get("labels", {}).get("component") == "monitoring":
            return dict(rule)
        changed = Pace._rule(self, rule)
        return changed | ({"keep_firing_for": "15m"} if "keep_firing_for" in rule else {})


@pytest.fixture
def group(kafka: EmbeddedKafka, unique: Callable[[str], str]) -> Iterator[str]:
    """A group that has committed 0 of its topic of the same name, of which nobody reads."""
    name, servers = unique("stands-still"), kafka.bootstrap_servers
    with topic(servers, name, messages=MESSAGES) as admin:
        commit(admin, name, name, 0)
        yield name
        delete_group(servers, name)


@pytest.fixture
def monitor(
    kafka: EmbeddedKafka, group: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Monitor]:
    """A monitor of this group only, that keeps its history where it does when nobody says."""
    monkeypatch.delenv("MONITOR_HISTORY_URL")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    settings = {"KAFKA_BROKERS": kafka.bootstrap_servers, "MONITOR_CLUSTER": "local"}
    only = {"MONITOR_GROUPS_ALLOW": group, "MONITOR_TOPICS_ALLOW": group}
    started = Monitor(tmp_path, {**settings, **only})
    yield started
    started.stop()


def test_an_alert_fires_on_through_a_restart_and_resolves_once(
    kafka: EmbeddedKafka, group: str, monitor: Monitor, tmp_path: Path
) -> None:
    # the one poll is its last, and it stays a member
    long_polls = {"max.poll.interval.ms": 3_600_000}
    with closing(member(kafka.bootstrap_servers, group, long_polls)) as consumer:
        consumer.subscribe([group])
        wait_for("message", lambda: consumer.poll(0.1))
        monitor.start()
        # no services are watched here
        targets = {**targets_of(monitor.url, []), "order-services": []}
        patient = Patient(factor=60, shortest_wait_seconds=10.0)
        with Alerting(tmp_path / "alerting", targets, patient) as alerting:
            alerting.wait_until_told(STUCK, consumergroup=group)
            since, turns = fires_since(alerting), turns_of(alerting, group)
            before = process_of(alerting)
            assert monitor.stop(60)
            wait_for("scrape that fails", lambda: alerting.query("up == 0"))
            monitor.start()
            wait_for("scrape of the new one", lambda: process_of(alerting) not in {None, before})
            scraped(alerting, SCRAPES)
            assert fires_since(alerting) == since, alerting.describe()
            # it is not just kept firing: what the new one told was never anything else
            assert turns_of(alerting, group) == turns
            assert alerting.query("kafka_monitor_history_restored == 1")

            end = TopicPartition(group, 0, MESSAGES)
            consumer.commit(offsets=[end], asynchronous=False)
            read = f'kafka_consumergroup_lag_sum{{consumergroup="{group}"}} == 0'
            wait_for("end of it", lambda: alerting.query(read))
            alerting.judge(QUICK)
            alerting.wait_until_resolved(STUCK, consumergroup=group)
            wait_for("time without alerts", lambda: not of_the_monitor(active(alerting)))
            alerting.settle()
            told = [notice.status for notice in alerting.webhook.notices() if notice.name == STUCK]
            assert [status for status, _ in groupby(told)] == ["firing", "resolved"]
            assert of_the_monitor(alerting.fired()) <= TRUE, alerting.describe()


def active(alerting: Alerting) -> set[str]:
    """Return which alerts are pending or firing."""
    return {one["labels"]["alertname"] for one in alerting.active()}


def of_the_monitor(names: set[str]) -> set[str]:
    """Return those of them that are not of the order services, of which none is here."""
    return {name for name in names if not name.startswith("Order")}


def fires_since(alerting: Alerting) -> float:
    """Return since when the alert has been active, by Prometheus; it has to fire."""
    assert alerting.query(f'ALERTS{{alertname="{STUCK}",alertstate="firing"}}'), alerting.describe()
    (sample,) = alerting.query(f'ALERTS_FOR_STATE{{alertname="{STUCK}"}}')
    return float(sample["value"][1])


def process_of(alerting: Alerting) -> str | None:
    """Return which monitor was scraped last, None where the last scrape failed."""
    found = alerting.query("process_start_time_seconds and on (instance) up == 1")
    return str(found[0]["value"][1]) if found else None


def turns_of(alerting: Alerting, group: str) -> float:
    """Return how often the monitor, or the one after it, has told something else of the group."""
    told = f'kafka_consumergroup_stuck_partitions{{consumergroup="{group}"}}[1h]'
    (sample,) = alerting.query(f"changes({told})")
    return float(sample["value"][1])


def scraped(alerting: Alerting, times: int) -> None:
    """Wait until the monitor has been scraped so many times more; rules are judged as often."""

    def scrapes() -> float:
        (sample,) = alerting.query("count_over_time(kafka_monitor_up[1h])")
        return float(sample["value"][1])

    before = scrapes()
    wait_for("scrapes", lambda: scrapes() >= before + times)
