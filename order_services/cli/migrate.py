"""`order-services migrate`: the database's schema."""

from __future__ import annotations

import click
from psycopg2.errorcodes import INSUFFICIENT_PRIVILEGE
from sqlalchemy.engine import URL
from sqlalchemy.exc import ProgrammingError

from order_services.cli.database import database_option, open_database, settings_with
from order_services.cli.failing import fail
from order_services.storage import schema


@click.command("migrate")
@database_option
@click.option("--finish", is_flag=True, help="Drop what only services of the last release use.")
@click.option("--grant", "role", metavar="ROLE", help="Give a role the rights of a service.")
def command(*, database: URL | None, finish: bool, role: str | None) -> None:
    """Bring the database's schema to what this release needs.

    Services go on meanwhile. Say --finish when none of the release before is left. It wants
    PostgreSQL itself, not PgBouncer, and the role that owns the tables.
    """
    settings = settings_with(database)
    if database is None and settings.db_via_pgbouncer:
        fail("migrate needs PostgreSQL itself: say --database, or unset DB_VIA_PGBOUNCER")
    direct = settings.model_copy(update={"db_via_pgbouncer": False})
    with open_database(direct, migrated=False) as store:
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
            fail("this role may not change the schema: use the one that owns the tables")
    click.echo(f"the schema is {found}")
