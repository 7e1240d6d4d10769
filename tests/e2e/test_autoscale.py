"""Replicas follow the load: a step in traffic on the running system, and back."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.order_autoscale import (
    GOAL_SECONDS,
    PATIENCE_SECONDS,
    payment_group,
    start,
    step_in_traffic,
)
from order_services.local.replicas import Replicas
from tests.support.running_system import RunningSystem
from tests.support.waiting import wait_for

PARTITIONS = 6  # of orders
pytestmark = [pytest.mark.heavy, pytest.mark.timeout(1200)]


@pytest.fixture
def system(tmp_path: Path) -> Iterator[RunningSystem]:
    running = start(tmp_path / "data")
    yield running
    running.stop()


def scale(system: RunningSystem, wanted: str) -> str:
    command = [sys.executable, "-m", "order_services", "scale", wanted, "--wait", "120"]
    return subprocess.run(
        [*command, "--data-dir", str(system.data_dir)], capture_output=True, text=True, check=True
    ).stdout


def test_a_service_is_scaled_while_it_runs(system: RunningSystem) -> None:
    assert Replicas(system.data_dir).running()["payment"] == 1
    assert scale(system, "payment=3") == "payment: 1 -> 3\n"
    assert {"payment-1", "payment-2", "payment-3"} <= system.programs().keys()
    wait_for("three members", lambda: payment_group(system).get("members") == 3, PATIENCE_SECONDS)
    assert scale(system, "payment=1") == "payment: 3 -> 1\n"
    wait_for("one member", lambda: payment_group(system).get("members") == 1, PATIENCE_SECONDS)
    wait_for("ended replicas", lambda: "payment-3" not in system.programs(), PATIENCE_SECONDS)


def test_replicas_follow_a_step_in_traffic_and_go_back(system: RunningSystem) -> None:
    moments, said = step_in_traffic(system)
    most = max(each.replicas for each in moments)
    assert 3 <= most <= PARTITIONS
    assert max(each.lag_seconds or 0.0 for each in moments) > 0
    last = moments[-1]
    assert (last.replicas, last.unread) == (1, 0)
    assert (last.lag_seconds or 0.0) < GOAL_SECONDS
    assert "messages/s come, one consumer manages" in said
