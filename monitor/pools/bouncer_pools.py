"""PgBouncer's own pools: how many connections it may open to a server, and who waits for one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from monitor.pools.model import CONSOLE, BouncerPool, PgBouncer, Postgres
from monitor.pools.report import BouncerQueue


def server_pool_sizes(postgres: Postgres, pgbouncer: PgBouncer | None) -> Counter[str]:
    """Return how many connections PgBouncer may open to each database of this server."""
    sizes: Counter[str] = Counter()
    if pgbouncer is None:
        return sizes
    targets = {row.name: row for row in pgbouncer.databases}
    for pool in _real_pools(pgbouncer):
        target = targets.get(pool.database)
        # one PgBouncer may serve several PostgreSQL servers: other databases are not ours
        if target is None or target.database not in postgres.connection_limits:
            continue
        size = _pool_size(pgbouncer, pool) or 0
        sizes[target.database] += max(size + (target.reserve_pool or 0), pool.servers)
    for target in pgbouncer.databases:
        ceiling = target.max_connections or pgbouncer.max_db_connections
        if ceiling and sizes[target.database] > ceiling:
            sizes[target.database] = ceiling
    return sizes


def _pool_size(pgbouncer: PgBouncer, pool: BouncerPool) -> int | None:
    for row in pgbouncer.databases:
        if row.name == pool.database and row.pool_size is not None:
            return row.pool_size
    return pgbouncer.default_pool_size


def _real_pools(pgbouncer: PgBouncer) -> Iterator[BouncerPool]:
    return (pool for pool in pgbouncer.pools if pool.database != CONSOLE)


def queues_of(pgbouncer: PgBouncer) -> Iterator[BouncerQueue]:
    """Yield its pools, and who waits in each."""
    for pool in _real_pools(pgbouncer):
        yield BouncerQueue(
            database=pool.database,
            user=pool.user,
            size=_pool_size(pgbouncer, pool),
            server_active=pool.server_active or 0,
            servers=pool.servers,
            clients=pool.clients,
            waiting=pool.client_waiting or 0,
            maxwait_seconds=pool.maxwait_seconds or 0.0,
        )
