"""`monitor groups`: the groups that need somebody most, and what to do about each."""

from __future__ import annotations

import sys
from collections.abc import Mapping

import click

from monitor.analysis.measures import GroupMeasures
from monitor.commands import options, report
from monitor.commands.watching import collector_of, look, no_groups
from monitor.model import Snapshot


@click.command()
@options.bootstrap_servers
@click.option("--limit", type=click.IntRange(1, 10_000), default=20, show_default=True)
@options.watch
def groups(bootstrap_servers: str | None, limit: int, watch: float | None) -> None:
    """List the consumer groups, worst first, and what to do about each.

    STATUS is Burrow's and needs ten polls: `new` until then; say --watch. Exit code 1 says that a
    part could not be read (named on standard error), 2 that nothing could.
    """

    def show(snapshot: Snapshot, measured: Mapping[str, GroupMeasures]) -> None:
        if measured:
            click.echo(report.worst_first(snapshot, measured, limit), nl=False)
        else:
            click.echo(no_groups(snapshot), err=True)

    kafka, settings = options.settings(bootstrap_servers=bootstrap_servers)
    with collector_of(kafka, settings) as collector:
        sys.exit(look(collector, settings, show, watch))
