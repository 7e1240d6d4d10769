"""The schema comes and changes by `order-services migrate`, with data in it and services at work."""

from __future__ import annotations

import random
import shutil
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from importlib.resources import files
from pathlib import Path
from typing import Any, Self

import httpx
import psycopg2
import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from click.testing import CliRunner, Result
from sqlalchemy import text
from sqlalchemy.exc import OperationalError, ProgrammingError

from order_services.analytics import counting
from order_services.cli import cli
from order_services.domain.catalogue import PRODUCTS
from order_services.domain.events import new_id
from order_services.local.ports import free_port
from order_services.local.postgres import EmbeddedPostgres
from order_services.operations import topic_admin
from order_services.operations.recount import recount
from order_services.payment.service import build
from order_services.payment.settings import PaymentSettings
from order_services.process.settings import ServiceSettings
from order_services.service.run import run_until
from order_services.storage import rings, schema, tables
from order_services.storage.database import Database, is_transient
from tests.integration.order_services.conftest import Lab, order_created
from tests.support.waiting import wait_for

# What the first release's analytics and gateway ran, word for word where it matters here.
OLD_INBOX = """
    INSERT INTO inbox (event_time, event_id, consumer_group)
    VALUES (%s, %s, 'analytics-service-group') ON CONFLICT DO NOTHING RETURNING event_id
"""
OLD_READS_REPLAYS = "SELECT replay_id::text, since FROM replays WHERE state = 'published'"
OLD_COUNT = """
    INSERT INTO analytics_daily (day, event_type, events, amount_cents)
    VALUES ((%s::timestamptz AT TIME ZONE 'UTC')::date, 'ORDER_CREATED', 1, %s)
    ON CONFLICT (day, event_type) DO UPDATE SET events = analytics_daily.events + 1,
        amount_cents = analytics_daily.amount_cents + excluded.amount_cents
"""
OLD_ORDER = """
    WITH one AS (
        INSERT INTO orders (order_id, customer_id, items, total_cents, currency, correlation_id)
        VALUES (%(id)s, %(customer)s, '[]', %(cents)s, 'EUR', 'c'))
    INSERT INTO order_events
        (order_id, event_id, event_type, event_time, source, correlation_id, payload)
    VALUES (%(id)s, %(event)s, 'ORDER_CREATED', %(at)s, 'gateway', 'c',
            jsonb_build_object('totalCents', %(cents)s::int))
"""
OLD_KEY = """
    INSERT INTO idempotency_keys (idempotency_key, request_digest, order_id) VALUES (%s, '\\x00', %s)
    ON CONFLICT (idempotency_key) DO UPDATE SET order_id = excluded.order_id WHERE false
"""


@pytest.fixture
def empty(postgres: EmbeddedPostgres, unique: Callable[[str], str]) -> Iterator[ServiceSettings]:
    """Yield settings of a database that has nothing."""
    name = unique("empty").replace("-", "_")
    postgres.create_database(name)
    yield settings_of(postgres, name)
    postgres.drop_database(name)


def settings_of(postgres: EmbeddedPostgres, name: str, **changes: Any) -> ServiceSettings:
    return ServiceSettings(
        port=0, kafka_client_id="migrations", db_port=postgres.port, db_name=name, **changes
    )


@contextmanager
def opened(settings: ServiceSettings) -> Iterator[Database]:
    database = Database(settings)
    try:
        yield database
    finally:
        database.close()


def first_release(database: Database) -> None:
    """Make the schema as the first release left it: its tables and its inbox's days."""
    script = files("order_services.storage.migrations.versions").joinpath("first_release.sql")
    today = datetime.now(UTC).date()
    with database.begin() as connection:
        connection.exec_driver_sql(script.read_text())
        for day in (today + timedelta(days=n) for n in range(-14, 8)):
            connection.exec_driver_sql(
                f"CREATE TABLE inbox_{day:%Y%m%d} PARTITION OF inbox FOR VALUES "
                f"FROM ('{day} 00:00+00') TO ('{day + timedelta(days=1)} 00:00+00')"
            )


def migrate_command(settings: ServiceSettings, *options: str, user: str = "postgres") -> Result:
    url = f"postgresql://{user}:x@127.0.0.1:{settings.db_port}/{settings.db_name}"
    return CliRunner().invoke(cli, ["migrate", "--database", url, *options])


def test_the_migrations_end_at_what_the_tables_declare(empty: ServiceSettings) -> None:
    with opened(empty) as database:
        assert schema.migrate(database.engine) == schema.FINISHED
        with database.begin() as connection:
            context = MigrationContext.configure(connection)
            found = compare_metadata(context, tables.metadata)
            checks = connection.execute(
                text("SELECT conname FROM pg_constraint WHERE contype = 'c' ORDER BY 1")
            )
            names = set(checks.scalars())
    places = {ring.partition(slot) for ring in rings.RINGS for slot in range(ring.places)}
    differences = [d for d in found if getattr(d[1], "name", None) not in places]
    assert [d for d in differences if d[1].name != "alembic_version"] == []
    declared = {
        constraint.name
        for table in tables.metadata.tables.values()
        for constraint in table.constraints
        if type(constraint).__name__ == "CheckConstraint"
    }
    assert declared <= names


def test_the_versions_that_services_ask_for_are_those_of_the_scripts() -> None:
    scripts = ScriptDirectory("order_services/storage/migrations")
    assert scripts.get_current_head() == schema.FINISHED
    assert scripts.get_revision(schema.NEEDED) is not None


def test_many_migrate_at_once_and_the_stock_is_put_on_the_shelf_once(
    empty: ServiceSettings,
) -> None:
    with opened(empty) as database:
        with ThreadPoolExecutor(2) as threads:
            found = list(threads.map(schema.migrate, [database.engine] * 2))
        assert found == [schema.FINISHED] * 2
        with database.begin() as connection:
            connection.execute(text("UPDATE inventory SET taken = 5 WHERE product_id = 'PROD-001'"))
        schema.migrate(database.engine)
        with database.begin() as connection:
            rows = connection.execute(text("SELECT product_id, taken FROM inventory")).all()
    assert {row[0] for row in rows} == {product.product_id for product in PRODUCTS}
    assert dict(tuple(row) for row in rows)["PROD-001"] == 5


class OldServices:
    """A gateway and an analytics of the first release: they accept orders and count them."""

    def __init__(self, settings: ServiceSettings) -> None:
        self._settings = settings
        self._stop = threading.Event()
        self.accepted: list[dict[str, Any]] = []
        self.counted: list[str] = []
        self.refused_keys = 0
        self.analytics_stopped = False
        self.surprises: list[BaseException] = []
        self._threads = [
            threading.Thread(target=self._accept),
            threading.Thread(target=self._count),
        ]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(30)

    def _connect(self) -> Any:
        return psycopg2.connect(
            host="127.0.0.1",
            port=self._settings.db_port,
            dbname=self._settings.db_name,
            user="postgres",
            options="-c lock_timeout=10s -c statement_timeout=30s",
        )

    def _accept(self) -> None:
        connection = self._connect()
        while not self._stop.is_set():
            at = datetime.now(UTC) - timedelta(days=random.choice((0, 0, 1, 3)))
            order = {"id": new_id(), "event": new_id(), "cents": random.randint(1, 999)}
            order |= {"customer": f"c-{random.randint(1, 9)}", "at": at}
            keyed = random.random() < 0.3
            try:
                with connection, connection.cursor() as cursor:
                    if keyed:
                        cursor.execute(OLD_KEY, (order["id"], order["id"]))
                    cursor.execute(OLD_ORDER, order)
            except psycopg2.errors.InvalidColumnReference:
                # no such key any more: refused, and nothing of the order is written
                assert keyed
                self.refused_keys += 1
            except BaseException as error:  # noqa: BLE001  # the test looks at all of them
                self.surprises.append(error)
                return
            else:
                self.accepted.append(order | {"keyed": keyed})
            time.sleep(0.002)
        connection.close()

    def _count(self) -> None:
        connection = self._connect()
        done = 0
        while not self._stop.is_set():
            batch = self.accepted[done : done + 10]
            try:
                with connection, connection.cursor() as cursor:
                    new = []
                    for order in batch:
                        cursor.execute(OLD_INBOX, (order["at"], order["event"]))
                        new += [order] if cursor.fetchone() else []
                    cursor.execute(OLD_READS_REPLAYS)
                    for order in new:
                        cursor.execute(OLD_COUNT, (order["at"], order["cents"]))
            except psycopg2.Error as error:
                wrapped = OperationalError("statement", None, error)
                # what it takes for passing, it tries again for ever: nothing is set aside
                if not is_transient(wrapped):
                    self.surprises.append(error)
                    return
                self.analytics_stopped = "replace it" in str(error)
                time.sleep(0.05)
                continue
            self.counted += [order["event"] for order in new]
            done += len(batch)
            time.sleep(0.005)
        connection.close()


def test_the_first_release_goes_on_while_its_database_is_migrated_and_nothing_is_lost(
    empty: ServiceSettings,
) -> None:
    with opened(empty) as database:
        first_release(database)
        with database.begin() as connection:
            # counted before the old inbox's days: to stay as it is
            connection.exec_driver_sql(
                "INSERT INTO analytics_daily VALUES (current_date - 40, 'ORDER_CREATED', 7, 700)"
            )
        with OldServices(empty) as old:
            wait_for("orders", lambda: len(old.accepted) > 200 and len(old.counted) > 100)
            answer = migrate_command(empty)
            assert (answer.exit_code, answer.stdout) == (0, f"the schema is {schema.NEEDED}\n")
            wait_for("the old analytics to wait", lambda: old.analytics_stopped)
            at_migration = len(old.accepted)
            wait_for("orders after it", lambda: len(old.accepted) > at_migration + 100)
        assert old.surprises == []
        assert old.refused_keys > 0

        def number(statement: str) -> int:
            with database.begin() as connection:
                return int(connection.execute(text(statement)).scalar_one())

        assert number("SELECT count(*) FROM orders") == len(old.accepted)
        assert number("SELECT count(*) FROM analytics_events") == len(old.counted)
        assert len(old.counted) < len(old.accepted)
        keyed = sum(order["keyed"] for order in old.accepted)
        matching = (
            """SELECT count(*) FROM idempotency_keys JOIN orders USING (order_id, customer_id)"""
        )
        assert number(matching) == keyed
        # the new analytics reads all of it again: it adds what the old one had not counted
        events = []
        for order in old.accepted:
            event = order_created(order["id"], totalCents=order["cents"])
            event.event_id, event.timestamp = order["event"], order["at"]
            events.append(event)
        for n in range(0, len(events), 100):
            with database.begin() as connection:
                counting.count(events[n : n + 100], connection)
        cents = sum(order["cents"] for order in old.accepted)
        totals = "SELECT sum(events), sum(amount_cents) FROM analytics_daily"
        for again in (False, True):
            with database.begin() as connection:
                if again:
                    recount(connection, datetime.now(UTC) - timedelta(days=60))
                found = connection.execute(text(totals)).one()
            assert tuple(found) == (len(old.accepted) + 7, cents + 700)
        # none of the first release is left
        answer = migrate_command(empty, "--finish")
        assert answer.stdout == f"the schema is {schema.FINISHED}\n"
        assert (
            number(
                "SELECT count(*) FROM pg_tables WHERE tablename ~ '^inbox(_default|_[0-9]{8})?$'"
            )
            == 0
        )


def test_a_day_of_which_the_first_release_noted_no_types_is_not_recounted(
    empty: ServiceSettings,
) -> None:
    """The gateway was behind: the inbox knew the event, and the history did not yet."""
    with opened(empty) as database:
        first_release(database)
        with database.begin() as connection:
            connection.exec_driver_sql(OLD_INBOX, (datetime.now(UTC), new_id()))
            connection.exec_driver_sql(OLD_COUNT, (datetime.now(UTC), 5))
        schema.migrate(database.engine)
        with database.begin() as connection:
            recount(connection, datetime.now(UTC) - timedelta(days=1))
            found = connection.execute(text("SELECT events, amount_cents FROM analytics_daily"))
            assert [tuple(row) for row in found] == [(1, 5)]


def test_a_long_transaction_holds_up_the_migration_and_not_the_orders(
    empty: ServiceSettings,
) -> None:
    with opened(empty) as database:
        first_release(database)
        with OldServices(empty) as old, database.engine.connect() as reader:
            # as a report does that somebody has forgotten to close
            reader.exec_driver_sql("SELECT count(*) FROM idempotency_keys")
            said: list[str] = []
            thread = threading.Thread(
                target=schema.migrate, args=(database.engine,), kwargs={"progress": said.append}
            )
            thread.start()
            wait_for("a second try", lambda: "tables are in use; trying again" in said)
            before = len(old.accepted)
            wait_for("orders meanwhile", lambda: len(old.accepted) > before + 20)
            reader.rollback()
            thread.join(60)
            assert said[-1] == f"schema none -> {schema.NEEDED}"
        assert old.surprises == []


@pytest.fixture
def worker(postgres: EmbeddedPostgres, unique: Callable[[str], str]) -> Iterator[str]:
    """Yield a role that may log in and has no rights."""
    role = unique("worker").replace("-", "_")
    connection = postgres.connect("postgres")
    with connection.cursor() as cursor:
        cursor.execute(f"CREATE ROLE {role} LOGIN")
        yield role
        cursor.execute(f"DROP ROLE {role}")
    connection.close()


@pytest.fixture
def guarded(empty: ServiceSettings, worker: str) -> Iterator[ServiceSettings]:
    """Yield settings of the role that services have, of a database that `migrate` made for it."""
    answer = migrate_command(empty, "--grant", worker)
    assert answer.exit_code == 0, answer.output
    yield empty.model_copy(update={"db_user": worker})
    with opened(empty) as database, database.begin() as connection:
        connection.exec_driver_sql(f"DROP OWNED BY {worker}")


def test_services_need_no_rights_to_change_the_schema(
    lab: Lab, guarded: ServiceSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    with opened(guarded) as database:
        with database.begin() as connection:
            schema.check(connection)
        with pytest.raises(ProgrammingError, match="permission denied"), database.begin() as c:
            c.exec_driver_sql("CREATE TABLE mine (n int)")
        with pytest.raises(ProgrammingError, match="must be owner"), database.begin() as c:
            c.exec_driver_sql("ALTER TABLE orders ADD COLUMN mine int")
        # maintenance is among what they may do
        monkeypatch.setattr(counting, "CLOSED_FOR_SECONDS", 0)
        with database.begin() as connection:
            counting.count([order_created()], connection)
            assert counting.archive(connection, 90) == []
            recount(connection, datetime.now(UTC))
    refused = migrate_command(guarded, user=guarded.db_user)
    assert refused.exit_code == 0  # there is nothing to change


def test_a_role_that_may_not_migrate_is_told_so(empty: ServiceSettings, worker: str) -> None:
    answer = migrate_command(empty, user=worker)
    assert answer.exit_code == 2
    assert "this role may not change the schema" in answer.output
    assert answer.output.count("\n") == 1


def test_a_role_without_rights_is_told_what_gives_them(empty: ServiceSettings, worker: str) -> None:
    with opened(empty) as database:
        schema.migrate(database.engine)
    stranger = empty.model_copy(update={"db_user": worker})
    with (
        opened(stranger) as database,
        database.begin() as connection,
        pytest.raises(schema.SchemaError, match="migrate --grant"),
    ):
        schema.check(connection)


def test_a_command_on_a_database_without_the_schema_says_what_to_run(
    empty: ServiceSettings,
) -> None:
    url = f"postgresql://postgres:x@127.0.0.1:{empty.db_port}/{empty.db_name}"
    answer = CliRunner().invoke(cli, ["refused", "list", "--database", url])
    assert answer.exit_code == 2
    assert answer.output == (
        "order-services: the database has no schema, this release needs 0003: "
        "run `order-services migrate`\n"
    )


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (["--grant", "no; such"], "is no name of a role"),
        (["--grant", "nobody_here"], "there is no role nobody_here"),
    ],
)
def test_a_grant_to_nobody_is_refused(
    empty: ServiceSettings, options: list[str], reason: str
) -> None:
    answer = migrate_command(empty, *options)
    assert answer.exit_code == 2
    assert reason in answer.output


def test_migrating_through_a_pooler_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DB_VIA_PGBOUNCER", "true")
    answer = CliRunner().invoke(cli, ["migrate"])
    assert answer.exit_code == 2
    assert "migrate needs PostgreSQL itself" in answer.output


def test_a_service_waits_for_its_schema_and_says_what_to_run(
    lab: Lab, guarded: ServiceSettings, empty: ServiceSettings
) -> None:
    with opened(empty) as database, database.begin() as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = '0001'")
    settings = PaymentSettings(
        **guarded.model_dump(exclude={"port", "kafka_client_id", "kafka_brokers"}),
        kafka_brokers=lab.kafka.bootstrap_servers,
        port=free_port(),
    )
    topic_admin.create(topic_admin.admin_client(lab.kafka.bootstrap_servers))
    stop = threading.Event()
    thread = threading.Thread(target=run_until, args=(stop, build(settings)))
    thread.start()
    url = f"http://127.0.0.1:{settings.port}/ready"

    def readiness() -> str:
        try:
            return httpx.get(url, timeout=5).text
        except httpx.HTTPError:
            return ""

    try:
        wait_for("the reason", lambda: "order-services migrate" in readiness())
        told = readiness()
        assert "the database has the schema 0001, this release needs 0003" in told
        with opened(empty) as database, database.begin() as connection:
            connection.exec_driver_sql("UPDATE alembic_version SET version_num = '9999'")
        # a later one keeps what this release needs
        wait_for("readiness", lambda: httpx.get(url, timeout=5).is_success)
    finally:
        stop.set()
        thread.join(30)


def test_the_wheel_brings_the_migrations(repository: Path, tmp_path: Path) -> None:
    source = tmp_path / "source"  # building leaves its own folders behind
    for name in ("order_services", "monitor"):
        shutil.copytree(repository / name, source / name)
    for name in ("pyproject.toml", "README.md"):
        shutil.copy(repository / name, source)
    subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation",
         "--wheel-dir", str(tmp_path), str(source)],
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    [wheel] = tmp_path.glob("*.whl")
    wanted = {
        str(path.relative_to(repository))
        for path in (repository / "order_services/storage/migrations").rglob("*")
        if path.suffix in (".py", ".sql")
    }
    assert len(wanted) >= 8
    assert wanted <= set(zipfile.ZipFile(wheel).namelist())
