from __future__ import annotations

import pytest

from monitor.analysis.groups import group_facts, is_rebalancing
from monitor.analysis.rebalances import Rebalances
from monitor.model import Assignment, Group, Member, Silent

TOPICS = {"orders": range(4), "payments": range(2)}


def member(name: str, assignment: Assignment, **known: object) -> Member:
    return Member(name, "client", "/10.0.0.1", assignment, **known)  # type: ignore[arg-type]  # a test names fields freely


def group(*members: Member, state: str = "Stable", epoch: int | None = None) -> Group:
    return Group("g", state=state, members=members, epoch=epoch)


def test_members_that_hold_nothing_are_idle() -> None:
    facts = group_facts(
        group(member("a", {"orders": (0, 1)}), member("b", {"orders": (2, 3)}), member("c", {})),
        TOPICS,
    )
    assert facts.members == 3
    assert facts.idle == ("c",)
    assert facts.unassigned == ()
    assert facts.per_topic == {"orders": (2, 2, 0)}


def test_partitions_of_consumed_topics_that_nobody_holds_are_unassigned() -> None:
    facts = group_facts(group(member("a", {"orders": (0, 3)})), TOPICS)
    assert facts.unassigned == (("orders", 1), ("orders", 2))


def test_while_it_rebalances_nobody_is_called_idle() -> None:
    facts = group_facts(group(member("a", {}), state="PreparingRebalance"), TOPICS)
    assert (facts.members, facts.idle, facts.unassigned) == (1, None, None)


def test_a_member_that_is_to_get_partitions_is_not_idle() -> None:
    facts = group_facts(group(member("a", {}, target={"orders": (0,)})), TOPICS)
    assert facts.idle == ()


def test_members_that_are_not_known_are_not_zero() -> None:
    assert group_facts(Group("g", members=None), TOPICS).members is None
    assert group_facts(Group("g", members=()), TOPICS).members == 0


@pytest.mark.parametrize(
    "state", ["PreparingRebalance", "CompletingRebalance", "preparing_rebalance", "Reconciling"]
)
def test_states_between_assignments(state: str) -> None:
    assert is_rebalancing(state)


@pytest.mark.parametrize("state", ["Stable", "Empty", "Dead", None])
def test_states_that_are_not(state: str | None) -> None:
    assert not is_rebalancing(state)


A = member("a", {"orders": (0, 1, 2, 3)})
A_HALF = member("a", {"orders": (0, 1)})
B_HALF = member("b", {"orders": (2, 3)})


@pytest.mark.parametrize(
    ("polls", "expected"),
    [
        ([group(A)], 0),
        ([group(A), group(A)], 0),
        ([group(A), group(A_HALF, B_HALF)], 1),
        ([group(A), group(A_HALF, B_HALF), group(A)], 2),
        ([group(A), group(A, state="PreparingRebalance"), group(A_HALF, B_HALF)], 1),
        ([group(A), group(A, state="PreparingRebalance"), group(A)], 1),
        ([group(A), group(state="Empty")], 1),
        ([group(A, epoch=3), group(A, epoch=3)], 0),
        ([group(A, epoch=3), group(A_HALF, epoch=7)], 4),
        ([group(A), Group("g", members=None), group(A_HALF, B_HALF)], 1),
        ([group(A), Group("g", members=(), answer=Silent(0.0)), group(A)], 0),
    ],
    ids=[
        "first sight",
        "nothing changed",
        "a member came",
        "came and went",
        "seen while it rebalanced",
        "rebalanced to the same",
        "the last member left",
        "the same epoch",
        "epochs count each",
        "not described between",
        "stale between",
    ],
)
def test_rebalances_seen(polls: list[Group], expected: int) -> None:
    rebalances = Rebalances()
    for seen in polls:
        rebalances.observe(seen, 0.0)
    assert rebalances.count == expected


def test_a_static_member_that_restarts_does_not_rebalance() -> None:
    rebalances = Rebalances()
    for name in ("id-1", "id-2"):
        rebalances.observe(group(member(name, {"orders": (0,)}, instance_id="one")), 0.0)
    assert rebalances.count == 0


def test_rebalances_of_the_last_hour_are_known() -> None:
    rebalances = Rebalances()
    for number, members in enumerate(((A,), (A_HALF, B_HALF), (A,))):
        rebalances.observe(group(*members), 1_000.0 * number)
    assert rebalances.within_an_hour(2_000.0) == 2
    assert rebalances.within_an_hour(5_000.0) == 1
    assert rebalances.within_an_hour(6_000.0) == 0
    assert rebalances.count == 2
