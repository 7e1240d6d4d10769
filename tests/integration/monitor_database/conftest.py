"""A PostgreSQL that these tests may restrict and freeze, and a PgBouncer before it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psycopg2
import pytest
from psycopg2.extensions import connection

from order_services.local.postgres import EmbeddedPostgres
from tests.support.pgbouncer import EmbeddedPgBouncer
from tests.support.programs import program
from tests.support.waiting import wait_for

WATCHER_PASSWORD = "wat/ch:er@pass"  # what must be escaped in a URL
ESCAPED = "wat%2Fch%3Aer%40pass"
Connect = Callable[[str], connection]


@pytest.fixture(scope="session")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedPostgres]:
    """PostgreSQL that asks for passwords, with the roles that may and may not look."""
    server = EmbeddedPostgres(
        tmp_path_factory.mktemp("guarded") / "data",
        overrides={"max_connections": "60", "reserved_connections": "4"},
    )
    server.start()
    admin = server.connect("postgres")
    with admin.cursor() as cursor:
        cursor.execute(f"CREATE ROLE watcher LOGIN PASSWORD '{WATCHER_PASSWORD}'")
        cursor.execute("GRANT pg_monitor TO watcher")
        cursor.execute(f"CREATE ROLE ordinary LOGIN PASSWORD '{WATCHER_PASSWORD}'")
        cursor.execute("CREATE DATABASE shop")
        cursor.execute("CREATE TABLE locked (id int)")
        cursor.execute("SHOW hba_file")
        row = cursor.fetchone()
        assert row is not None
        hba = Path(row[0])
        rules = "host all watcher,ordinary 127.0.0.1/32 scram-sha-256\n" + hba.read_text()
        hba.write_text(rules)
        cursor.execute("SELECT pg_reload_conf()")
    admin.close()
    yield server
    server.stop()


@pytest.fixture
def watcher_url(guarded: EmbeddedPostgres) -> str:
    return f"postgresql://watcher:{ESCAPED}@127.0.0.1:{guarded.port}/shop"


@pytest.fixture
def connect(guarded: EmbeddedPostgres) -> Iterator[Connect]:
    """Return a function that connects an application to `shop`; all are closed at the end."""
    opened: list[connection] = []

    def connect_as(application: str) -> connection:
        made: connection = psycopg2.connect(
            host=guarded.host, port=guarded.port, user=guarded.user, dbname="shop",
            application_name=application,
        )  # fmt: skip
        opened.append(made)
        return made

    yield connect_as
    for made in opened:
        made.close()
    # the next test counts connections
    wait_for("end of the test's connections", lambda: _strangers(guarded) == 0)


@pytest.fixture
def start_pgbouncer(
    guarded: EmbeddedPostgres, tmp_path: Path
) -> Iterator[Callable[..., EmbeddedPgBouncer]]:
    """Return a function that starts a PgBouncer with a pool size."""
    program("pgbouncer", "pgbouncer")
    started: list[EmbeddedPgBouncer] = []

    def start(default_pool_size: int = 20) -> EmbeddedPgBouncer:
        bouncer = EmbeddedPgBouncer(
            tmp_path / "pgbouncer", guarded.port, default_pool_size=default_pool_size
        )
        started.append(bouncer)
        bouncer.start()
        return bouncer

    yield start
    for bouncer in started:
        bouncer.stop()


@contextmanager
def frozen(server: EmbeddedPostgres) -> Iterator[None]:
    """Have the server answer nobody inside the block."""
    _until_it_reached_all(server.pause)
    try:
        yield
    finally:
        _until_it_reached_all(server.resume)


def _until_it_reached_all(signal_all: Callable[[], None]) -> None:
    # a backend may end between being listed and getting the signal: the others still need it
    while True:
        with suppress(ProcessLookupError):
            signal_all()
            return


def _strangers(server: EmbeddedPostgres) -> int:
    admin = server.connect("postgres")
    try:
        with admin.cursor() as cursor:
            cursor.execute(
                "SELECT count(*) FROM pg_stat_activity WHERE datname = 'shop' AND usename = 'postgres'"
            )
            row = cursor.fetchone()
            assert row is not None
            return int(row[0])
    finally:
        admin.close()
