"""`order-services scale`: more or fewer replicas of a system that runs here."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Final

import click

from order_services.cli.failing import EXIT_FAILED, fail
from order_services.local.plan import parse_replicas
from order_services.local.replicas import NotRunningError, Replicas

LOOK_S: Final = 0.2
data_dir_option = click.option(
    "--data-dir",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path(".local"),
    show_default=True,
    help="Of which system: the directory that it was started with.",
)


@click.command("scale")
@click.argument("counts", nargs=-1, required=True, metavar="SERVICE=N...")
@data_dir_option
@click.option("--wait", "seconds", type=click.FloatRange(0, 600), default=30.0, show_default=True,
              metavar="SECONDS", help="How long to wait until it is so.")  # fmt: skip
def command(*, counts: tuple[str, ...], data_dir: Path, seconds: float) -> None:
    """Run so many processes of a service: `order-services scale payment=5`."""
    try:
        wanted = parse_replicas(",".join(counts))
        replicas = Replicas(data_dir)
        before = replicas.running()
        replicas.ask(wanted)
        end = time.monotonic() + seconds
        while (now := replicas.running()) != {**now, **wanted}:
            if time.monotonic() > end:
                why = "; ".join(replicas.refused().values()) or "the system has not done it yet"
                click.echo(f"order-services: not done after {seconds:g} s: {why}", err=True)
                sys.exit(EXIT_FAILED)
            time.sleep(LOOK_S)
    except (ValueError, NotRunningError) as error:
        fail(str(error))
    for service, count in wanted.items():
        click.echo(f"{service}: {before[service]} -> {count}")
