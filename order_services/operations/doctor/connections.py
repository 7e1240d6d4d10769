"""How many connections PostgreSQL and PgBouncer give, and how many others use."""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass
from typing import Final

import psycopg2
from sqlalchemy import Connection, text
from sqlalchemy.engine import URL

CONNECT_TIMEOUT_SECONDS: Final = 5
_CONSOLE: Final = "pgbouncer"
_SERVER: Final = text(
    "SELECT current_setting('max_connections')::int"
    " - current_setting('superuser_reserved_connections')::int"
    " - coalesce(current_setting('reserved_connections', true)::int, 0),"
    " (SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend'"
    " AND pid <> pg_backend_pid() AND coalesce(application_name, '') !~ :ours)"
)
# the names that replicas give their connections, and those of commands such as this one
_OURS: Final = "^(gateway|payment|inventory|shipping|analytics)-service|^order-services"


class PoolerError(Exception):
    """PgBouncer's console did not answer; the text says why, without address or password."""


@dataclass(frozen=True, slots=True)
class Server:
    """Connections that PostgreSQL gives to those who are no superuser, and those that others hold."""

    usable: int
    others: int


@dataclass(frozen=True, slots=True)
class Pooler:
    """PgBouncer's limits: clients in all, and server connections of each pool."""

    max_clients: int
    pool_size: int
    mode: str


def server(connection: Connection) -> Server:
    """Ask PostgreSQL, directly or through a pooler; raises SQLAlchemy's errors."""
    usable, others = connection.execute(_SERVER, {"ours": _OURS}).one()
    return Server(int(usable), int(others))


def pooler(url: URL) -> Pooler:
    """Ask PgBouncer's console, whose role may be one of `stats_users`; raises `PoolerError`."""
    try:
        connection = psycopg2.connect(
            host=url.host,
            port=url.port or 6432,
            user=url.username,
            password=url.password,
            dbname=_CONSOLE,
            connect_timeout=CONNECT_TIMEOUT_SECONDS,
        )
        with closing(connection):
            connection.autocommit = True  # the console knows no transactions
            with connection.cursor() as cursor:
                cursor.execute("SHOW CONFIG")
                found = {row[0]: row[1] for row in cursor.fetchall()}
        return Pooler(
            int(found["max_client_conn"]), int(found["default_pool_size"]), found["pool_mode"]
        )
    except (psycopg2.Error, KeyError, ValueError) as error:
        raise PoolerError(type(error).__name__) from error
