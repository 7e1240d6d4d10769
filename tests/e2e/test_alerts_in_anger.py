"""Each fault of the running system is told, nothing else is, and all of it clears.

`make bench BENCH=order_alerts` does the same with more faults, after minutes of health.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from tests.support.alert_pace import Pace
from tests.support.anger import BUSY_MACHINE, FAULTS, Fault, check, fired_since
from tests.support.watched_shop import WatchedShop, watched

# A day of the rules is 24 minutes here; a scrape that a busy machine delays is no outage yet.
PACE = Pace(factor=60, shortest_wait_seconds=3.0, shortest_window_seconds=8.0)
ORDERS_PER_SECOND = 10.0
HEALTHY_SECONDS = 15.0


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WatchedShop]:
    with watched(tmp_path_factory.mktemp("anger"), PACE, ORDERS_PER_SECOND) as running:
        yield running


def test_a_healthy_system_alerts_nobody(system: WatchedShop) -> None:
    started = time.monotonic()
    time.sleep(HEALTHY_SECONDS)
    fired = [
        labels
        for labels in fired_since(system, started)
        if not any(alert.is_of(labels) for alert in BUSY_MACHINE)
    ]
    assert not fired, system.alerting.describe()


@pytest.mark.parametrize(
    "fault", [fault for fault in FAULTS if fault.is_quick], ids=lambda fault: fault.inflict.__name__
)
def test_a_fault_is_told_alone_and_clears_after_its_repair(
    system: WatchedShop, fault: Fault
) -> None:
    print(fault.title, check(system, fault, tolerated=BUSY_MACHINE))
