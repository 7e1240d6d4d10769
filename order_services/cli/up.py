"""`order-services up`: the whole system on this machine, until Ctrl-C."""

from __future__ import annotations

import sys
from pathlib import Path

import click
from sqlalchemy.engine import URL

from order_services.cli.database import DEFAULT_PORT, database_url
from order_services.cli.failing import EXIT_FAILED, EXIT_INTERRUPTED, EXIT_USAGE
from order_services.domain.services import PORTS
from order_services.local.plan import (
    DEMO_FAULTS,
    DatabaseAddress,
    Plan,
    PortTakenError,
    parse_replicas,
)
from order_services.local.process import StartError
from order_services.local.supervisor import AlreadyRunningError
from order_services.local.up import StartInterruptedError, Up
from order_services.process.signals import stop_signals


def _replicas(_context: click.Context, _parameter: click.Parameter, value: str) -> dict[str, int]:
    try:
        return parse_replicas(value)
    except ValueError as error:
        raise click.BadParameter(str(error)) from error


_PORT = click.IntRange(1, 65_535)


@click.command("up")
@click.option("--replicas", default="", callback=_replicas, metavar="SERVICE=N,...",
              help="How many processes of each service, for example payment=3,inventory=2.")  # fmt: skip
@click.option("--rate", type=click.FloatRange(0.1, 5_000), default=5.0, show_default=True,
              help="Demo orders a second.")  # fmt: skip
@click.option("--for", "seconds", type=click.FloatRange(1), metavar="SECONDS",
              help="Stop after this time; without it, at Ctrl-C.")  # fmt: skip
@click.option("--no-traffic", is_flag=True, help="Send no demo orders.")
@click.option("--faults", is_flag=True,
              help="A bad day: refused payments, slow messages, poison, database pauses, cancels.")  # fmt: skip
@click.option("--kafka", metavar="HOST:PORT", help="Use this broker instead of an embedded one.")
@click.option("--database", callback=database_url, metavar="URL",
              help="Use this PostgreSQL instead of an embedded one.")  # fmt: skip
@click.option("--data-dir", type=click.Path(file_okay=False, path_type=Path), default=Path(".local"),
              show_default=True, help="Where topics, tables and logs stay.")  # fmt: skip
@click.option(
    "--kafka-port", type=_PORT, default=9092, show_default=True, help="The embedded broker's port."
)
@click.option(
    "--postgres-port",
    type=_PORT,
    default=DEFAULT_PORT,
    show_default=True,
    help="The embedded PostgreSQL's port.",
)
@click.option("--base-port", type=click.IntRange(1, 65_000), default=PORTS["gateway"], show_default=True,
              help="The gateway's port; the other services follow it.")  # fmt: skip
@click.option(
    "--monitor-port", type=_PORT, default=9308, show_default=True, help="The monitor's port."
)
def command(
    *,
    replicas: dict[str, int],
    rate: float,
    seconds: float | None,
    no_traffic: bool,
    faults: bool,
    kafka: str | None,
    database: URL | None,
    data_dir: Path,
    kafka_port: int,
    postgres_port: int,
    base_port: int,
    monitor_port: int,
) -> None:
    """Run Kafka, PostgreSQL, the five services, the monitor and demo traffic on this machine."""
    plan = Plan(
        replicas=replicas,
        base_port=base_port,
        monitor_port=monitor_port,
        kafka_port=None if kafka else kafka_port,
        postgres_port=None if database else postgres_port,
        faults=DEMO_FAULTS if faults else {},
    )
    try:
        with stop_signals() as stop:
            up = Up(plan, data_dir.resolve(), stop, kafka=kafka, database=_address(database))
            with up.everything():
                up.serve(rate=None if no_traffic else rate, seconds=seconds)
    except (AlreadyRunningError, PortTakenError) as error:
        _complain(str(error))
        sys.exit(EXIT_USAGE)
    except StartError as error:
        _complain(str(error))
        sys.exit(EXIT_FAILED)
    except StartInterruptedError:
        sys.exit(EXIT_INTERRUPTED)


def _address(url: URL | None) -> DatabaseAddress | None:
    if url is None or url.host is None or url.database is None:
        return None
    user, password = url.username or "postgres", url.password or ""
    return DatabaseAddress(url.host, url.port or DEFAULT_PORT, url.database, user, password)


def _complain(message: str) -> None:
    click.echo(f"order-services up: {message}", err=True)
