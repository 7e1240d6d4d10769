"""What one look at the databases brings home: plain immutable data, no I/O.

What was not seen is None or absent, never zero. Times are seconds.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Generic, TypeVar

IDLE: Final = "idle"
IDLE_IN_TRANSACTION: Final = "idle in transaction"
IDLE_IN_ABORTED_TRANSACTION: Final = "idle in transaction (aborted)"

CONSOLE: Final = "pgbouncer"
"""The pseudo-database of PgBouncer's admin console, which has no server connections."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Reading(Generic[T]):
    """What one source said, or why it said nothing: one of `value` and `error` is None.

    `source` is where it is, without user or password; `seconds` is how long the answer took.
    """

    source: str
    value: T | None = None
    error: str | None = None
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Activity:
    """Client connections of one application to one database in one state.

    `state` and what follows from it are None where the role may not see other roles' sessions.
    `longest_state_seconds` is how long the oldest of them has been in this state.
    """

    database: str
    application: str
    state: str | None
    pids: tuple[int, ...]
    longest_transaction_seconds: float | None = None
    longest_state_seconds: float | None = None
    waiting_for_lock: int | None = None

    @property
    def connections(self) -> int:
        """Return how many connections there are."""
        return len(self.pids)


@dataclass(frozen=True, slots=True)
class Blocker:
    """A session that another one waits for; pid 0 is a prepared transaction."""

    pid: int
    application: str | None = None
    state: str | None = None


@dataclass(frozen=True, slots=True)
class Blocked:
    """A session that waits for a lock, and whom it waits for."""

    pid: int
    database: str
    application: str
    waiting_seconds: float
    blockers: tuple[Blocker, ...]


@dataclass(frozen=True, slots=True)
class Postgres:
    """A PostgreSQL server's limits and what its client connections do.

    `connection_limits` has every database that takes connections, None where it sets no limit of
    its own. `sees_all` is False for a role without pg_monitor: then states, transactions and locks
    are known of the role's own sessions only, and `blocked` is None.
    """

    version: str
    max_connections: int
    superuser_reserved_connections: int
    reserved_connections: int
    sees_all: bool
    connection_limits: Mapping[str, int | None]
    activity: tuple[Activity, ...]
    blocked: tuple[Blocked, ...] | None

    @property
    def budget(self) -> int:
        """Return the connections that an ordinary role can have."""
        return (
            self.max_connections - self.superuser_reserved_connections - self.reserved_connections
        )

    @property
    def connections(self) -> int:
        """Return the client connections that are open."""
        return sum(row.connections for row in self.activity)


@dataclass(frozen=True, slots=True)
class BouncerPool:
    """A row of SHOW POOLS; a column that this PgBouncer version lacks is None."""

    database: str
    user: str
    mode: str | None = None
    client_active: int | None = None
    client_active_cancel: int | None = None
    client_waiting: int | None = None
    client_waiting_cancel: int | None = None
    server_active: int | None = None
    server_active_cancel: int | None = None
    server_being_canceled: int | None = None
    server_idle: int | None = None
    server_used: int | None = None
    server_testing: int | None = None
    server_login: int | None = None
    maxwait_seconds: float | None = None

    @property
    def clients(self) -> int:
        """Return the clients that are connected through this pool."""
        return (self.client_active or 0) + (self.client_waiting or 0)

    @property
    def servers(self) -> int:
        """Return the server connections that this pool has open."""
        return sum(
            count or 0
            for count in (
                self.server_active,
                self.server_active_cancel,
                self.server_being_canceled,
                self.server_idle,
                self.server_used,
                self.server_testing,
                self.server_login,
            )
        )


@dataclass(frozen=True, slots=True)
class BouncerDatabase:
    """A row of SHOW DATABASES: `name` is what clients say, `database` what the server calls it.

    `max_connections` 0 means no limit.
    """

    name: str
    host: str
    port: int | None
    database: str
    force_user: str
    pool_mode: str
    pool_size: int | None = None
    reserve_pool: int | None = None
    max_connections: int | None = None
    current_connections: int | None = None
    paused: int | None = None
    disabled: int | None = None


@dataclass(frozen=True, slots=True)
class BouncerClients:
    """Clients of one application, by the database that they asked for."""

    database: str
    application: str
    connections: int


@dataclass(frozen=True, slots=True)
class PgBouncer:
    """A PgBouncer's limits, pools and counters.

    `stats` is SHOW STATS: database -> column -> total since PgBouncer's start, times in
    microseconds. `clients` is None when this version does not tell application names.
    `server_pids` are the PostgreSQL sessions that belong to PgBouncer.
    """

    version: str
    max_client_conn: int | None
    default_pool_size: int | None
    max_db_connections: int | None
    max_user_connections: int | None
    pools: tuple[BouncerPool, ...]
    databases: tuple[BouncerDatabase, ...]
    stats: Mapping[str, Mapping[str, float]]
    clients: tuple[BouncerClients, ...] | None
    server_pids: frozenset[int]


@dataclass(frozen=True, slots=True)
class ServicePool:
    """The connection pool of one process, as its own /metrics tells it."""

    service: str
    maximum: int
    in_use: int | None = None
    idle: int | None = None
    waiting: int | None = None
    timeouts: int | None = None


@dataclass(frozen=True, slots=True)
class DatabaseSnapshot:
    """One look at everything that was configured; None is what was not.

    `taken_at` is Unix time.
    """

    taken_at: float
    postgres: Reading[Postgres] | None = None
    pgbouncer: Reading[PgBouncer] | None = None
    services: tuple[Reading[ServicePool], ...] = field(default=())

    @property
    def errors(self) -> tuple[str, ...]:
        """Return why sources said nothing, one line each."""
        readings = (self.postgres, self.pgbouncer, *self.services)
        return tuple(f"{r.source}: {r.error}" for r in readings if r is not None and r.error)
