"""The scaling decision: what a group should have, and what must never be advised."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from monitor.analysis.scaling.decision import CHANGE_SECONDS, Scaler
from monitor.analysis.scaling.measuring import Sight
from monitor.analysis.scaling.rules import Decision, ScalingRules, Verdict
from monitor.analysis.scaling.shares import (
    Partition,
    fewest,
    largest_share,
    most_useful,
    split,
)

POLL = 5.0
RULES = ScalingRules()


class Group:
    """A group on one topic; each consumer manages `capacity` messages per second."""

    def __init__(
        self,
        rates: Sequence[float],
        members: int,
        *,
        capacity: float = 100.0,
        rules: ScalingRules = RULES,
        ceiling: float = 1e9,
        poll: float = POLL,
    ) -> None:
        self.poll = poll
        self.rates, self.members, self.capacity, self.ceiling = (
            list(rates),
            members,
            capacity,
            ceiling,
        )
        self.partitions: list[Partition] = [("orders", p) for p in range(len(rates))]
        self.written = [1_000.0] * len(rates)
        self.read = [1_000.0] * len(rates)
        self.stuck: set[int] = set()
        self.budget: int | None = None
        self.scaler = Scaler(rules)
        self.now = 1_000.0
        self.asked: list[Decision] = []

    def run(self, seconds: float) -> Decision:
        """Poll for some time, and return the last decision."""
        end = self.now + seconds
        while self.now < end:
            self.now += self.poll
            self._work(self.poll)
            decision = self.scaler.decide(self.sight(), assignor="range", budget=self.budget)
            self.asked.append(decision)
        return self.asked[-1]

    def sight(self) -> Sight:
        held = split(self.partitions, max(1, self.members), "range")
        behind = max(
            (w - r) / rate if rate else 0.0
            for w, r, rate in zip(self.written, self.read, self.rates, strict=True)
        )
        return Sight(
            self.now,
            {p: int(w) for p, w in zip(self.partitions, self.written, strict=True)},
            {p: int(r) for p, r in zip(self.partitions, self.read, strict=True)},
            {
                self.partitions[position]: f"member-{member}"
                for member, positions in enumerate(held)
                for position in positions
                if self.members
            },
            self.members,
            behind,
        )

    def _work(self, seconds: float) -> None:
        for partition, rate in enumerate(self.rates):
            self.written[partition] += rate * seconds
        if not self.members:
            return
        each = min(self.capacity, self.ceiling / self.members) * seconds
        for held in split(self.partitions, self.members, "range"):
            held = [p for p in held if p not in self.stuck]  # noqa: PLW2901
            waiting = sum(self.written[p] - self.read[p] for p in held)
            part = min(1.0, each / waiting) if waiting else 0.0
            for p in held:
                self.read[p] += (self.written[p] - self.read[p]) * part


# -- shares -------------------------------------------------------------------------------------------


def test_one_more_consumer_helps_only_where_the_largest_share_becomes_smaller() -> None:
    even = {("orders", p): 10.0 for p in range(12)}
    shares = {n: largest_share(even, n, "range") for n in range(1, 13)}
    assert {n for n in shares if n == 1 or shares[n] < shares[n - 1]} == {1, 2, 3, 4, 6, 12}
    assert fewest(even, 25.0, 12, "range") == 6


def test_a_hot_partition_asks_for_more_than_the_sum_does() -> None:
    loads = {("orders", p): 75.0 if p == 3 else 10.0 for p in range(12)}
    assert sum(loads.values()) / 100 < 2
    assert fewest(loads, 100.0, 12, "range") == 4


def test_what_no_number_can_carry_gets_no_more_than_relieves_it() -> None:
    loads = {("orders", p): 300.0 if p == 0 else 1.0 for p in range(6)}
    # alone or with one more: no replica splits a partition, and 301 is as good as 300
    assert fewest(loads, 100.0, 6, "range") == 1
    loads[("orders", 1)] = 90.0
    assert fewest(loads, 100.0, 6, "range") == 6


@given(
    st.lists(st.integers(1, 12), min_size=1, max_size=4),
    st.integers(1, 60),
    st.sampled_from(["range", "cooperative-sticky", None]),
)
def test_each_partition_is_held_by_one_and_nobody_useful_is_idle(
    topics: list[int], consumers: int, assignor: str | None
) -> None:
    partitions = [(f"topic-{t}", p) for t, count in enumerate(topics) for p in range(count)]
    held = split(partitions, consumers, assignor)
    assert sorted(each for positions in held for each in positions) == list(range(len(partitions)))
    useful = most_useful(partitions, assignor)
    assert sum(map(bool, held)) == min(consumers, useful)


def test_of_many_consumers_those_are_tried_that_change_the_largest_count() -> None:
    even = {("orders", p): 1.0 for p in range(1_000)}
    assert fewest(even, 10.0, 1_000, "range") == 100
    assert fewest(even, 1.0, 1_000, "range") == 1_000
    assert fewest(even, 0.5, 1_000, None) == 1_000
    assert fewest(even, 2_000.0, 1_000, None) == 1


def test_without_consumers_nothing_is_split() -> None:
    with pytest.raises(ValueError, match="there must be one"):
        split([("orders", 0)], 0, None)


# -- decisions ----------------------------------------------------------------------------------------


def test_capacity_is_what_a_consumer_did_while_messages_waited() -> None:
    group = Group([10.0] * 12, members=2)
    decision = group.run(60)
    assert (decision.per_consumer, decision.verdict) == (None, Verdict.KEEP)
    assert "known only once messages wait" in decision.reason
    group.rates = [40.0] * 12
    decision = group.run(40)
    assert decision.per_consumer == pytest.approx(100, rel=0.1)
    assert (decision.verdict, decision.replicas) == (Verdict.UP, 6)
    assert "480.0 messages/s come" in decision.reason


@pytest.mark.parametrize("poll", [1.0, 15.0, 60.0, 300.0])
def test_rare_polls_tell_the_same_later(poll: float) -> None:
    group = Group([10.0] * 12, members=2, poll=poll)
    group.run(4 * poll)
    group.rates = [40.0] * 12
    decision = group.run(max(60, 4 * poll))
    assert decision.per_consumer == pytest.approx(100, rel=0.2)
    assert (decision.verdict, decision.replicas >= 6) == (Verdict.UP, True)


def test_a_step_up_waits_as_long_as_the_lag_stays_fine_until_replicas_have_started() -> None:
    group = Group([26.0] * 4, members=1)  # 4 % too much: the lag reaches its goal in half an hour
    decision = group.run(120)
    assert decision.verdict is Verdict.KEEP
    assert group.run(900).verdict is Verdict.UP


def test_fewer_only_after_a_hold_and_then_the_most_that_was_needed_in_it() -> None:
    group = Group([40.0] * 12, members=2)
    group.run(30)
    group.members = 12
    group.run(240)
    group.rates = [3.0] * 12
    for _ in range(int((RULES.hold_seconds - 2 * POLL) / POLL)):
        assert group.run(POLL).verdict is not Verdict.DOWN or group.asked[-1].replicas >= 6
    decision = group.run(RULES.hold_seconds + 60)
    assert (decision.verdict, decision.replicas) == (Verdict.DOWN, 1)


def test_never_more_than_partitions_nor_than_connections() -> None:
    group = Group([500.0] * 6, members=2)
    decision = group.run(60)
    assert (decision.replicas, decision.limit) == (6, 6)
    assert "6 partitions: more would be idle" in decision.reason
    group = Group([500.0] * 6, members=2)
    group.budget = 4
    decision = group.run(60)
    # a fourth would leave somebody two of the six partitions, as three do
    assert (decision.replicas, decision.limited_by) == (3, "the pools' budget")
    group.members = 8
    assert (group.run(POLL * 3).replicas, group.asked[-1].verdict) == (4, Verdict.DOWN)


def test_a_step_up_that_gained_nothing_is_taken_back_and_not_repeated() -> None:
    group = Group([40.0] * 12, members=4, ceiling=400.0)
    group.run(60)
    group.members = 6
    decision = group.run(60)
    assert (decision.replicas, decision.verdict) == (4, Verdict.DOWN)
    assert "gained too little" in decision.reason
    group.members = 4
    group.run(600)
    assert {each.replicas for each in group.asked[-100:]} == {4}
    # a larger database is noticed: the same consumers manage more in all
    group.ceiling, group.capacity = 1e9, 115.0
    assert group.run(300).replicas > 4


def test_a_partition_that_stands_still_is_no_reason_for_more() -> None:
    group = Group([10.0] * 6, members=3)
    group.rates = [60.0] * 6
    group.run(60)  # what one manages is known
    group.rates = [10.0] * 6
    group.run(600)
    group.stuck = {2}
    decision = group.run(900)
    assert decision.replicas == 3
    assert "1 partitions stand still" in decision.reason


def test_a_step_down_that_was_taken_back_waits_longer_the_next_time() -> None:
    group = Group([40.0] * 12, members=2)
    group.run(30)
    group.members = 6
    waited = []
    for _ in range(3):
        group.rates = [40.0] * 12
        group.members = max(6, group.run(150).replicas)
        group.run(300)
        group.rates = [3.0] * 12
        began = group.now
        while group.run(POLL).verdict is not Verdict.DOWN:
            assert group.now < began + 3_600
        waited.append(group.now - began)
        group.members = group.asked[-1].replicas
        group.run(30)
    assert waited[0] < waited[1] < waited[2]


def idle_group_of_six() -> Group:
    """Return a group that was busy and is told to go down, and whose members are not fewer yet."""
    group = Group([40.0] * 12, members=2)
    group.run(60)
    group.members = 6
    group.run(240)
    group.rates = [3.0] * 12
    while group.run(POLL).replicas != 1:
        assert group.now < 10_000
    return group


def test_what_was_advised_stands_until_the_members_are_as_many() -> None:
    group = idle_group_of_six()
    # somebody leaves: a rebalance, and five that keep up
    during = replace(group.sight(), at=group.now + 1, is_rebalancing=True)
    assert group.scaler.decide(during).replicas == 1
    group.members = 5
    decision = group.run(POLL)
    assert (decision.verdict, decision.replicas, decision.members) == (Verdict.KEEP, 1, 5)
    assert decision.reason.endswith("1 were advised, and members are still 5.")
    # nobody follows: they are as they are
    group.members = 6
    group.run(CHANGE_SECONDS)
    group.rates = [40.0] * 12
    assert group.run(60).replicas == 6


def test_more_than_was_advised_is_told_as_soon_as_it_is_needed() -> None:
    group = idle_group_of_six()
    group.members = 5
    group.run(POLL)
    group.rates = [30.0] * 12
    assert group.run(30).replicas >= 4


def test_what_was_advised_stands_while_replicas_start() -> None:
    group = Group([40.0] * 12, members=2)
    asked = group.run(60).replicas
    assert asked > 2
    group.members = 4
    during = replace(group.sight(), at=group.now + 1, is_rebalancing=True)
    assert group.scaler.decide(during).replicas == asked


def test_what_was_asked_for_is_not_raised_while_it_starts_unless_more_comes() -> None:
    group = Group([32.0] * 12, members=1)
    while (first := group.run(POLL)).verdict is not Verdict.UP:
        pass
    starts = RULES.start_seconds + RULES.pause_seconds
    group.run(starts)
    assert {each.replicas for each in group.asked[-int(starts / POLL) :]} == {first.replicas}
    # they did not come: the lag that grew is to be gone as well
    assert group.run(60).replicas > first.replicas

    group = Group([32.0] * 12, members=1)
    while group.run(POLL).verdict is not Verdict.UP:
        pass
    group.rates = [60.0] * 12
    assert group.run(15).replicas > first.replicas


def test_what_is_not_known_changes_nothing() -> None:
    group = Group([40.0] * 12, members=5)
    first = group.scaler.decide(group.sight())
    assert (first.replicas, first.verdict) == (5, Verdict.UNKNOWN)
    group.run(60)
    during = group.scaler.decide(replace(group.sight(), at=group.now + 1, is_rebalancing=True))
    assert (during.replicas, during.verdict) == (5, Verdict.UNKNOWN)
    nothing = Scaler(RULES).decide(Sight(1.0, {}, {}, {}, 7))
    assert (nothing.replicas, nothing.verdict) == (7, Verdict.UNKNOWN)


def test_somebody_is_wanted_where_messages_wait_and_nobody_consumes() -> None:
    group = Group([40.0] * 12, members=0)
    decision = group.run(30)
    assert (decision.replicas, decision.verdict) == (1, Verdict.UP)


@settings(max_examples=40)
@given(st.data())
def test_whatever_is_seen_the_answer_is_within_its_bounds(data: st.DataObject) -> None:
    partitions = data.draw(st.integers(1, 8))
    least = data.draw(st.integers(1, 3))
    scaler = Scaler(replace(RULES, least=least, most=data.draw(st.none() | st.integers(3, 9))))
    budget = data.draw(st.none() | st.integers(0, 9))
    now = 0.0
    for _ in range(data.draw(st.integers(1, 12))):
        now += data.draw(st.floats(0.5, 90))
        keys = [("t", p) for p in range(partitions)]
        members = data.draw(st.integers(0, 10))
        offsets = st.integers(0, 10_000)
        sight = Sight(
            now,
            {key: data.draw(offsets) for key in keys},
            {key: data.draw(offsets) for key in keys if data.draw(st.booleans())},
            {key: f"m{data.draw(st.integers(0, members - 1))}" for key in keys if members},
            members,
            data.draw(st.none() | st.floats(0, 1e6)),
            data.draw(st.booleans()),
        )
        decision = scaler.decide(sight, budget=budget)
        assert 1 <= decision.replicas <= max(1, partitions)
        assert budget is None or decision.replicas <= max(1, budget)
        assert decision.reason
