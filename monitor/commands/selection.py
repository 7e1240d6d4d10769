"""Which groups and topics a command is about: names, patterns, states, and how far behind."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, ParamSpec, TypeVar

import click

from monitor.analysis.measures import GroupMeasures
from monitor.commands.options import Refusal
from monitor.model import Group, Snapshot
from monitor.ranking import status_word
from monitor.settings import MonitorSettings
from monitor.words import safe

P = ParamSpec("P")
R = TypeVar("R")

STATUSES: Final = ("ok", "warn", "err", "new")


class _Pattern(click.ParamType[re.Pattern[str]]):
    """A regular expression that must match a whole name, as the filters of the settings."""

    name = "regex"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> re.Pattern[str]:
        try:
            return re.compile(value)
        except re.error as error:
            self.fail(f"{value!r} is no regular expression: {error}", param, ctx)


class _Amount(click.ParamType["Amount"]):
    """A lag: messages (1000) or a time (90s, 5m, 2h)."""

    name = "lag"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> Amount:
        found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(s|m|h|)", str(value).strip())
        if found is None:
            self.fail(f"{value!r} is neither messages (1000) nor a time (90s, 5m, 2h)", param, ctx)
        number, unit = float(found[1]), found[2]
        if not unit:
            return Amount(messages=number)
        return Amount(seconds=number * {"s": 1, "m": 60, "h": 3600}[unit])


@dataclass(frozen=True, slots=True)
class Amount:
    """A limit of lag, in messages that a consumer can read or in seconds."""

    messages: float | None = None
    seconds: float | None = None

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

    def refuse_left_out(self, settings: MonitorSettings) -> None:
        """Say which names the settings leave out: to find nothing would look like an answer."""
        for kind, names, wants in (
            ("group", self.groups, settings.wants_group()),
            ("topic", self.topics, settings.wants_topic()),
        ):
            left_out = [name for name in names if wants is not None and not wants(name)]
            if left_out:
                prefix = f"MONITOR_{kind.upper()}S"
                raise Refusal(
                    f"{kind} {safe(left_out[0])!r} is left out by {prefix}_ALLOW or {prefix}_DENY"
                )


EVERYTHING: Final = Selection()


def selecting(command: Callable[P, R]) -> Callable[P, R]:
    """Add the options of a selection; `selection_of` takes what they were given."""
    for option in reversed(
        [
            click.option("--group", "groups", multiple=True, help="Only this group; repeatable."),
            click.option("--topic", "topics", multiple=True, help="Only this topic; repeatable."),
            click.option(
                "--group-regex",
                "group_pattern",
                type=_Pattern(),
                help="Only groups whose whole name matches.",
            ),
            click.option(
                "--topic-regex",
                "topic_pattern",
                type=_Pattern(),
                help="Only topics whose whole name matches.",
            ),
            click.option(
                "--state",
                "states",
                multiple=True,
                metavar="STATE",
                help="Only groups in this state, as Stable or Empty; repeatable.",
            ),
            click.option(
                "--status",
                "statuses",
                multiple=True,
                type=click.Choice(STATUSES, case_sensitive=False),
                help="Only groups of this status; repeatable.",
            ),
            click.option(
                "--lag-over",
                type=_Amount(),
                metavar="N|TIME",
                help="Only groups further behind: 1000 (messages), 90s, 5m, 2h.",
            ),
            click.option("--only-behind", is_flag=True, help="Only groups with unread messages."),
        ]
    ):
        command = option(command)
    return command


def fail_above(command: Callable[P, R]) -> Callable[P, R]:
    """Add --fail-above."""
    return click.option(
        "--fail-above",
        type=_Amount(),
        metavar="N|TIME",
        help="Exit with 3 if a group shown is further behind: 1000 (messages), 90s, 5m, 2h.",
    )(command)


def selection_of(**given: Any) -> Selection:
    """Return the selection that a command's options make."""
    return Selection(**{**given, "states": tuple(s.lower() for s in given["states"])})


def _by_name(
    names: tuple[str, ...], pattern: re.Pattern[str] | None
) -> Callable[[str], bool] | None:
    if not names and pattern is None:
        return None
    chosen = frozenset(names)
    return lambda name: (
        (not chosen or name in chosen) and (pattern is None or pattern.fullmatch(name) is not None)
    )
