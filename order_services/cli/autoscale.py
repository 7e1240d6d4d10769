"""`order-services autoscale`: replicas follow what the monitor advises, until Ctrl-C."""

from __future__ import annotations

import time
from pathlib import Path

import click

from order_services.cli.failing import fail
from order_services.cli.scale import data_dir_option
from order_services.domain.services import SERVICES
from order_services.local.plan import MAX_REPLICAS
from order_services.local.replicas import NotRunningError, Replicas
from order_services.operations.autoscale import Autoscaler, Monitor
from order_services.process.signals import stop_signals

# What consumers do for a living; a gateway's replicas answer people, whose load lag does not show.
SCALED = ("payment", "inventory", "shipping", "analytics")
_Count = click.IntRange(1, MAX_REPLICAS)


@click.command("autoscale")
@click.argument("services", nargs=-1, type=click.Choice(SERVICES))
@data_dir_option
@click.option(
    "--monitor", metavar="URL", help="Which monitor decides; that of the system unless said."
)
@click.option("--every", "interval", type=click.FloatRange(0.5, 300), default=5.0, show_default=True,
              metavar="SECONDS", help="How often to ask it.")  # fmt: skip
@click.option("--least", type=_Count, default=1, show_default=True, help="Replicas at least.")
@click.option(
    "--most", type=_Count, default=MAX_REPLICAS, show_default=True, help="Replicas at most."
)
def command(
    *,
    services: tuple[str, ...],
    data_dir: Path,
    monitor: str | None,
    interval: float,
    least: int,
    most: int,
) -> None:
    """Keep as many processes of SERVICES as the monitor advises; of all that consume unless said.

    It stops at partitions and at what the database has connections for, and says why it acts.
    """
    if least > most:
        fail(f"--least {least} is more than --most {most}")
    if monitor is not None and not monitor.startswith(("http://", "https://")):
        fail(f"--monitor {monitor}: say http://HOST:PORT")
    replicas = Replicas(data_dir)
    try:
        with stop_signals() as stop:
            autoscaler = Autoscaler(
                services or SCALED,
                Monitor(monitor or replicas.monitor_url()),
                replicas,
                lambda message: click.echo(f"{time.strftime('%H:%M:%S')} {message}"),
                least=least,
                most=most,
            )
            while not stop.is_set():
                autoscaler.step()
                stop.wait(interval)
    except NotRunningError as error:
        fail(str(error))
