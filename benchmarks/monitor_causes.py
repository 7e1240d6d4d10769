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
from collections.abc import Iterable, Iterator
from typing import Any, Final

from benchmarks.support import table
from monitor import logs
from monitor.analysis.causes.finding import Cause
from monitor.analysis.measures import GroupMeasures
from monitor.model import Snapshot
from monitor.state import State
from tests.support.causes_table import INNOCENT, NO_FAULT, SCENES, Scene
from tests.support.lagging import GROUP
from tests.support.lagging_on_broker import MORE_SCENES
from tests.support.lagging_on_broker import SCENES as FAST_SCENES

GOAL: Final = 0.95
# klag's Diagnoser.java at fc080c7
STALE_SECONDS: Final = 300.0
HOT_Z_SCORE: Final = 3.0
REBALANCES: Final = 3
# Which of its findings says which cause, where it says one and not "this or that".
SAID_BY_KLAG: Final = {
    Cause.NO_MEMBERS: "no active members",
    Cause.REBALANCING: "rebalance storm",
    Cause.MESSAGES_LOST: "retention exceeded",
    Cause.CATCHING_UP: "catching up",
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
    klag = sum(SAID_BY_KLAG.get(Cause(row[0].split("+")[0]), "-") in row[4] for row in rows)
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
        "+".join(causes), "yes" if is_right else "NO", _klag(shop.watched.poller.latest.state, GROUP),
    )  # fmt: skip


def _told_of_the_well() -> Iterator[tuple[str, ...]]:
    for name, do in INNOCENT:
        shop = do()
        cause = shop.explain()["cause"]
        klag = _klag(shop.watched.poller.latest.state, GROUP)
        yield name, cause, "yes" if cause in NO_FAULT else "NO", klag


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


def _klag(state: State, group: str) -> str:
    """Return what klag's published rules find of the same figures, all of it: it ranks nothing."""
    assert state.snapshot is not None
    found = list(_findings(state.snapshot, state.groups[group]))
    return "; ".join(found) or "nothing"


def _findings(snapshot: Snapshot, measures: GroupMeasures) -> Iterable[str]:
    lag, now = measures.lag, snapshot.monotonic_at
    velocity = sum(rates.lag_velocity or 0.0 for rates in measures.rates.values())
    group_state = (measures.facts.state or "").lower()
    if group_state == "empty":
        yield "no active members"
    if group_state in ("preparingrebalance", "completingrebalance"):
        yield "rebalancing"
    if (measures.rebalances or 0) >= REBALANCES:
        yield "rebalance storm"
    if any(amount for amount in measures.unread_deleted.values()):
        yield "retention exceeded"
    if velocity > 0 and lag.total:
        yield "lag growing: add consumers or partitions, or speed up"
    if velocity < 0 and lag.total > 100:  # klag's
        yield "catching up"
    if any(_is_hot(lags) for lags in lag.partitions.values()):
        yield "key skew, or a slow or stuck consumer"
    unchanged: list[Any] = [
        at
        for topic, of in measures.committed_at.items()
        for partition, at in of.items()
        if lag.get(topic, partition)
    ]
    if unchanged and now - min(unchanged) >= STALE_SECONDS:
        yield "hung, deadlocked, or poison"


def _is_hot(lags: Any) -> bool:
    values = list(lags.values())
    mean = sum(values) / len(values)
    deviation = (sum((value - mean) ** 2 for value in values) / len(values)) ** 0.5
    return bool(deviation) and max(values) - mean > HOT_Z_SCORE * deviation


if __name__ == "__main__":
    main()
