"""The options by which a command is told which groups and topics it is about."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

import click

from monitor.commands.options import Refusal
from monitor.selection import STATUSES, Amount, Selection
from monitor.settings import MonitorSettings
from monitor.words import safe

P = ParamSpec("P")
R = TypeVar("R")


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


class _Amount(click.ParamType[Amount]):
    """A lag: messages (1000) or a time (90s, 5m, 2h)."""

    name = "lag"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> Amount:
        try:
            return Amount.parse(str(value))
        except ValueError as error:
            self.fail(str(error), param, ctx)


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


def refuse_left_out(selection: Selection, settings: MonitorSettings) -> None:
    """Say which names the settings leave out: to find nothing would look like an answer."""
    for kind, names, wants in (
        ("group", selection.groups, settings.wants_group()),
        ("topic", selection.topics, settings.wants_topic()),
    ):
        left_out = [name for name in names if wants is not None and not wants(name)]
        if left_out:
            prefix = f"MONITOR_{kind.upper()}S"
            raise Refusal(
                f"{kind} {safe(left_out[0])!r} is left out by {prefix}_ALLOW or {prefix}_DENY"
            )
