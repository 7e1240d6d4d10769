"""`order-services topics`: the topics that the services need."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import click

from order_services.cli.failing import EXIT_FAILED, fail
from order_services.cli.kafka import connect, kafka_option
from order_services.domain import topics
from order_services.operations import topic_admin


@click.group("topics")
def command() -> None:
    """Create, check, grow and show the topics that the services need."""


@command.command("create")
@kafka_option
@click.option(
    "--replication-factor",
    type=click.IntRange(1, 32_767),
    help="Replicas of each new topic; else the broker's default.",
)
def create_topics(brokers: str, replication_factor: int | None) -> None:
    """Create the topics that are missing; change no existing one."""
    admin = connect(brokers)
    created = _do(lambda: topic_admin.create(admin, replication_factor=replication_factor), brokers)
    for name in created:
        click.echo(f"created {name} ({topics.TOPIC_OF_NAME[name].partitions} partitions)")
    click.echo(f"{len(created)} created, {len(topics.TOPICS) - len(created)} were there")


@command.command("alter")
@kafka_option
@click.argument("topic")
@click.option("--partitions", type=click.IntRange(1, 10_000), help="The new number.")
@click.option("--settings", is_flag=True, help="Set what is declared for it, as retention.")
def alter_topic(*, brokers: str, topic: str, partitions: int | None, settings: bool) -> None:
    """Give TOPIC more partitions, which can only grow, or its declared settings."""
    if partitions is None and not settings:
        raise click.UsageError("say which: --partitions or --settings")
    admin = connect(brokers)
    if partitions is not None:
        grown = _do(lambda: topic_admin.alter(admin, topic, partitions), brokers)
        click.echo(f"{topic} {'now has' if grown else 'had'} {partitions} partitions")
    if settings:
        _do(lambda: topic_admin.apply_settings(admin, topic), brokers)
        click.echo(f"{topic} has its declared settings")


@command.command("check")
@kafka_option
def check_topics(brokers: str) -> None:
    """Compare the topics with what is declared; exit code 1 when one differs."""
    admin = connect(brokers)
    differences = _do(lambda: topic_admin.check(admin), brokers)
    for difference in differences:
        click.echo(f"{difference.topic}: {difference.what}")
        click.echo(f"    order-services {difference.remedy}")
    if differences:
        sys.exit(EXIT_FAILED)
    click.echo(f"all {len(topics.TOPICS)} topics are as declared")


@command.command("list")
@kafka_option
def list_topics(brokers: str) -> None:
    """List the topics on the broker."""
    admin = connect(brokers)
    for name in _do(lambda: topic_admin.list_names(admin), brokers):
        click.echo(name)


@command.command("describe")
@kafka_option
@click.argument("topic", nargs=-1)
def describe_topics(brokers: str, topic: tuple[str, ...]) -> None:
    """Show the partitions of each TOPIC, or of all."""
    admin = connect(brokers)
    rows = [("TOPIC", "PARTITION", "LEADER", "REPLICAS", "IN-SYNC")]
    rows += [
        (
            description.name,
            str(partition.partition),
            "none" if partition.leader is None else str(partition.leader),
            _numbers(partition.replicas),
            _numbers(partition.in_sync_replicas),
        )
        for description in _do(lambda: topic_admin.describe(admin, topic or None), brokers)
        for partition in description.partitions
    ]
    widths = [max(len(row[n]) for row in rows) for n in range(len(rows[0]))]
    for row in rows:
        click.echo(
            "  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip()
        )


def _numbers(numbers: tuple[int, ...]) -> str:
    return ",".join(str(number) for number in numbers)


def _do(operation: Callable[[], Any], brokers: str) -> Any:
    try:
        return operation()
    except topic_admin.TopicError as error:
        fail(f"{brokers}: {error}")
