"""`monitor groups`: the groups that need somebody most, and what to do about each."""

from __future__ import annotations

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
@click.option("--limit", type=click.IntRange(1, 10_000), default=20, show_default=True)
@fail_above
@options.watch
def groups(
    *,
    source: options.Source,
    output: str,
    limit: int,
    fail_above: Amount | None,
    watch: float | None,
    **given: Any,
) -> None:
    """List the consumer groups, worst first, and what to do about each.

    STATUS is Burrow's and needs ten polls: `new` until then; say --watch. Exit code 1 says that a
    part could not be read (named on standard error), 2 that nothing could, or not what was asked
    for. --limit is for the table.
    """
    if watch is not None and output != "table":
        raise click.UsageError("--watch goes with --output table only")
    selection = selection_of(**given)
    kafka, settings = source.one()
    refuse_left_out(selection, settings)

    def show(snapshot: Snapshot, chosen: Mapping[str, GroupMeasures]) -> None:
        if output == "json":
            click.echo(report.list_as_json(cluster_of(settings, snapshot), snapshot, chosen))
        elif output == "prometheus":
            click.echo(as_metrics(settings, snapshot, chosen, selection), nl=False)
        elif output == "csv":
            click.echo(report.list_as_csv(snapshot, chosen), nl=False)
        elif chosen:
            click.echo(report.worst_first(snapshot, chosen, limit), nl=False)
        else:
            click.echo(no_groups(snapshot, selection), err=True)

    with collector_of(kafka, settings, selection=selection) as collector:
        sys.exit(look(collector, settings, selection, show, watch=watch, fail_above=fail_above))
