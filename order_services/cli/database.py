"""How commands are told where the services' PostgreSQL is, and reach it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import click
from pydantic import SecretStr
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, SQLAlchemyError

from order_services.cli.failing import fail
from order_services.process.settings import ServiceSettings, SettingsError, load
from order_services.storage import schema
from order_services.storage.database import Database

DEFAULT_PORT: Final = 5432


class _CommandSettings(ServiceSettings):
    """Kafka and the database as the services are told of them; no server is started."""

    port: int = 0
    kafka_client_id: str = "order-services-command"


def database_url(
    _context: click.Context, _parameter: click.Parameter, value: str | None
) -> URL | None:
    """Check an option's `postgresql://USER:PASSWORD@HOST:PORT/NAME`; for click."""
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


database_option = click.option(
    "--database",
    callback=database_url,
    metavar="URL",
    help="The services' PostgreSQL; else DB_HOST, DB_PORT, DB_NAME, DB_USER and DB_PASSWORD.",
)


@contextmanager
def open_database(settings: ServiceSettings, *, migrated: bool = True) -> Iterator[Database]:
    """Open the services' database; what goes wrong with it ends the command in one line."""
    store = Database(settings)
    try:
        if migrated:
            with store.begin() as connection:
                schema.check(connection)
        yield store
    except schema.SchemaError as error:
        fail(str(error))
    except SQLAlchemyError as error:
        # the driver's text names host and user
        fail(f"the services' database cannot be used ({type(error).__name__})")
    finally:
        store.close()


def settings_with(url: URL | None) -> ServiceSettings:
    """Return the settings of the environment, with the database of `url` where there is one."""
    try:
        settings = load(_CommandSettings)
    except SettingsError as error:
        fail(str(error))
    if url is None:
        return settings
    changes = {
        "db_host": url.host,
        "db_port": url.port or DEFAULT_PORT,
        "db_name": url.database,
        "db_user": url.username or settings.db_user,
        "db_password": SecretStr(url.password or ""),
    }
    return settings.model_copy(update=changes)
