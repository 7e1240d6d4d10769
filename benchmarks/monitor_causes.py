"""Count how often the true cause of a lag is named: `python -m benchmarks.monitor_causes`.

Each scene (`tests/support/causes_table.py`) is brought about on a model of a cluster behind the seam of the
wire, and with `--broker` on real brokers, all at the same time, with the monitor's collector, analysis and
API over it. "Cannot tell" counts as wrong, and so does a false cause beside the true one. The same states
are given to the rules that klag publishes for its diagnosis. `--healthy 600` runs the order system under
load for so many seconds, in which no cause may be named. Fails when fewer than 95 in 100 are named, or a
cause of who is well.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import count, pairwise
from pathlib import Path
from statistics import mean, pstdev
from tempfile import TemporaryDirectory
from typing import Any, Final

from benchmarks.support import say, table
from monitor import logs
from monitor.analysis.causes.finding import Cause
from monitor.analysis.measures import GroupMeasures
from monitor.model import Snapshot
from monitor.state import State
from tests.support.causes_table import INNOCENT, SCENES, Scene
from tests.support.lagging import GROUP, on_the_model

GOAL: Final = 0.95
# klag's Diagnoser.java, HotPartitionConfig.java and ConsumerGroupStateTracker.java at fc080c7
STALE_SECONDS: Final = 300.0
NOTABLE_LAG: Final = 100
SIGMAS: Final = 2.0
LEAST_PARTITIONS: Final = 3
STATE_CHANGES: Final = 3
LOST_SHARE: Final = 1.0
NEARLY_LOST_SHARE: Final = 0.8
# Which of its findings says which cause, where it says one and not "this or that".
SAID_BY_KLAG: Final = {
    Cause.NO_MEMBERS: ("no active members",),
    Cause.REBALANCING: ("frequent state changes", "rebalancing"),
    Cause.MESSAGES_LOST: ("data loss risk",),
    Cause.CATCHING_UP: ("catching up",),
}


def main() -> None:
    """Run, print the tables, and fail when a promise was broken."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--broker", action="store_true", help="on real brokers")
    parser.add_argument("--only", default="", help="scenes whose name has this")
    parser.add_argument("--healthy", type=float, metavar="SECONDS", help="only this")
    chosen = parser.parse_args()
    logs.configure("ERROR")
    if chosen.healthy:
        sys.exit(_blamed_in_health(chosen.healthy))
    scenes = [scene for scene in (*SCENES, *INNOCENT) if chosen.only in scene.id]
    rows = list((_on_brokers if chosen.broker else _on_the_model)(scenes))
    table(
        f"Truth against answer, on {'real brokers' if chosen.broker else 'the model'}",
        ("truth", "variant", "answer", "right", "klag's rules"),
        rows,
    )
    ill = [row for row in rows if row[0] != Cause.HEALTHY]
    well = [row for row in rows if row[0] == Cause.HEALTHY]
    named = sum(row[3] == "yes" for row in ill)
    false = sum(row[3] != "yes" for row in well)
    print(
        f"\n{named} of {len(ill)} causes named, {false} named of {len(well)} groups that are well"
    )
    klag = sum(
        any(said in row[4] for said in SAID_BY_KLAG.get(Cause(row[0].split("+")[0]), ()))
        for row in ill
    )
    alarmed = sum(row[4] != "nothing" for row in well)
    print(
        f"klag's rules: {klag} of {len(ill)} said as one cause; findings of {alarmed} that are well"
    )
    sys.exit(named < GOAL * len(ill) or bool(false))


def _on_the_model(scenes: Sequence[Scene]) -> Iterator[tuple[str, ...]]:
    for scene in scenes:
        shop = on_the_model(scene.play)
        yield _row(scene, shop.explain(), _klag(shop.latest(), GROUP, shop.states))


def _on_brokers(scenes: Sequence[Scene]) -> Iterator[tuple[str, ...]]:
    # here, as it takes brokers
    from tests.support.cluster import Cluster  # noqa: PLC0415
    from tests.support.lagging_on_broker import SESSION_TIMEOUT_MS, on_brokers  # noqa: PLC0415

    numbers = count()
    with TemporaryDirectory(prefix="benchmark-") as directory:
        cluster = Cluster(Path(directory), SESSION_TIMEOUT_MS)
        try:
            told = on_brokers(cluster, scenes, lambda stem: f"{stem}-{next(numbers)}")
        finally:
            cluster.stop()
    for scene in scenes:
        one = told[scene.id]
        yield _row(scene, one.answer, _klag(one.state, one.group, one.states))


def _row(scene: Scene, answer: Mapping[str, Any], klag: str) -> tuple[str, ...]:
    causes = [answer["cause"], *(other["cause"] for other in answer["also"])]
    is_right = scene.is_told_by(answer)
    return scene.truths, scene.variant, "+".join(causes), "yes" if is_right else "NO", klag


def _blamed_in_health(seconds: float) -> bool:
    """Run the order system under load; return whether anybody was blamed or called behind."""
    # here, as it takes a whole system
    from tests.support.health import ORDERS_PER_SECOND, told_in_health  # noqa: PLC0415
    from tests.support.watched_system import MONITOR, watched  # noqa: PLC0415

    with (
        TemporaryDirectory(prefix="benchmark-") as directory,
        watched(Path(directory), ORDERS_PER_SECOND, monitor_program=MONITOR) as system,
    ):
        say(f"the system runs; watching it for {seconds:.0f} s")
        told = told_in_health(system, seconds, say)
    table(
        f"The order system, {ORDERS_PER_SECOND:.0f} orders/s for {seconds:.0f} s",
        ("group", "looks", "causes named", "oldest unread, s", "right"),
        [
            (group, str(of.looks), ", ".join(sorted(of.causes)), f"{of.behind:.1f}",
             "yes" if of.is_well else "NO")
            for group, of in sorted(told.items())
        ],
    )  # fmt: skip
    return not all(of.is_well for of in told.values())


def _klag(state: State, group: str, states: Sequence[str]) -> str:
    """Return what klag's published rules find of the same figures, all of it: it ranks nothing.

    `states` are those that polls saw of the group.
    """
    assert state.snapshot is not None
    found = list(_findings(state.snapshot, state.groups[group], states))
    return "; ".join(found) or "nothing"


def _findings(snapshot: Snapshot, measures: GroupMeasures, states: Sequence[str]) -> Iterable[str]:
    lag, now = measures.lag, snapshot.monotonic_at
    group_state = (measures.facts.state or "").lower()
    if group_state == "dead":
        yield "dead"
    if group_state == "empty":
        yield "no active members"
    if group_state in ("preparingrebalance", "completingrebalance"):
        yield "rebalancing"
    if sum(before != after for before, after in pairwise(states)) >= STATE_CHANGES:
        yield "frequent state changes"
    unread = max(
        (_unread_share(snapshot, topic, of) for topic, of in lag.topics.items()), default=0
    )
    if unread >= LOST_SHARE:
        yield "data loss risk"
    elif unread >= NEARLY_LOST_SHARE:
        yield "approaching retention limit"
    for rates in measures.rates.values():
        velocity = rates.lag_velocity or 0.0
        if velocity > 0 and lag.total:
            yield "lag growing: add consumers or partitions, or speed up"
        if velocity < 0 and lag.total > NOTABLE_LAG:
            yield "catching up"
    if any(_is_hot(lags) for lags in lag.partitions.values()):
        yield "key skew, or a slow or stuck consumer"
    if lag.total and any(now - at >= STALE_SECONDS for at in measures.changed_at.values()):
        yield "hung, deadlocked, or poison"


def _unread_share(snapshot: Snapshot, topic: str, lag: int) -> float:
    starts = snapshot.start_offsets.values.get(topic, {})
    ends = snapshot.end_offsets.values.get(topic, {})
    kept = sum(end - starts.get(partition, end) for partition, end in ends.items())
    return lag / kept if kept else 0.0


def _is_hot(lags: Mapping[int, int]) -> bool:
    values = list(lags.values())
    if len(values) < LEAST_PARTITIONS:
        return False
    return max(values) > mean(values) + SIGMAS * pstdev(values)


if __name__ == "__main__":
    main()
