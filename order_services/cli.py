"""The `order-services` command."""

from __future__ import annotations

import runpy
import sys
from typing import TYPE_CHECKING, Any, Final, NoReturn

import click
from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient

from order_services.domain import topics
from order_services.operations import topic_admin
from order_services.process.kafka_settings import DEFAULT_BROKERS, KafkaSettings, kafka_settings
from order_services.process.settings import SettingsError, load

if TYPE_CHECKING:
    from collections.abc import Callable

SERVICES: Final = ("gateway", "payment", "inventory", "shipping", "analytics")
CONNECT_TIMEOUT_SECONDS: Final = 5.0
EXIT_DIFFERENT: Final = 1
EXIT_USAGE: Final = 2
MORE_COMMANDS: Final = ("dead-letters", "migrate", "refused", "replay")


class LazyGroup(click.Group):
    """Imports the commands that need more than a service does when they are asked for.

    `up` needs the `local` extra; a container that runs one service has not installed it.
    """

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of all commands."""
        return sorted({*super().list_commands(ctx), "up", *MORE_COMMANDS})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return a command, importing those of other modules only now."""
        if cmd_name in MORE_COMMANDS:
            from order_services.commands import COMMANDS  # noqa: PLC0415  # it imports this module

            return COMMANDS[cmd_name]
        return _up_command() if cmd_name == "up" else super().get_command(ctx, cmd_name)


def _up_command() -> click.Command:
    try:
        from order_services.local.up import up_command  # noqa: PLC0415  # needs the extra
    except ImportError as error:
        missing = error.name or "a package"

        @click.command(
            "up",
            context_settings={"ignore_unknown_options": True, "allow_extra_args": True},
            short_help="Run everything here (not installed).",
            add_help_option=False,
        )
        def not_installed() -> NoReturn:
            _fail(f"up needs the extra packages of 'local' ({missing} is missing)")

        return not_installed
    return up_command


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
def cli() -> None:
    """Run the order services and keep their topics."""


@cli.command()
@click.argument("service", type=click.Choice(SERVICES))
def run(service: str) -> None:
    """Run one SERVICE, configured by the environment, until SIGTERM or Ctrl-C."""
    # its own __main__ ends the process with the service's exit code
    runpy.run_module(f"order_services.{service}", run_name="__main__")


@cli.group("topics")
def topics_group() -> None:
    """Create, check, grow and show the topics that the services need."""


def _kafka_option(command: Callable[..., None]) -> Callable[..., None]:
    return click.option(
        "--kafka",
        "--bootstrap-servers",
        "brokers",
        metavar="HOST:PORT",
        envvar="KAFKA_BROKERS",
        default=DEFAULT_BROKERS,
        show_default=True,
        callback=_addresses,
        help="A broker, or several with commas between them; else KAFKA_BROKERS.",
    )(command)


def _addresses(_context: click.Context, _parameter: click.Parameter, value: str) -> str:
    for address in value.split(","):
        host, _, port = address.strip().rpartition(":")
        if not host or not port.isascii() or not port.isdigit() or not 1 <= int(port) <= 65_535:
            raise click.BadParameter(f"{address.strip()!r} must be HOST:PORT")
    return value


@topics_group.command("create")
@_kafka_option
@click.option(
    "--replication-factor",
    type=click.IntRange(1, 32_767),
    help="Replicas of each new topic; else the broker's default.",
)
def create_topics(brokers: str, replication_factor: int | None) -> None:
    """Create the topics that are missing; change no existing one."""
    admin = _connect(brokers)
    created = _do(lambda: topic_admin.create(admin, replication_factor=replication_factor), brokers)
    for name in created:
        click.echo(f"created {name} ({topics.TOPIC_OF_NAME[name].partitions} partitions)")
    click.echo(f"{len(created)} created, {len(topics.TOPICS) - len(created)} were there")


@topics_group.command("alter")
@_kafka_option
@click.argument("topic")
@click.option("--partitions", type=click.IntRange(1, 10_000), help="The new number.")
@click.option("--settings", is_flag=True, help="Set what is declared for it, as retention.")
def alter_topic(*, brokers: str, topic: str, partitions: int | None, settings: bool) -> None:
    """Give TOPIC more partitions, which can only grow, or its declared settings."""
    if partitions is None and not settings:
        raise click.UsageError("say which: --partitions or --settings")
    admin = _connect(brokers)
    if partitions is not None:
        grown = _do(lambda: topic_admin.alter(admin, topic, partitions), brokers)
        click.echo(f"{topic} {'now has' if grown else 'had'} {partitions} partitions")
    if settings:
        _do(lambda: topic_admin.apply_settings(admin, topic), brokers)
        click.echo(f"{topic} has its declared settings")


@topics_group.command("check")
@_kafka_option
def check_topics(brokers: str) -> None:
    """Compare the topics with what is declared; exit code 1 when one differs."""
    admin = _connect(brokers)
    differences = _do(lambda: topic_admin.check(admin), brokers)
    for difference in differences:
        click.echo(f"{difference.topic}: {difference.what}")
        click.echo(f"    order-services {difference.remedy}")
    if differences:
        sys.exit(EXIT_DIFFERENT)
    click.echo(f"all {len(topics.TOPICS)} topics are as declared")


@topics_group.command("list")
@_kafka_option
def list_topics(brokers: str) -> None:
    """List the topics on the broker."""
    admin = _connect(brokers)
    for name in _do(lambda: topic_admin.list_names(admin), brokers):
        click.echo(name)


@topics_group.command("describe")
@_kafka_option
@click.argument("topic", nargs=-1)
def describe_topics(brokers: str, topic: tuple[str, ...]) -> None:
    """Show the partitions of each TOPIC, or of all."""
    admin = _connect(brokers)
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


def _connect(brokers: str) -> AdminClient:
    """Return a client that has reached a broker; ends the command when none answers."""
    causes: list[str] = []
    try:
        kafka = load(KafkaSettings, kafka_brokers=brokers)
    except SettingsError as error:
        _fail(f"bad settings:\n{error}")
    settings: dict[str, Any] = {
        **kafka_settings(kafka),
        "socket.timeout.ms": 10_000,
        # librdkafka would print a line for each attempt: the first cause is said once below
        "log_level": 0,
        "error_cb": lambda error: causes.append(error.str()),
    }
    admin = AdminClient(settings)
    try:
        admin.list_topics(timeout=CONNECT_TIMEOUT_SECONDS)
    except KafkaException as error:
        admin.poll(0)  # delivers what error_cb has to say
        cause = _cause(causes[0]) if causes else _silence(error)
        _fail(f"cannot reach Kafka at {brokers}: {cause}")
    return admin


def _cause(text: str) -> str:
    """Take "connection refused" out of "HOST:PORT/bootstrap: ... failed: Connection refused (...)"."""
    text = text.split(": ", 1)[-1].split(" (after ", 1)[0]
    return text.rsplit("failed: ", 1)[-1].lower()


def _silence(error: KafkaException) -> str:
    if error.args[0].code() == KafkaError._TRANSPORT:  # noqa: SLF001  # its public name
        return f"no answer within {CONNECT_TIMEOUT_SECONDS:g} s"
    return str(error.args[0].str()).lower()


def _do(operation: Callable[[], Any], brokers: str) -> Any:
    try:
        return operation()
    except topic_admin.TopicError as error:
        _fail(f"{brokers}: {error}")


def _fail(message: str) -> NoReturn:
    click.echo(f"order-services: {message}", err=True)
    sys.exit(EXIT_USAGE)


def main() -> None:
    """Run the command."""
    cli(prog_name="order-services")
