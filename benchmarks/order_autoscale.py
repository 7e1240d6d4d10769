"""Replicas follow a step in traffic on the running system: `python -m benchmarks.order_autoscale`.

A message takes a payment replica 40 ms, so one manages 25 a second at most; 60 orders a second come, until
the lag is back under its goal, and then none. Prints how replicas and lag went; --picture draws it.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self

from order_services.local.ports import LOOPBACK
from order_services.local.replicas import Replicas
from order_services.local.traffic import Traffic
from tests.support.running_system import RunningSystem, get_json
from tests.support.waiting import wait_for

GOAL_SECONDS: Final = 30.0
RATE: Final = 60.0
SETTINGS: Final = {
    "FAULT_MESSAGE_DELAY_SECONDS": "0.04",
    "MONITOR_SCALING_GOAL": str(GOAL_SECONDS),
    "MONITOR_SCALING_HOLD": "20",
}
EVERY_SECONDS: Final = 2.0
PATIENCE_SECONDS: Final = 400.0


@dataclass(frozen=True, slots=True)
class Moment:
    """What was seen `seconds` after the start; the lag is None where the monitor knew none."""

    seconds: float
    orders_a_second: float
    replicas: int
    members: int
    lag_seconds: float | None
    unread: int | None


class Course:
    """Looks at the system every two seconds, on a thread of its own, while it is entered."""

    def __init__(self, system: RunningSystem, say: Callable[[Moment], None]) -> None:
        self.moments: list[Moment] = []
        self.orders_a_second = 0.0
        self._system = system
        self._say = say
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def wait_for(self, what: str, probe: Callable[[Moment], bool]) -> None:
        """Wait until a look shows it."""
        wait_for(what, lambda: self.moments and probe(self.moments[-1]), PATIENCE_SECONDS)

    def _look(self) -> None:
        replicas = Replicas(self._system.data_dir)
        started = time.monotonic()
        while not self._over.wait(EVERY_SECONDS):
            group = payment_group(self._system)
            moment = Moment(
                time.monotonic() - started,
                self.orders_a_second,
                replicas.running()["payment"],
                group.get("members") or 0,
                group.get("max_lag_seconds"),
                group.get("unread"),
            )
            self.moments.append(moment)
            self._say(moment)


def payment_group(system: RunningSystem) -> dict[str, Any]:
    """Return what the monitor tells of the group; nothing while it does not know it."""
    try:
        found: dict[str, Any] = get_json(
            f"{system.monitor_url}/api/v1/groups/payment-service-group"
        )
    except OSError:
        return {}
    return found


def start(directory: Path) -> RunningSystem:
    """Start the system with slow handlers and without orders."""
    os.environ.update(SETTINGS)
    try:
        return RunningSystem(directory, ("--no-traffic",)).start().wait_until_up()
    finally:
        for name in SETTINGS:
            del os.environ[name]


def step_in_traffic(
    system: RunningSystem, say: Callable[[Moment], None] = lambda _: None
) -> tuple[list[Moment], str]:
    """Let orders come until replicas hold the lag under its goal, and then none until they are gone.

    Returns what was seen, and what `order-services autoscale` said; raises AssertionError when the
    replicas do not follow.
    """
    command = [sys.executable, "-m", "order_services", "autoscale", "payment", "--every", "2"]
    traffic = Traffic(LOOPBACK, system.base_port, RATE)
    autoscale = subprocess.Popen(
        [*command, "--data-dir", str(system.data_dir)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        with Course(system, say) as course:
            course.wait_for("a group", lambda now: now.members == 1)
            traffic.start()
            course.orders_a_second = RATE
            course.wait_for("more replicas", lambda now: now.replicas >= 3)
            course.wait_for(
                "lag in seconds that is back under its goal, with the replicas that hold it there",
                lambda now: now.members >= 3 and (now.lag_seconds or 0.0) < GOAL_SECONDS / 2,
            )
            traffic.stop()
            course.orders_a_second = 0.0
            course.wait_for("replicas that go back", lambda now: now.replicas == 1)
            course.wait_for("lag that is gone", lambda now: now.unread == 0)
    finally:
        traffic.stop()
        autoscale.terminate()
        said, _ = autoscale.communicate(timeout=60)
    assert autoscale.returncode == 0, said
    return course.moments, said


def draw(moments: Sequence[Moment], picture: Path) -> None:
    """Draw the course: what comes and the lag, and below them the replicas."""
    from matplotlib.figure import Figure  # noqa: PLC0415  # the table needs no plotting library

    figure = Figure(figsize=(9, 5), layout="constrained")
    lag, replicas = figure.subplots(2, sharex=True, height_ratios=[2, 1])
    seconds = [each.seconds for each in moments]
    lag.plot(
        seconds, [each.lag_seconds for each in moments], color="#c2410c", label="lag in seconds"
    )
    lag.axhline(GOAL_SECONDS, color="#c2410c", linestyle="--", linewidth=1, label="its goal")
    lag.plot(
        seconds,
        [each.orders_a_second for each in moments],
        color="#1d4ed8",
        drawstyle="steps-post",
        label="orders a second",
    )
    lag.legend(frameon=False)
    lag.set_title("payment-service-group: a step in traffic, followed by order-services autoscale")
    replicas.plot(
        seconds, [each.replicas for each in moments], drawstyle="steps-post", color="#166534"
    )
    replicas.set_ylabel("replicas")
    replicas.set_xlabel("seconds")
    replicas.set_ylim(0)
    figure.savefig(picture, dpi=100)


def main() -> None:
    """Run, print the course, and fail when the replicas did not follow."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--picture", type=Path, help="where to draw it (PNG)")
    chosen = parser.parse_args()
    print(f"{'s':>6}{'orders/s':>10}{'replicas':>10}{'members':>9}{'lag s':>8}{'unread':>8}")

    def row(now: Moment) -> None:
        lag = "" if now.lag_seconds is None else f"{now.lag_seconds:.1f}"
        unread = "" if now.unread is None else now.unread
        print(
            f"{now.seconds:6.0f}{now.orders_a_second:10.0f}{now.replicas:10}{now.members:9}"
            f"{lag:>8}{unread:>8}",
            flush=True,
        )

    with tempfile.TemporaryDirectory(prefix="autoscale-") as directory:
        system = start(Path(directory))
        try:
            moments, said = step_in_traffic(system, row)
        finally:
            system.stop()
    print(f"\n{said}")
    if chosen.picture is not None:
        draw(moments, chosen.picture)


if __name__ == "__main__":
    main()
