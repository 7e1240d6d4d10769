"""`order-services dead-letters`: messages that could not be processed."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import click

from order_services.cli.failing import EXIT_INTERRUPTED, fail
from order_services.cli.kafka import connect, kafka_option
from order_services.cli.printing import (
    message_for_programs,
    output_option,
    print_field,
    print_json,
    print_message,
    time_of,
)
from order_services.operations import dead_letters, redrive
from order_services.operations.dead_letters import DeadLetterError
from order_services.operations.redrive import Redriven, Selection
from order_services.process.signals import stop_signals


@click.group("dead-letters")
def command() -> None:
    """Show messages that could not be processed, and send them back."""


@command.command("list")
@kafka_option
@output_option
def list_dead_letters(brokers: str, output: str) -> None:
    """Count the dead letters of each group, by topic and error."""
    connect(brokers)
    heaps = _do(lambda: redrive.heaps(brokers))
    if output == "json":
        print_json([asdict(heap) for heap in heaps])
        return
    for heap in heaps:
        if heap.topic is None and not heap.count:
            click.echo(f"{heap.group_id}: none")
            continue
        click.echo(
            f"{heap.group_id}: {heap.count} from {heap.topic or 'no known topic'}, "
            f"{heap.waiting} not sent back yet"
        )
        click.echo(f"    oldest {time_of(heap.oldest)}, newest {time_of(heap.newest)}")
        for kind, count in sorted(heap.errors.items(), key=lambda item: -item[1]):
            click.echo(f"    {count:>6}  {kind}")


@command.command("show")
@kafka_option
@output_option
@click.argument("group")
@click.argument("offset", type=click.IntRange(0))
@click.option("--partition", type=click.IntRange(0), default=0, show_default=True)
def show_dead_letter(brokers: str, output: str, group: str, offset: int, partition: int) -> None:
    """Show the dead letter of GROUP at OFFSET of its dead-letter topic."""
    connect(brokers)
    letter = _do(lambda: dead_letters.find(brokers, group, offset, partition))
    if output == "json":
        print_json(
            {
                **asdict(letter),
                "event_type": letter.event_type,
                **message_for_programs(letter.key, letter.headers, letter.value),
            }
        )
        return
    origin = "unknown"
    if letter.origin_topic is not None:
        origin = f"{letter.origin_topic}, partition {letter.origin_partition}"
        origin += f", offset {letter.origin_offset}"
    print_field("group", letter.group_id)
    print_field("here", f"partition {letter.partition}, offset {letter.offset}")
    print_field("origin", origin)
    print_field("failed at", time_of(letter.failed_at))
    print_field("attempts", "unknown" if letter.attempts is None else str(letter.attempts))
    print_field("error", letter.error)
    print_message(letter.key, letter.headers, letter.value)


@command.command("redrive")
@kafka_option
@click.option("--group", required=True, help="The consumer group.")
@click.option("--event-type", "event_types", multiple=True, help="Only events of this type.")
@click.option("--offset", "offsets", type=click.IntRange(0), multiple=True, help="Only this one.")
@click.option("--limit", type=click.IntRange(1), help="At most so many.")
@click.option("--all", "everything", is_flag=True, help="All that there are.")
@click.option("--again", is_flag=True, help="Also those that were sent back before.")
def redrive_dead_letters(
    *,
    brokers: str,
    group: str,
    event_types: tuple[str, ...],
    offsets: tuple[int, ...],
    limit: int | None,
    everything: bool,
    again: bool,
) -> None:
    """Send dead letters back to the topics that they came from.

    Each is sent back once: a second call passes over it, unless --again.
    """
    narrowed = bool(event_types or offsets or limit)
    if everything == narrowed:
        raise click.UsageError("say which: --event-type, --offset and --limit, or --all")
    connect(brokers)
    selection = Selection(frozenset(event_types), frozenset(offsets), limit)

    def show(redriven: Redriven) -> None:
        click.echo(f"{redriven.sent} sent back ...", err=True)

    with stop_signals() as stop:
        done = _do(
            lambda: redrive.redrive(
                brokers, group, selection, again=again, on_progress=show, stopping=stop.is_set
            )
        )
        click.echo(f"{done.sent} sent back, {done.sent_before} passed over (sent back before)")
        if done.without_origin:
            click.echo(f"{done.without_origin} left: they do not say where they came from")
        if stop.is_set():
            click.echo("interrupted: what was sent back is noted; call it again for the rest")
            sys.exit(EXIT_INTERRUPTED)


def _do(operation: Callable[[], Any]) -> Any:
    try:
        return operation()
    except DeadLetterError as error:
        fail(str(error))
