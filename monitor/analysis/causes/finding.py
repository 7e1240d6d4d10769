"""What is found to be the reason of a lag, with what speaks for it: plain data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, NamedTuple


class Cause(StrEnum):
    """The causes, by the word that programs read; it stays the same."""

    HEALTHY = "healthy"
    CANNOT_TELL = "cannot_tell"
    MESSAGES_LOST = "messages_lost"
    NO_MEMBERS = "no_members"
    COMMITS_STOPPED = "commits_stopped"
    NEVER_ACTIVE = "never_active"
    NOT_CONSUMED = "not_consumed"
    BROKER_TROUBLE = "broker_trouble"
    OPEN_TRANSACTION = "open_transaction"
    REWOUND = "rewound"
    REBALANCING = "rebalancing"
    MESSAGE_STANDS = "message_stands"
    MEMBER_WEDGED = "member_wedged"
    ALL_STAND = "all_stand"
    SELDOM_COMMITS = "seldom_commits"
    DATABASE_EXHAUSTED = "database_exhausted"
    HOT_PARTITION = "hot_partition"
    SLOW_MEMBER = "slow_member"
    SLOW_PROCESSING = "slow_processing"
    MORE_MEMBERS_THAN_PARTITIONS = "more_members_than_partitions"
    FEWER_MEMBERS_THAN_NEEDED = "fewer_members_than_needed"
    SPIKE = "spike"
    CATCHING_UP = "catching_up"


WORDS: Final[Mapping[Cause, str]] = {
    Cause.HEALTHY: "healthy",
    Cause.CANNOT_TELL: "cannot tell",
    Cause.MESSAGES_LOST: "messages lost",
    Cause.NO_MEMBERS: "no members",
    Cause.COMMITS_STOPPED: "stopped",
    Cause.NEVER_ACTIVE: "nobody reads",
    Cause.NOT_CONSUMED: "topic left",
    Cause.BROKER_TROUBLE: "broker",
    Cause.OPEN_TRANSACTION: "transaction",
    Cause.REWOUND: "rewound",
    Cause.REBALANCING: "rebalancing",
    Cause.MESSAGE_STANDS: "one message",
    Cause.MEMBER_WEDGED: "member wedged",
    Cause.ALL_STAND: "all stand",
    Cause.SELDOM_COMMITS: "seldom commits",
    Cause.DATABASE_EXHAUSTED: "database",
    Cause.HOT_PARTITION: "hot partition",
    Cause.SLOW_MEMBER: "slow member",
    Cause.SLOW_PROCESSING: "slow processing",
    Cause.MORE_MEMBERS_THAN_PARTITIONS: "too few partitions",
    Cause.FEWER_MEMBERS_THAN_NEEDED: "too few members",
    Cause.SPIKE: "spike",
    Cause.CATCHING_UP: "catching up",
}
"""What a table's row says: at most 18 characters."""


class Figure(NamedTuple):
    """A number that speaks for a cause, and what it is; `unit` is `messages/s`, `s` and so on."""

    what: str
    value: float
    unit: str


class Checked(NamedTuple):
    """What was looked at and is normal."""

    what: str
    finding: str


class Unchecked(NamedTuple):
    """What could not be looked at, and what would tell."""

    what: str
    would_tell: str


class Alternative(NamedTuple):
    """Another cause that the data can't tell from the one named, and what would decide."""

    cause: Cause
    sentence: str
    would_decide: str

    @property
    def word(self) -> str:
        """Return the cause in a word or two."""
        return WORDS[self.cause]


class Step(NamedTuple):
    """What to do; `command` is exact, None where there is none."""

    action: str
    command: str | None = None


@dataclass(frozen=True, slots=True)
class Finding:
    """A cause of a group's lag.

    `topic` and `partitions` say where, None and empty where it is of all. `since` and `over_at` are
    moments of the monotonic clock: when it began, and when the lag is gone at the rates of now; None
    where that is not known. `steps` are the most reversible first. `also` are other causes that hold
    at the same time, the most urgent first.
    """

    cause: Cause
    sentence: str
    topic: str | None = None
    partitions: tuple[int, ...] = ()
    since: float | None = None
    over_at: float | None = None
    figures: tuple[Figure, ...] = ()
    checked: tuple[Checked, ...] = ()
    unchecked: tuple[Unchecked, ...] = ()
    alternatives: tuple[Alternative, ...] = ()
    steps: tuple[Step, ...] = ()
    also: tuple[Finding, ...] = ()

    @property
    def word(self) -> str:
        """Return the cause in a word or two, for the row of a table."""
        return WORDS[self.cause]
