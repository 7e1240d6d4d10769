"""Hold the services' connection pools against what the databases take.

`total = replicas x pool max`, held against PostgreSQL's max_connections less the reserved ones, a
database's own CONNECTION LIMIT, and PgBouncer's max_client_conn. Behind PgBouncer the services'
connections are clients; what PostgreSQL sees are PgBouncer's own pools (pool_size for each database
and user), and what is more than those waits in PgBouncer.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from monitor.pools.model import (
    CONSOLE,
    IDLE_IN_ABORTED_TRANSACTION,
    IDLE_IN_TRANSACTION,
    Activity,
    BouncerPool,
    DatabaseSnapshot,
    PgBouncer,
    Postgres,
    ServicePool,
)

HIGH_SHARE: Final = 0.8
"""The share of a limit above which the scaling guide raises an alarm."""
LONG_IDLE_IN_TRANSACTION_SECONDS: Final = 60.0
LONG_LOCK_WAIT_SECONDS: Final = 5.0
MAX_LOCK_ADVICE: Final = 5

_REPLICA: Final = re.compile(r"(?P<service>.+?)-\d+")
_SUFFIX: Final = "-service"
_GROUP: Final = "-group"


class Via(StrEnum):
    """Where a service's connections go."""

    POSTGRES = "postgresql"
    PGBOUNCER = "pgbouncer"


class Outcome(StrEnum):
    """What would become of one replica more."""

    FITS = "fits"
    QUEUES = "queues"  # fits, but PgBouncer would make some of it wait
    EXCEEDS = "exceeds"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class OneMore:
    """One replica more: `by` connections too many at the limit `where`, or waiting in PgBouncer.

    `left` is what would remain of the tightest limit, None when nothing is known of it.
    """

    outcome: Outcome
    where: str | None = None
    by: int = 0
    left: int | None = None

    def __str__(self) -> str:
        """Say it in a few words."""
        if self.outcome is Outcome.EXCEEDS:
            return f"exceeds {self.where} by {self.by}"
        if self.outcome is Outcome.QUEUES:
            return f"fits; {self.by} would queue"
        if self.outcome is Outcome.FITS:
            return f"fits, {self.left} left"
        return "unknown"


@dataclass(frozen=True, slots=True)
class ServiceUse:
    """The replicas of one service, and their pools taken together.

    `total` is replicas x pool max; `open` what the databases see of it. None is unknown.
    """

    service: str
    replicas: int
    pool_max: int | None
    total: int | None
    open: int | None
    in_use: int | None
    waiting: int | None
    timeouts: int | None
    via: Via | None
    one_more: OneMore


@dataclass(frozen=True, slots=True)
class Budget:
    """A limit and what may come to be held against it.

    `committed` is what the pools may open, and what others have open; it is at least that when
    `is_complete` is False, as the pool size of some service is not known.
    """

    where: str
    limit: int
    open: int
    committed: int
    is_complete: bool = True

    @property
    def left(self) -> int:
        """Return what is not spoken for; negative when the pools promise too much."""
        return self.limit - self.committed


@dataclass(frozen=True, slots=True)
class BouncerQueue:
    """A pool of PgBouncer: its server connections, and the clients that share them."""

    database: str
    user: str
    size: int | None
    server_active: int
    servers: int
    clients: int
    waiting: int
    maxwait_seconds: float


@dataclass(frozen=True, slots=True)
class PoolReport:
    """What `monitor pools` prints.

    `others` are connections by application that belong to no service with numbered replicas.
    """

    services: tuple[ServiceUse, ...] = ()
    budgets: tuple[Budget, ...] = ()
    queues: tuple[BouncerQueue, ...] = ()
    others: Mapping[str, int] = field(default_factory=dict)
    advice: tuple[str, ...] = ()
    errors: tuple[str, ...] = ()


def analyse(snapshot: DatabaseSnapshot, assumed_pool_max: int | None = None) -> PoolReport:
    """Hold the pools against the limits.

    `assumed_pool_max` counts for replicas whose own pool figures are not there.
    """
    postgres = snapshot.postgres.value if snapshot.postgres else None
    pgbouncer = snapshot.pgbouncer.value if snapshot.pgbouncer else None
    pools = [reading.value for reading in snapshot.services if reading.value is not None]
    seen = _Seen(postgres, pgbouncer)
    families = _families(seen, pools, assumed_pool_max)
    limits = list(_limits(postgres, seen, families))
    queues = tuple(_queues(pgbouncer)) if pgbouncer else ()
    services = tuple(family.use(_one_more(family, limits, queues, families)) for family in families)
    budgets = tuple(limit.budget for limit in limits)
    return PoolReport(
        services=services,
        budgets=budgets,
        queues=queues,
        others=_others(seen, families),
        advice=tuple(_advice(services, budgets, queues, postgres)),
        errors=snapshot.errors,
    )


def replicas_within(services: Iterable[ServiceUse], group: str) -> tuple[int, str] | None:
    """Return for how many replicas of a group's service there are connections, and where that ends.

    The service of `payment-service-group` is `payment-service`, or `payment` by its own word. None
    where there is no such service, or its limit is not known.
    """
    key = _key(group.removesuffix(_GROUP))
    for service in services:
        limit = service.one_more
        if _key(service.service) != key or limit.left is None or not service.pool_max:
            continue
        if limit.outcome is Outcome.UNKNOWN:
            return None
        more = (limit.left + service.pool_max) // service.pool_max
        where = f"{limit.where} has connections for no more, at {service.pool_max} a replica"
        return max(0, service.replicas + more), where
    return None


def service_of(application: str) -> str | None:
    """Return `payment-service` for the application name `payment-service-3`, None without number."""
    match = _REPLICA.fullmatch(application)
    return match["service"] if match else None


def _key(service: str) -> str:
    """One service goes by `payment` in its own words and `payment-service` in the database's."""
    return service.removesuffix(_SUFFIX)


class _Seen:
    """Connections by application and database, told apart by the way that they take."""

    def __init__(self, postgres: Postgres | None, pgbouncer: PgBouncer | None) -> None:
        pooled = pgbouncer.server_pids if pgbouncer else frozenset()
        self.pgbouncer = pgbouncer
        self.knows_direct = postgres is not None
        self.knows_clients = pgbouncer is not None and pgbouncer.clients is not None
        self.direct: Counter[tuple[str, str]] = Counter()
        self.clients: Counter[tuple[str, str]] = Counter()
        for row in postgres.activity if postgres else ():
            # a server connection of PgBouncer bears the name of the client that it served last
            own = sum(pid not in pooled for pid in row.pids)
            if own:
                self.direct[row.application, row.database] += own
        for client in (pgbouncer.clients or ()) if pgbouncer else ():
            if client.database != CONSOLE:
                self.clients[client.application, client.database] += client.connections


@dataclass(frozen=True, slots=True)
class _Family:
    """A service and all that was seen of it."""

    service: str
    applications: frozenset[str]
    pools: tuple[ServicePool, ...]
    assumed_pool_max: int | None
    direct: Mapping[str, int]  # database -> connections
    clients: Mapping[str, int]
    knows_open: bool
    way_if_unseen: Via | None  # of a service that has no connection open now

    @property
    def replicas(self) -> int:
        return max(len(self.applications), len(self.pools))

    @property
    def pool_max(self) -> int | None:
        """The largest: what one replica more brings along."""
        return max((pool.maximum for pool in self.pools), default=self.assumed_pool_max)

    @property
    def total(self) -> int | None:
        missing = self.replicas - len(self.pools)
        if missing and self.pool_max is None:
            return None
        return sum(pool.maximum for pool in self.pools) + missing * (self.pool_max or 0)

    @property
    def via(self) -> Via | None:
        if self.clients:
            return Via.PGBOUNCER
        return Via.POSTGRES if self.direct else self.way_if_unseen

    @property
    def databases(self) -> frozenset[str]:
        return frozenset(self.clients or self.direct)

    @property
    def open(self) -> int:
        return sum((self.clients or self.direct).values())

    def committed(self) -> int:
        """Return what the pools may have open, at least."""
        return self.open if self.total is None else max(self.total, self.open)

    def use(self, one_more: OneMore) -> ServiceUse:
        return ServiceUse(
            service=self.service,
            replicas=self.replicas,
            pool_max=self.pool_max,
            total=self.total,
            open=self.open if self.knows_open else None,
            in_use=self._sum("in_use"),
            waiting=self._sum("waiting"),
            timeouts=self._sum("timeouts"),
            via=self.via,
            one_more=one_more,
        )

    def _sum(self, name: str) -> int | None:
        """Add up over the replicas; unknown when one of them did not say."""
        values = [getattr(pool, name) for pool in self.pools]
        known = [value for value in values if value is not None]
        return sum(known) if known and len(known) == self.replicas else None


def _families(
    seen: _Seen, pools: Iterable[ServicePool], assumed_pool_max: int | None
) -> list[_Family]:
    told: defaultdict[str, list[ServicePool]] = defaultdict(list)
    names: dict[str, str] = {}
    for pool in pools:
        told[_key(pool.service)].append(pool)
        names[_key(pool.service)] = pool.service
    applications: defaultdict[str, set[str]] = defaultdict(set)
    for application, _ in (*seen.direct, *seen.clients):
        # a service that is known by its own word may run without a number
        service = service_of(application) or application
        if service != application or _key(service) in told:
            applications[_key(service)].add(application)
            names[_key(service)] = service
    return [
        _Family(
            service=names[key],
            applications=frozenset(applications[key]),
            pools=tuple(told[key]),
            assumed_pool_max=assumed_pool_max,
            direct=_by_database(seen.direct, applications[key]),
            clients=_by_database(seen.clients, applications[key]),
            knows_open=seen.knows_direct or seen.knows_clients,
            way_if_unseen=Via.POSTGRES if seen.knows_direct and seen.pgbouncer is None else None,
        )
        for key in sorted(names)
    ]


def _by_database(
    connections: Mapping[tuple[str, str], int], applications: set[str]
) -> dict[str, int]:
    found: Counter[str] = Counter()
    for (application, database), count in connections.items():
        if application in applications:
            found[database] += count
    return dict(found)


def _others(seen: _Seen, families: Iterable[_Family]) -> dict[str, int]:
    ours = {name for family in families for name in family.applications}
    found: Counter[str] = Counter()
    for (application, _), count in (*seen.direct.items(), *seen.clients.items()):
        if application not in ours:
            found[application or "(no name)"] += count
    return dict(sorted(found.items()))


@dataclass(frozen=True, slots=True)
class _Limit:
    """A budget, and the services that a replica more of draws on it."""

    budget: Budget
    via: Via
    database: str | None = None

    def concerns(self, family: _Family) -> bool:
        if family.via is not self.via:
            return False
        return self.database is None or self.database in family.databases


def _limits(postgres: Postgres | None, seen: _Seen, families: list[_Family]) -> Iterator[_Limit]:
    pgbouncer = seen.pgbouncer
    direct = [family for family in families if family.via is Via.POSTGRES]
    if postgres is not None:
        yield _server_limit(postgres, seen, direct)
        for database, limit in sorted(postgres.connection_limits.items()):
            if limit is not None:
                yield _database_limit(database, limit, postgres, seen, direct)
    if pgbouncer is not None and pgbouncer.max_client_conn is not None:
        yield _client_limit(pgbouncer, pgbouncer.max_client_conn, seen, families)


def _server_limit(postgres: Postgres, seen: _Seen, direct: list[_Family]) -> _Limit:
    services = sum(family.open for family in direct)
    others = sum(seen.direct.values()) - services
    bouncer = sum(_server_pool_sizes(postgres, seen.pgbouncer).values())
    return _Limit(
        Budget(
            where="PostgreSQL",
            limit=postgres.budget,
            open=postgres.connections,
            committed=sum(family.committed() for family in direct) + others + bouncer,
            is_complete=all(family.total is not None for family in direct),
        ),
        Via.POSTGRES,
    )


def _database_limit(
    database: str,
    limit: int,
    postgres: Postgres,
    seen: _Seen,
    direct: list[_Family],
) -> _Limit:
    here = [family for family in direct if database in family.databases]
    opened = sum(row.connections for row in postgres.activity if row.database == database)
    own = sum(count for (_, name), count in seen.direct.items() if name == database)
    others = own - sum(family.direct.get(database, 0) for family in here)
    bouncer = _server_pool_sizes(postgres, seen.pgbouncer)[database]
    return _Limit(
        Budget(
            where=f"database {database}",
            limit=limit,
            open=opened,
            committed=sum(family.committed() for family in here) + others + bouncer,
            is_complete=all(family.total is not None for family in here),
        ),
        Via.POSTGRES,
        database,
    )


def _client_limit(pgbouncer: PgBouncer, limit: int, seen: _Seen, families: list[_Family]) -> _Limit:
    pooled = [family for family in families if family.via is Via.PGBOUNCER]
    clients = sum(pool.clients for pool in pgbouncer.pools)
    others = clients - sum(family.open for family in pooled)
    return _Limit(
        Budget(
            where="PgBouncer",
            limit=limit,
            open=clients,
            committed=sum(family.committed() for family in pooled) + max(0, others),
            is_complete=seen.knows_clients and all(family.total is not None for family in pooled),
        ),
        Via.PGBOUNCER,
    )


def _server_pool_sizes(postgres: Postgres, pgbouncer: PgBouncer | None) -> Counter[str]:
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


def _queues(pgbouncer: PgBouncer) -> Iterator[BouncerQueue]:
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


def _one_more(
    family: _Family,
    limits: Iterable[_Limit],
    queues: Iterable[BouncerQueue],
    families: Iterable[_Family],
) -> OneMore:
    concerned = [limit.budget for limit in limits if limit.concerns(family)]
    added = family.pool_max
    if added is None or not concerned:
        return OneMore(Outcome.UNKNOWN)
    tightest = min(concerned, key=lambda budget: budget.left)
    left = tightest.left - added
    if left < 0:
        return OneMore(Outcome.EXCEEDS, tightest.where, -left, left)
    if not tightest.is_complete:
        # what is not known could be more than what is left
        return OneMore(Outcome.UNKNOWN, tightest.where, left=left)
    excess = _queueing(family, added, queues, families)
    if excess > 0:
        return OneMore(Outcome.QUEUES, Via.PGBOUNCER, excess, left)
    return OneMore(Outcome.FITS, tightest.where, left=left)


def _queueing(
    family: _Family,
    added: int,
    queues: Iterable[BouncerQueue],
    families: Iterable[_Family],
) -> int:
    """Return how many connections in use at once PgBouncer could not serve at once."""
    if family.via is not Via.PGBOUNCER:
        return 0
    sharing = [
        other
        for other in families
        if other.via is Via.PGBOUNCER and other.databases & family.databases
    ]
    sizes = [
        queue.size
        for queue in queues
        if queue.database in family.databases and queue.size is not None
    ]
    demand = sum(other.committed() for other in sharing) + added
    return demand - sum(sizes) if sizes else 0


def _advice(
    services: Iterable[ServiceUse],
    budgets: Iterable[Budget],
    queues: Iterable[BouncerQueue],
    postgres: Postgres | None,
) -> Iterator[str]:
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
