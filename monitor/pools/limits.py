"""The limits on connections, and what may come to be held against each."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from monitor.pools.bouncer_pools import server_pool_sizes
from monitor.pools.model import PgBouncer, Postgres
from monitor.pools.report import Budget, Via
from monitor.pools.service_pools import Connections, ServicePools


@dataclass(frozen=True, slots=True)
class Limit:
    """A budget, and the services that a replica more of draws on it."""

    budget: Budget
    via: Via
    database: str | None = None

    def concerns(self, service: ServicePools) -> bool:
        """Tell whether a service's connections count against it."""
        if service.via is not self.via:
            return False
        return self.database is None or self.database in service.databases


def limits_of(
    postgres: Postgres | None, seen: Connections, services: Sequence[ServicePools]
) -> Iterator[Limit]:
    """Yield the limits that are known."""
    pgbouncer = seen.pgbouncer
    direct = [service for service in services if service.via is Via.POSTGRES]
    if postgres is not None:
        yield _server_limit(postgres, seen, direct)
        for database, limit in sorted(postgres.connection_limits.items()):
            if limit is not None:
                yield _database_limit(database, limit, postgres, seen, direct)
    if pgbouncer is not None and pgbouncer.max_client_conn is not None:
        yield _client_limit(pgbouncer, pgbouncer.max_client_conn, seen, services)


def _server_limit(postgres: Postgres, seen: Connections, direct: Sequence[ServicePools]) -> Limit:
    services = sum(service.open for service in direct)
    others = sum(seen.direct.values()) - services
    bouncer = sum(server_pool_sizes(postgres, seen.pgbouncer).values())
    return Limit(
        Budget(
            where="PostgreSQL",
            limit=postgres.budget,
            open=postgres.connections,
            committed=sum(service.committed() for service in direct) + others + bouncer,
            is_complete=all(service.total is not None for service in direct),
        ),
        Via.POSTGRES,
    )


def _database_limit(
    database: str,
    limit: int,
    postgres: Postgres,
    seen: Connections,
    direct: Sequence[ServicePools],
) -> Limit:
    here = [service for service in direct if database in service.databases]
    opened = sum(row.connections for row in postgres.activity if row.database == database)
    own = sum(count for (_, name), count in seen.direct.items() if name == database)
    others = own - sum(service.direct.get(database, 0) for service in here)
    bouncer = server_pool_sizes(postgres, seen.pgbouncer)[database]
    return Limit(
        Budget(
            where=f"database {database}",
            limit=limit,
            open=opened,
            committed=sum(service.committed() for service in here) + others + bouncer,
            is_complete=all(service.total is not None for service in here),
        ),
        Via.POSTGRES,
        database,
    )


def _client_limit(
    pgbouncer: PgBouncer, limit: int, seen: Connections, services: Sequence[ServicePools]
) -> Limit:
    pooled = [service for service in services if service.via is Via.PGBOUNCER]
    clients = sum(pool.clients for pool in pgbouncer.pools)
    others = clients - sum(service.open for service in pooled)
    return Limit(
        Budget(
            where="PgBouncer",
            limit=limit,
            open=clients,
            committed=sum(service.committed() for service in pooled) + max(0, others),
            is_complete=seen.knows_clients and all(service.total is not None for service in pooled),
        ),
        Via.PGBOUNCER,
    )
