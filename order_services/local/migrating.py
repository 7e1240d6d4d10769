"""Brings the schema up in the database that the services of a run use."""

from __future__ import annotations

from collections.abc import Callable

from pydantic import SecretStr, ValidationError
from sqlalchemy.exc import SQLAlchemyError

from order_services.local.plan import DatabaseAddress
from order_services.local.process import StartError
from order_services.process.settings import ServiceSettings, problems
from order_services.storage import schema
from order_services.storage.database import Database


def migrate(address: DatabaseAddress, progress: Callable[[str], None] = lambda _: None) -> None:
    """Bring it up to what a run that has nothing of an older release needs; raises `StartError`."""
    try:
        settings = ServiceSettings(
            port=0,
            kafka_client_id="order-services-up",
            db_host=address.host,
            db_port=address.port,
            db_name=address.name,
            db_user=address.user,
            db_password=SecretStr(address.password),
            db_via_pgbouncer=False,
        )
    except ValidationError as error:
        raise StartError(problems(error)) from None
    database = Database(settings)
    try:
        schema.migrate(database.engine, finish=True, progress=progress)
    except SQLAlchemyError as error:
        # the driver's text names host and user
        raise StartError(
            f"the schema of {address.name} cannot be brought up ({type(error).__name__}): "
            "see `order-services migrate`"
        ) from error
    finally:
        database.close()
