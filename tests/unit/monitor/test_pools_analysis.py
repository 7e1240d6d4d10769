"""The pools' arithmetic on snapshots that are written down."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import pytest

from monitor.pools.analysis import analyse, replicas_within
from monitor.pools.model import (
    Activity,
    Blocked,
    Blocker,
    BouncerClients,
    BouncerDatabase,
    BouncerPool,
    DatabaseSnapshot,
    PgBouncer,
    Postgres,
    Reading,
    ServicePool,
)
from monitor.pools.report import OneMore, Outcome, PoolReport, ServiceUse, Via
from monitor.pools.service_pools import service_of


def postgres(
    activity: Mapping[str, int], *, database: str = "shop", **changes: object
) -> Reading[Postgres]:
    """Make a server of 100 connections, 3 of them reserved; `activity` is by application."""
    first = 1000
    rows = []
    for application, count in activity.items():
        rows.append(Activity(database, application, "idle", tuple(range(first, first + count))))
        first += count
    server = Postgres(
        version="18.0",
        max_connections=100,
        superuser_reserved_connections=3,
        reserved_connections=0,
        sees_all=True,
        connection_limits={"shop": None, "postgres": None},
        activity=tuple(rows),
        blocked=(),
    )
    return Reading("db:5432/shop", replace(server, **changes))  # type: ignore[arg-type]  # by name


def pgbouncer(
    clients: Mapping[str, int], *, size: int = 20, waiting: int = 0, pids: Sequence[int] = (),
    **changes: object,
) -> Reading[PgBouncer]:  # fmt: skip
    bouncer = PgBouncer(
        version="PgBouncer 1.24.0",
        max_client_conn=1000,
        default_pool_size=20,
        max_db_connections=0,
        max_user_connections=0,
        pools=(
            BouncerPool("pgbouncer", "pgbouncer", client_active=1),
            BouncerPool(
                "shop", "app", client_active=sum(clients.values()) - waiting,
                client_waiting=waiting, server_active=len(pids), maxwait_seconds=2.5,
            ),
        ),
        databases=(BouncerDatabase("shop", "db", 5432, "shop", "", "transaction", pool_size=size),),
        stats={},
        clients=tuple(BouncerClients("shop", name, count) for name, count in clients.items()),
        server_pids=frozenset(pids),
    )  # fmt: skip
    return Reading("bouncer:6432/pgbouncer", replace(bouncer, **changes))  # type: ignore[arg-type]  # by name


def pool(
    service: str = "payment-service", maximum: int = 5, **figures: int
) -> Reading[ServicePool]:
    return Reading(f"http://{service}/metrics", ServicePool(service, maximum, **figures))


def report(
    server: Reading[Postgres] | None = None,
    bouncer: Reading[PgBouncer] | None = None,
    services: Sequence[Reading[ServicePool]] = (),
    *,
    assumed: int | None = None,
) -> PoolReport:
    return analyse(DatabaseSnapshot(1.0, server, bouncer, tuple(services)), assumed)


def only(found: PoolReport) -> ServiceUse:
    (service,) = found.services
    return service


@pytest.mark.parametrize(
    ("application", "service"),
    [
        ("payment-service-1", "payment-service"),
        ("payment-service-12", "payment-service"),
        ("a-1-2", "a-1"),
        # a pod of a Deployment: its ReplicaSet's hash, and five characters of its own
        ("payment-service-5d4f8c7b9-xk2lp", "payment-service"),
        ("payment-service-6bc459d7cf-2h8zt", "payment-service"),
        ("kafka-lag-monitor-history", None),
        ("payment-service-5d4f8c7b9", None),
        ("psql", None),
        ("-1", None),
        ("", None),
    ],
)
def test_a_replica_is_an_application_name_that_ends_in_a_number_or_as_a_pods_does(
    application: str, service: str | None
) -> None:
    assert service_of(application) == service


def test_pods_of_two_releases_are_replicas_of_one_service() -> None:
    names = {
        f"payment-service-{pod}": 2
        for pod in ("5d4f8c7b9-xk2lp", "5d4f8c7b9-9vqtw", "6bc459d7cf-2h8zt")
    }
    # of the pods behind a Service one answers, and stands for the others
    found = report(postgres(names), services=[pool(in_use=1, waiting=0)])
    service = only(found)
    assert (service.replicas, service.pool_max, service.total, service.open) == (3, 5, 15, 6)
    assert service.one_more.left == 97 - 15 - 5
    assert found.others == {}
    assert replicas_within(found.services, "payment-service-group") == (
        3 + (97 - 15) // 5,
        "PostgreSQL has connections for no more, at 5 a replica",
    )


def test_the_guides_example_three_replicas_of_five_are_fifteen() -> None:
    names = {f"payment-service-{n}": 2 for n in (1, 2, 3)}
    found = report(postgres(names), services=[pool(in_use=1, waiting=0)] * 3)
    service = only(found)
    assert (service.replicas, service.pool_max, service.total) == (3, 5, 15)
    assert (service.open, service.in_use, service.waiting) == (6, 3, 0)
    assert service.via is Via.POSTGRES
    assert service.one_more.outcome is Outcome.FITS
    assert service.one_more.left == 97 - 15 - 5
    (budget,) = found.budgets
    assert (budget.limit, budget.open, budget.committed, budget.left) == (97, 6, 15, 82)


@pytest.mark.parametrize(
    ("replicas", "outcome", "by"),
    [(18, Outcome.FITS, 0), (19, Outcome.EXCEEDS, 3), (20, Outcome.EXCEEDS, 8)],
)
def test_one_replica_more_exceeds_exactly_when_its_pool_is_more_than_what_is_left(
    replicas: int, outcome: Outcome, by: int
) -> None:
    names = {f"payment-service-{n}": 1 for n in range(replicas)}
    more = only(report(postgres(names), assumed=5)).one_more
    assert (more.outcome, more.by) == (outcome, by)
    assert more.where == "PostgreSQL"
    assert str(more) == (f"exceeds PostgreSQL by {by}" if by else "fits, 2 left")


def test_a_replica_that_takes_the_very_last_connections_fits() -> None:
    names = {f"payment-service-{n}": 1 for n in range(18)}
    more = only(report(postgres(names, superuser_reserved_connections=5), assumed=5)).one_more
    assert (more.outcome, more.left) == (Outcome.FITS, 0)


def test_reserved_connections_are_not_for_services() -> None:
    server = postgres({"payment-service-1": 1}, reserved_connections=10)
    (budget,) = report(server, assumed=5).budgets
    assert budget.limit == 100 - 3 - 10


def test_a_service_that_calls_itself_payment_is_the_databases_payment_service() -> None:
    found = report(
        postgres({"payment-service-1": 1, "payment-service-2": 1}),
        services=[pool("payment", in_use=4), pool("payment", in_use=5)],
    )
    assert (only(found).service, only(found).replicas, only(found).in_use) == (
        "payment-service", 2, 9,
    )  # fmt: skip


def test_what_some_replicas_did_not_say_is_unknown_and_not_a_smaller_sum() -> None:
    names = {"payment-service-1": 1, "payment-service-2": 1}
    service = only(report(postgres(names), services=[pool(in_use=5, waiting=2)]))
    assert service.in_use is None
    assert service.waiting is None
    assert service.total == 10  # replicas of a service are configured alike


def test_without_a_pool_size_nothing_is_promised() -> None:
    found = report(postgres({"payment-service-1": 2, "psql": 1}))
    service = only(found)
    assert (service.pool_max, service.total) == (None, None)
    assert service.one_more.outcome is Outcome.UNKNOWN
    (budget,) = found.budgets
    assert not budget.is_complete
    assert budget.committed == 3


def test_another_service_of_unknown_size_makes_a_fit_unknown_but_not_an_excess() -> None:
    names = {"payment-service-1": 1, "legacy-1": 80}
    assert only_payment(report(postgres(names), services=[pool()])).outcome is Outcome.UNKNOWN
    names["legacy-1"] = 95
    more = only_payment(report(postgres(names), services=[pool()]))
    assert (more.outcome, more.by) == (Outcome.EXCEEDS, 95 + 5 + 5 - 97)


def only_payment(found: PoolReport) -> OneMore:
    return next(s.one_more for s in found.services if s.service == "payment-service")


def test_connections_of_nobodys_service_count_against_the_budget() -> None:
    found = report(postgres({"payment-service-1": 1, "psql": 4, "": 2}), assumed=5)
    assert found.others == {"(no name)": 2, "psql": 4}
    assert found.budgets[0].committed == 5 + 6


def test_a_pool_that_is_open_beyond_its_size_counts_with_what_is_open() -> None:
    found = report(postgres({"payment-service-1": 9}), services=[pool(maximum=5)])
    assert found.budgets[0].committed == 9


def test_a_databases_own_limit_may_be_the_tightest() -> None:
    server = postgres({"payment-service-1": 2}, connection_limits={"shop": 8, "postgres": 1})
    found = report(server, services=[pool()])
    more = only(found).one_more
    assert (more.outcome, more.where, more.by) == (Outcome.EXCEEDS, "database shop", 2)
    assert {budget.where for budget in found.budgets} == {
        "PostgreSQL", "database shop", "database postgres",
    }  # fmt: skip


def test_behind_pgbouncer_a_service_draws_on_its_clients_and_queues_beyond_the_pool() -> None:
    names = {f"payment-service-{n}": 5 for n in range(1, 4)}
    found = report(None, pgbouncer(names), [pool(in_use=1)] * 3)
    service = only(found)
    assert (service.via, service.open, service.total) == (Via.PGBOUNCER, 15, 15)
    assert (service.one_more.outcome, service.one_more.left) == (Outcome.FITS, 1000 - 1 - 20)
    fuller = only(report(None, pgbouncer(names, size=10), [pool()] * 3)).one_more
    assert (fuller.outcome, fuller.by) == (Outcome.QUEUES, 20 - 10)
    assert str(fuller) == "fits; 10 would queue"


def test_beyond_max_client_conn_pgbouncer_would_refuse() -> None:
    names = {f"payment-service-{n}": 5 for n in range(1, 4)}
    found = report(None, pgbouncer(names, max_client_conn=18), [pool()] * 3)
    more = only(found).one_more
    assert (more.outcome, more.where, more.by) == (Outcome.EXCEEDS, "PgBouncer", 3)


def test_postgresql_keeps_room_for_pgbouncers_whole_pool_once() -> None:
    server = postgres({"payment-service-1": 3, "shipping-service-1": 2})
    assert server.value is not None
    pids = server.value.activity[0].pids  # payment goes through PgBouncer, shipping does not
    found = report(server, pgbouncer({"payment-service-1": 40}, pids=pids), assumed=5)
    budgets = {budget.where: budget for budget in found.budgets}
    assert budgets["PostgreSQL"].committed == 20 + 5
    assert budgets["PostgreSQL"].open == 5
    vias = {service.service: service.via for service in found.services}
    assert vias == {"payment-service": Via.PGBOUNCER, "shipping-service": Via.POSTGRES}


def test_a_limit_of_pgbouncer_for_a_database_caps_its_pools() -> None:
    found = report(postgres({}), pgbouncer({"payment-service-1": 5}, max_db_connections=12))
    assert found.budgets[0].committed == 12


def test_pools_to_another_server_are_not_postgresqls() -> None:
    server = postgres({}, connection_limits={"other": None})
    found = report(server, pgbouncer({"payment-service-1": 5}), assumed=5)
    assert found.budgets[0].committed == 0


def test_a_version_without_application_names_promises_nothing() -> None:
    told = pgbouncer({"payment-service-1": 5}).value
    assert told is not None
    found = report(None, Reading("bouncer", replace(told, clients=None)), [pool()])
    assert only(found).one_more.outcome is Outcome.UNKNOWN
    assert not found.budgets[0].is_complete


def test_sources_without_an_answer_are_errors_and_leave_the_rest() -> None:
    found = report(
        Reading("db:5432/shop", error="connection refused"),
        pgbouncer({"payment-service-1": 5}),
        [pool(in_use=2), Reading("http://x/metrics", error="no answer within 2 s")],
    )
    assert found.errors == (
        "db:5432/shop: connection refused", "http://x/metrics: no answer within 2 s",
    )  # fmt: skip
    assert [budget.where for budget in found.budgets] == ["PgBouncer"]
    assert only(found).in_use == 2


def test_nothing_watched_is_an_empty_report() -> None:
    assert report() == PoolReport()


@pytest.mark.parametrize(
    ("server", "bouncer", "services", "expected"),
    [
        (postgres({"a-1": 60, "b-1": 20}), None, [], "80 of 97 connections are open"),
        (postgres({"a-1": 5}), None, [pool("a", in_use=5, waiting=3)], "a: 3 wait for a connection, its pools are used up; one replica more fits"),
        (postgres({"a-1": 5}), None, [pool("a", in_use=3, waiting=2)], "a: 2 wait for a connection though its pool has room"),
        (postgres({"a-1": 5, "a-2": 5}), None, [pool("a", in_use=3, waiting=2), pool("a", in_use=0, waiting=0)], "a: 2 wait for a connection, a pool of it is used up"),
        (postgres({"a-1": 5}), None, [pool("a", maximum=10, in_use=9, waiting=0)], "a: 9 of 10 connections are in use"),
        (postgres({"a-1": 5}), None, [pool("a", maximum=98)], "may open 1 more than its 97"),
        (None, pgbouncer({"a-1": 9}, waiting=4), [], "4 clients wait up to 2.5 s for shop/app"),
        (postgres({"a-1": 5}, sees_all=False, blocked=None), None, [], "GRANT pg_monitor"),
    ],
)  # fmt: skip
def test_advice_says_what_is_short_and_what_helps(
    server: Reading[Postgres] | None,
    bouncer: Reading[PgBouncer] | None,
    services: list[Reading[ServicePool]],
    expected: str,
) -> None:
    advice = report(server, bouncer, services).advice
    assert any(expected in line for line in advice), advice


def test_a_healthy_system_gets_no_advice() -> None:
    found = report(postgres({"a-1": 5}), pgbouncer({"b-1": 3}), [pool("a", in_use=4), pool("b")])
    assert found.advice == ()


def test_advice_names_idle_transactions_and_long_lock_waits() -> None:
    idle = Activity("shop", "a-1", "idle in transaction", (7,), 90.0, 61.0, 0)
    short = replace(idle, application="b-1", longest_state_seconds=59.0)
    waits = Blocked(8, "shop", "c-1", 12.0, (Blocker(7, "a-1", "idle in transaction"),))
    brief = replace(waits, pid=9, application="d-1", waiting_seconds=1.0)
    told = postgres({}).value
    assert told is not None
    server = replace(told, activity=(idle, short), blocked=(waits, brief))
    advice = report(Reading("db", server)).advice
    assert len(advice) == 2
    assert "a-1: idle in transaction for 61 s in shop" in advice[0]
    assert "c-1 (pid 8) has waited 12 s for a lock of a-1 (pid 7, idle in transaction)" in advice[1]
