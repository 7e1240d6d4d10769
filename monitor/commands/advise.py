"""`monitor advise`: how many partitions and replicas, by the scaling guide, with the reason."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from math import ceil
from typing import Any, Final

import click

from monitor.analysis.advice import recommended_partitions, sizing
from monitor.commands.options import Refusal
from monitor.words import columns

# A value within each row of the guide's table, and how the row is named.
_ROWS: Final = (
    (9_999, "< 10,000"),
    (100_000, "10,000 - 100,000"),
    (1_000_000, "100,000 - 1M"),
    (1_000_001, "> 1M"),
)
POSTGRES_TAKES: Final = 100
_Rate = click.FloatRange(min=0, min_open=True)
_Count = click.IntRange(min=1)


@dataclass(frozen=True, slots=True)
class Recommendation:
    """What to run; `limits` are the reasons that keep it below what the rate asks for."""

    partitions: int
    replicas: int
    reasons: tuple[str, ...]
    limits: tuple[str, ...] = ()


@click.command()
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
    orders_per_day: int | None,
    expected: float | None,
    per_consumer: float | None,
    output: str,
    **given: Any,
) -> None:
    """Say how many partitions and replicas a topic and its consumers need, and why.

    Partitions = max(expected / per consumer, replicas). Without any rate, the guide's table of
    orders per day is printed. `monitor groups` shows what groups produce and consume now, and
    `monitor pools` what databases take.
    """
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
    found = recommend(expected, per_consumer, **given)
    if output == "json":
        click.echo(json.dumps(asdict(found), indent=2))
        return
    click.echo(f"{found.partitions} partitions, {found.replicas} replicas")
    for line in (*found.reasons, *found.limits):
        click.echo(f"  {line}")


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
