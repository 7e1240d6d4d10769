"""A cluster as the commands see it: one way to reach it, to look at it, and to say what is missing."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Final

import click

from monitor.analysis.analyst import Analyst
from monitor.analysis.measures import GroupMeasures
from monitor.analysis.scaling.rules import ScalingRules
from monitor.analysis.status import StatusRules
from monitor.answers.clusters import who_is_silent
from monitor.commands.looks import Look
from monitor.commands.options import Refusal
from monitor.exposition.blocks import Choice
from monitor.exposition.of_groups import text_of_groups
from monitor.kafka.brokers import UnreachableError
from monitor.kafka.collector import Collector, Intervals
from monitor.kafka.connecting import OptionsError
from monitor.kafka.transport import KafkaWire
from monitor.model import Snapshot
from monitor.selection import EVERYTHING, Amount, Selection
from monitor.settings import KafkaSettings, MonitorSettings
from monitor.state import State, is_used
from monitor.words import plural, safe, with_remedy

# Within the ten seconds in which a wrong address must be told, diagnosis included.
CONNECT_TIMEOUT_S: Final = 5.0
# Partitions and groups that are named one by one; of thousands nobody reads more.
MAX_NAMED: Final = 5

INTERRUPTED: Final = 130
"""Exit code of a program that Ctrl-C ended, as shells have it."""

ABOVE: Final = 3
"""Exit code where a group is further behind than --fail-above says."""

Show = Callable[[Snapshot, Mapping[str, GroupMeasures]], None]
"""Prints the groups that are meant."""


@contextmanager
def collector_of(
    kafka: KafkaSettings,
    settings: MonitorSettings,
    *,
    connect: bool = True,
    selection: Selection = EVERYTHING,
) -> Iterator[Collector]:
    """Yield the collector that the settings ask for.

    With `connect`, refuse a cluster that can't be reached. `selection` narrows what the
    settings leave.
    """
    intervals = Intervals(
        settings.request_timeout,
        settings.metadata_interval,
        settings.start_offsets_interval,
        topic_configs=settings.topic_configs_interval,
        log_sizes=settings.log_sizes_interval if settings.log_sizes else None,
        rights=settings.metadata_interval,
    )
    try:
        wire = KafkaWire(kafka)
    except OptionsError as error:
        raise Refusal(str(error)) from None
    try:
        collector = Collector(
            wire,
            intervals,
            wants_group=_both(settings.wants_group(), selection.wants_group()),
            wants_topic=_both(settings.wants_topic(), selection.wants_topic()),
            read_committed=settings.read_committed,
        )
        if connect:
            try:
                collector.connect(min(settings.request_timeout, CONNECT_TIMEOUT_S))
            except UnreachableError as error:
                raise Refusal(f"can't reach Kafka at {error}") from None
        yield collector
    finally:
        wire.close()


def cluster_of(settings: MonitorSettings, snapshot: Snapshot) -> str:
    """Return the name of the cluster that was looked at."""
    return settings.cluster or snapshot.cluster_id or "unknown"


def as_metrics(
    settings: MonitorSettings,
    snapshot: Snapshot,
    chosen: Mapping[str, GroupMeasures],
    selection: Selection,
) -> str:
    """Return what /metrics would have about the groups that are meant."""
    groups = {group: snapshot.groups[group] for group in chosen}
    state = State(
        cluster_of(settings, snapshot),
        snapshot.taken_at,
        replace(snapshot, groups=groups),
        chosen,
        succeeded_at=snapshot.taken_at,
        monotonic_at=snapshot.monotonic_at,
    )
    choice = Choice(
        settings.stale_after_seconds,
        settings.level,
        settings.families,
        settings.measures_level,
        members=settings.member_metrics,
    )
    return text_of_groups(
        state, choice, cluster=settings.cluster, wants_topic=selection.wants_topic()
    )


def rules_of(settings: MonitorSettings) -> StatusRules:
    """Return by which rules the settings have a status judged."""
    return StatusRules(settings.status_allowed_lag, intervals=settings.status_polls)


def scaling_rules_of(settings: MonitorSettings) -> ScalingRules:
    """Return what the settings want of groups that are scaled."""
    return ScalingRules(
        goal_seconds=settings.scaling_goal,
        catch_up_seconds=settings.scaling_catch_up,
        start_seconds=settings.scaling_start,
        pause_seconds=settings.scaling_pause,
        hold_seconds=settings.scaling_hold,
        least=settings.scaling_min,
        most=settings.scaling_max,
    )


def look(
    collector: Collector,
    settings: MonitorSettings,
    selection: Selection,
    show: Show,
    *,
    watch: float | None = None,
    fail_above: Amount | None = None,
) -> int:
    """Show one poll, or one after the other until Ctrl-C; return the exit code.

    On a terminal, `watch` is a screen that refreshes in place. What could not be read is said
    before what is shown: no conclusion is drawn from silence. A lag above `fail_above` goes before
    a part that could not be read.
    """
    analyst = Analyst(collector.offsets_for_times, collector.look_at_logs, rules=rules_of(settings))

    def read() -> Look:
        snapshot = collector.poll()
        chosen, notes = choose(selection, settings, snapshot, analyst.measure(snapshot))
        return Look(snapshot, chosen, what_is_missing(snapshot).lines, notes)

    # here, as `serve` shows nothing on a terminal: it takes 2 MB
    from monitor.commands import screen  # noqa: PLC0415

    if watch is not None and screen.is_possible():
        last = screen.show(read, watch)
    else:
        last = _print(read, selection, show, watch)
    if last is None:
        return INTERRUPTED
    if fail_above and any(
        fail_above.is_exceeded(measures, last.snapshot) for measures in last.groups.values()
    ):
        return ABOVE
    return what_is_missing(last.snapshot).exit_code


def choose(
    selection: Selection,
    settings: MonitorSettings,
    snapshot: Snapshot,
    measured: Mapping[str, GroupMeasures],
) -> tuple[dict[str, GroupMeasures], tuple[str, ...]]:
    """Return the measures of the groups that are meant, and in words what the settings hide of them.

    A group that is asked for by name is shown, hidden or not.
    """
    chosen = selection.chosen(snapshot, measured)
    if not settings.hide_empty_groups:
        return chosen, ()
    shown = {
        group: measures
        for group, measures in chosen.items()
        if group in selection.groups or is_used(measures)
    }
    hidden = len(chosen) - len(shown)
    if not hidden:
        return shown, ()
    are = "is" if hidden == 1 else "are"
    return shown, (
        f"{plural(hidden, 'group')} without members {are} left out (MONITOR_HIDE_EMPTY_GROUPS)",
    )


def _print(
    read: Callable[[], Look], selection: Selection, show: Show, watch: float | None
) -> Look | None:
    """Print one look, or one after the other until Ctrl-C; return the last, None without any."""
    look: Look | None = None
    try:
        while True:
            look = read()
            for line in (*(f"Not read: {fault}" for fault in look.faults), *look.notes):
                click.echo(line, err=True)
            try:
                refuse_unknown_groups(look.snapshot, selection.groups)
                refuse_unknown_topics(look.snapshot, selection.topics)
                show(look.snapshot, look.groups)
            except Refusal as refusal:
                if watch is None:
                    raise
                # a group that is gone for a moment may be back in the next
                click.echo(refusal.format_message(), err=True)
            if watch is None:
                return look
            time.sleep(watch)
            click.echo(f"\n{time.strftime('%H:%M:%S')}  every {watch:g} s, Ctrl-C stops\n")
    except KeyboardInterrupt:
        return look


@dataclass(frozen=True, slots=True)
class Missing:
    """What could not be read: `lines` in words; `everything` if nobody answered at all."""

    lines: tuple[str, ...]
    everything: bool

    @property
    def exit_code(self) -> int:
        """Return 0 if nothing is missing, 1 for a part, 2 for everything."""
        return 2 if self.everything else int(bool(self.lines))


def what_is_missing(snapshot: Snapshot) -> Missing:
    """Return what could not be read of brokers, groups, and the partitions that groups read."""
    lines = [
        f"broker {snapshot.brokers[broker].address if broker in snapshot.brokers else broker}: {cause}"
        for broker, cause in snapshot.broker_errors.items()
    ]
    lines += snapshot.errors
    lines += _some(
        f"group {safe(group.id)}: {with_remedy(group.error)}"
        for group in snapshot.groups.values()
        if group.error
    )
    read = {topic for group in snapshot.groups.values() for topic in group.topics}
    lines += _some(
        f"topic {safe(topic)}, partition {partition}: {with_remedy(error)}"
        for topic, partitions in sorted(snapshot.end_offsets.refused.items())
        if topic in read
        for partition, error in sorted(partitions.items())
    )
    lines += _some(
        f"step {' of '.join(filter(None, part))}: the monitor failed ({cause})"
        for part, cause in snapshot.failures.items()
    )
    silent = snapshot.broker_errors.keys()
    everything = bool(snapshot.brokers) and snapshot.brokers.keys() <= silent
    return Missing(tuple(lines), everything)


def refuse_unknown_groups(snapshot: Snapshot, names: Iterable[str]) -> None:
    """Raise Refusal for groups that are not there, or of which nobody can say so."""
    names = [name for name in names if name not in snapshot.groups]
    if not names:
        return
    told = ", ".join(repr(safe(name)) for name in names)
    if snapshot.groups_complete:
        raise Refusal(f"the cluster has no group {told}, or it may not be described")
    raise Refusal(f"not known whether the cluster has a group {told}: {who_is_silent(snapshot)}")


def refuse_unknown_topics(snapshot: Snapshot, names: Iterable[str]) -> None:
    """Raise Refusal for topics that neither the metadata nor a commit names."""
    known = snapshot.topics.keys() | {t for g in snapshot.groups.values() for t in g.commits}
    names = [name for name in names if name not in known]
    if names:
        raise Refusal(
            f"the cluster has no topic {', '.join(repr(safe(name)) for name in names)}, "
            "or it may not be described"
        )


def no_groups(snapshot: Snapshot, selection: Selection) -> str:
    """Say that there are no such groups, or that nobody can say so."""
    if snapshot.groups_complete:
        return (
            "No consumer group is as asked for."
            if selection.narrows or snapshot.groups
            else "The cluster has no consumer groups."
        )
    return f"Not known whether the cluster has consumer groups: {who_is_silent(snapshot)}."


def _some(lines: Iterable[str]) -> list[str]:
    found = list(lines)
    if len(found) <= MAX_NAMED:
        return found
    kind = found[0].split()[0] if found[0].startswith(("group", "step")) else "partition"
    return [*found[:MAX_NAMED], f"{plural(len(found) - MAX_NAMED, f'{kind}')} more"]


def _both(
    one: Callable[[str], bool] | None, other: Callable[[str], bool] | None
) -> Callable[[str], bool] | None:
    if one is None or other is None:
        return one or other
    return lambda name: one(name) and other(name)
