"""Count how often the true cause of a lag is named: `python -m benchmarks.monitor_causes`.

Each scene is brought about (`tests/support/causes_table.py`): on a model of a cluster behind the seam
of the wire, with the monitor's collector, analysis and API over it, and with `--broker` those that a
real broker can be brought to. "Cannot tell" counts as wrong. The same states are given to the rules
that klag publishes for its diagnosis. Fails when fewer than 95 in 100 are named, or a cause of who is
well.
"""

from __future__ import annotations

import argparse
import sys
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import pairwise
from statistics import mean, pstdev
from typing import Final

from benchmarks.support import table
from monitor import logs
from monitor.analysis.causes.finding import Cause
from monitor.analysis.measures import GroupMeasures
from monitor.model import Snapshot
from monitor.state import State
from tests.support.causes_table import INNOCENT, NO_FAULT, SCENES, Scene
from tests.support.lagging import GROUP, Shop
from tests.support.lagging_on_broker import MORE_SCENES
from tests.support.lagging_on_broker import SCENES as FAST_SCENES

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
    parser.add_argument("--broker", action="store_true", help="on a real broker, too")
    parser.add_argument("--only", default="", help="scenes whose name has this")
    chosen = parser.parse_args()
    logs.configure("ERROR")
    rows = [row for s in SCENES if chosen.only in s.id for row in _told(s)]
    header = ("truth", "variant", "answer", "right", "klag's rules")
    table("Truth against answer", header, rows)
    if chosen.broker:
        broker_rows = list(_told_on_a_broker())
        table("The same on a real broker", header, broker_rows)
        rows += broker_rows
    well = [] if chosen.only else list(_told_of_the_well())
    table("Groups that are well", ("what is so", "answer", "right", "klag's rules"), well)
    named = sum(row[3] == "yes" for row in rows)
    false = sum(row[2] != "yes" for row in well)
    print(
        f"\n{named} of {len(rows)} causes named, {false} named of {len(well)} groups that are well"
    )
    klag = sum(
        any(said in row[4] for said in SAID_BY_KLAG.get(Cause(row[0].split("+")[0]), ()))
        for row in rows
    )
    alarmed = sum(row[3] != "nothing" for row in well)
    print(
        f"klag's rules: {klag} of {len(rows)} said as one cause; findings of {alarmed} that are well"
    )
    sys.exit(named < GOAL * len(rows) or bool(false))


def _told(scene: Scene) -> Iterator[tuple[str, ...]]:
    shop = scene.do()
    told = shop.explain()
    causes = [told["cause"], *(other["cause"] for other in told["also"])]
    truths = {scene.truth, *([scene.also] if scene.also else [])}
    is_right = causes[0] in truths and truths <= set(causes)
    yield (
        "+".join([scene.truth, *([scene.also] if scene.also else [])]), scene.variant,
        "+".join(causes), "yes" if is_right else "NO", _klag_of(shop),
    )  # fmt: skip


def _told_of_the_well() -> Iterator[tuple[str, ...]]:
    for name, do in INNOCENT:
        shop = do()
        cause = shop.explain()["cause"]
        yield name, cause, "yes" if cause in NO_FAULT else "NO", _klag_of(shop)


def _told_on_a_broker() -> Iterator[tuple[str, ...]]:
    # here, as it takes a broker
    from benchmarks.support import servers  # noqa: PLC0415
    from tests.support.lagging_on_broker import explained  # noqa: PLC0415

    scenes = {**FAST_SCENES, **MORE_SCENES}
    names: dict[str, str] = {}

    def unique(name: str) -> str:
        names[name] = f"{name}-{uuid.uuid4().hex[:8]}"
        return names[name]

    with servers() as own:
        for name, (found, state) in explained(own.kafka, scenes, unique).items():
            is_right = found.cause == scenes[name].truth
            yield (
                scenes[name].truth, name, found.cause, "yes" if is_right else "NO",
                _klag(state, names[name]),
            )  # fmt: skip


def _klag_of(shop: Shop) -> str:
    return _klag(shop.watched.poller.latest.state, GROUP, shop.states)


def _klag(state: State, group: str, states: Sequence[str] = ()) -> str:
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
