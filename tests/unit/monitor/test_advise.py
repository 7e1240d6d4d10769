"""`monitor advise`: the scaling guide's formula and table."""

from __future__ import annotations

import json
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from monitor.analysis.capacity import Capacity, capacity
from monitor.analysis.groups import GroupFacts
from monitor.analysis.lag import GroupLag
from monitor.analysis.measures import GroupMeasures
from monitor.analysis.rates import TopicRates
from monitor.commands.advise import _advised, recommend
from monitor.model import Group
from tests.unit.monitor.test_cli import run

counts = st.integers(1, 1_000)
rates = st.floats(0.1, 1e6)


def test_the_guides_table() -> None:
    assert run("advise").stdout.splitlines() == [
        "ORDERS/DAY        PARTITIONS  REPLICAS",
        "< 10,000                   3       1-2",
        "10,000 - 100,000           6       2-4",
        "100,000 - 1M              12       4-8",
        "> 1M                     24+        8+",
    ]
    assert "100,000 - 1M" in run("advise", "--orders-per-day", "250000").stdout
    assert "> 1M" not in run("advise", "--orders-per-day", "250000").stdout


def test_the_guides_formula_with_the_reason() -> None:
    result = run("advise", "--expected", "500", "--per-consumer", "120", "--replicas", "3",
                 "--partitions", "3", "--pool-max", "5")  # fmt: skip
    assert result.exit_code == 0
    assert result.stdout.splitlines() == [
        "5 partitions, 5 replicas",
        "  max(500 / 120, 3) = 5: 5 consumers manage 500 messages/s.",
        (
            "  The topic has 3: add 2 first. Keys then go to other partitions; partitions can never be "
            "taken away."
        ),
        "  5 x 5 = 25 of 97 connections.",
    ]


def test_the_pools_budget_is_never_exceeded() -> None:
    arguments = ("--expected", "5000", "--per-consumer", "100", "--pool-max", "5")
    found = json.loads(run("advise", *arguments, "--output", "json").stdout)
    assert (found["partitions"], found["replicas"]) == (50, 19)
    assert "At most 19 replicas fit the database: (100 - 3) / 5" in found["limits"][0]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--expected", "5"], "--expected and --per-consumer need each other"),
        (["--replicas", "5"], "say --expected and --per-consumer, too"),
        (["--expected", "0", "--per-consumer", "1"], "--expected"),
        (["--orders-per-day", "-1"], "--orders-per-day"),
        (["--orders-per-day", "1", "--expected", "1", "--per-consumer", "1"], "does not go with"),
    ],
)
def test_what_makes_no_sense_is_refused(arguments: list[str], words: str) -> None:
    result = run("advise", *arguments)
    assert result.exit_code == 2
    assert words in result.stderr


@given(rates, rates, counts, counts, counts)
def test_replicas_never_exceed_partitions_nor_the_budget(
    expected: float, per_consumer: float, replicas: int, pool_max: int, takes: int
) -> None:
    found = recommend(
        expected, per_consumer, replicas=replicas, pool_max=pool_max, max_connections=takes
    )
    assert found.replicas <= found.partitions
    assert found.replicas * pool_max <= takes


# -- measured ---------------------------------------------------------------------------------


def seen(
    produced: float | None, consumed: float | None, lags: Sequence[int], members: int = 2
) -> list[GroupMeasures]:
    """Return what polls saw of a group on a topic."""
    rates = TopicRates(produced, consumed, None, None, None)
    facts = GroupFacts("Stable", members, per_topic={"t": (3,) * members + (0,)})
    return [
        GroupMeasures(
            Group("g"),
            GroupLag(total=lag, topics={"t": lag}, partitions={"t": {0: lag}}),
            facts,
            rates={"t": rates},
        )
        for lag in lags
    ]


def test_what_a_consumer_manages_is_known_only_while_messages_wait() -> None:
    behind = capacity(seen(90.0, 60.0, (5_000, 4_000, 6_000)), "t", 5.0)
    assert behind == Capacity(90.0, 60.0, 2, 30.0, had_backlog=True)
    keeps_pace = capacity(seen(60.0, 60.0, (100, 0, 300)), "t", 5.0)
    assert keeps_pace is not None
    assert not keeps_pace.had_backlog
    in_flight = capacity(seen(60.0, 60.0, (200, 250, 300)), "t", 5.0)
    assert in_flight is not None
    assert not in_flight.had_backlog  # what comes within a poll


@pytest.mark.parametrize(
    "polls",
    [
        [],
        seen(None, 1.0, (5,)),
        seen(1.0, None, (5,)),
        seen(1.0, 1.0, (5,), members=0),
    ],
)
def test_nothing_is_advised_on_what_is_not_known(polls: list[GroupMeasures]) -> None:
    assert capacity(polls, "t", 5.0) is None
    assert capacity(polls, "other", 5.0) is None


def test_measured_rates_go_into_the_guides_formula() -> None:
    given = {"replicas": None, "partitions": None, "pool_max": None, "max_connections": 100,
             "other_connections": 3}  # fmt: skip
    found = _advised(Capacity(90.0, 60.0, 2, 30.0, had_backlog=True), 6, given)
    assert (found.partitions, found.replicas) == (6, 3)
    assert found.reasons[0] == (
        "90.0 messages/s come; 2 consumers take 60.0, 30.0 each, while messages wait."
    )
    enough = _advised(Capacity(60.0, 60.0, 2, 30.0, had_backlog=False), 6, given)
    assert (enough.partitions, enough.replicas) == (6, 2)
    assert "nothing waits: they are enough for what comes now" in enough.reasons[0]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--group", "g", "--expected", "5", "--per-consumer", "1"), "--group measures"),
        (("--topic", "t"), "--topic goes with --group only"),
        (("--group", "g", "--for", "1"), "not in the range"),
    ],
)
def test_what_does_not_go_together_is_refused(arguments: tuple[str, ...], said: str) -> None:
    result = run("advise", *arguments)
    assert result.exit_code == 2
    assert said in result.stderr
