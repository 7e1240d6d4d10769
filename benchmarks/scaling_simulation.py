"""Our scaling decision against the CPU HPA of the scaling guide, KEDA's lag rule and Flink's.

A consumer group is simulated second by second on nine curves of load, and on those that were recorded
from the running order system (`python -m benchmarks.scaling_record`): seconds in which the oldest
unread message was older than the goal, the 99th percentile of that age, replica-seconds as multiples
of what somebody who knows the future would need, and rebalances. Nothing here depends on the machine.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from benchmarks.scaling.autoscalers import SYNC_SECONDS, Autoscaler, CpuHpa, Flink, Keda, Ours
from benchmarks.scaling.clairvoyant import fewest_replica_seconds
from benchmarks.scaling.curves import CURVES, Curve
from benchmarks.scaling.recorded import FOLDER, load
from benchmarks.scaling.world import Account, World
from benchmarks.support import run, table
from monitor.analysis.scaling.rules import ScalingRules

RULES: Final = ScalingRules()
OURS: Final = "ours"
RECORDED: Final = tuple(load(file) for file in sorted(FOLDER.glob("*.csv")))
# Of the goal, how much of it one consumer takes to work off the lag for which KEDA wants one: of its
# thresholds that which serves KEDA best over all curves; with less it runs twice the replicas, with
# more it is over goal on most (`--thresholds` prints the others).
KEDA_SHARE_OF_GOAL: Final = 1 / 4
OTHER_KEDA_SHARES: Final = (1 / 600, 1 / 60, 1 / 8, 1 / 2)

AUTOSCALERS: Final[Mapping[str, Callable[[Curve], Autoscaler]]] = {
    OURS: lambda _: Ours(RULES),
    "HPA, CPU 70 %": lambda curve: CpuHpa(curve.partitions),
    "KEDA": lambda curve: keda(curve, KEDA_SHARE_OF_GOAL),
    "Flink": lambda _: Flink(RULES),
}


def keda(curve: Curve, share_of_goal: float) -> Keda:
    """Return KEDA with the threshold that makes one replica take so much of the goal."""
    threshold = max(1, round(curve.usual_capacity * RULES.goal_seconds * share_of_goal))
    return Keda(threshold, curve.partitions)


@dataclass(frozen=True)
class Outcome:
    """What each autoscaler came to on a curve."""

    curve: Curve
    least: int
    accounts: Mapping[str, Account]


def simulate(curve: Curve, autoscaler: Autoscaler) -> World:
    """Run a curve to its end."""
    world = World(curve)
    for second in range(curve.seconds):
        autoscaler.watch(world)
        if second and second % SYNC_SECONDS == 0:
            world.scale(autoscaler.replicas(world))
        world.step()
    return world


def outcome(curve: Curve) -> Outcome:
    """Run a curve with each autoscaler."""
    return Outcome(
        curve,
        fewest_replica_seconds(curve, RULES.goal_seconds),
        {
            name: simulate(curve, make(curve)).account(RULES.goal_seconds)
            for name, make in AUTOSCALERS.items()
        },
    )


def is_won(accounts: Mapping[str, Account]) -> bool:
    """Say whether nobody else had fewer seconds over goal with as many replica-seconds or fewer.

    Nor as many seconds over goal with fewer replica-seconds.
    """
    ours = accounts[OURS]
    mine = (ours.over_goal, ours.replica_seconds)
    return not any(
        other.replica_seconds <= ours.replica_seconds
        and (other.over_goal, other.replica_seconds) < mine
        for name, other in accounts.items()
        if name != OURS
    )


def measure(given: argparse.Namespace) -> None:
    """Print a table for each curve, and which are won."""
    won = []
    curves = [curve for curve in (*CURVES, *RECORDED) if given.curve in (None, curve.name)]
    for curve in curves:
        found = outcome(curve)
        _print(found, thresholds=given.thresholds)
        if is_won(found.accounts):
            won.append(curve.name)
    print(
        f"\nFewest seconds over goal at no more replica-seconds: {len(won)} of {len(curves)} "
        f"({', '.join(won)})."
    )


def _print(found: Outcome, *, thresholds: bool) -> None:
    curve = found.curve
    accounts = dict(found.accounts)
    if thresholds:
        for share in OTHER_KEDA_SHARES:
            other = keda(curve, share)
            kept = simulate(curve, other).account(RULES.goal_seconds)
            accounts[f"KEDA, {other.threshold}"] = kept
    table(
        f"{curve.name}: {curve.told}",
        ["", "s over goal", "p99 lag s", "replica-s", "x least", "rebalances"],
        [
            [
                name,
                each.over_goal,
                f"{each.p99_lag_seconds:.0f}",
                each.replica_seconds,
                f"{each.replica_seconds / found.least:.2f}",
                each.rebalances,
            ]
            for name, each in accounts.items()
        ],
    )


def options(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument("--curve", choices=[curve.name for curve in (*CURVES, *RECORDED)])
    parser.add_argument("--thresholds", action="store_true", help="KEDA with other thresholds, too")


if __name__ == "__main__":
    sys.exit(run("scaling_simulation", __doc__ or "", measure, options))
