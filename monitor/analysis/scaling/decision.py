"""How many replicas a group should have now: the decision, and what it remembers.

Need is Flink's: what comes, with some room, and the lag within the wanted time. It is laid upon
consumers as the assignor would, because the sum hides a hot partition. Up at once, when the lag would
pass much of its goal before new replicas work; down slowly, as each change stops everybody once; and
never again to a number that gained nothing.
"""

from __future__ import annotations

from collections import deque
from dataclasses import replace
from typing import Final

from monitor.analysis.scaling.figures import Figures
from monitor.analysis.scaling.measuring import Sight, Sights
from monitor.analysis.scaling.rules import Decision, ScalingRules, Verdict
from monitor.analysis.scaling.shares import most_useful
from monitor.analysis.scaling.steps import StepsUp
from monitor.words import duration

# A step down that is taken back within this time came too early: the next one waits twice as long.
REGRET_SECONDS: Final = 600.0
MAX_HOLD_SECONDS: Final = 3_600.0
# A member that ended without leaving is one until its session times out, 45 s unless set otherwise.
CHANGE_SECONDS: Final = 120.0


class Scaler:
    """Decides for one group, poll by poll; remembers what it takes to change seldom."""

    def __init__(self, rules: ScalingRules) -> None:
        self.rules = rules
        self._sights = Sights()
        # (moment, wanted) of the last decisions: one goes down to the largest of them only
        self._wanted: deque[tuple[float, int]] = deque()
        self._hold_seconds = rules.hold_seconds
        self._members: int | None = None
        self._went_down_at: float | None = None
        self._steps = StepsUp()
        # the last change that was advised, and since when
        self._advised: tuple[float, int] | None = None
        # by what came at the last poll that told it
        self._needed = 0

    def decide(
        self,
        sight: Sight,
        *,
        assignor: str | None = None,
        budget: int | None = None,
        budget_of: str = "the pools' budget",
    ) -> Decision:
        """Return what to run after this poll; `budget` is the most that databases have connections for."""
        decision = self._decide(sight, assignor, budget, budget_of)
        if decision.verdict in (Verdict.UP, Verdict.DOWN):
            if self._advised is None or self._advised[1] != decision.replicas:
                self._advised = (sight.at, decision.replicas)
            return decision
        return self._still_advised(decision, sight)

    def _still_advised(self, decision: Decision, sight: Sight) -> Decision:
        """Return what was advised until the members are as many, and not those that there are meanwhile.

        Who follows the answer would start again what is ending, or end what is starting.
        """
        if self._advised is None:
            return decision
        at, advised = self._advised
        if sight.members == advised or sight.at - at > CHANGE_SECONDS:
            self._advised = None
            return decision
        if decision.verdict is Verdict.KEEP:
            # those that are there are enough without what still starts; what ends may be needed again
            advised = min(max(advised, self._needed), sight.members)
        if advised == decision.replicas:
            return decision
        reason = f"{decision.reason} {advised} were advised, and members are still {sight.members}."
        return replace(decision, replicas=advised, reason=reason)

    def _decide(
        self, sight: Sight, assignor: str | None, budget: int | None, budget_of: str
    ) -> Decision:
        if not sight.ends:
            replicas = max(sight.members, self.rules.least)
            why = "Not known: no offsets could be read."
            return Decision(replicas, Verdict.UNKNOWN, why, sight.members, replicas, "not known")
        self._notice_change(sight)
        self._sights.add(sight)
        limit, limited_by = self._limit(sight, assignor, budget, budget_of)
        figures = self._figures(assignor, limit, limited_by)
        if sight.is_rebalancing or self._sights.arrivals() is None:
            self._forget_wanted()
            why = "a rebalance is under way" if sight.is_rebalancing else "one poll tells no rate"
            return figures.decision(sight.members, Verdict.UNKNOWN, f"Not known: {why}.")
        self._steps.judge(self._sights)
        if limit > (useful := self._steps.useful(sight.at)):
            figures = self._figures(
                assignor, int(useful), "more gained too little when they were tried"
            )
        return self._decided(figures, sight)

    def _figures(self, assignor: str | None, limit: int, limited_by: str) -> Figures:
        return Figures(
            self.rules,
            self._sights,
            self._hold_seconds,
            assignor,
            limit=limit,
            limited_by=limited_by,
        )

    # -- what there is ----------------------------------------------------------------------------

    def _limit(
        self, sight: Sight, assignor: str | None, budget: int | None, budget_of: str
    ) -> tuple[int, str]:
        limit = most_useful(sorted(sight.ends), assignor)
        by = f"{limit} partitions: more would be idle"
        if self.rules.most is not None and self.rules.most < limit:
            limit, by = self.rules.most, "the most that the settings allow"
        if budget is not None and budget < limit:
            limit, by = max(1, budget), budget_of
        return limit, by

    def _notice_change(self, sight: Sight) -> None:
        """Remember when the number of members changed, whoever changed it."""
        before, self._members = self._members, sight.members
        if before is None or before == sight.members:
            return
        self._forget_wanted()
        self._steps.change(before, sight.members)
        if sight.members < before:
            # where nobody knew what one manages, to try was the way to know
            known = self._sights.capacity() is not None
            self._went_down_at = sight.at if known else None

    # -- the decision -----------------------------------------------------------------------------

    def _decided(self, figures: Figures, sight: Sight) -> Decision:
        members = sight.members
        if not members:
            wanted = figures.needed_at_all() if figures.lag else self.rules.least
            verdict = Verdict.UP if wanted else Verdict.KEEP
            return figures.decision(
                wanted, verdict, f"Nobody consumes, {figures.lag} messages wait."
            )
        if members > figures.limit:
            return figures.decision(
                figures.limit,
                Verdict.DOWN,
                f"{members} are more than is of use: {figures.limited_by}.",
            )
        if figures.capacity is None:
            return self._without_capacity(figures, members)
        self._needed = figures.needed_for_arrivals()
        if (up := figures.needed_now()) > members:
            return self._upwards(figures, up)
        down = self._lowest_in_hold(sight.at, figures)
        if down < members:
            return figures.decision(down, Verdict.DOWN, figures.why_down(down, self._hold_seconds))
        return figures.decision(members, Verdict.KEEP, figures.why_keep(self._hold_seconds))

    def _upwards(self, figures: Figures, up: int) -> Decision:
        self._forget_wanted()
        if figures.can_wait():
            return figures.decision(
                figures.members, Verdict.KEEP,
                f"{figures.load_in_words()}; the lag stays below its goal of "
                f"{duration(self.rules.goal_seconds)} for longer than replicas take to start.",
            )  # fmt: skip
        up = self._not_more_than_advised(figures, up)
        self._regret(figures.at)
        return figures.decision(up, Verdict.UP, figures.why_up(up))

    def _without_capacity(self, figures: Figures, members: int) -> Decision:
        down = self._lowest_in_hold(figures.at, figures)
        if down < members:
            return figures.decision(
                down, Verdict.DOWN,
                "Nobody had a backlog, so what one consumer manages is not known; fewer are tried.",
            )  # fmt: skip
        return figures.decision(
            members, Verdict.KEEP,
            "They keep up. What one consumer manages at most is known only once messages wait.",
        )  # fmt: skip

    def _not_more_than_advised(self, figures: Figures, up: int) -> int:
        """Return what was advised as long as that starts: that lag grows meanwhile was reckoned with."""
        if self._advised is None:
            return up
        at, advised = self._advised
        starts = figures.at - at <= figures.soon and figures.members < advised < up
        return advised if starts and figures.needed_for_arrivals() <= advised else up

    def _lowest_in_hold(self, now: float, figures: Figures) -> int:
        """Return the most that was needed within the time that one holds before going down."""
        self._wanted.append((now, figures.needed_after_down()))
        while self._wanted and now - self._wanted[0][0] > self._hold_seconds:
            self._wanted.popleft()
        started = now - self._wanted[0][0] + self._sights.interval >= self._hold_seconds
        if not started:
            return figures.members
        return max(wanted for _, wanted in self._wanted)

    def _regret(self, now: float) -> None:
        """Wait longer before the next step down where the last one is taken back."""
        if self._went_down_at is None:
            return
        if now - self._went_down_at < REGRET_SECONDS:
            self._hold_seconds = min(2 * self._hold_seconds, MAX_HOLD_SECONDS)
        else:
            self._hold_seconds = max(self._hold_seconds / 2, self.rules.hold_seconds)
        self._went_down_at = None

    def _forget_wanted(self) -> None:
        self._wanted.clear()
