"""Hold the services' connection pools against what the databases take.

`total = replicas x pool max`, held against PostgreSQL's max_connections less the reserved ones, a
database's own CONNECTION LIMIT, and PgBouncer's max_client_conn. Behind PgBouncer the services'
connections are clients; what PostgreSQL sees are PgBouncer's own pools (pool_size for each database
and user), and what is more than those waits in PgBouncer.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from monitor.pools.advice import advise
from monitor.pools.bouncer_pools import queues_of
from monitor.pools.limits import Limit, limits_of
from monitor.pools.model import DatabaseSnapshot
from monitor.pools.report import BouncerQueue, OneMore, Outcome, PoolReport, ServiceUse, Via
from monitor.pools.service_pools import (
    Connections,
    ServicePools,
    key_of,
    others_of,
    pools_by_service,
)

_GROUP: Final = "-group"


def analyse(snapshot: DatabaseSnapshot, assumed_pool_max: int | None = None) -> PoolReport:
    """Hold the pools against the limits.

    `assumed_pool_max` counts for replicas whose own pool figures are not there.
    """
    postgres = snapshot.postgres.value if snapshot.postgres else None
    pgbouncer = snapshot.pgbouncer.value if snapshot.pgbouncer else None
    pools = [reading.value for reading in snapshot.services if reading.value is not None]
    connections = Connections(postgres, pgbouncer)
    services = pools_by_service(connections, pools, assumed_pool_max)
    limits = list(limits_of(postgres, connections, services))
    queues = tuple(queues_of(pgbouncer)) if pgbouncer else ()
    used = tuple(each.use(_one_more(each, limits, queues, services)) for each in services)
    budgets = tuple(limit.budget for limit in limits)
    return PoolReport(
        services=used,
        budgets=budgets,
        queues=queues,
        others=others_of(connections, services),
        advice=tuple(advise(used, budgets, queues, postgres)),
        errors=snapshot.errors,
    )


def replicas_within(services: Iterable[ServiceUse], group: str) -> tuple[int, str] | None:
    """Return for how many replicas of a group's service there are connections, and where that ends.

    The service of `payment-service-group` is `payment-service`, or `payment` by its own word. None
    where there is no such service, or its limit is not known.
    """
    key = key_of(group.removesuffix(_GROUP))
    for service in services:
        limit = service.one_more
        if key_of(service.service) != key or limit.left is None or not service.pool_max:
            continue
        if limit.outcome is Outcome.UNKNOWN:
            return None
        more = (limit.left + service.pool_max) // service.pool_max
        where = f"{limit.where} has connections for no more, at {service.pool_max} a replica"
        return max(0, service.replicas + more), where
    return None


def _one_more(
    service: ServicePools,
    limits: Iterable[Limit],
    queues: Iterable[BouncerQueue],
    services: Iterable[ServicePools],
) -> OneMore:
    concerned = [limit.budget for limit in limits if limit.concerns(service)]
    added = service.pool_max
    if added is None or not concerned:
        return OneMore(Outcome.UNKNOWN)
    tightest = min(concerned, key=lambda budget: budget.left)
    left = tightest.left - added
    if left < 0:
        return OneMore(Outcome.EXCEEDS, tightest.where, -left, left)
    if not tightest.is_complete:
        # what is not known could be more than what is left
        return OneMore(Outcome.UNKNOWN, tightest.where, left=left)
    excess = _queueing(service, added, queues, services)
    if excess > 0:
        return OneMore(Outcome.QUEUES, Via.PGBOUNCER, excess, left)
    return OneMore(Outcome.FITS, tightest.where, left=left)


def _queueing(
    service: ServicePools,
    added: int,
    queues: Iterable[BouncerQueue],
    services: Iterable[ServicePools],
) -> int:
    """Return how many connections in use at once PgBouncer could not serve at once."""
    if service.via is not Via.PGBOUNCER:
        return 0
    sharing = [
        other
        for other in services
        if other.via is Via.PGBOUNCER and other.databases & service.databases
    ]
    sizes = [
        queue.size
        for queue in queues
        if queue.database in service.databases and queue.size is not None
    ]
    demand = sum(other.committed() for other in sharing) + added
    return demand - sum(sizes) if sizes else 0
