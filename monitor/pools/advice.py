"""What to do about pools and limits, one sentence each."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

from monitor.pools.model import (
    IDLE_IN_ABORTED_TRANSACTION,
    IDLE_IN_TRANSACTION,
    Activity,
    Postgres,
)
from monitor.pools.report import BouncerQueue, Budget, Outcome, ServiceUse

HIGH_SHARE: Final = 0.8
"""The share of a limit above which the scaling guide raises an alarm."""
LONG_IDLE_IN_TRANSACTION_SECONDS: Final = 60.0
LONG_LOCK_WAIT_SECONDS: Final = 5.0
MAX_LOCK_ADVICE: Final = 5


def advise(
    services: Iterable[ServiceUse],
    budgets: Iterable[Budget],
    queues: Iterable[BouncerQueue],
    postgres: Postgres | None,
) -> Iterator[str]:
    """Yield what to do, limits first."""
    for budget in budgets:
        yield from _budget_advice(budget)
    for service in services:
        yield from _service_advice(service)
    for queue in queues:
        if queue.waiting:
            size = "?" if queue.size is None else queue.size
            yield (
                f"PgBouncer: {queue.waiting} clients wait up to {queue.maxwait_seconds:.1f} s for "
                f"{queue.database}/{queue.user}, where {queue.server_active} of {size} server "
                "connections are in use: shorten transactions, or raise default_pool_size as far "
                "as PostgreSQL has connections left"
            )
    if postgres is not None:
        yield from _session_advice(postgres)


def _budget_advice(budget: Budget) -> Iterator[str]:
    if budget.left < 0:
        remedy = (
            "lower DB_POOL_MAX or the replicas, or raise max_client_conn"
            if budget.where == "PgBouncer"
            else "lower DB_POOL_MAX or the replicas, or put PgBouncer between"
        )
        yield (
            f"{budget.where}: the pools may open {-budget.left} more than its {budget.limit} "
            f"connections; under load the last ones are refused: {remedy}"
        )
    if budget.open > HIGH_SHARE * budget.limit:
        yield (
            f"{budget.where}: {budget.open} of {budget.limit} connections are open, more than "
            f"{HIGH_SHARE:.0%}"
        )


def _service_advice(service: ServiceUse) -> Iterator[str]:
    if service.waiting and _has_room(service):
        yield (
            f"{service.service}: {service.waiting} wait for a connection though its pool has room: "
            "the database or PgBouncer is slow to give one"
        )
    elif service.waiting:
        full = service.total is not None and service.in_use == service.total
        cause = "its pools are used up" if full else "a pool of it is used up"
        way_out = {
            Outcome.FITS: "one replica more fits",
            Outcome.QUEUES: "one replica more would only wait in PgBouncer: shorten transactions",
            Outcome.EXCEEDS: "one replica more does not fit: shorten transactions",
            Outcome.UNKNOWN: "shorten transactions or raise DB_POOL_MAX",
        }[service.one_more.outcome]
        yield f"{service.service}: {service.waiting} wait for a connection, {cause}; {way_out}"
    elif service.total and service.in_use and service.in_use > HIGH_SHARE * service.total:
        yield (
            f"{service.service}: {service.in_use} of {service.total} connections are in use, more "
            f"than {HIGH_SHARE:.0%}"
        )


def _has_room(service: ServiceUse) -> bool:
    """Say whether those who wait could have a connection each; of several pools one may be full."""
    total, in_use, waiting = service.total, service.in_use, service.waiting
    if service.replicas != 1 or total is None or in_use is None or waiting is None:
        return False
    return in_use + waiting <= total


def _session_advice(postgres: Postgres) -> Iterator[str]:
    if not postgres.sees_all:
        yield (
            "PostgreSQL: this role sees no other role's states, transactions and locks; "
            "GRANT pg_monitor TO it"
        )
    for row in postgres.activity:
        if _is_long_idle_in_transaction(row):
            yield (
                f"{row.application or '(no name)'}: idle in transaction for "
                f"{row.longest_state_seconds:.0f} s in {row.database}; it keeps its connection "
                "and its locks"
            )
    long_waits = [
        session
        for session in postgres.blocked or ()
        if session.waiting_seconds >= LONG_LOCK_WAIT_SECONDS
    ]
    for session in long_waits[:MAX_LOCK_ADVICE]:
        blockers = ", ".join(
            f"{blocker.application or '(no name)'} (pid {blocker.pid}, {blocker.state or 'unknown'})"
            for blocker in session.blockers
        )
        yield (
            f"{session.application or '(no name)'} (pid {session.pid}) has waited "
            f"{session.waiting_seconds:.0f} s for a lock of {blockers or 'nobody now'}"
        )


def _is_long_idle_in_transaction(row: Activity) -> bool:
    if row.state not in (IDLE_IN_TRANSACTION, IDLE_IN_ABORTED_TRANSACTION):
        return False
    return (row.longest_state_seconds or 0) >= LONG_IDLE_IN_TRANSACTION_SECONDS
