"""What the pools of services hold of what the databases take: plain data, and what it says in words."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum


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

    `others` are connections by application that belong to no service with numbered replicas or pods.
    """

    services: tuple[ServiceUse, ...] = ()
    budgets: tuple[Budget, ...] = ()
    queues: tuple[BouncerQueue, ...] = ()
    others: Mapping[str, int] = field(default_factory=dict)
    advice: tuple[str, ...] = ()
    errors: tuple[str, ...] = ()
