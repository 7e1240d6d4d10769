"""What is wanted of a group, and what is answered."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Verdict(StrEnum):
    """What is to be done; a word for programs."""

    UNKNOWN = "unknown"
    KEEP = "keep"
    UP = "up"
    DOWN = "down"


@dataclass(frozen=True, slots=True)
class ScalingRules:
    """What is wanted of a group, in seconds; `most` is None where only partitions set a limit.

    `goal_seconds` is the lag that is still fine; `catch_up_seconds` how soon a backlog is to be gone
    that is no older; `start_seconds` what a replica takes until it consumes, `pause_seconds` how long
    a rebalance stops everybody; `hold_seconds` for how long fewer must have been enough before one
    goes down.
    """

    goal_seconds: float = 60.0
    catch_up_seconds: float = 900.0
    start_seconds: float = 20.0
    pause_seconds: float = 5.0
    hold_seconds: float = 120.0
    least: int = 1
    most: int | None = None


@dataclass(frozen=True, slots=True)
class Decision:
    """What a group should have, why in words, and what that was made of; rates in messages per second.

    `replicas` are members of the group. What is not known is None: `per_consumer` as long as no
    consumer had a backlog. `limit` is the most that is of use and allowed, `limited_by` says by what.
    """

    replicas: int
    verdict: Verdict
    reason: str
    members: int
    limit: int
    limited_by: str
    arrival: float | None = None
    consumed: float | None = None
    lag: int = 0
    lag_seconds: float | None = None
    per_consumer: float | None = None
