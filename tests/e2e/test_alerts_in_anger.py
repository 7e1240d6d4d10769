"""Each fault of the running system is told, nothing else is, and all of it clears.

Several at once, in rounds; `make bench BENCH=order_alerts` inflicts them one by one, and more, after
minutes of health.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from tests.support.alert_pace import Pace
from tests.support.anger import BUSY_MACHINE, ROUNDS, Fault, check, fired_since
from tests.support.faults import Scene, scene

# A day of the rules is 24 minutes here; a scrape that a busy machine delays is no outage yet, and a
# window outlasts the time that it takes to inflict a whole round of faults.
# a system, Prometheus and Alertmanager; what they tell of a target of ours: test_alerting
pytestmark = pytest.mark.heavy

PACE = Pace(factor=60, shortest_wait_seconds=3.0, shortest_window_seconds=24.0)
ORDERS_PER_SECOND = 10.0
HEALTHY_SECONDS = 15.0


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    with scene(tmp_path_factory.mktemp("anger"), PACE, ORDERS_PER_SECOND) as found:
        yield found


def test_a_healthy_system_alerts_nobody(running: Scene) -> None:
    started = time.monotonic()
    time.sleep(HEALTHY_SECONDS)
    fired = [
        labels
        for labels in fired_since(running, started)
        if not any(alert.is_of(labels) for alert in BUSY_MACHINE)
    ]
    assert not fired, running.alerting.describe()


@pytest.mark.parametrize("faults", ROUNDS, ids=lambda faults: f"{len(faults.told)}-alerts")
def test_faults_are_told_alone_and_clear_after_their_repair(running: Scene, faults: Fault) -> None:
    print(faults.title, check(running, faults, tolerated=BUSY_MACHINE))
