"""`monitor lag`: what kafka-consumer-groups --describe prints, and seconds."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Mapping
from typing import Any

import click

from monitor.analysis.measures import GroupMeasures
from monitor.commands import options, report
from monitor.commands.selection import fail_above, refuse_left_out, selecting, selection_of
from monitor.commands.watching import (
    as_metrics,
    cluster_of,
    collector_of,
    look,
    no_groups,
)
from monitor.model import Snapshot
from monitor.selection import Amount


@click.command()
@options.connection
@selecting
@click.option(
    "--output",
    type=click.Choice(["table", "json", "csv", "prometheus"]),
    default="table",
    show_default=True,
)
@click.option("--seconds", is_flag=True, help="Add the column LAG-SECONDS to the table.")
@fail_above
@options.watch
def lag(
    *,
    source: options.Source,
    output: str,
    seconds: bool,
    fail_above: Amount | None,
    watch: float | None,
    **given: Any,
) -> None:
    """Print the lag of consumer groups, as kafka-consumer-groups --describe does.

    And how many seconds each group is behind, and what to do. Exit code 1 says that a part could
    not be read (named on standard error), 2 that nothing could, or not what was asked for.
    `prometheus` is what /metrics has about these groups, for node_exporter's textfile collector.
    """
    if watch is not None and output != "table":
        raise click.UsageError("--watch goes with --output table only")
    selection = selection_of(**given)
    kafka, settings = source.one()
    refuse_left_out(selection, settings)

    def show(snapshot: Snapshot, chosen: Mapping[str, GroupMeasures]) -> None:
        wants_topic = selection.wants_topic()
        if output == "json":
            cluster = cluster_of(settings, snapshot)
            click.echo(report.as_json(cluster, snapshot, chosen, wants_topic))
            return
        if output == "prometheus":
            click.echo(as_metrics(settings, snapshot, chosen, selection), nl=False)
            return
        found = report.reports(snapshot, chosen, wants_topic)
        if output == "csv":
            click.echo(report.as_csv(found), nl=False)
        elif found:
            width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
            click.echo(report.as_table(found, width, seconds=seconds), nl=False)
        else:
            click.echo(no_groups(snapshot, selection), err=True)

    with collector_of(kafka, settings, selection=selection) as collector:
        sys.exit(look(collector, settings, selection, show, watch=watch, fail_above=fail_above))
