"""Which groups and topics are meant: names, patterns, states, and how far behind."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import isinf
from typing import Final

from monitor.analysis.measures import GroupMeasures
from monitor.model import Group, Snapshot
from monitor.ranking import status_word

STATUSES: Final = ("ok", "warn", "err", "new")
AMOUNT: Final = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*(s|m|h|)")
_UNITS: Final = {"s": 1, "m": 60, "h": 3600}


@dataclass(frozen=True, slots=True)
class Amount:
    """A limit of lag, in messages that a consumer can read or in seconds."""

    messages: float | None = None
    seconds: float | None = None

    @classmethod
    def parse(cls, text: str) -> Amount:
        """Read 1000 (messages), 90s, 5m or 2h; raises ValueError."""
        found = AMOUNT.fullmatch(text.strip())
        if found is None:
            raise ValueError(f"{text!r} is neither messages (1000) nor a time (90s, 5m, 2h)")
        number, unit = float(found[1]), found[2]
        if isinf(number):
            raise ValueError(f"{text!r} is too large")
        return cls(seconds=number * _UNITS[unit]) if unit else cls(messages=number)

    def is_exceeded(self, measures: GroupMeasures, snapshot: Snapshot) -> bool:
        """Say whether a group is further behind; one of which that is not known is not."""
        if self.seconds is not None:
            return (measures.behind(snapshot.seen_at) or 0.0) > self.seconds
        return measures.lag.total > (self.messages or 0)


@dataclass(frozen=True, slots=True)
class Selection:
    """What a command was told to show; everything where it was told nothing."""

    groups: tuple[str, ...] = ()
    topics: tuple[str, ...] = ()
    group_pattern: re.Pattern[str] | None = None
    topic_pattern: re.Pattern[str] | None = None
    states: tuple[str, ...] = ()
    statuses: tuple[str, ...] = ()
    lag_over: Amount | None = None
    only_behind: bool = False

    @property
    def narrows(self) -> bool:
        """Say whether less than everything is meant."""
        return self != EVERYTHING

    def wants_group(self) -> Callable[[str], bool] | None:
        """Return what says by its name whether a group is meant, None when all are."""
        return _by_name(self.groups, self.group_pattern)

    def wants_topic(self) -> Callable[[str], bool] | None:
        """Return what says by its name whether a topic is meant, None when all are."""
        return _by_name(self.topics, self.topic_pattern)

    def holds(self, group: Group, measures: GroupMeasures, snapshot: Snapshot) -> bool:
        """Say whether a group is in the states and as far behind as was asked for."""
        if self.states and (group.state or "unknown").lower() not in self.states:
            return False
        if self.statuses and (status_word(measures) or "-").lower() not in self.statuses:
            return False
        if self.only_behind and not measures.lag.total:
            return False
        return self.lag_over is None or self.lag_over.is_exceeded(measures, snapshot)

    def chosen(
        self, snapshot: Snapshot, measured: Mapping[str, GroupMeasures]
    ) -> dict[str, GroupMeasures]:
        """Return the measures of the groups that are meant."""
        wants_topic = self.wants_topic()
        return {
            group_id: measures
            for group_id, measures in measured.items()
            if self.holds(snapshot.groups[group_id], measures, snapshot)
            # a group that reads none of the topics that are meant is no answer
            and (wants_topic is None or any(map(wants_topic, snapshot.groups[group_id].topics)))
        }


EVERYTHING: Final = Selection()


def _by_name(
    names: tuple[str, ...], pattern: re.Pattern[str] | None
) -> Callable[[str], bool] | None:
    if not names and pattern is None:
        return None
    chosen = frozenset(names)
    return lambda name: (
        (not chosen or name in chosen) and (pattern is None or pattern.fullmatch(name) is not None)
    )
