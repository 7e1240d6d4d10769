"""What a check found: a verdict, what is so, and what to do about it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Check(StrEnum):
    """The checklist's items, in the order in which they are told."""

    TOPICS = "topics"
    PARTITIONS = "partitions"
    GROUPS = "groups"
    POOLS = "pools"
    BALANCER = "balancer"
    HEALTH = "health"
    LAG = "lag"
    FAILOVER = "failover"


class Verdict(StrEnum):
    """`UNKNOWN` is what could not be asked: it is neither well nor wrong."""

    WELL = "well"
    WRONG = "wrong"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Finding:
    """One answer to one item; `remedy` is empty where all is well."""

    check: Check
    verdict: Verdict
    what: str
    remedy: str = ""


def well(check: Check, what: str) -> Finding:
    """Return a finding that asks for nothing."""
    return Finding(check, Verdict.WELL, what)


def wrong(check: Check, what: str, remedy: str) -> Finding:
    """Return a finding that somebody should do something about."""
    return Finding(check, Verdict.WRONG, what, remedy)


def unknown(check: Check, what: str, remedy: str) -> Finding:
    """Return a finding that says why there is no answer."""
    return Finding(check, Verdict.UNKNOWN, what, remedy)
