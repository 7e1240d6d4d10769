"""Each service and its pools of connections: its names, what it may open, what is open of it."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from monitor.pools.model import CONSOLE, PgBouncer, Postgres, ServicePool
from monitor.pools.report import OneMore, ServiceUse, Via

# A replica has a number; a pod of a Deployment its ReplicaSet's hash and five characters of its own, all
# of Kubernetes' alphabet without vowels (k8s.io/apimachinery/pkg/util/rand)
_SAFE: Final = "[bcdfghjklmnpqrstvwxz2456789]"
_REPLICA: Final = re.compile(rf"(?P<service>.+?)-(\d+|{_SAFE}{{6,10}}-{_SAFE}{{5}})")
_SUFFIX: Final = "-service"


def service_of(application: str) -> str | None:
    """Return `payment-service` for `payment-service-3` or a Deployment's pod, None for other names."""
    match = _REPLICA.fullmatch(application)
    return match["service"] if match else None


def key_of(service: str) -> str:
    """Return a service's one name: `payment` in its own words, `payment-service` in the database's."""
    return service.removesuffix(_SUFFIX)


class Connections:
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
class ServicePools:
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
        """Return how many are seen, by their connections or by their own word."""
        return max(len(self.applications), len(self.pools))

    @property
    def pool_max(self) -> int | None:
        """Return the largest: what one replica more brings along."""
        return max((pool.maximum for pool in self.pools), default=self.assumed_pool_max)

    @property
    def total(self) -> int | None:
        """Return replicas x pool max, None where some replica's is not known."""
        missing = self.replicas - len(self.pools)
        if missing and self.pool_max is None:
            return None
        return sum(pool.maximum for pool in self.pools) + missing * (self.pool_max or 0)

    @property
    def via(self) -> Via | None:
        """Return where its connections go."""
        if self.clients:
            return Via.PGBOUNCER
        return Via.POSTGRES if self.direct else self.way_if_unseen

    @property
    def databases(self) -> frozenset[str]:
        """Return the databases to which it has any open."""
        return frozenset(self.clients or self.direct)

    @property
    def open(self) -> int:
        """Return how many the databases see of it."""
        return sum((self.clients or self.direct).values())

    def committed(self) -> int:
        """Return what the pools may have open, at least."""
        return self.open if self.total is None else max(self.total, self.open)

    def use(self, one_more: OneMore) -> ServiceUse:
        """Return what is told of it."""
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


def pools_by_service(
    seen: Connections, pools: Iterable[ServicePool], assumed_pool_max: int | None
) -> list[ServicePools]:
    """Return the services that have numbered replicas or pods, or told of pools, by name."""
    told: defaultdict[str, list[ServicePool]] = defaultdict(list)
    names: dict[str, str] = {}
    for pool in pools:
        told[key_of(pool.service)].append(pool)
        names[key_of(pool.service)] = pool.service
    applications: defaultdict[str, set[str]] = defaultdict(set)
    for application, _ in (*seen.direct, *seen.clients):
        # a service that is known by its own word may run without a number
        service = service_of(application) or application
        if service != application or key_of(service) in told:
            applications[key_of(service)].add(application)
            names[key_of(service)] = service
    return [
        ServicePools(
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


def others_of(seen: Connections, services: Iterable[ServicePools]) -> dict[str, int]:
    """Return application -> connections of those that are no service's."""
    ours = {name for service in services for name in service.applications}
    found: Counter[str] = Counter()
    for (application, _), count in (*seen.direct.items(), *seen.clients.items()):
        if application not in ours:
            found[application or "(no name)"] += count
    return dict(sorted(found.items()))
