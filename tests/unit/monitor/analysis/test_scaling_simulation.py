"""The scaling decision against other autoscalers, on simulated and recorded curves; all seeded, no clock."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from benchmarks.scaling.autoscalers import Hpa, divisors, keda_even_replicas, keda_lag
from benchmarks.scaling.curves import CURVES
from benchmarks.scaling.world import Account
from benchmarks.scaling_simulation import OURS, RECORDED, Outcome, is_won, outcome


@pytest.fixture(scope="module")
def outcomes() -> list[Outcome]:
    """All curves with all autoscalers."""
    return [outcome(curve) for curve in (*CURVES, *RECORDED)]


def test_fewest_seconds_over_goal_at_no_more_replica_seconds_on_seven_of_nine_curves(
    outcomes: list[Outcome],
) -> None:
    assert (len(CURVES), len(outcomes)) == (9, 9 + len(RECORDED))
    won = [each.curve.name for each in outcomes if is_won(each.accounts)]
    assert len([name for name in won if name in {curve.name for curve in CURVES}]) >= 7, won


def test_so_it_is_on_every_curve_that_was_recorded(outcomes: list[Outcome]) -> None:
    recorded = [each for each in outcomes if each.curve in RECORDED]
    assert len(recorded) >= 2
    assert [each.curve.name for each in recorded if not is_won(each.accounts)] == []


def test_never_worse_than_kedas(outcomes: list[Outcome]) -> None:
    for each in outcomes:
        ours, kedas = each.accounts[OURS], each.accounts["KEDA"]
        assert ours.over_goal <= kedas.over_goal, each.curve.name
        assert ours.rebalances < kedas.rebalances, each.curve.name


def test_nobody_needs_less_than_who_knows_the_future(outcomes: list[Outcome]) -> None:
    for each in outcomes:
        for name, account in each.accounts.items():
            if not account.over_goal:
                assert account.replica_seconds >= each.least, (each.curve.name, name)


@pytest.mark.parametrize(
    ("ours", "other", "won"),
    [
        ((0, 100), (0, 100), True),
        ((0, 101), (0, 100), False),
        ((1, 100), (0, 100), False),
        ((1, 100), (0, 101), True),  # it took more
        ((0, 200), (1, 100), True),
    ],
)
def test_what_it_is_to_win(ours: tuple[int, int], other: tuple[int, int], *, won: bool) -> None:
    accounts: Mapping[str, Account] = {
        OURS: Account(ours[0], 0.0, ours[1], 0),
        "other": Account(other[0], 0.0, other[1], 0),
    }
    assert is_won(accounts) is won


# -- KEDA's own test vectors (pkg/scalers/kafka_scaler_test.go) -----------------------------------------


@pytest.mark.parametrize(
    ("partitions", "factors"),
    [
        (10, [1, 2, 5, 10]),
        (13, [1, 13]),
        (17, [1, 17]),
        (25, [1, 5, 25]),
        (50, [1, 2, 5, 10, 25, 50]),
        (100, [1, 2, 4, 5, 10, 20, 25, 50, 100]),
    ],
)
def test_kedas_factors(partitions: int, factors: list[int]) -> None:
    assert divisors(partitions) == factors


@pytest.mark.parametrize(
    ("lag", "factor"), [(10, 1), (20, 2), (40, 4), (50, 5), (99, 10), (100, 10), (101, 20)]
)
def test_kedas_next_factor(lag: int, factor: int) -> None:
    assert keda_even_replicas(lag, 100, 10) == factor
    assert keda_lag([lag, *[0] * 99], 10, even=True) == factor * 10


def test_kedas_metric_stops_at_the_partitions() -> None:
    assert keda_lag([5, 5], 10) == 10
    assert keda_lag([100, 100, 100], 10) == 30
    assert keda_lag([15, 14], 10) == 29  # 29 // 10 is no more than the partitions


def test_an_hpa_goes_up_in_bounds_and_down_to_the_most_of_five_minutes() -> None:
    hpa = Hpa(12)
    assert hpa.bounded(0, 1, 12) == 5  # four pods are more than 100 %
    assert hpa.bounded(15, 5, 12) == 10
    assert hpa.bounded(30, 10, 3) == 10
    assert hpa.bounded(315, 10, 3) == 10
    assert hpa.bounded(331, 10, 3) == 3
