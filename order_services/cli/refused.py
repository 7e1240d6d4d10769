"""`order-services refused`: messages that Kafka refused for good."""

from __future__ import annotations

from dataclasses import asdict

import click
from sqlalchemy.engine import URL

from order_services.cli.database import database_option, open_database, settings_with
from order_services.cli.failing import fail
from order_services.cli.printing import (
    message_for_programs,
    output_option,
    print_field,
    print_json,
    print_message,
    time_of,
)
from order_services.operations import refused


@click.group("refused")
def command() -> None:
    """Show messages that Kafka refused for good, and publish them again."""


@command.command("list")
@database_option
@output_option
def list_refused(database: URL | None, output: str) -> None:
    """Count the refused messages of each service, by topic and reason."""
    with open_database(settings_with(database)) as store, store.begin() as connection:
        heaps = refused.heaps(connection)
    if output == "json":
        print_json([asdict(heap) for heap in heaps])
        return
    if not heaps:
        click.echo("none")
    for heap in heaps:
        click.echo(f"{heap.slice}: {heap.count} for {heap.topic}, {heap.reason}")
        click.echo(f"    oldest {time_of(heap.oldest)}, newest {time_of(heap.newest)}")


@command.command("show")
@database_option
@output_option
@click.argument("message_id", metavar="ID", type=click.IntRange(0))
def show_refused(database: URL | None, output: str, message_id: int) -> None:
    """Show the refused message ID."""
    with open_database(settings_with(database)) as store, store.begin() as connection:
        found = refused.find(connection, message_id)
    if found is None:
        fail(f"there is no refused message {message_id}")
    if output == "json":
        print_json(
            {
                **asdict(found),
                **message_for_programs(found.key, found.headers, found.value),
            }
        )
        return
    print_field("service", found.slice)
    print_field("topic", found.topic)
    print_field("written at", time_of(found.created_at))
    print_field("refused at", time_of(found.refused_at))
    print_field("reason", found.reason)
    print_message(found.key, found.headers, found.value)


@command.command("retry")
@database_option
@click.option("--service", help="Only messages of this service.")
@click.option("--id", "ids", type=click.IntRange(0), multiple=True, help="Only this one.")
@click.option("--limit", type=click.IntRange(1), help="At most so many, oldest first.")
@click.option("--all", "everything", is_flag=True, help="All that there are.")
def retry_refused(
    *,
    database: URL | None,
    service: str | None,
    ids: tuple[int, ...],
    limit: int | None,
    everything: bool,
) -> None:
    """Put refused messages back into the outbox, from which the service publishes them.

    What Kafka still refuses is set aside again: raise the topic's max.message.bytes first.
    """
    if everything == bool(service or ids or limit):
        raise click.UsageError("say which: --service, --id and --limit, or --all")
    with open_database(settings_with(database)) as store, store.begin() as connection:
        count = refused.retry(connection, slice_=service, ids=ids, limit=limit)
    click.echo(f"{count} put back into the outbox")
