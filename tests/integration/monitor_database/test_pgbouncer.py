"""What the monitor says of a real PgBouncer in transaction mode is what the test did to it."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import psycopg2
import pytest
from psycopg2.extensions import connection

from monitor.configuration import read_configuration
from monitor.pools.analysis import analyse
from monitor.pools.collector import DatabaseCollector
from monitor.pools.metrics import (
    BOUNCER_MAX_CLIENTS,
    BOUNCER_UP,
    METRICS,
    PG_UP,
    samples,
)
from monitor.pools.model import DatabaseSnapshot, PgBouncer
from monitor.pools.report import Outcome, Via
from tests.support.pgbouncer import EmbeddedPgBouncer
from tests.support.waiting import wait_for

Start = Callable[..., EmbeddedPgBouncer]
NAMES = {metric.name: metric for metric in METRICS}


@contextmanager
def clients(
    bouncer: EmbeddedPgBouncer, application: str, number: int, *, busy: bool
) -> Iterator[list[connection]]:
    """Connect clients; a busy one stays in a transaction, and so on its server connection."""
    opened = [
        psycopg2.connect(
            host=bouncer.host, port=bouncer.port, user=bouncer.user, password=bouncer.password,
            dbname="shop", application_name=application,
        )
        for _ in range(number)
    ]  # fmt: skip
    for client in opened:
        client.cursor().execute("SELECT 1")
        if not busy:
            client.rollback()
    yield opened
    for client in opened:
        client.close()


def asking(bouncer: EmbeddedPgBouncer, application: str) -> connection:
    """Ask a question without waiting for its answer."""
    client: connection = psycopg2.connect(
        host=bouncer.host, port=bouncer.port, user=bouncer.user, password=bouncer.password,
        dbname="shop", application_name=application, async_=1,
    )  # fmt: skip
    wait_for("connection", lambda: client.poll() == psycopg2.extensions.POLL_OK)
    client.cursor().execute("SELECT 1")
    return client


def look(collector: DatabaseCollector) -> tuple[DatabaseSnapshot, PgBouncer]:
    snapshot = collector.collect()
    assert snapshot.pgbouncer is not None
    assert snapshot.pgbouncer.value is not None, snapshot.pgbouncer.error
    return snapshot, snapshot.pgbouncer.value


def test_clients_that_wait_for_a_server_connection_are_seen(
    start_pgbouncer: Start, watcher_url: str
) -> None:
    bouncer = start_pgbouncer(default_pool_size=2)
    collector = DatabaseCollector(
        read_configuration(database_url=watcher_url, pgbouncer_url=bouncer.url()).databases
    )
    with clients(bouncer, "payment-service-1", 2, busy=True):
        waiting = [asking(bouncer, "payment-service-2") for _ in range(3)]

        def queued() -> DatabaseSnapshot | None:
            snapshot, figures = look(collector)
            pool = next(pool for pool in figures.pools if pool.database == "shop")
            return (
                snapshot if pool.client_waiting == 3 and (pool.maxwait_seconds or 0) > 0 else None
            )

        snapshot = wait_for("waiting clients", queued)
        for client in waiting:
            client.close()
    collector.close()
    report = analyse(snapshot, assumed_pool_max=5)
    assert [(q.database, q.size, q.server_active, q.waiting) for q in report.queues] == [
        ("shop", 2, 2, 3)
    ]
    assert any("3 clients wait" in line for line in report.advice)
    (service,) = report.services
    assert (service.replicas, service.via, service.total) == (2, Via.PGBOUNCER, 10)
    assert service.one_more.outcome is Outcome.QUEUES
    assert service.one_more.by == 3 * 5 - 2
    found = samples(snapshot, report)
    labels = ("shop", "postgres")
    assert found[NAMES["pgbouncer_pools_client_waiting_connections"]][labels] == 3
    assert found[NAMES["pgbouncer_pools_server_active_connections"]][labels] == 2
    assert found[NAMES["pgbouncer_pools_client_maxwait_seconds"]][labels] > 0


def test_limits_pools_and_counters_are_pgbouncers_own(start_pgbouncer: Start) -> None:
    bouncer = start_pgbouncer()
    collector = DatabaseCollector(read_configuration(pgbouncer_url=bouncer.url("shop")).databases)
    with clients(bouncer, "shipping-service-1", 4, busy=False):
        snapshot, figures = look(collector)
    collector.close()
    assert figures.max_client_conn == 1000
    assert figures.default_pool_size == 20
    assert figures.version.startswith("PgBouncer")
    pool = next(pool for pool in figures.pools if pool.database == "shop")
    assert (pool.mode, pool.client_active, pool.client_waiting) == ("transaction", 4, 0)
    assert pool.servers == 1  # one after the other, they shared it
    assert figures.stats["shop"]["total_xact_count"] == 4
    assert figures.clients is not None
    assert ("shop", "shipping-service-1", 4) in [
        (c.database, c.application, c.connections) for c in figures.clients
    ]
    found = samples(snapshot, analyse(snapshot))
    assert found[BOUNCER_UP] == {(): 1}
    assert found[BOUNCER_MAX_CLIENTS] == {(): 1000}
    assert found[NAMES["pgbouncer_stats_sql_transactions_pooled_total"]]["shop",] == 4
    waited = found[NAMES["pgbouncer_stats_client_wait_seconds_total"]]["shop",]
    assert waited == figures.stats["shop"]["total_wait_time"] / 1_000_000
    assert PG_UP not in found


def test_pgbouncers_server_connections_are_not_taken_for_the_services_own(
    start_pgbouncer: Start, watcher_url: str
) -> None:
    bouncer = start_pgbouncer()
    collector = DatabaseCollector(
        read_configuration(database_url=watcher_url, pgbouncer_url=bouncer.url()).databases
    )
    with clients(bouncer, "payment-service-1", 3, busy=True):
        during, _ = look(collector)
    with clients(bouncer, "payment-service-1", 1, busy=False):
        pass
    # its server connection stays, and still bears its name
    left = wait_for("end of the client", lambda: _without_clients(collector))
    collector.close()
    report = analyse(during, assumed_pool_max=5)
    (service,) = report.services
    assert (service.via, service.replicas, service.open) == (Via.PGBOUNCER, 1, 3)
    budgets = {budget.where: budget for budget in report.budgets}
    # 20 that PgBouncer may open, and the monitor's own
    assert budgets["PostgreSQL"].committed == 21
    # and the monitor's on the console
    assert budgets["PgBouncer"].committed == 5 + 1
    assert service.one_more.outcome is Outcome.FITS
    assert analyse(left).services == ()


def _without_clients(collector: DatabaseCollector) -> DatabaseSnapshot | None:
    snapshot, figures = look(collector)
    assert snapshot.postgres is not None
    assert snapshot.postgres.value is not None
    names = [row.application for row in snapshot.postgres.value.activity]
    if any(client.database == "shop" for client in figures.clients or ()):
        return None
    return snapshot if "payment-service-1" in names else None


@pytest.mark.parametrize("password", ["wrong-word", None])
def test_a_refused_password_costs_pgbouncers_figures_only(
    start_pgbouncer: Start, watcher_url: str, password: str | None
) -> None:
    bouncer = start_pgbouncer()
    login = "postgres" if password is None else f"postgres:{password}"
    url = f"postgresql://{login}@{bouncer.host}:{bouncer.port}/pgbouncer"
    collector = DatabaseCollector(
        read_configuration(database_url=watcher_url, pgbouncer_url=url).databases
    )
    snapshot = collector.collect()
    collector.close()
    assert snapshot.pgbouncer is not None
    assert "password" in str(snapshot.pgbouncer.error)
    assert "wrong-word" not in repr(snapshot)
    assert snapshot.postgres is not None
    assert snapshot.postgres.value is not None
    found = samples(snapshot, analyse(snapshot))
    assert found[BOUNCER_UP] == {(): 0}
    assert found[PG_UP] == {(): 1}
    assert not any(m.name.startswith("pgbouncer_pools") for m in found)


def test_a_frozen_pgbouncer_leaves_postgresqls_figures_alone(
    start_pgbouncer: Start, watcher_url: str
) -> None:
    bouncer = start_pgbouncer()
    collector = DatabaseCollector(
        read_configuration(
            database_url=watcher_url, pgbouncer_url=bouncer.url(), database_timeout=0.5
        ).databases
    )
    look(collector)
    bouncer.pause()
    snapshot = collector.collect()
    assert snapshot.pgbouncer is not None
    assert snapshot.pgbouncer.error == "no answer within 0.5 s"
    assert snapshot.postgres is not None
    assert snapshot.postgres.value is not None
    bouncer.resume()
    wait_for("figures again", lambda: collector.collect().pgbouncer.value)  # type: ignore[union-attr]  # it is configured
    bouncer.kill()
    assert "refused" in str(collector.collect().pgbouncer)
    collector.close()
