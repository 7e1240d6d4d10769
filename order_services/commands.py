"""The commands `order-services dead-letters`, `migrate`, `refused` and `replay`."""

from __future__ import annotations

import json
import sys
import textwrap
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from datetime import datetime
from typing import Any, Final

import click
import orjson
from psycopg2.errorcodes import INSUFFICIENT_PRIVILEGE
from pydantic import SecretStr
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, ProgrammingError, SQLAlchemyError

from order_services.cli import _connect, _fail, _kafka_option
from order_services.operations import redrive, refused, replay
from order_services.operations.redrive import DeadLetterError, Replayed, Selection
from order_services.operations.replay import ReplayError
from order_services.process.settings import ServiceSettings, SettingsError, load
from order_services.process.signals import stop_signals
from order_services.storage import schema
from order_services.storage.database import Database

EXIT_FAILED: Final = 1
EXIT_INTERRUPTED: Final = 130
WIDTH: Final = 80
LABEL_WIDTH: Final = 12

_output_option = click.option(
    "--output",
    type=click.Choice(["text", "json"]),
    default="text",
    show_default=True,
    help="How to print it.",
)


@click.group("dead-letters")
def dead_letters_group() -> None:
    """Show messages that could not be processed, and send them back."""


@dead_letters_group.command("list")
@_kafka_option
@_output_option
def list_dead_letters(brokers: str, output: str) -> None:
    """Count the dead letters of each group, by topic and error."""
    _connect(brokers)
    heaps = _do(lambda: redrive.heaps(brokers))
    if output == "json":
        _print_json([asdict(heap) for heap in heaps])
        return
    for heap in heaps:
        if heap.topic is None and not heap.count:
            click.echo(f"{heap.group_id}: none")
            continue
        click.echo(
            f"{heap.group_id}: {heap.count} from {heap.topic or 'no known topic'}, "
            f"{heap.waiting} not sent back yet"
        )
        click.echo(f"    oldest {_time(heap.oldest)}, newest {_time(heap.newest)}")
        for kind, count in sorted(heap.errors.items(), key=lambda item: -item[1]):
            click.echo(f"    {count:>6}  {kind}")


@dead_letters_group.command("show")
@_kafka_option
@_output_option
@click.argument("group")
@click.argument("offset", type=click.IntRange(0))
@click.option("--partition", type=click.IntRange(0), default=0, show_default=True)
def show_dead_letter(brokers: str, output: str, group: str, offset: int, partition: int) -> None:
    """Show the dead letter of GROUP at OFFSET of its dead-letter topic."""
    _connect(brokers)
    letter = _do(lambda: redrive.find(brokers, group, offset, partition))
    if output == "json":
        _print_json(
            {
                **asdict(letter),
                "event_type": letter.event_type,
                "key": _text(letter.key),
                "value": _text(letter.value),
                "headers": [[name, _text(value)] for name, value in letter.headers],
            }
        )
        return
    origin = "unknown"
    if letter.origin_topic is not None:
        origin = f"{letter.origin_topic}, partition {letter.origin_partition}"
        origin += f", offset {letter.origin_offset}"
    _print_field("group", letter.group_id)
    _print_field("here", f"partition {letter.partition}, offset {letter.offset}")
    _print_field("origin", origin)
    _print_field("failed at", _time(letter.failed_at))
    _print_field("attempts", "unknown" if letter.attempts is None else str(letter.attempts))
    _print_field("error", letter.error)
    _print_field("key", _text(letter.key) or "none")
    for name, value in letter.headers:
        _print_field("header", f"{name}: {_text(value)}")
    click.echo("value")
    for line in _value_lines(letter.value):
        click.echo(line)


@dead_letters_group.command("replay")
@_kafka_option
@click.option("--group", required=True, help="The consumer group.")
@click.option("--event-type", "event_types", multiple=True, help="Only events of this type.")
@click.option("--offset", "offsets", type=click.IntRange(0), multiple=True, help="Only this one.")
@click.option("--limit", type=click.IntRange(1), help="At most so many.")
@click.option("--all", "everything", is_flag=True, help="All that there are.")
@click.option("--again", is_flag=True, help="Also those that were sent back before.")
def replay_dead_letters(
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
    _connect(brokers)
    selection = Selection(frozenset(event_types), frozenset(offsets), limit)

    def show(replayed: Replayed) -> None:
        click.echo(f"{replayed.sent} sent back ...", err=True)

    with stop_signals() as stop:
        done = _do(
            lambda: redrive.replay(
                brokers, group, selection, again=again, on_progress=show, stopping=stop.is_set
            )
        )
        click.echo(f"{done.sent} sent back, {done.sent_before} passed over (sent back before)")
        if done.without_origin:
            click.echo(f"{done.without_origin} left: they do not say where they came from")
        if stop.is_set():
            click.echo("interrupted: what was sent back is noted; call it again for the rest")
            sys.exit(EXIT_INTERRUPTED)


class _CommandSettings(ServiceSettings):
    """Kafka and the database as the services are told of them; no server is started."""

    port: int = 0
    kafka_client_id: str = "order-services-command"


def _database_url(
    _context: click.Context, _parameter: click.Parameter, value: str | None
) -> URL | None:
    if value is None:
        return None
    try:
        url = make_url(value)
    except (ArgumentError, ValueError) as error:  # ValueError: a port that is no number
        # the error's own text repeats the URL, and with it the password
        raise click.BadParameter("say postgresql://USER:PASSWORD@HOST:PORT/NAME") from error
    if not url.drivername.startswith("postgres") or not url.host or not url.database:
        raise click.BadParameter("say postgresql://USER:PASSWORD@HOST:PORT/NAME")
    return url


_database_option = click.option(
    "--database",
    callback=_database_url,
    metavar="URL",
    help="The services' PostgreSQL; else DB_HOST, DB_PORT, DB_NAME, DB_USER and DB_PASSWORD.",
)


@contextmanager
def _database(settings: ServiceSettings, *, migrated: bool = True) -> Iterator[Database]:
    """Open the services' database; what goes wrong with it ends the command in one line."""
    store = Database(settings)
    try:
        if migrated:
            with store.begin() as connection:
                schema.check(connection)
        yield store
    except schema.SchemaError as error:
        _fail(str(error))
    except SQLAlchemyError as error:
        # the driver's text names host and user
        _fail(f"the services' database cannot be used ({type(error).__name__})")
    finally:
        store.close()


@click.group("refused")
def refused_group() -> None:
    """Show messages that Kafka refused for good, and publish them again."""


@refused_group.command("list")
@_database_option
@_output_option
def list_refused(database: URL | None, output: str) -> None:
    """Count the refused messages of each service, by topic and reason."""
    with _database(_settings(database)) as store, store.begin() as connection:
        heaps = refused.heaps(connection)
    if output == "json":
        _print_json([asdict(heap) for heap in heaps])
        return
    if not heaps:
        click.echo("none")
    for heap in heaps:
        click.echo(f"{heap.slice}: {heap.count} for {heap.topic}, {heap.reason}")
        click.echo(f"    oldest {_time(heap.oldest)}, newest {_time(heap.newest)}")


@refused_group.command("show")
@_database_option
@_output_option
@click.argument("message_id", metavar="ID", type=click.IntRange(0))
def show_refused(database: URL | None, output: str, message_id: int) -> None:
    """Show the refused message ID."""
    with _database(_settings(database)) as store, store.begin() as connection:
        found = refused.find(connection, message_id)
    if found is None:
        _fail(f"there is no refused message {message_id}")
    if output == "json":
        _print_json(
            {
                **asdict(found),
                "key": _text(found.key),
                "value": _text(found.value),
                "headers": [[name, _text(value)] for name, value in found.headers],
            }
        )
        return
    _print_field("service", found.slice)
    _print_field("topic", found.topic)
    _print_field("written at", _time(found.created_at))
    _print_field("refused at", _time(found.refused_at))
    _print_field("reason", found.reason)
    _print_field("key", _text(found.key) or "none")
    for name, value in found.headers:
        _print_field("header", f"{name}: {_text(value)}")
    click.echo("value")
    for line in _value_lines(found.value):
        click.echo(line)


@refused_group.command("retry")
@_database_option
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
    with _database(_settings(database)) as store, store.begin() as connection:
        count = refused.retry(connection, slice_=service, ids=ids, limit=limit)
    click.echo(f"{count} put back into the outbox")


@click.command("replay")
@_kafka_option
@_database_option
@click.option(
    "--days",
    type=click.IntRange(replay.MIN_DAYS, replay.MAX_DAYS),
    required=True,
    help="How many days (UTC), today included.",
)
@click.option(
    "--rate",
    type=click.IntRange(replay.MIN_EVENTS_PER_SECOND, 1_000_000),
    default=replay.DEFAULT_EVENTS_PER_SECOND,
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
def replay_command(
    *, brokers: str, database: URL | None, days: int, rate: int, wait_seconds: float
) -> None:
    """Publish the last days' events again; analytics counts those that it lacks."""
    _connect(brokers)
    settings = _settings(database).model_copy(update={"kafka_brokers": brokers})
    with _database(settings) as store, stop_signals() as stop:
        try:
            _replay(settings, store, stop, days=days, rate=rate, wait_seconds=wait_seconds)
        except ReplayError as error:
            if stop.is_set():
                click.echo(
                    "interrupted: analytics counts what was published; call it again", err=True
                )
                sys.exit(EXIT_INTERRUPTED)
            _fail(str(error))


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
    click.echo(f"replay {begun.replay_id} of everything since {_time(begun.since)}")
    publisher = replay.Publisher(
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


@click.command("migrate")
@_database_option
@click.option("--finish", is_flag=True, help="Drop what only services of the last release use.")
@click.option("--grant", "role", metavar="ROLE", help="Give a role the rights of a service.")
def migrate_command(*, database: URL | None, finish: bool, role: str | None) -> None:
    """Bring the database's schema to what this release needs.

    Services go on meanwhile. Say --finish when none of the release before is left. It wants
    PostgreSQL itself, not PgBouncer, and the role that owns the tables.
    """
    settings = _settings(database)
    if database is None and settings.db_via_pgbouncer:
        _fail("migrate needs PostgreSQL itself: say --database, or unset DB_VIA_PGBOUNCER")
    direct = settings.model_copy(update={"db_via_pgbouncer": False})
    with _database(direct, migrated=False) as store:
        try:
            found = schema.migrate(
                store.engine,
                finish=finish,
                grant_to=role,
                progress=lambda text: click.echo(text, err=True),
            )
        except ProgrammingError as error:
            if getattr(error.orig, "pgcode", None) != INSUFFICIENT_PRIVILEGE:
                raise
            _fail("this role may not change the schema: use the one that owns the tables")
    click.echo(f"the schema is {found}")


def _settings(url: URL | None) -> ServiceSettings:
    try:
        settings = load(_CommandSettings)
    except SettingsError as error:
        _fail(str(error))
    if url is None:
        return settings
    changes = {
        "db_host": url.host,
        "db_port": url.port or 5432,
        "db_name": url.database,
        "db_user": url.username or settings.db_user,
        "db_password": SecretStr(url.password or ""),
    }
    return settings.model_copy(update=changes)


def _do(operation: Callable[[], Any]) -> Any:
    try:
        return operation()
    except DeadLetterError as error:
        _fail(str(error))


def _print_json(body: object) -> None:
    click.echo(orjson.dumps(body, option=orjson.OPT_INDENT_2).decode())


def _print_field(name: str, text: str) -> None:
    # what others sent must not move the cursor or colour the terminal
    lines = textwrap.wrap(_printable(text), WIDTH - LABEL_WIDTH) or [""]
    for label, line in zip([name, *[""] * len(lines)], lines, strict=False):
        click.echo(f"{label:<{LABEL_WIDTH}}{line}")


def _value_lines(value: bytes | None) -> Sequence[str]:
    if value is None:
        return ["  none"]
    try:
        text = json.dumps(json.loads(value), indent=2, ensure_ascii=False)
    except ValueError:
        text = _text(value) or ""
    return [
        "  " + part
        for line in text.splitlines() or [""]
        for part in textwrap.wrap(
            _printable(line), WIDTH - 2, drop_whitespace=False, subsequent_indent="      "
        )
        or [""]
    ]


def _text(data: bytes | None) -> str | None:
    return None if data is None else data.decode("utf-8", "backslashreplace")


def _printable(text: str) -> str:
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def _time(moment: datetime | None) -> str:
    return "unknown" if moment is None else moment.strftime("%Y-%m-%d %H:%M:%S UTC")


COMMANDS: Final[dict[str, click.Command]] = {
    "dead-letters": dead_letters_group,
    "migrate": migrate_command,
    "refused": refused_group,
    "replay": replay_command,
}
