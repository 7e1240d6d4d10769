"""What the PgBouncer container and PostgreSQL's first start run, run here with real servers."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import psutil
import psycopg2
import pytest
from psycopg2 import sql

from order_services.local.ports import LOOPBACK, free_port
from order_services.local.postgres import EmbeddedPostgres
from order_services.local.process import ManagedProcess
from tests.conftest import Database
from tests.support.programs import program
from tests.support.waiting import wait_for
from tests.unit.deploy import compose

ENTRYPOINT = compose.REPOSITORY / "deploy" / "pgbouncer" / "entrypoint.sh"
ROLES = compose.REPOSITORY / "deploy" / "postgres" / "10-roles.sql"
# what an environment may hold and a configuration file must not be broken by
PASSWORD = 'it\'s "100%" #right; = or\\not'


class Pooler:
    """A PgBouncer that was started as its container starts it."""

    def __init__(self, port: int, database: str, services: str, monitor: str) -> None:
        self.port, self.database = port, database
        self.services, self.monitor = services, monitor

    def connect(
        self, user: str, password: str, database: str | None = None
    ) -> psycopg2.extensions.connection:
        connection = psycopg2.connect(
            host=LOOPBACK,
            port=self.port,
            user=user,
            password=password,
            dbname=database or self.database,
            connect_timeout=5,
        )
        connection.autocommit = True  # the console knows no transactions
        return connection


@pytest.fixture
def roles(database: Database, postgres: EmbeddedPostgres) -> Iterator[tuple[str, str]]:
    """Roles of this test, made by the script that the PostgreSQL image runs at its first start."""
    services, monitor = f"orders-{database.name}", f"monitor-{database.name}"
    variables = {
        **compose.environment(compose.services("docker-compose.yml")["postgres"]),
        "POSTGRES_DB": database.name,
        "DB_USER": services,
        "DB_PASSWORD": PASSWORD,
        "MONITOR_DB_USER": monitor,
        "MONITOR_DB_PASSWORD": PASSWORD,
    }
    address = ["-h", database.host, "-p", str(database.port), "-U", database.user]
    assert postgres.process is not None
    psql = Path(postgres.process.command[0]).with_name("psql")
    subprocess.run(
        [str(psql), *address, "-d", database.name, "-q", "-f", str(ROLES)],
        env={"PATH": os.environ["PATH"], **variables},
        check=True,
        timeout=30,
    )
    yield services, monitor
    connection = postgres.connect("postgres")
    with connection.cursor() as cursor:
        for role in (services, monitor):
            name = sql.Identifier(role)
            in_database = postgres.connect(database.name)
            with in_database.cursor() as inner:
                inner.execute(sql.SQL("DROP OWNED BY {} CASCADE").format(name))
            in_database.close()
            cursor.execute(sql.SQL("DROP ROLE {}").format(name))
    connection.close()


def container(
    database: Database,
    pooler: Pooler,
    log_file: Path,
    definition: Mapping[str, Any],
) -> ManagedProcess:
    """Return a PgBouncer as compose's definition starts it; its folder is the working directory."""
    user = None
    if os.geteuid() == 0:  # PgBouncer refuses to run as root
        user = "nobody"
        assert pwd.getpwnam(user)
    folder = Path(tempfile.mkdtemp(prefix="pgbouncer-"))  # tmp_path is closed to other users
    if user:
        shutil.chown(folder, user)
    # as in the image: everybody may read and run it
    entrypoint = str(shutil.copy(ENTRYPOINT, folder / "entrypoint.sh"))
    Path(entrypoint).chmod(0o555)
    return ManagedProcess(
        name="pgbouncer",
        command=[entrypoint],
        log_file=log_file,
        user=user,
        working_directory=folder,
        environment={
            "PATH": "/usr/bin:/bin",
            **compose.environment(definition),
            "DB_HOST": database.host,
            "DB_PORT": str(database.port),
            "DB_NAME": database.name,
            "DB_USER": pooler.services,
            "DB_PASSWORD": PASSWORD,
            "STATS_USER": pooler.monitor,
            "STATS_PASSWORD": PASSWORD,
            "LISTEN_ADDR": LOOPBACK,
            "LISTEN_PORT": str(pooler.port),
            "CONFIG_DIR": str(folder),
            "PGBOUNCER": program("pgbouncer", "pgbouncer"),
        },
    )


def wait_until_it_answers(pooler: Pooler, processes: Sequence[ManagedProcess]) -> None:
    def answers() -> bool:
        for process in processes:
            assert process.running, process.log_tail()
        try:
            pooler.connect(pooler.monitor, PASSWORD, "pgbouncer").close()
        except psycopg2.OperationalError:
            return False
        return True

    wait_for("answer from PgBouncer", answers, timeout_s=60)


@pytest.fixture
def pooler(database: Database, roles: tuple[str, str], tmp_path: Path) -> Iterator[Pooler]:
    pooler = Pooler(free_port(), database.name, *roles)
    definition = compose.services("docker-compose.yml")["pgbouncer"]
    process = container(database, pooler, tmp_path / "pgbouncer.log", definition)
    folder = process.working_directory
    assert folder is not None
    process.start()
    try:
        wait_until_it_answers(pooler, [process])
        yield pooler
        assert (folder / "userlist.txt").stat().st_mode & 0o077 == 0, "passwords for all to read"
        assert PASSWORD not in (tmp_path / "pgbouncer.log").read_text()
    finally:
        process.stop(timeout_s=10)
        shutil.rmtree(folder)


def test_two_share_a_port_and_one_that_is_killed_costs_only_its_own_connections(
    database: Database, roles: tuple[str, str], tmp_path: Path
) -> None:
    pooler = Pooler(free_port(), database.name, *roles)
    definitions = compose.overlaid("docker-compose.yml", compose.TWO_POOLERS)
    processes = [
        container(database, pooler, tmp_path / f"{name}.log", definitions[name])
        for name in ("pgbouncer", "pgbouncer-2")
    ]
    connections = []

    def owners() -> set[int]:
        """Return which processes hold connections of clients."""
        return {
            process.pid
            for process in processes
            if process.running
            and any(
                each.laddr.port == pooler.port and each.status == psutil.CONN_ESTABLISHED
                for each in psutil.Process(process.pid).net_connections("tcp")
            )
        }

    try:
        for process in processes:
            process.start()
        wait_until_it_answers(pooler, processes)

        def both_are_used() -> bool:
            connections.append(pooler.connect(pooler.services, PASSWORD))
            return len(owners()) == 2

        # the kernel chooses by the client's port, at random: a hundred connections at most
        wait_for("connections at both", both_are_used)
        processes[0].kill()
        again = pooler.connect(pooler.services, PASSWORD)
        with again.cursor() as cursor:
            cursor.execute("SELECT current_user")
            assert cursor.fetchone() == (pooler.services,)
        again.close()
    finally:
        for connection in connections:
            connection.close()
        for process in processes:
            process.stop(timeout_s=10)
            shutil.rmtree(process.working_directory or "", ignore_errors=True)


def test_services_reach_their_database_through_it_and_may_create_no_tables(
    pooler: Pooler,
) -> None:
    connection = pooler.connect(pooler.services, PASSWORD)
    with connection.cursor() as cursor:
        cursor.execute("SELECT current_user, current_database()")
        assert cursor.fetchone() == (pooler.services, pooler.database)
        with pytest.raises(psycopg2.errors.InsufficientPrivilege):
            cursor.execute("CREATE TABLE made_through_pgbouncer (id integer)")
    connection.close()


def test_it_runs_with_the_guides_settings(pooler: Pooler) -> None:
    connection = pooler.connect(pooler.monitor, PASSWORD, "pgbouncer")
    with connection.cursor() as cursor:
        cursor.execute("SHOW CONFIG")
        config = {row[0]: row[1] for row in cursor.fetchall()}
        cursor.execute("SHOW POOLS")
    connection.close()
    assert config["pool_mode"] == "transaction"
    assert config["max_client_conn"] == "1000"
    assert config["default_pool_size"] == "20"
    assert config["auth_type"] == "scram-sha-256"


def test_a_wrong_password_is_refused_and_services_cannot_command_it(pooler: Pooler) -> None:
    with pytest.raises(psycopg2.OperationalError, match=r"password authentication failed|SASL"):
        pooler.connect(pooler.services, "wrong")
    with pytest.raises(psycopg2.OperationalError, match="not allowed"):
        pooler.connect(pooler.services, PASSWORD, "pgbouncer")


def test_neither_role_is_a_superuser_and_the_monitor_sees_what_others_do(
    roles: tuple[str, str], postgres: EmbeddedPostgres, database: Database
) -> None:
    services, monitor = roles
    connection = postgres.connect(database.name)
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT rolname, rolsuper, pg_has_role(oid, 'pg_monitor', 'member') FROM pg_roles"
            " WHERE rolname IN %s ORDER BY rolname",
            (roles,),
        )
        assert cursor.fetchall() == [(monitor, False, True), (services, False, False)]
        cursor.execute("SELECT has_schema_privilege(%s, 'public', 'CREATE')", (monitor,))
        assert cursor.fetchone() == (False,)
    connection.close()


@pytest.mark.parametrize("missing", ["DB_HOST", "DB_PASSWORD", "STATS_PASSWORD"])
def test_a_missing_setting_is_named(missing: str, tmp_path: Path) -> None:
    variables = compose.environment(compose.services("docker-compose.yml")["pgbouncer"])
    done = subprocess.run(
        [str(ENTRYPOINT)],
        env={"PATH": "/usr/bin:/bin", **variables, "CONFIG_DIR": str(tmp_path), missing: ""},
        capture_output=True,
        text=True,
        check=False,
        timeout=10,
    )
    assert done.returncode == 2
    assert missing in done.stderr
    assert not list(tmp_path.iterdir())


def test_a_value_cannot_add_settings_of_its_own(tmp_path: Path) -> None:
    variables = compose.environment(compose.services("docker-compose.yml")["pgbouncer"])
    done = subprocess.run(
        [str(ENTRYPOINT)],
        env={
            "PATH": "/usr/bin:/bin",
            **variables,
            "CONFIG_DIR": str(tmp_path),
            "DB_PASSWORD": "x\n[pgbouncer]\nauth_type = any",
        },
        capture_output=True,
        text=True,
        check=False,
        timeout=10,
    )
    assert done.returncode == 2
    assert "line break" in done.stderr
    assert not list(tmp_path.iterdir())
