"""`monitor config check`: the mistakes of a settings file, all at once."""

from __future__ import annotations

import click

from monitor.commands import options
from monitor.commands.serve import url_of
from monitor.commands.starting import start_of
from monitor.words import plural, safe


@click.group()
def config() -> None:
    """Work with the settings file."""


@config.command()
@options.connection
def check(source: options.Source) -> None:
    """Read all settings as `monitor serve` would, and say what is wrong with them, each with its line.

    Nothing is connected to. Exit code 2 says that there are mistakes; a running monitor that is told
    to read such a file again goes on with what it has.
    """
    found = source.read()
    start = start_of(found)
    for watched in found.clusters:
        name = safe(watched.settings.cluster or "the cluster")
        click.echo(
            f"{name}: {', '.join(watched.kafka.bootstrap_servers)} "
            f"({watched.kafka.security_protocol}), every {watched.settings.poll_interval:g} s"
        )
    scheme = "https" if start.certificate else "http"
    click.echo(
        f"{plural(len(found.clusters), 'cluster')}, served at "
        f"{url_of(scheme, found.process.host, found.process.port)}"
        f"{'' if found.databases.is_empty else ', with databases'}: no mistakes."
    )
