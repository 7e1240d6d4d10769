"""The schema's version: `migrate` brings it up, services only compare it with what they need.

A migration keeps what the release before it needs, so services of both may run while they are
replaced one by one; `finish` drops that once none is left.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from psycopg2 import errorcodes
from sqlalchemy import Connection, Engine, func, inspect, select, text
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.exc import DBAPIError, ProgrammingError

from order_services.domain.catalogue import PRODUCTS
from order_services.storage.database import is_transient
from order_services.storage.rings import RINGS
from order_services.storage.tables import inventory, metadata

# What this release's services need, and what `finish` leaves.
NEEDED: Final = "0003"
FINISHED: Final = "0004"
# Any number will do: of two that migrate, the second waits and finds all done.
_LOCK: Final = 0x6F72_6465_7273
# A change of a table waits for those who use it, and whoever comes later waits behind it: so it gives
# up soon, lets them pass, and tries again.
_LOCK_TIMEOUT_SECONDS: Final = 3
_TRIES: Final = 20
_RETRY_SECONDS: Final = 1.0

_ROLE: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_$-]{0,62}")


class SchemaError(Exception):
    """The schema cannot be brought up, or is not what this release needs; the text says what to do."""


def version(connection: Connection) -> str | None:
    """Return the schema's version; None where nothing was migrated yet.

    Raises `SchemaError` for a role that has no right to read it.
    """
    try:
        with connection.begin_nested():
            return connection.execute(text("SELECT version_num FROM alembic_version")).scalar()
    except ProgrammingError as error:
        code = getattr(error.orig, "pgcode", None)
        if code == errorcodes.INSUFFICIENT_PRIVILEGE:
            raise SchemaError(
                "this role may not read the schema's version: "
                "run `order-services migrate --grant` with its name"
            ) from error
        if code != errorcodes.UNDEFINED_TABLE:
            raise
        return None


def check(connection: Connection) -> None:
    """Raise `SchemaError` unless the schema is what this release's services need."""
    found = version(connection)
    if found is not None and found >= NEEDED:
        # a later one keeps what this release needs
        return
    state = "has no schema" if found is None else f"has the schema {found}"
    raise SchemaError(
        f"the database {state}, this release needs {NEEDED}: run `order-services migrate`"
    )


def migrate(
    engine: Engine,
    *,
    finish: bool = False,
    grant_to: str | None = None,
    progress: Callable[[str], None] = lambda _text: None,
) -> str:
    """Bring the schema up and return its version; changes nothing that is as it should be.

    `finish` also drops what only services of the release before use. `grant_to` is a role that gets
    the rights that services need: they read and write rows, and change no table. Raises `SchemaError`,
    and the database's own errors.
    """
    if grant_to is not None and not _ROLE.fullmatch(grant_to):
        raise SchemaError(f"{grant_to!r} is no name of a role")
    with _alone(engine):
        with engine.connect() as connection:
            is_new = not inspect(connection).has_table("orders")
        target = FINISHED if finish or is_new else NEEDED
        _upgrade(engine, target, progress)
        with engine.begin() as connection:
            _seed(connection)
            if grant_to is not None:
                _grant(connection, grant_to)
            return version(connection) or target


@contextmanager
def _alone(engine: Engine) -> Iterator[None]:
    """Let one process at a time migrate."""
    while True:
        # a transaction of its own, as it is held while others come and go
        with engine.connect() as guard, guard.begin():
            guard.exec_driver_sql("SET LOCAL idle_in_transaction_session_timeout = 0")
            # asked, not waited for: an index that is built concurrently waits for those who wait
            taken = guard.execute(select(func.pg_try_advisory_xact_lock(_LOCK)))
            if taken.scalar_one():
                yield
                return
        time.sleep(_RETRY_SECONDS)


def _upgrade(engine: Engine, target: str, progress: Callable[[str], None]) -> None:
    with engine.connect() as connection:
        before = version(connection)
        connection.rollback()
        if before is not None and before >= target:
            return
        for attempt in range(1, _TRIES + 1):
            try:
                _run_alembic(connection, target)
            except DBAPIError as error:
                connection.rollback()
                if not is_transient(error) or error.connection_invalidated or attempt == _TRIES:
                    raise
                progress("tables are in use; trying again")
                time.sleep(_RETRY_SECONDS)
            else:
                progress(f"schema {before or 'none'} -> {target}")
                return


def _run_alembic(connection: Connection, target: str) -> None:
    # a service that only compares versions need not load it
    from alembic import command  # noqa: PLC0415
    from alembic.config import Config  # noqa: PLC0415

    # for the session: a migration may end its transaction in between
    connection.exec_driver_sql(
        f"SET lock_timeout = '{_LOCK_TIMEOUT_SECONDS}s'; SET statement_timeout = 0;"
        "SET idle_in_transaction_session_timeout = 0"
    )
    connection.commit()
    config = Config()
    config.set_main_option("script_location", "order_services.storage:migrations")
    config.attributes["connection"] = connection
    try:
        command.upgrade(config, target)
        connection.commit()
    finally:
        # the connection goes back to its pool, where nobody expects these
        connection.invalidate()


def _seed(connection: Connection) -> None:
    """Put products on the shelf that are not there yet."""
    rows = [
        {
            "product_id": product.product_id,
            "name": product.name,
            "price_cents": product.price_cents,
            "stocked": product.stock,
        }
        for product in PRODUCTS
    ]
    connection.execute(insert(inventory).values(rows).on_conflict_do_nothing())


def _grant(connection: Connection, role: str) -> None:
    known = connection.execute(text("SELECT FROM pg_roles WHERE rolname = :role"), {"role": role})
    if known.first() is None:
        raise SchemaError(f"there is no role {role}")
    schema = connection.execute(text("SELECT quote_ident(current_schema())")).scalar_one()
    quoted = connection.dialect.identifier_preparer.quote_identifier(role)
    tables = ", ".join([*metadata.tables, "alembic_version"])
    for statement in (
        f"GRANT USAGE ON SCHEMA {schema} TO {quoted}",
        f"GRANT SELECT, INSERT, UPDATE, DELETE ON {tables} TO {quoted}",
        f"GRANT USAGE ON ALL SEQUENCES IN SCHEMA {schema} TO {quoted}",
        *(f"GRANT SELECT, TRUNCATE ON {name} TO {quoted}" for name in _places()),
    ):
        connection.exec_driver_sql(statement)


def _places() -> list[str]:
    return [ring.partition(slot) for ring in RINGS for slot in range(ring.places)]
