"""`monitor lag`: what kafka-consumer-groups --describe prints, and seconds."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Mapping
from typing import Any

import click

from monitor.analysis.measures import GroupMeasures
from monitor.commands import options, report
from monitor.commands.selection import Amount, fail_above, selecting, selection_of
from monitor.commands.watching import (
    collector_of,
    look,
    no_groups,
)
from monitor.model import Snapshot


@click.command()
@options.connection
@selecting
@click.option(
    "--output", type=click.Choice(["table", "json", "csv"]), default="table", show_default=True
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
    """
    if watch is not None and output != "table":
        raise click.UsageError("--watch goes with --output table only")
    selection = selection_of(**given)
    kafka, settings = source.one()
    selection.refuse_left_out(settings)

    def show(snapshot: Snapshot, chosen: Mapping[str, GroupMeasures]) -> None:
        found = report.reports(snapshot, chosen, selection.wants_topic())
        if output == "json":
            click.echo(report.as_json(snapshot, found))
        elif output == "csv":
            click.echo(report.as_csv(found), nl=False)
        elif found:
            width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
            click.echo(report.as_table(found, width, seconds=seconds), nl=False)
        else:
            click.echo(no_groups(snapshot, selection), err=True)

    with collector_of(kafka, settings, selection=selection) as collector:
        sys.exit(look(collector, settings, selection, show, watch=watch, fail_above=fail_above))
