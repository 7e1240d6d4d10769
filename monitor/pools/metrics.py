"""The databases' metrics, declared once, and their samples.

Names are postgres_exporter's and pgbouncer_exporter's where those have one. A source that did not
answer has its `up` at 0 and no other sample; one that is not watched has none.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping
from typing import Any, Final

from monitor.exposition.families.family import Family
from monitor.exposition.metric import Metric
from monitor.pools.model import DatabaseSnapshot, PgBouncer, Postgres, Reading
from monitor.pools.report import PoolReport

HIDDEN: Final = "hidden"
"""The state of a session that the monitor's role may not look into."""

_MICROSECONDS: Final = 1_000_000
_ACTIVITY_LABELS: Final = ("datname", "application_name", "state")
_POOL_LABELS: Final = ("database", "user")
_DATABASE_LABELS: Final = ("name", "host", "port", "database", "force_user", "pool_mode")


def _gauge(name: str, text: str, labels: tuple[str, ...] = (), unit: str = "") -> Metric:
    return Metric(name, "gauge", text, labels, unit)


def _stats_counter(name: str, text: str, unit: str = "") -> Metric:
    return Metric(f"pgbouncer_stats_{name}", "counter", text, ("database",), unit)


def _pool_gauge(name: str, text: str, unit: str = "connections") -> Metric:
    return _gauge(f"pgbouncer_pools_{name}", text, _POOL_LABELS, unit)


def _database_gauge(name: str, text: str, unit: str = "connections") -> Metric:
    return _gauge(f"pgbouncer_databases_{name}", text, _DATABASE_LABELS, unit)


PG_UP: Final = _gauge("pg_up", "1 while PostgreSQL answered the last look.")
PG_MAX_CONNECTIONS: Final = _gauge(
    "pg_settings_max_connections", "max_connections of the server.", unit="connections"
)
PG_SUPERUSER_RESERVED: Final = _gauge(
    "pg_settings_superuser_reserved_connections",
    "Connections of max_connections that only superusers get.",
    unit="connections",
)
PG_RESERVED: Final = _gauge(
    "pg_settings_reserved_connections",
    "Connections of max_connections kept for roles with pg_use_reserved_connections.",
    unit="connections",
)
PG_DATABASE_LIMIT: Final = _gauge(
    "pg_database_connection_limit",
    "CONNECTION LIMIT of a database; absent where it has none.",
    ("datname",),
    "connections",
)
PG_ACTIVITY: Final = _gauge(
    "pg_stat_activity_count",
    "Client connections; state is hidden where the monitor's role may not see it.",
    _ACTIVITY_LABELS,
    "connections",
)
PG_MAX_TRANSACTION: Final = _gauge(
    "pg_stat_activity_max_tx_duration",
    "Age of the oldest transaction among these connections, 0 when none has one.",
    _ACTIVITY_LABELS,
    "seconds",
)
PG_BLOCKED: Final = _gauge(
    "pg_stat_activity_blocked",
    "Client connections that wait for a lock.",
    ("datname",),
    "connections",
)
PG_BLOCKED_SECONDS: Final = _gauge(
    "pg_stat_activity_max_blocked_seconds",
    "Longest time that a client connection has waited for a lock by now, 0 when none waits.",
    ("datname",),
    "seconds",
)
PG_BLOCKING: Final = _gauge(
    "pg_stat_activity_blocking",
    "Sessions of an application that others wait for, of the longest waits.",
    ("application_name",),
    "connections",
)

BOUNCER_UP: Final = _gauge("pgbouncer_up", "1 while PgBouncer answered the last look.")
BOUNCER_VERSION: Final = _gauge(
    "pgbouncer_version_info", "PgBouncer's version; always 1.", ("version",)
)
BOUNCER_MAX_CLIENTS: Final = _gauge(
    "pgbouncer_config_max_client_connections",
    "max_client_conn: connections of clients that PgBouncer takes.",
    unit="connections",
)
BOUNCER_MAX_USER: Final = _gauge(
    "pgbouncer_config_max_user_connections",
    "max_user_connections: server connections for each user, 0 for no limit.",
    unit="connections",
)
BOUNCER_DEFAULT_POOL: Final = _gauge(
    "pgbouncer_config_default_pool_size",
    "default_pool_size: server connections for each database and user.",
    unit="connections",
)

_POOLS: Final = {
    "client_active": _pool_gauge(
        "client_active_connections", "Clients that are linked to a server connection or idle."
    ),
    "client_active_cancel": _pool_gauge(
        "client_active_cancel_connections", "Clients whose cancel request is on its way."
    ),
    "client_waiting": _pool_gauge(
        "client_waiting_connections", "Clients that wait for a server connection."
    ),
    "client_waiting_cancel": _pool_gauge(
        "client_waiting_cancel_connections", "Clients whose cancel request is not sent yet."
    ),
    "server_active": _pool_gauge(
        "server_active_connections", "Server connections that are linked to a client."
    ),
    "server_active_cancel": _pool_gauge(
        "server_active_cancel_connections", "Server connections that carry a cancel request."
    ),
    "server_being_canceled": _pool_gauge(
        "server_being_canceled_connections",
        "Server connections that wait for cancel requests to them to end.",
    ),
    "server_idle": _pool_gauge(
        "server_idle_connections", "Server connections that are ready for a client."
    ),
    "server_used": _pool_gauge(
        "server_used_connections", "Server connections that are idle and must be checked first."
    ),
    "server_testing": _pool_gauge(
        "server_testing_connections", "Server connections that are being reset or checked."
    ),
    "server_login": _pool_gauge(
        "server_login_connections", "Server connections that are logging in."
    ),
    "maxwait_seconds": _pool_gauge(
        "client_maxwait_seconds", "How long the first client in the queue has waited.", "seconds"
    ),
}
_DATABASES: Final = {
    "pool_size": _database_gauge("pool_size", "Server connections for each user."),
    "reserve_pool": _database_gauge("reserve_pool", "Server connections in reserve."),
    "max_connections": _database_gauge(
        "max_connections", "Server connections to the database, 0 for no limit."
    ),
    "current_connections": _database_gauge(
        "current_connections", "Server connections to the database now."
    ),
    "paused": _database_gauge("paused", "1 while the database is paused, else 0.", ""),
    "disabled": _database_gauge("disabled", "1 while the database is disabled, else 0.", ""),
}
_STATS: Final = {
    "total_query_count": _stats_counter("queries_pooled_total", "Queries."),
    "total_query_time": _stats_counter(
        "queries_duration_seconds_total", "Time in queries.", "seconds"
    ),
    "total_received": _stats_counter("received_bytes_total", "Bytes received.", "bytes"),
    "total_sent": _stats_counter("sent_bytes_total", "Bytes sent.", "bytes"),
    "total_wait_time": _stats_counter(
        "client_wait_seconds_total", "Time that clients waited for a server.", "seconds"
    ),
    "total_xact_count": _stats_counter("sql_transactions_pooled_total", "Transactions."),
    "total_xact_time": _stats_counter(
        "server_in_transaction_seconds_total", "Time in transactions, idle ones too.", "seconds"
    ),
    "total_server_assignment_count": _stats_counter(
        "server_assignments_total", "Times that a client was linked to a server connection."
    ),
}

POOLS_SOURCE_UP: Final = _gauge(
    "db_pools_source_up",
    "1 while the source answered the last look; kind is postgresql, pgbouncer or service.",
    ("kind", "source"),
)
POOLS_SOURCE_SECONDS: Final = _gauge(
    "db_pools_source_seconds", "How long the last answer took.", ("kind", "source"), "seconds"
)
LAST_LOOK: Final = _gauge(
    "db_pools_last_look_timestamp_seconds",
    "When the last look at databases and pools ended that told anything, as a Unix time.",
    unit="seconds",
)
POOLS_REPLICAS: Final = _gauge(
    "db_pools_replicas", "Replicas of a service that were seen.", ("service",)
)
POOLS_CONNECTIONS: Final = _gauge(
    "db_pools_connections",
    "Connections that a service's pools may open: replicas x pool max.",
    ("service",),
    "connections",
)
POOLS_LIMIT: Final = _gauge(
    "db_pools_limit_connections",
    "Connections that are there for services: PostgreSQL's without the reserved ones, a database's "
    "limit, PgBouncer's for clients.",
    ("limit",),
    "connections",
)
POOLS_OPEN: Final = _gauge(
    "db_pools_open_connections",
    "Connections that count against a limit.",
    ("limit",),
    "connections",
)
POOLS_COMMITTED: Final = _gauge(
    "db_pools_committed_connections",
    "Connections that pools may come to hold against a limit; absent while a pool's size is unknown.",
    ("limit",),
    "connections",
)
POOLS_ONE_MORE: Final = _gauge(
    "db_pools_one_more_replica_left_connections",
    "What one replica more would leave of the tightest limit; negative when it does not fit.",
    ("service",),
    "connections",
)

METRICS: Final[tuple[Metric, ...]] = (
    *(value for value in tuple(globals().values()) if isinstance(value, Metric)),
    *_POOLS.values(),
    *_DATABASES.values(),
    *_STATS.values(),
)
FAMILY: Final = Family(
    "database",
    "Databases and pools; names are postgres_exporter's and pgbouncer_exporter's.",
    METRICS,
    is_always_on=True,
)

_Found = defaultdict[Metric, dict[tuple[str, ...], float]]


def samples(
    snapshot: DatabaseSnapshot, report: PoolReport
) -> Mapping[Metric, Mapping[tuple[str, ...], float]]:
    """Return the samples of one look: metric -> label values -> value."""
    found: _Found = defaultdict(dict)
    if snapshot.postgres is not None:
        found[PG_UP][()] = int(snapshot.postgres.value is not None)
        if snapshot.postgres.value is not None:
            _postgres(found, snapshot.postgres.value)
    if snapshot.pgbouncer is not None:
        found[BOUNCER_UP][()] = int(snapshot.pgbouncer.value is not None)
        if snapshot.pgbouncer.value is not None:
            _pgbouncer(found, snapshot.pgbouncer.value)
    _sources(found, snapshot)
    _pools(found, report)
    return found


def _postgres(found: _Found, postgres: Postgres) -> None:
    found[PG_MAX_CONNECTIONS][()] = postgres.max_connections
    found[PG_SUPERUSER_RESERVED][()] = postgres.superuser_reserved_connections
    found[PG_RESERVED][()] = postgres.reserved_connections
    for database, limit in postgres.connection_limits.items():
        if limit is not None:
            found[PG_DATABASE_LIMIT][database,] = limit
    for row in postgres.activity:
        labels = (row.database, row.application, row.state or HIDDEN)
        found[PG_ACTIVITY][labels] = row.connections
        if row.state is not None:
            found[PG_MAX_TRANSACTION][labels] = row.longest_transaction_seconds or 0.0
    if postgres.blocked is None:
        return
    waiting: Counter[str] = Counter(dict.fromkeys(postgres.connection_limits, 0))
    for row in postgres.activity:
        waiting[row.database] += row.waiting_for_lock or 0
    for database, count in waiting.items():
        found[PG_BLOCKED][database,] = count
        found[PG_BLOCKED_SECONDS][database,] = max(
            (b.waiting_seconds for b in postgres.blocked if b.database == database), default=0.0
        )
    blocking = {
        (blocker.pid, blocker.application or "")
        for session in postgres.blocked
        for blocker in session.blockers
    }
    for application, count in Counter(name for _, name in blocking).items():
        found[PG_BLOCKING][application,] = count


def _pgbouncer(found: _Found, pgbouncer: PgBouncer) -> None:
    found[BOUNCER_VERSION][pgbouncer.version,] = 1
    for metric, value in (
        (BOUNCER_MAX_CLIENTS, pgbouncer.max_client_conn),
        (BOUNCER_MAX_USER, pgbouncer.max_user_connections),
        (BOUNCER_DEFAULT_POOL, pgbouncer.default_pool_size),
    ):
        if value is not None:
            found[metric][()] = value
    for pool in pgbouncer.pools:
        _columns(found, _POOLS, pool, (pool.database, pool.user))
    for row in pgbouncer.databases:
        port = "" if row.port is None else str(row.port)
        labels = (row.name, row.host, port, row.database, row.force_user, row.pool_mode)
        _columns(found, _DATABASES, row, labels)
    for database, totals in pgbouncer.stats.items():
        for column, metric in _STATS.items():
            if column in totals:
                scale = _MICROSECONDS if metric.unit == "seconds" else 1
                found[metric][database,] = totals[column] / scale


def _columns(
    found: _Found, declared: Mapping[str, Metric], row: object, labels: tuple[str, ...]
) -> None:
    for name, metric in declared.items():
        # a column that this PgBouncer version lacks
        if (number := getattr(row, name)) is not None:
            found[metric][labels] = number


def _sources(found: _Found, snapshot: DatabaseSnapshot) -> None:
    readings: list[tuple[str, Reading[Any]]] = []
    if snapshot.postgres is not None:
        readings.append(("postgresql", snapshot.postgres))
    if snapshot.pgbouncer is not None:
        readings.append(("pgbouncer", snapshot.pgbouncer))
    readings += [("service", reading) for reading in snapshot.services]
    for kind, reading in readings:
        found[POOLS_SOURCE_UP][kind, reading.source] = int(reading.value is not None)
        if reading.value is not None:
            found[POOLS_SOURCE_SECONDS][kind, reading.source] = reading.seconds


def _pools(found: _Found, report: PoolReport) -> None:
    for service in report.services:
        found[POOLS_REPLICAS][service.service,] = service.replicas
        if service.total is not None:
            found[POOLS_CONNECTIONS][service.service,] = service.total
        if service.one_more.left is not None:
            found[POOLS_ONE_MORE][service.service,] = service.one_more.left
    for budget in report.budgets:
        found[POOLS_LIMIT][budget.where,] = budget.limit
        found[POOLS_OPEN][budget.where,] = budget.open
        if budget.is_complete:
            found[POOLS_COMMITTED][budget.where,] = budget.committed
