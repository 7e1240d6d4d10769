"""All that is nobody's fault at once, for a week: nobody is called.

Two clusters with the same ids under one Prometheus, one of them watched by two monitors; monitors are
restarted and clocks set. The states are in `tests/support/innocent.py`.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from monitor.exposition.series import Level
from order_services.domain.services import SERVICES
from tests.support import innocent, rule_tests
from tests.support.innocent import DAY, STATES, Monitor, seen_by
from tests.support.rule_tests import Series

WEEK = 7 * DAY
MONITORS = (
    Monitor(
        "a-1", "a", restarts=(5 * 60, 2 * DAY + 100, 4 * DAY), clock_is_set={400: -900, 900: 0}
    ),
    Monitor("a-2", "a", restarts=(5 * 60 + 5, 3 * DAY), clock_is_set={600: 3_600}),
    Monitor("b-1", "b", restarts=(17 * 60, 5 * DAY + 30)),
)
# one note per cluster, of those that nobody was seen to read
NOTE = "KafkaConsumerGroupsNeverActive"


def course(
    monitors: Iterable[Monitor],
    minutes: int,
    level: Level,
    expected: list[dict[str, Any]],
    states: Iterable[innocent.State] = STATES,
) -> dict[str, Any]:
    """Return a test of that many minutes, and on each of its days `expected` is what has fired."""
    states = tuple(states)
    series = [one for monitor in monitors for one in seen_by(monitor, states, minutes)]
    series = rule_tests.rolled_up(series, level)
    series += [
        Series("up", {"job": "order-services", "service": service}, [1.0] * minutes)
        for service in SERVICES
    ]
    return {
        "interval": "1m",
        "input_series": [one.entry() for one in series],
        # day by day: promtool's engine takes no more samples at once
        "promql_expr_test": [
            {
                "expr": "count by (alertname, cluster, consumergroup, topic) "
                f'(count_over_time(ALERTS{{alertstate="firing"}}[{DAY}m]))',
                "eval_time": f"{end - 1}m",
                "exp_samples": expected,
            }
            for end in range(DAY, minutes + 1, DAY)
        ],
    }


def note(*clusters: str | None) -> list[dict[str, Any]]:
    """Return what is to be noted of these clusters; None has no name."""
    names = ["" if one is None else f', cluster="{one}"' for one in clusters]
    return [{"labels": f'{{alertname="{NOTE}"{name}}}', "value": 1} for name in names]


@pytest.mark.heavy
def test_a_day_of_two_clusters_and_three_monitors_calls_nobody(tmp_path: Path) -> None:
    test = course(MONITORS, DAY, Level.PARTITION, note("a", "b"))
    assert rule_tests.failures([test], tmp_path) == ""


@pytest.mark.heavy
@pytest.mark.parametrize("level", [Level.TOPIC, Level.GROUP])
def test_a_day_calls_nobody_at_the_other_levels(tmp_path: Path, level: Level) -> None:
    test = course(MONITORS, DAY, level, note("a", "b"))
    assert rule_tests.failures([test], tmp_path) == ""


@pytest.mark.heavy
def test_a_day_of_one_cluster_without_a_name_calls_nobody(tmp_path: Path) -> None:
    monitors = [Monitor("only", None, restarts=(5 * 60,))]
    test = course(monitors, DAY, Level.PARTITION, note(None))
    assert rule_tests.failures([test], tmp_path) == ""


BROKEN_AT = 100
HOURS = 4 * 60
FAULTS = (
    "KafkaConsumerGroupWithoutMembers",
    "KafkaConsumerStuck",
    "KafkaConsumerLagTimeCritical",
    "KafkaConsumerMessagesLost",
    "KafkaConsumerGroupRewound",
)


def broken(minute: int, started: int) -> innocent.Samples:
    """Five services, of which each has a fault of its own from some minute on."""
    ill = minute >= BROKEN_AT
    for number, fault in enumerate(FAULTS):
        of, topic = {"consumergroup": fault}, {"consumergroup": fault, "topic": "orders"}
        dead, late, lost, back = ill and number == 0, ill and number == 2, number == 3, number == 4
        seconds = 60.0 * (minute - BROKEN_AT) if late else 0.2
        yield "kafka_consumergroup_members", of, int(not dead)
        yield "kafka_consumergroup_active", {**of, "by": "members"}, int(not dead)
        yield "kafka_consumergroup_commit_patience_seconds", of, 60
        yield "kafka_consumergroup_readable_lag", topic, 90
        yield "kafka_consumergroup_lag_seconds_max", of, seconds
        yield "kafka_consumergroup_stuck_partitions", topic, int(ill and number == 1)
        yield "kafka_consumergroup_messages_lost_total", topic, 500 * int(ill and lost)
        yield "kafka_consumergroup_rewinds_total", topic, int(ill and back)


def test_among_all_that_is_innocent_each_fault_is_told_and_nothing_else(tmp_path: Path) -> None:
    pair = [Monitor("a-1", "a"), Monitor("a-2", "a"), Monitor("b-1", "b")]
    test = course(pair[:2], HOURS, Level.PARTITION, [], states=(*STATES, broken))
    healthy = course(pair[2:], HOURS, Level.PARTITION, [])
    test["input_series"] += [
        one for one in healthy["input_series"] if one not in test["input_series"]
    ]
    told = [{"labels": f'{{alertname="{fault}", cluster="a"}}', "value": 1} for fault in FAULTS]
    # what is ten minutes late was one minute late before
    told.append({"labels": '{alertname="KafkaConsumerLagTimeHigh", cluster="a"}', "value": 1})
    test["promql_expr_test"] = [
        {
            "expr": "count by (alertname, cluster) "
            f'(count_over_time(ALERTS{{alertstate="firing"}}[{HOURS}m]))',
            "eval_time": f"{HOURS - 1}m",
            "exp_samples": [*note("a", "b"), *told],
        }
    ]
    assert rule_tests.failures([test], tmp_path) == ""


@pytest.mark.heavy
@pytest.mark.parametrize(
    ("kept", "dropped", "noticed"),
    [
        ("console-consumer-[0-9]+", "never", "console-consumer-40000"),
        ("changes(kafka_monitor_last_poll_timestamp_seconds[3m]) > 0", "up > 1", "DataStale"),
        ("              > 300\n", "              > 1e9\n", "sink-60"),  # nobody has patience
        ('kafka_consumergroup_active{by="members"}', "kafka_consumergroup_active", "mirrored"),
        ("kafka_consumergroup_not_consumed) > 0", "up) > 1", "moved-on"),
        ("kafka_consumergroup_readable_lag", "kafka_consumergroup_lag_sum", "emptied"),
    ],
)
def test_each_thing_that_keeps_a_rule_quiet_is_needed(
    tmp_path: Path, kept: str, dropped: str, noticed: str
) -> None:
    rules = tmp_path / "rules"
    rules.mkdir()
    texts = {
        name: (rule_tests.RULES / f"{name}.yml").read_text() for name in rule_tests.ABOUT_KAFKA
    }
    assert any(kept in text for text in texts.values())
    for name, text in texts.items():
        (rules / f"{name}.yml").write_text(text.replace(kept, dropped))
    minutes = 13 * 60
    monitors = [
        Monitor("a-1", "a", clock_is_set={100: -900}),
        Monitor("a-2", "a", clock_is_set={100: -900}),
    ]
    test = course(monitors, minutes, Level.PARTITION, [])
    test["promql_expr_test"] = [
        {
            "expr": f'count by (alertname, consumergroup) (ALERTS{{alertname!="{NOTE}"}})',
            "eval_time": f"{at}m",
            "exp_samples": [],
        }
        for at in range(100, minutes, 7)
    ]
    assert noticed in rule_tests.failures([test], tmp_path, rules=rules)


@pytest.mark.heavy
@pytest.mark.timeout(1_800)
def test_a_week_calls_nobody(tmp_path: Path) -> None:
    test = course(MONITORS, WEEK, Level.PARTITION, note("a", "b"))
    assert rule_tests.failures([test], tmp_path) == ""
