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
from order_services.local.plan import SERVICES
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


@pytest.mark.parametrize("level", list(Level))
def test_a_day_of_two_clusters_and_three_monitors_calls_nobody(
    tmp_path: Path, level: Level
) -> None:
    test = course(MONITORS, DAY, level, note("a", "b"))
    assert rule_tests.failures([test], tmp_path) == ""


def test_a_day_of_one_cluster_without_a_name_calls_nobody(tmp_path: Path) -> None:
    monitors = [Monitor("only", None, restarts=(5 * 60,))]
    test = course(monitors, DAY, Level.PARTITION, note(None))
    assert rule_tests.failures([test], tmp_path) == ""


@pytest.mark.heavy
@pytest.mark.timeout(1_800)
def test_a_week_calls_nobody(tmp_path: Path) -> None:
    test = course(MONITORS, WEEK, Level.PARTITION, note("a", "b"))
    assert rule_tests.failures([test], tmp_path) == ""
