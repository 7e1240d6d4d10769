"""What the monitor says of a real PostgreSQL is what the test did to it."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

import psycopg2
import pytest
from psycopg2.extensions import connection

from monitor.configuration import read_configuration
from monitor.pools.address import Address
from monitor.pools.analysis import analyse
from monitor.pools.collector import GRACE_SECONDS, DatabaseCollector
from monitor.pools.failures import NO_ANSWER, AskError
from monitor.pools.metrics import PG_ACTIVITY, PG_BLOCKED, PG_MAX_CONNECTIONS, PG_UP, samples
from monitor.pools.model import IDLE, IDLE_IN_TRANSACTION, Postgres, Reading
from monitor.pools.session import Session
from monitor.pools.settings import DatabaseSettings
from order_services.local.ports import free_port
from order_services.local.postgres import EmbeddedPostgres
from tests.integration.monitor_database.conftest import ESCAPED, WATCHER_PASSWORD, frozen
from tests.support.waiting import wait_for

Connect = Callable[[str], connection]
SLACK_SECONDS = 3.0  # a busy machine's


@contextmanager
def collecting(**settings: object) -> Iterator[DatabaseCollector]:
    collector = DatabaseCollector(read_configuration(**settings).databases)
    yield collector
    collector.close()


def look(collector: DatabaseCollector) -> Reading[Postgres]:
    reading = collector.collect().postgres
    assert reading is not None
    return reading


def figures(collector: DatabaseCollector) -> Postgres:
    reading = look(collector)
    assert reading.value is not None, reading.error
    return reading.value


def answered(collector: DatabaseCollector) -> bool:
    return look(collector).value is not None


def count(postgres: Postgres, application: str, state: str | None) -> int:
    return sum(
        row.connections
        for row in postgres.activity
        if (row.application, row.state) == (application, state)
    )


def test_open_connections_are_counted_by_application_and_state(
    watcher_url: str, connect: Connect
) -> None:
    for _ in range(3):
        connect("payment-service-1").autocommit = True
    in_transaction = connect("payment-service-1")
    in_transaction.cursor().execute("SELECT 1")
    connect("payment-service-2")
    with collecting(database_url=watcher_url) as collector:
        postgres = figures(collector)
    assert count(postgres, "payment-service-1", IDLE) == 3
    assert count(postgres, "payment-service-1", IDLE_IN_TRANSACTION) == 1
    assert count(postgres, "payment-service-2", IDLE) == 1
    assert postgres.sees_all
    assert {row.database for row in postgres.activity} == {"shop"}


def test_the_limits_are_the_servers_own(watcher_url: str, guarded: EmbeddedPostgres) -> None:
    admin = guarded.connect("postgres")
    with admin.cursor() as cursor:
        cursor.execute("ALTER DATABASE shop CONNECTION LIMIT 33")
    try:
        with collecting(database_url=watcher_url) as collector:
            postgres = figures(collector)
    finally:
        with admin.cursor() as cursor:
            cursor.execute("ALTER DATABASE shop CONNECTION LIMIT -1")
        admin.close()
    assert postgres.max_connections == 60
    assert postgres.superuser_reserved_connections == 3
    assert postgres.reserved_connections == 4
    assert postgres.budget == 53
    assert postgres.connection_limits["shop"] == 33
    assert postgres.connection_limits["postgres"] is None


def test_the_longest_transaction_and_idle_in_transaction_grow_while_nobody_commits(
    watcher_url: str, connect: Connect
) -> None:
    connect("shipping-service-1").cursor().execute("SELECT 1")
    with collecting(database_url=watcher_url) as collector:

        def ages() -> tuple[float, float]:
            row = next(r for r in figures(collector).activity if r.state == IDLE_IN_TRANSACTION)
            assert row.longest_transaction_seconds is not None
            assert row.longest_state_seconds is not None
            return row.longest_transaction_seconds, row.longest_state_seconds

        first_transaction, first_idle = ages()
        started = time.monotonic()
        wait_for("older transaction", lambda: ages()[0] >= first_transaction + 0.5)
        second_transaction, second_idle = ages()
        passed = time.monotonic() - started
    assert first_idle <= first_transaction
    assert second_transaction - first_transaction == pytest.approx(passed, abs=1)
    assert second_idle - first_idle == pytest.approx(passed, abs=1)


def test_a_blocked_session_names_whom_it_waits_for(
    watcher_url: str, guarded: EmbeddedPostgres, connect: Connect
) -> None:
    holder, waiter = connect("inventory-service-1"), connect("inventory-service-2")
    with holder.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_xact_lock(4711)")
    # an asynchronous connection leaves this thread free while it waits
    waiting = psycopg2.connect(
        host=guarded.host, port=guarded.port, user=guarded.user, dbname="shop",
        application_name="inventory-service-3", async_=1,
    )  # fmt: skip
    wait_for("connection", lambda: waiting.poll() == psycopg2.extensions.POLL_OK)
    waiting.cursor().execute("SELECT pg_advisory_xact_lock(4711)")
    with collecting(database_url=watcher_url) as collector:
        blocked = wait_for("blocked session", lambda: figures(collector).blocked)
        snapshot = collector.collect()
        found = samples(snapshot, analyse(snapshot))
    holder.rollback()
    waiting.close()
    assert [session.application for session in blocked] == ["inventory-service-3"]
    assert [blocker.application for blocker in blocked[0].blockers] == ["inventory-service-1"]
    assert blocked[0].blockers[0].pid == holder.info.backend_pid
    assert blocked[0].blockers[0].state == IDLE_IN_TRANSACTION
    assert 0 <= blocked[0].waiting_seconds < 60
    assert found[PG_BLOCKED]["shop",] == 1
    assert found[PG_BLOCKED]["postgres",] == 0
    assert waiter.closed == 0


def test_nobody_is_blocked_where_nobody_waits(watcher_url: str, connect: Connect) -> None:
    connect("inventory-service-1").cursor().execute("SELECT pg_advisory_xact_lock(4711)")
    with collecting(database_url=watcher_url) as collector:
        assert figures(collector).blocked == ()


def test_an_ordinary_role_is_told_what_it_cannot_see_and_no_zeros(
    watcher_url: str, connect: Connect
) -> None:
    connect("payment-service-1").cursor().execute("SELECT 1")
    connect("payment-service-2")
    ordinary = watcher_url.replace("//watcher", "//ordinary")
    with collecting(database_url=ordinary) as collector:
        snapshot = collector.collect()
    assert snapshot.postgres is not None
    postgres = snapshot.postgres.value
    assert postgres is not None
    assert not postgres.sees_all
    assert postgres.blocked is None
    assert count(postgres, "payment-service-1", None) == 1
    assert all(r.longest_transaction_seconds is None for r in postgres.activity if r.state is None)
    report = analyse(snapshot)
    assert any("pg_monitor" in line for line in report.advice)
    found = samples(snapshot, report)
    assert PG_BLOCKED not in found
    assert found[PG_ACTIVITY]["shop", "payment-service-1", "hidden"] == 1
    assert found[PG_MAX_CONNECTIONS][()] == 60


def test_a_refused_password_is_an_error_as_data_without_the_password(watcher_url: str) -> None:
    wrong = watcher_url.replace(ESCAPED, "wrong%2Fsecret")
    with collecting(database_url=wrong) as collector:
        snapshot = collector.collect()
    assert snapshot.postgres is not None
    assert snapshot.postgres.value is None
    assert "password authentication failed" in str(snapshot.postgres.error)
    found = samples(snapshot, analyse(snapshot))
    assert found[PG_UP] == {(): 0}
    assert PG_MAX_CONNECTIONS not in found
    for text in (
        repr(snapshot),
        repr(found),
        repr(read_configuration(database_url=wrong).databases),
    ):
        assert "secret" not in text
        assert WATCHER_PASSWORD not in text


def test_a_server_that_is_away_is_an_error_and_its_return_is_noticed(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    port = free_port()
    url = f"postgresql://postgres:hidden-word@127.0.0.1:{port}/postgres"
    with collecting(database_url=url) as collector:
        reading = look(collector)
        assert reading.value is None
        assert "refused" in str(reading.error)
        assert "hidden-word" not in repr(reading)
        server = EmbeddedPostgres(tmp_path_factory.mktemp("returning") / "data", port)
        server.start()
        try:
            assert figures(collector).max_connections == 100
            # restarted between two looks: the kept connection is broken, the answer is not
            server.stop()
            server.start()
            assert figures(collector).max_connections == 100
        finally:
            server.stop()
        assert look(collector).value is None


def test_a_connection_is_kept_between_looks(watcher_url: str) -> None:
    with collecting(database_url=watcher_url) as collector:
        pids = {own_pids(figures(collector)) for _ in range(3)}
    assert len(pids) == 1


def own_pids(postgres: Postgres) -> tuple[int, ...]:
    rows = [row for row in postgres.activity if row.application == "kafka-lag-monitor"]
    return tuple(pid for row in rows for pid in row.pids)


def test_a_frozen_server_costs_a_bounded_time_connected_or_not(
    watcher_url: str, guarded: EmbeddedPostgres
) -> None:
    timeout = 0.5
    settings: DatabaseSettings = read_configuration(
        database_url=watcher_url, database_timeout=timeout
    ).databases
    connected, new = DatabaseCollector(settings), DatabaseCollector(settings)
    figures(connected)
    with frozen(guarded):
        for collector in (connected, new, new):
            started = time.monotonic()
            reading = look(collector)
            took = time.monotonic() - started
            assert reading.value is None
            assert reading.error == "no answer within 0.5 s"
            assert took < timeout + GRACE_SECONDS + SLACK_SECONDS
    for collector in (connected, new):
        wait_for("figures again", partial(answered, collector))
        collector.close()


def test_a_session_itself_gives_up_on_a_frozen_server(
    watcher_url: str, guarded: EmbeddedPostgres
) -> None:
    # not only its collector: the thread that asks would be held as long as the server is frozen
    connected, new = Session(Address.parse(watcher_url)), Session(Address.parse(watcher_url))
    connected.ask("SELECT 1", time.monotonic() + 10)
    with frozen(guarded):
        for session in (connected, new):
            started = time.monotonic()
            with pytest.raises(AskError, match=NO_ANSWER):
                session.ask("SELECT 1", started + 0.3)
            assert time.monotonic() - started < 0.3 + SLACK_SECONDS
            assert not session.is_open


def test_a_question_that_takes_too_long_is_ended_in_the_server_too(
    watcher_url: str, guarded: EmbeddedPostgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("monitor.pools.postgres._LIMITS", "SELECT pg_sleep(60)")
    with collecting(database_url=watcher_url, database_timeout=0.3) as collector:
        reading = look(collector)
        assert reading.value is None
        admin = guarded.connect("postgres")
        with admin.cursor() as cursor:

            def sleeping() -> bool:
                cursor.execute("SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'")
                row = cursor.fetchone()
                return row is not None and row[0] == 0

            wait_for("end of the question", sleeping, timeout_s=20)
        admin.close()


def test_a_server_without_a_free_connection_is_reported_as_such(
    guarded: EmbeddedPostgres, watcher_url: str
) -> None:
    admin = guarded.connect("postgres")
    with admin.cursor() as cursor:
        cursor.execute("ALTER ROLE watcher CONNECTION LIMIT 0")
        try:
            with collecting(database_url=watcher_url) as collector:
                assert "too many connections" in str(look(collector).error)
        finally:
            cursor.execute("ALTER ROLE watcher CONNECTION LIMIT -1")
    admin.close()
