"""What steps up have gained: a number of replicas that brought nothing is taken back, and not repeated.

As Flink's autoscaler and KEDA's issue 7092 have it: consumers that share a database share its ceiling.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import inf
from typing import Final

from monitor.analysis.scaling.measuring import Sights

# A step up that brought less than this share of what it promised brought nothing (Flink's figure), and
# is taken back; where it brought less than half, something that all share is used up: no more of it.
EFFECTIVE: Final = 0.1
FULLY_EFFECTIVE: Final = 0.5
# A number that gained nothing may be tried again so long after it was last wished for, or at once when
# the same consumers manage so much more in all: databases get larger.
INEFFECTIVE_SECONDS: Final = 1_800.0
CEILING_HAS_RISEN: Final = 1.1


@dataclass(frozen=True, slots=True)
class _StepUp:
    """A step up that is to prove itself: by consuming more than `before`, as long as all are busy."""

    from_members: int
    to_members: int
    before: float
    promised: float


@dataclass(slots=True)
class _Ceiling:
    """What all that consumers share, as a database, lets through: `consumed`, with `members` and more.

    `at` is when they were last held back by it.
    """

    members: int
    consumed: float
    at: float


class StepsUp:
    """Follows the number of members, whoever changes it, and what all of them consume."""

    def __init__(self) -> None:
        # what all consumed together when each had a backlog
        self._busy_rate: float | None = None
        self._step: _StepUp | None = None
        self._ceiling: _Ceiling | None = None

    def change(self, before: int, members: int) -> None:
        """Take in that the number of members changed."""
        self._step = None
        if before and members > before and self._busy_rate is not None:
            promised = (members - before) * self._busy_rate / before
            self._step = _StepUp(before, members, self._busy_rate, promised)

    def judge(self, sights: Sights) -> None:
        """See what the last step has gained, once all its consumers have been busy for a while."""
        consumed, now = sights.consumed(), sights.last.at
        if sights.all_have_backlog() and consumed:
            self._busy_rate = consumed
            if self._step is not None:
                self._judge_step(self._step, consumed, now)
            elif self._ceiling is not None:
                self._ceiling.at = now
                if consumed > self._ceiling.consumed * CEILING_HAS_RISEN:
                    self._ceiling = None
        elif sights.nobody_has_backlog():
            # it was enough: what more would bring is not seen
            self._busy_rate = self._step = None

    def useful(self, now: float) -> float:
        """Return above which number replicas gain too little, infinite as far as anybody knows."""
        if self._ceiling is not None and now - self._ceiling.at > INEFFECTIVE_SECONDS:
            self._ceiling = None
        return inf if self._ceiling is None else self._ceiling.members

    def _judge_step(self, step: _StepUp, consumed: float, now: float) -> None:
        self._step = None
        gained = (consumed - step.before) / step.promised
        if gained < EFFECTIVE:
            self._ceiling = _Ceiling(step.from_members, consumed, now)
        elif gained < FULLY_EFFECTIVE:
            self._ceiling = _Ceiling(step.to_members, consumed, now)
