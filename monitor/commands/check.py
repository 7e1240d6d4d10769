"""`monitor check`: a monitoring plugin, as Nagios, Icinga, Naemon and checkmk run them.

Source of the conventions: the Monitoring Plugins Development Guidelines (exit codes, ranges,
performance data, one line first).
"""

from __future__ import annotations

import re
import signal
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from enum import IntEnum
from types import FrameType
from typing import Any, Final, NoReturn

import click
from nagiosplugin.performance import Performance
from nagiosplugin.range import Range

from monitor.analysis.analyst import Analyst
from monitor.analysis.measures import GroupMeasures
from monitor.commands import MonitorFault, cant_write, options
from monitor.commands.numbers import Number
from monitor.commands.selection import refuse_left_out, selecting, selection_of
from monitor.commands.unjudged import why_not_judged
from monitor.commands.watching import (
    choose,
    collector_of,
    no_groups,
    refuse_unknown_groups,
    refuse_unknown_topics,
    rules_of,
    what_is_missing,
)
from monitor.model import Snapshot
from monitor.selection import Selection
from monitor.settings import KafkaSettings, MonitorSettings
from monitor.words import duration, plural, safe

# Groups that are named in the first line and below it; of more nobody reads.
MAX_NAMED: Final = 5


class Outcome(IntEnum):
    """A plugin's exit code."""

    OK = 0
    WARNING = 1
    CRITICAL = 2
    UNKNOWN = 3


# What is known to be wrong is told before what is not known.
_WORST_LAST: Final = (Outcome.OK, Outcome.UNKNOWN, Outcome.WARNING, Outcome.CRITICAL)


_END: Final = r"-?(?:[0-9]{1,15}(?:\.[0-9]*)?|\.[0-9]+)"
_RANGE: Final = re.compile(rf"@?(?:(?:~|{_END})?:)?(?:{_END})?")


class _Timeout(BaseException):
    """The time is over; an event, as signals are: nobody who catches faults may keep it."""


class _Plugin(click.Command):
    """A command of which all that is no judgement is UNKNOWN: 2 would page somebody."""

    def invoke(self, ctx: click.Context) -> Any:
        with _unknown_unless_judged():
            return super().invoke(ctx)
        raise AssertionError  # the block keeps no fault to itself; mypy can't know

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        with _unknown_unless_judged():
            return super().parse_args(ctx, args)
        raise AssertionError


@contextmanager
def _unknown_unless_judged() -> Iterator[None]:
    """End with UNKNOWN whatever is raised, but for the end that a judgement is."""
    try:
        yield
    except click.exceptions.Exit:
        sys.exit(Outcome.UNKNOWN)  # the help, as other plugins have it
    except click.ClickException as error:
        _end(Outcome.UNKNOWN, " | ".join(error.format_message().splitlines()))
    except (KeyboardInterrupt, EOFError, click.Abort):
        _end(Outcome.UNKNOWN, "interrupted")
    except Exception as error:  # noqa: BLE001  # whatever it is
        _end(Outcome.UNKNOWN, MonitorFault(error).format_message())


class _Range(click.ParamType[Range]):
    """A range of a plugin: the value is alerted when it lies outside; @ turns it around."""

    name = "range"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> Range:
        try:
            if not _RANGE.fullmatch(value):
                raise ValueError  # noqa: TRY301  # the library takes 1.0e999, which is infinite
            return Range(value)
        except ValueError:
            self.fail(f"{value!r} is no range: 10, 10:, ~:10, 10:20 and @10:20 are", param, ctx)


@click.command(cls=_Plugin)
@options.connection
@selecting
@click.option("-w", "--warning", type=_Range(), default="60", show_default=True, metavar="RANGE",
              help="WARNING where the lag is outside.")  # fmt: skip
@click.option("-c", "--critical", type=_Range(), default="600", show_default=True, metavar="RANGE",
              help="CRITICAL where the lag is outside.")  # fmt: skip
@click.option("--unit", type=click.Choice(["seconds", "messages"]), default="seconds",
              show_default=True, help="What the ranges are of.")  # fmt: skip
@click.option("-t", "--timeout", type=Number(1, 600), default=10, show_default=True,
              metavar="SECONDS", help="UNKNOWN when the check takes longer.")  # fmt: skip
def check(
    *,
    source: options.Source,
    warning: Range,
    critical: Range,
    unit: str,
    timeout: float,
    **given: Any,
) -> None:
    """Check the lag of consumer groups, as a monitoring plugin does.

    Exit code 0 is OK, 1 WARNING, 2 CRITICAL, 3 UNKNOWN: what could not be read, a time-out, and a
    wrong use. A group without a commit has no lag to judge: it is named, and UNKNOWN only where
    --group asks for it, or no group can be judged. A RANGE is 10 (alert outside 0 to 10), 10:,
    ~:10, 10:20 or @10:20 (alert inside).
    """
    selection = selection_of(**given)
    kafka, settings = source.one()
    refuse_left_out(selection, settings)
    try:
        with _time_limit(timeout):
            snapshot, measured = _measure(kafka, settings, selection)
    except _Timeout:
        _end(Outcome.UNKNOWN, f"no answer within {timeout:g} s")
    refuse_unknown_groups(snapshot, selection.groups)
    refuse_unknown_topics(snapshot, selection.topics)
    chosen, notes = choose(selection, settings, snapshot, measured)
    missing = what_is_missing(snapshot)
    if not chosen:
        _end(Outcome.UNKNOWN, no_groups(snapshot, selection), (*missing.lines, *notes))
    now = snapshot.seen_at
    values = {group: _value(measures, unit, now) for group, measures in chosen.items()}
    without = {
        group: why
        for group, value in values.items()
        if value is None and (why := why_not_judged(chosen[group], settings.wants_topic()))
    }
    details = [*(f"Not read: {line}" for line in missing.lines), *_not_judged(without), *notes]
    # of one that is asked for by name, that nothing can be said is no good news
    told_of = {
        group: measures
        for group, measures in chosen.items()
        if group not in without or group in selection.groups
    }
    if not told_of:
        first = f"{plural(len(chosen), 'group')}, of which none can be judged"
        _end(Outcome.UNKNOWN, first, details)
    judged = {group: _judge(values[group], warning, critical) for group in told_of}
    outcomes = [*judged.values(), *([Outcome.UNKNOWN] if missing.lines else [])]
    bad = sorted(
        (group for group in told_of if judged[group] is not Outcome.OK),
        key=lambda group: (_WORST_LAST.index(judged[group]), values[group] or 0),
        reverse=True,
    )
    told = ", ".join(f"{safe(group)} {_behind(chosen[group], now)}" for group in bad[:MAX_NAMED])
    of = plural(len(told_of), "group")
    first = f"{told}; {len(bad)} of {of}" if bad else f"{of}, {_worst(told_of, now)}"
    if others := len(chosen) - len(told_of):
        first += f"; {others} more can't be judged"
    lines = [
        f"{safe(group)}: {safe(f'{advice.finding(snapshot.monotonic_at)} {advice.action}')}"
        for group in bad[:MAX_NAMED]
        if group not in without
        for advice in chosen[group].advice
    ]
    data = [
        str(_performance(group, value, unit, warning, critical))
        for group, value in sorted(values.items())
        if value is not None
    ]
    _end(max(outcomes, key=_WORST_LAST.index), first, [*lines, *details], data)


def _not_judged(why: Mapping[str, str]) -> list[str]:
    """Return a line for each group that has nothing to judge, the last for those that are too many."""
    told = [f"Not judged: {safe(group)}: {reason}." for group, reason in sorted(why.items())]
    more = len(told) - MAX_NAMED
    return [*told[:MAX_NAMED], *([f"Not judged: {plural(more, 'group')} more."] * (more > 0))]


def _measure(
    kafka: KafkaSettings, settings: MonitorSettings, selection: Selection
) -> tuple[Snapshot, Mapping[str, GroupMeasures]]:
    with collector_of(kafka, settings, selection=selection) as collector:
        analyst = Analyst(
            collector.offsets_for_times, collector.look_at_logs, rules=rules_of(settings)
        )
        snapshot = collector.poll()
        return snapshot, analyst.measure(snapshot)


def _value(measures: GroupMeasures, unit: str, now: float) -> float | None:
    """Return the lag that is judged, None when it is not known."""
    if unit == "seconds":
        behind = measures.behind(now)
        return None if behind is None else round(behind, 1)
    return measures.lag.total if measures.lag.partitions else None


def _judge(value: float | None, warning: Range, critical: Range) -> Outcome:
    if value is None:
        return Outcome.UNKNOWN
    if value not in critical:
        return Outcome.CRITICAL
    return Outcome.OK if value in warning else Outcome.WARNING


def _behind(measures: GroupMeasures, now: float) -> str:
    behind = measures.behind(now)
    if behind is None:
        return "unknown"
    return f"{duration(behind)} behind ({plural(measures.lag.total, 'message')})"


def _worst(chosen: Mapping[str, GroupMeasures], now: float) -> str:
    group = max(chosen, key=lambda group: chosen[group].behind(now) or 0.0)
    return f"the furthest is {safe(group)}, {_behind(chosen[group], now)}"


def _performance(
    group: str, value: float, unit: str, warning: Range, critical: Range
) -> Performance:
    # the format has no way to write these two in a label
    label = safe(group).replace("'", "_").replace("=", "_")
    return Performance(label, value, "s" if unit == "seconds" else "", warning, critical, 0)


@contextmanager
def _time_limit(seconds: float) -> Iterator[None]:
    """Raise _Timeout in this thread when the time is over, whatever it waits for."""

    def over(_signal: int, _frame: FrameType | None) -> NoReturn:
        raise _Timeout

    before = signal.signal(signal.SIGALRM, over)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _end(
    outcome: Outcome,
    first: str,
    lines: list[str] | tuple[str, ...] = (),
    data: list[str] | None = None,
) -> NoReturn:
    """Print the plugin's output and end with its code."""
    # a bar begins the performance data
    told = [line.replace("|", "/") for line in (f"KAFKA LAG {outcome.name} - {first}", *lines)]
    if data:
        told[0] += f" | {' '.join(data)}"
    try:
        click.echo("\n".join(told))
    except OSError as error:
        cant_write(error)
    sys.exit(outcome)
