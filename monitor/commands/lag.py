"""`monitor lag`: what kafka-consumer-groups --describe prints, and seconds."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Mapping

import click

from monitor.analysis.measures import GroupMeasures
from monitor.commands import options, report
from monitor.commands.watching import (
    collector_of,
    look,
    no_groups,
    refuse_unknown_groups,
    refuse_unknown_topics,
)
from monitor.model import Snapshot
from monitor.settings import MonitorSettings


@click.command()
@options.bootstrap_servers
@click.option("--group", "groups", multiple=True, help="Only this group; may be repeated.")
@click.option("--topic", "topics", multiple=True, help="Only this topic; may be repeated.")
@click.option(
    "--output", type=click.Choice(["table", "json", "csv"]), default="table", show_default=True
)
@click.option("--seconds", is_flag=True, help="Add the column LAG-SECONDS to the table.")
@options.watch
def lag(
    *,
    bootstrap_servers: str | None,
    groups: tuple[str, ...],
    topics: tuple[str, ...],
    output: str,
    seconds: bool,
    watch: float | None,
) -> None:
    """Print the lag of consumer groups, as kafka-consumer-groups --describe does.

    And how many seconds each group is behind, and what to do. Exit code 1 says that a part could
    not be read (named on standard error), 2 that nothing could, or not what was asked for.
    """
    if watch is not None and output != "table":
        raise click.UsageError("--watch goes with --output table only")
    kafka, settings = options.settings(bootstrap_servers=bootstrap_servers)
    _refuse_left_out(settings, groups, topics)

    def show(snapshot: Snapshot, measured: Mapping[str, GroupMeasures]) -> None:
        refuse_unknown_groups(snapshot, groups)
        refuse_unknown_topics(snapshot, topics)
        found = report.reports(snapshot, measured)
        if topics:  # groups that have nothing to do with them are no answer
            found = [each for each in found if each.rows]
        if output == "json":
            click.echo(report.as_json(snapshot, found))
        elif output == "csv":
            click.echo(report.as_csv(found), nl=False)
        elif found:
            width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
            click.echo(report.as_table(found, width, seconds=seconds), nl=False)
        elif topics:
            click.echo("No consumer group has read these topics.", err=True)
        else:
            click.echo(no_groups(snapshot), err=True)

    with collector_of(
        kafka, settings, wants_group=_one_of(groups), wants_topic=_one_of(topics)
    ) as collector:
        sys.exit(look(collector, settings, show, watch))


def _one_of(names: tuple[str, ...]) -> Callable[[str], bool] | None:
    return frozenset(names).__contains__ if names else None


def _refuse_left_out(
    settings: MonitorSettings, groups: tuple[str, ...], topics: tuple[str, ...]
) -> None:
    """Say which names the settings leave out: to find nothing would look like an answer."""
    for kind, names, wants in (
        ("group", groups, settings.wants_group()),
        ("topic", topics, settings.wants_topic()),
    ):
        left_out = [name for name in names if wants is not None and not wants(name)]
        if left_out:
            prefix = f"MONITOR_{kind.upper()}S"
            raise options.Refusal(
                f"{kind} {left_out[0]!r} is left out by {prefix}_ALLOW or {prefix}_DENY"
            )
