"""`monitor advise`: the scaling guide's formula and table."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from monitor.analysis.scaling.decision import Scaler
from monitor.analysis.scaling.measuring import Sight
from monitor.analysis.scaling.rules import Decision, ScalingRules
from monitor.commands.advise import decide, in_words, recommend
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


def polled(lag: int, rate: int = 90, consumed: int = 60, **given: int) -> Decision:
    """Return the decision on two consumers of six partitions, after a minute of polls."""
    scaler = Scaler(ScalingRules())
    partitions = [("t", p) for p in range(6)]
    decision: Decision | None = None
    limits = {"pool_max": None, "max_connections": 100, "other_connections": 3, **given}
    for poll in range(13):
        end = 10_000 + rate * 5 * poll // 6
        commit = 10_000 - lag // 6 + consumed * 5 * poll // 6
        sight = Sight(
            1_000.0 + 5 * poll,
            dict.fromkeys(partitions, end),
            dict.fromkeys(partitions, min(end, commit)),
            {p: f"m{p[1] % 2}" for p in partitions},
            members=2,
            seconds_behind=max(0, end - commit) * 6 / rate,
        )
        decision = decide(scaler, sight, None, limits)
    assert decision is not None
    return decision


def test_what_was_measured_is_told_with_the_reason() -> None:
    assert in_words("g", polled(12_000)).splitlines() == [
        "g: 6 replicas; there are 2",
        (
            "  90.0 messages/s come, one consumer manages 30.0, 13800 wait: 6 is the limit (6 partitions: "
            "more would be idle)."
        ),
        "  At most 6: 6 partitions: more would be idle.",
    ]
    keeps_pace = in_words("g", polled(0, 60, 60)).splitlines()
    assert keeps_pace[0] == "g: 2 replicas; there are 2"
    assert "known only once messages wait" in keeps_pace[1]


def test_what_was_measured_stays_within_the_pools_budget() -> None:
    found = polled(12_000, pool_max=30)
    assert (found.replicas, found.limited_by) == (3, "the database: (100 - 3) / 30")


def test_more_partitions_are_asked_for_where_replicas_are_not_enough() -> None:
    assert in_words("g", polled(12_000, 600, 60)).splitlines()[-1] == (
        "  600.0 / 30.0 messages/s ask for 20 partitions."
    )


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--group", "g", "--expected", "5", "--per-consumer", "1"), "--group measures"),
        (("--topic", "t"), "--topic goes with --group only"),
        (("--group", "g", "--partitions", "6"), "--group reads the partitions"),
        (("--group", "g", "--for", "1"), "not in the range"),
    ],
)
def test_what_does_not_go_together_is_refused(arguments: tuple[str, ...], said: str) -> None:
    result = run("advise", *arguments)
    assert result.exit_code == 2
    assert said in result.stderr
