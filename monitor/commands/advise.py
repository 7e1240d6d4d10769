"""`monitor advise`: how many partitions and replicas, by the scaling guide, with the reason."""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass, replace
from math import ceil
from typing import Any, Final

import click

from monitor.analysis.advice import recommended_partitions, sizing
from monitor.analysis.analyst import Analyst
from monitor.analysis.scaling.advisor import sight_of
from monitor.analysis.scaling.decision import Scaler
from monitor.analysis.scaling.measuring import Sight
from monitor.analysis.scaling.rules import Decision
from monitor.commands import options
from monitor.commands import selection as selecting
from monitor.commands.numbers import Number
from monitor.commands.options import Refusal
from monitor.commands.watching import (
    collector_of,
    refuse_unknown_groups,
    rules_of,
    scaling_rules_of,
)
from monitor.selection import Selection
from monitor.words import columns, plural, safe

# A value within each row of the guide's table, and how the row is named.
_ROWS: Final = (
    (9_999, "< 10,000"),
    (100_000, "10,000 - 100,000"),
    (1_000_000, "100,000 - 1M"),
    (1_000_001, "> 1M"),
)
POSTGRES_TAKES: Final = 100
POLL_SECONDS: Final = 5.0
# their quotients are whole numbers that a person can run
_Rate = Number(1e-6, 1e12)
_Count = click.IntRange(min=1)


@dataclass(frozen=True, slots=True)
class Recommendation:
    """What to run; `limits` are the reasons that keep it below what the rate asks for."""

    partitions: int
    replicas: int
    reasons: tuple[str, ...]
    limits: tuple[str, ...] = ()


@click.command()
@options.connection
@click.option(
    "--group", metavar="ID", help="Measure this group, and say how many replicas it should have."
)
@click.option("--topic", metavar="NAME", help="Only this of its topics.")
@click.option("--for", "seconds", type=Number(10, 3_600), default=60, show_default=True,
              metavar="SECONDS", help="How long to measure.")  # fmt: skip
@click.option("--orders-per-day", type=click.IntRange(min=0),
              help="The guide's row for that many.")  # fmt: skip
@click.option("--expected", type=_Rate, metavar="MSG/S", help="What producers will write.")
@click.option("--per-consumer", type=_Rate, metavar="MSG/S", help="What one consumer manages.")
@click.option("--replicas", type=_Count, help="At least so many, as for availability.")
@click.option("--partitions", type=_Count, help="What the topic has now.")
@click.option("--pool-max", type=_Count, help="Database connections of each replica.")
@click.option("--max-connections", type=_Count, default=POSTGRES_TAKES, show_default=True,
              help="What the database, or PgBouncer's pool, takes.")  # fmt: skip
@click.option("--other-connections", type=click.IntRange(min=0), default=3, show_default=True,
              help="What others use or is reserved of them.")  # fmt: skip
@click.option("--output", type=click.Choice(["text", "json"]), default="text", show_default=True)
def advise(
    *,
    source: options.Source,
    group: str | None,
    topic: str | None,
    seconds: float,
    orders_per_day: int | None,
    expected: float | None,
    per_consumer: float | None,
    output: str,
    **given: Any,
) -> None:
    """Say how many partitions and replicas a topic and its consumers need, and why.

    Partitions = max(expected / per consumer, replicas). With --group all is measured, and the answer is
    that of /api/v1/scaling: what one consumer manages is known only while messages wait. Without any
    rate, the guide's table of orders per day is printed. `monitor pools` shows what databases take.
    """
    if group is not None:
        if expected is not None or per_consumer is not None or orders_per_day is not None:
            raise Refusal("--group measures: it does not go with rates or --orders-per-day")
        if given["partitions"] is not None:
            raise Refusal("--group reads the partitions: it does not go with --partitions")
        measured = _measured(source, group, topic, seconds, given)
        click.echo(
            json.dumps(asdict(measured), indent=2)
            if output == "json"
            else in_words(group, measured)
        )
        return
    if topic is not None:
        raise Refusal("--topic goes with --group only")
    if (expected is None) != (per_consumer is None):
        raise Refusal("--expected and --per-consumer need each other")
    if expected is None or per_consumer is None:
        if any(given[name] for name in ("replicas", "partitions", "pool_max")):
            raise Refusal("say --expected and --per-consumer, too")
        click.echo(_table(orders_per_day), nl=False)
        return
    if orders_per_day is not None:
        raise Refusal(
            "--orders-per-day does not go with --expected: the guide's table has no rates"
        )
    advised = recommend(expected, per_consumer, **given)
    click.echo(json.dumps(asdict(advised), indent=2) if output == "json" else _text(advised))


def _text(found: Recommendation) -> str:
    lines = (
        f"{found.partitions} partitions, {found.replicas} replicas",
        *found.reasons,
        *found.limits,
    )
    return "\n  ".join(lines)


def _measured(
    source: options.Source,
    group: str,
    topic: str | None,
    seconds: float,
    given: dict[str, Any],
) -> Decision:
    """Return what a group should have, after watching it for a while."""
    kafka, settings = source.one()
    selection = Selection(groups=(group,), topics=() if topic is None else (topic,))
    selecting.refuse_left_out(selection, settings)
    rules = scaling_rules_of(settings)
    if given["replicas"] is not None:
        rules = replace(rules, least=given["replicas"])
    scaler = Scaler(rules)
    found: Decision | None = None
    with collector_of(kafka, settings, selection=selection) as collector:
        analyst = Analyst(
            collector.offsets_for_times, collector.look_at_logs, rules=rules_of(settings)
        )
        end = time.monotonic() + seconds
        while True:
            snapshot = collector.poll()
            measures = analyst.measure(snapshot).get(group)
            refuse_unknown_groups(snapshot, (group,))
            sight = measures and sight_of(snapshot, measures.group, measures, topic)
            if measures and sight:
                found = decide(scaler, sight, measures.group.assignor, given)
            left = end - time.monotonic()
            if left <= 0:
                break
            click.echo(f"\rmeasuring {safe(group)}: {left:.0f} s more ", err=True, nl=False)
            time.sleep(min(left, POLL_SECONDS))
    click.echo("", err=True)
    if found is None or found.arrival is None:
        raise Refusal(
            f"nothing could be measured of {safe(group)!r} in {seconds:g} s: "
            f"{'its members or offsets could not be read' if found is None else found.reason}"
        )
    return found


def decide(scaler: Scaler, sight: Sight, assignor: str | None, given: dict[str, Any]) -> Decision:
    """Return the decision after a poll, within what --pool-max leaves of the connections."""
    pool_max = given["pool_max"]
    if pool_max is None:
        return scaler.decide(sight, assignor=assignor)
    free = max(0, given["max_connections"] - given["other_connections"])
    where = (
        f"the database: ({given['max_connections']} - {given['other_connections']}) / {pool_max}"
    )
    return scaler.decide(sight, assignor=assignor, budget=free // pool_max, budget_of=where)


def in_words(group: str, found: Decision) -> str:
    """Return a decision as lines: what to run, why, and what limits it."""
    what = f"{plural(found.replicas, 'replica')}"
    lines = [
        f"{safe(group)}: {what}; there are {found.members}",
        found.reason,
        f"At most {found.limit}: {found.limited_by}.",
    ]
    if found.per_consumer and found.arrival is not None:
        needed = recommended_partitions(found.arrival, found.per_consumer, found.replicas)
        if needed > found.limit:
            lines.append(
                f"{found.arrival:.1f} / {found.per_consumer:.1f} messages/s ask for {needed} partitions."
            )
    return "\n  ".join(lines)


def recommend(
    expected: float,
    per_consumer: float,
    *,
    replicas: int | None = None,
    partitions: int | None = None,
    pool_max: int | None = None,
    max_connections: int = POSTGRES_TAKES,
    other_connections: int = 0,
) -> Recommendation:
    """Return partitions and replicas by the guide's formula, within the pools' budget.

    Rates in messages per second. More replicas than partitions are of no use, and more than
    (max_connections - other_connections) / pool_max exhaust the database.
    """
    consumers = ceil(expected / per_consumer)
    wanted = max(consumers, replicas or 1)
    needed = recommended_partitions(expected, per_consumer, wanted)
    reasons = [
        (
            f"max({expected:g} / {per_consumer:g}, {replicas or 1}) = {needed}: "
            f"{consumers} consumers manage {expected:g} messages/s."
        )
    ]
    if partitions is not None and partitions < needed:
        reasons.append(
            f"The topic has {partitions}: add {needed - partitions} first. Keys then go to other "
            "partitions; partitions can never be taken away."
        )
    elif partitions is not None:
        reasons.append(f"The topic has {partitions}, which is enough.")
        needed = partitions
    limits = []
    run = wanted
    if pool_max is not None:
        budget = max(0, max_connections - other_connections) // pool_max
        if run > budget:
            limits.append(
                f"At most {budget} replicas fit the database: ({max_connections} - "
                f"{other_connections}) / {pool_max}. Put PgBouncer in front, or make pools smaller."
            )
            run = budget
        else:
            reasons.append(
                f"{run} x {pool_max} = {run * pool_max} of {max_connections - other_connections} "
                "connections."
            )
    return Recommendation(needed, run, tuple(reasons), tuple(limits))


def _table(orders_per_day: int | None) -> str:
    rows = [
        [
            name,
            f"{row.partitions}{'+' if row.more_partitions else ''}",
            f"{row.least_replicas}+"
            if row.most_replicas is None
            else f"{row.least_replicas}-{row.most_replicas}",
        ]
        for value, name in _ROWS
        for row in (sizing(value),)
        if orders_per_day is None or sizing(orders_per_day) == row
    ]
    return columns([["ORDERS/DAY", "PARTITIONS", "REPLICAS"], *rows], left={0})
