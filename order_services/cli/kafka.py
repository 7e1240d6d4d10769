"""How commands are told where Kafka is, and reach it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import click
from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient

from order_services.cli.failing import fail
from order_services.process.kafka_settings import DEFAULT_BROKERS, KafkaSettings, kafka_settings
from order_services.process.settings import SettingsError, load

CONNECT_TIMEOUT_SECONDS: Final = 5.0


def kafka_option(command: Callable[..., None]) -> Callable[..., None]:
    """Add --kafka to a command: `brokers`."""
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


def connect(brokers: str) -> AdminClient:
    """Return a client that has reached a broker; ends the command when none answers."""
    admin, silent = client(brokers)
    if admin is None:
        fail(f"cannot reach Kafka at {brokers}: {silent}")
    return admin


def client(brokers: str) -> tuple[AdminClient | None, str]:
    """Return a client that has reached a broker, or None and why there is none."""
    causes: list[str] = []
    try:
        kafka = load(KafkaSettings, kafka_brokers=brokers)
    except SettingsError as error:
        fail(f"bad settings:\n{error}")
    settings: dict[str, Any] = {
        **kafka_settings(kafka),
        "socket.timeout.ms": 10_000,
        # librdkafka would print a line for each attempt: the first cause is said once
        "log_level": 0,
        "error_cb": lambda error: causes.append(error.str()),
    }
    admin = AdminClient(settings)
    try:
        admin.list_topics(timeout=CONNECT_TIMEOUT_SECONDS)
    except KafkaException as error:
        admin.poll(0)  # delivers what error_cb has to say
        return None, _cause(causes[0]) if causes else _silence(error)
    return admin, ""


def _cause(text: str) -> str:
    """Take "connection refused" out of "HOST:PORT/bootstrap: ... failed: Connection refused (...)"."""
    text = text.split(": ", 1)[-1].split(" (after ", 1)[0]
    return text.rsplit("failed: ", 1)[-1].lower()


def _silence(error: KafkaException) -> str:
    if error.args[0].code() == KafkaError._TRANSPORT:  # noqa: SLF001  # its public name
        return f"no answer within {CONNECT_TIMEOUT_SECONDS:g} s"
    return str(error.args[0].str()).lower()
