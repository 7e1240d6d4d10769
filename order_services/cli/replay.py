"""`order-services replay`: the history of the last days again."""

from __future__ import annotations

import sys
import threading

import click
from sqlalchemy.engine import URL

from order_services.cli.database import database_option, open_database, settings_with
from order_services.cli.failing import EXIT_FAILED, EXIT_INTERRUPTED, fail
from order_services.cli.kafka import connect, kafka_option
from order_services.cli.printing import time_of
from order_services.operations import replay, replay_publisher
from order_services.operations.replay import ReplayError
from order_services.process.settings import ServiceSettings
from order_services.process.signals import stop_signals
from order_services.storage.database import Database


@click.command("replay")
@kafka_option
@database_option
@click.option(
    "--days",
    type=click.IntRange(replay.MIN_DAYS, replay.MAX_DAYS),
    required=True,
    help="How many days (UTC), today included.",
)
@click.option(
    "--rate",
    type=click.IntRange(replay_publisher.MIN_EVENTS_PER_SECOND, 1_000_000),
    default=replay_publisher.DEFAULT_EVENTS_PER_SECOND,
    show_default=True,
    help="Events a second at most.",
)
@click.option(
    "--wait",
    "wait_seconds",
    type=click.FloatRange(0),
    default=300.0,
    show_default=True,
    help="How many seconds analytics may take to read it.",
)
def command(
    *, brokers: str, database: URL | None, days: int, rate: int, wait_seconds: float
) -> None:
    """Publish the last days' events again; analytics counts those that it lacks."""
    connect(brokers)
    settings = settings_with(database).model_copy(update={"kafka_brokers": brokers})
    with open_database(settings) as store, stop_signals() as stop:
        try:
            _replay(settings, store, stop, days=days, rate=rate, wait_seconds=wait_seconds)
        except ReplayError as error:
            if stop.is_set():
                click.echo(
                    "interrupted: analytics counts what was published; call it again", err=True
                )
                sys.exit(EXIT_INTERRUPTED)
            fail(str(error))


def _replay(
    settings: ServiceSettings,
    store: Database,
    stop: threading.Event,
    *,
    days: int,
    rate: int,
    wait_seconds: float,
) -> None:
    with store.begin() as connection:
        begun = replay.begin(connection, days)
    click.echo(f"replay {begun.replay_id} of everything since {time_of(begun.since)}")
    publisher = replay_publisher.Publisher(
        settings,
        store,
        events_per_second=rate,
        read_timeout_seconds=wait_seconds,
        on_progress=lambda events: click.echo(f"{events} events published ...", err=True),
        stopping=stop,
    )
    publisher.publish(begun)
    with store.begin() as connection:
        found = replay.get(connection, begun.replay_id)
    published = begun if found is None else found
    click.echo(f"{published.orders} orders, {published.events} events published")
    if publisher.wait_until_read(begun):
        click.echo("analytics has counted what it lacked")
        return
    if stop.is_set():
        click.echo("interrupted: analytics goes on", err=True)
        sys.exit(EXIT_INTERRUPTED)
    click.echo("order-services: analytics is not done yet; it goes on when it runs", err=True)
    sys.exit(EXIT_FAILED)
