"""What a group has to do: nine curves of load, each seeded: the same noise in every run."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from math import cos, inf, pi
from typing import Final

PARTITIONS: Final = 12
CAPACITY: Final = 100.0
"""Messages per second that one consumer manages, where nothing slows it."""
SEED: Final = 16
EVEN: Final = (1.0,) * PARTITIONS
# Of each second's messages; keys of orders spread that well.
NOISE: Final = 0.1

Rate = Callable[[int], float]
"""Returns messages per second at a second of the run."""


def _healthy(_: int) -> float:
    return CAPACITY


def _unlimited(_: int) -> float:
    return inf


def _even(_: int) -> Sequence[float]:
    return EVEN


@dataclass(frozen=True)
class Curve:
    """What a group has to do, second by second, and with what it can."""

    name: str
    told: str
    rate: Rate
    seconds: int = 3_600
    capacity: Rate = _healthy
    ceiling: Rate = _unlimited
    weights: Callable[[int], Sequence[float]] = _even
    replay_at: int | None = None
    replay_messages: float = 0.0
    consumers_at_first: int = 2
    seed: int = field(default=SEED)
    partitions: int = PARTITIONS
    usual_capacity: float = CAPACITY
    """What one consumer manages, where nothing slows it."""
    recorded: Sequence[Sequence[float]] | None = None
    """Messages of each second by partition, where they were recorded."""

    def arrivals(self, second: int) -> Sequence[float]:
        """Return the messages of a second by partition."""
        return self._arrivals[second] if self.recorded is None else self.recorded[second]

    @cached_property
    def _arrivals(self) -> Sequence[Sequence[float]]:
        chance = random.Random(f"{self.name}-{self.seed}")  # no secret
        found = []
        for second in range(self.seconds):
            weights = self.weights(second)
            rate, total = self.rate(second), sum(weights)
            found.append(
                [max(0.0, rate * w / total * (1 + chance.gauss(0, NOISE))) for w in weights]
            )
        return found


def _between(low: float, high: float, start: int, end: int) -> Rate:
    return lambda second: high if start <= second < end else low


def _ramp(second: int) -> float:
    low, high = 60.0, 560.0
    if second < 600:
        return low
    if second < 2_400:
        return low + (high - low) * (second - 600) / 1_800
    if second < 2_700:
        return high
    return max(low, high - (high - low) * (second - 2_700) / 600)


def _spikes(second: int) -> float:
    return 900.0 if any(0 <= second - start < 20 for start in (600, 1_500, 2_400)) else 150.0


def _hot(second: int) -> Sequence[float]:
    if not 600 <= second < 2_700:
        return EVEN
    return tuple(75.0 if partition == 3 else 10.0 for partition in range(PARTITIONS))


CURVES: Final = (
    Curve("step", "80/s, 480/s for half an hour, 80/s", _between(80, 480, 600, 2_400)),
    Curve("ramp", "60/s to 560/s within half an hour, and down within ten minutes", _ramp),
    Curve(
        "day", "a day in two hours: 60/s to 500/s and back",
        lambda second: 280 - 220 * cos(2 * pi * second / 7_200), seconds=7_200,
    ),
    Curve("spike", "150/s, and three times 900/s for 20 s", _spikes),
    Curve(
        "flapping", "80/s and 380/s in turn, 200 s each",
        lambda second: 380.0 if second // 200 % 2 else 80.0,
    ),
    Curve(
        "hot partition", "120/s evenly; then one partition gets 75/s and the others 10/s each",
        _between(120, 185, 600, 2_700), weights=_hot,
    ),
    Curve(
        "slower", "220/s, and for 20 minutes each consumer manages a third",
        lambda _: 220.0, capacity=_between(CAPACITY, CAPACITY / 3, 900, 2_100),
        consumers_at_first=3,
    ),
    Curve(
        "database ceiling", "250/s, 520/s for 20 minutes, and the database takes 400/s from all",
        _between(250, 520, 600, 1_800), ceiling=lambda _: 400.0, consumers_at_first=3,
    ),
    Curve(
        "replay", "120/s, and 60,000 old messages are read again",
        lambda _: 120.0, replay_at=600, replay_messages=60_000,
    ),
)  # fmt: skip
