"""Replicas follow the load: a step in traffic on the running system, and back."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from order_services.local.ports import LOOPBACK
from order_services.local.replicas import Replicas
from order_services.local.traffic import Traffic
from tests.support.running_system import RunningSystem, get_json
from tests.support.waiting import wait_for

GOAL_SECONDS = 30.0
# A consumer manages no more than 25 messages a second; 60 come. Machines that are slow manage less.
DELAY_SECONDS = 0.04
RATE = 60.0
LONG = 400.0
pytestmark = pytest.mark.heavy


@pytest.fixture
def system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[RunningSystem]:
    monkeypatch.setenv("FAULT_MESSAGE_DELAY_SECONDS", str(DELAY_SECONDS))
    monkeypatch.setenv("MONITOR_SCALING_GOAL", str(GOAL_SECONDS))
    monkeypatch.setenv("MONITOR_SCALING_HOLD", "20")
    running = RunningSystem(tmp_path / "data", ("--no-traffic",))
    running.start().wait_until_up()
    yield running
    running.stop()


def order_services(system: RunningSystem, *arguments: str) -> list[str]:
    return [
        *(sys.executable, "-m", "order_services", *arguments),
        *("--data-dir", str(system.data_dir)),
    ]


def payments(system: RunningSystem) -> dict[str, Any]:
    """Return what the monitor tells of the group; nothing while it does not know it."""
    try:
        found: dict[str, Any] = get_json(
            f"{system.monitor_url}/api/v1/groups/payment-service-group"
        )
    except OSError:
        return {}
    return found


def test_a_service_is_scaled_while_it_runs(system: RunningSystem) -> None:
    replicas = Replicas(system.data_dir)
    assert replicas.running()["payment"] == 1
    done = subprocess.run(
        order_services(system, "scale", "payment=3", "--wait", "120"),
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout == "payment: 1 -> 3\n"
    assert {"payment-1", "payment-2", "payment-3"} <= system.programs().keys()
    wait_for("three members", lambda: payments(system).get("members") == 3, LONG)
    subprocess.run(order_services(system, "scale", "payment=1", "--wait", "120"), check=True)
    wait_for("one member", lambda: payments(system).get("members") == 1, LONG)
    wait_for("ended replicas", lambda: "payment-3" not in system.programs(), LONG)


def test_replicas_follow_a_step_in_traffic_and_go_back(
    system: RunningSystem, tmp_path: Path
) -> None:
    replicas = Replicas(system.data_dir)
    said = tmp_path / "autoscale.out"
    traffic = Traffic(LOOPBACK, system.base_port, RATE)
    with said.open("wb") as out:
        autoscale = subprocess.Popen(
            order_services(system, "autoscale", "payment", "--every", "2"), stdout=out, stderr=out
        )
    try:
        wait_for("a group", lambda: payments(system).get("members") == 1, LONG)
        traffic.start()
        wait_for("more replicas", lambda: replicas.running()["payment"] >= 3, LONG)
        wait_for(
            "lag in seconds that is back under its goal, and replicas that hold it there",
            lambda: (
                payments(system).get("members", 0) >= 3
                and (payments(system).get("max_lag_seconds") or 0.0) < GOAL_SECONDS / 2
            ),
            LONG,
        )
        assert replicas.running()["payment"] <= 6  # partitions of orders
        traffic.stop()
        wait_for("replicas that go back", lambda: replicas.running()["payment"] == 1, LONG)
        wait_for("lag that is gone", lambda: payments(system).get("unread") == 0, LONG)
    finally:
        traffic.stop()
        autoscale.terminate()
        assert autoscale.wait(60) == 0, said.read_text()
    lines = said.read_text()
    assert "messages/s come, one consumer manages" in lines
