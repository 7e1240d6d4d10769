"""The connection pool of a process, and which database errors are worth another try.

Max `DB_POOL_MAX`, min `DB_POOL_MIN`; waiting fails after `DB_POOL_TIMEOUT_SECONDS`. The pool hands
out the connection that was used last, so what a burst opened goes idle, and a reaper closes what
has been idle for `DB_POOL_IDLE_SECONDS` down to the minimum. Session state is never used: all of it
works through PgBouncer in transaction mode (`DB_VIA_PGBOUNCER=true`).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, Final

import psycopg2
from psycopg2 import errorcodes
from sqlalchemy import Connection, Engine, QueuePool, create_engine, event, text
from sqlalchemy.exc import DBAPIError, InvalidatePoolError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.pool import PoolProxiedConnection

from order_services.process import instrumentation
from order_services.process.faults import FaultInjector
from order_services.process.settings import ServiceSettings

_IDLE_SINCE: Final = "idle_since"
_PROBE_SECONDS: Final = 1.0
# A connection that was idle for longer is tested before it is used. One that was in use just now is
# not: that would cost every transaction of a busy service a round trip.
_TEST_IDLE_SECONDS: Final = 1.0

# https://www.postgresql.org/docs/current/errcodes-appendix.html
_TRANSIENT_CLASSES: Final = (
    errorcodes.CLASS_CONNECTION_EXCEPTION,
    errorcodes.CLASS_TRANSACTION_ROLLBACK,  # deadlock, serialization failure
    errorcodes.CLASS_INSUFFICIENT_RESOURCES,  # disk full, too many connections
    errorcodes.CLASS_OPERATOR_INTERVENTION,  # shutdown, statement timeout
    errorcodes.CLASS_SYSTEM_ERROR,
)
_TRANSIENT_CODES: Final = (
    errorcodes.LOCK_NOT_AVAILABLE,
    errorcodes.IDLE_IN_TRANSACTION_SESSION_TIMEOUT,
    errorcodes.READ_ONLY_SQL_TRANSACTION,  # a standby that is about to be promoted
    "25P04",  # transaction timeout; psycopg2 has no name for it yet
)
_FIRST_WITH_TRANSACTION_TIMEOUT: Final = 17_00_00
# The few statements that read whole days take longer than a request may.
LONG_STATEMENT_SECONDS: Final = 600


class Database:
    """The database as one process sees it; thread-safe, connects when it is first used."""

    def __init__(self, settings: ServiceSettings, faults: FaultInjector | None = None) -> None:
        self._settings = settings
        self._faults = faults
        self.engine = _engine(settings)
        self._waiting = 0
        self._waiting_lock = threading.Lock()
        self._closed = threading.Event()
        self._reaper = threading.Thread(target=self._reap, name="db-idle", daemon=True)
        self._reaper.start()
        self._probe_lock = threading.Lock()
        self._probed: tuple[float, str | None] = (-_PROBE_SECONDS, None)
        _export(self)

    @contextmanager
    def begin(self, timeout_seconds: float | None = None) -> Iterator[Connection]:
        """Run a transaction: committed when the block ends, rolled back when it raises.

        PostgreSQL ends it when it takes longer than `timeout_seconds`; before version 17, which knows
        no limit for a transaction, that holds for each statement.
        Raises SQLAlchemy's `TimeoutError` when no connection becomes free in time, and
        `OperationalError` when the database is away.
        """
        if self._faults is not None:
            self._faults.before_transaction()
        with self._checkout() as connection, connection.begin():
            if timeout_seconds is not None:
                connection.exec_driver_sql(_limit(connection, timeout_seconds))
            yield connection

    def unreachable(self) -> str | None:
        """Say why the database cannot be used, or None; asks it at most once a second."""
        with self._probe_lock:
            probed_at, answer = self._probed
            if time.monotonic() - probed_at < _PROBE_SECONDS:
                return answer
            try:
                with self.begin() as connection:
                    connection.execute(text("SELECT 1"))
                answer = None
            except PoolTimeoutError:
                answer = "database: no connection of the pool became free in time"
            except SQLAlchemyError as error:
                # the driver's text names host and user: its kind is enough here
                answer = f"database: not reachable ({type(error).__name__})"
            self._probed = (time.monotonic(), answer)
            return answer

    @property
    def waiting(self) -> int:
        """Threads that wait for a connection."""
        return self._waiting

    @property
    def pool(self) -> QueuePool:
        """The pool underneath, for its figures."""
        pool = self.engine.pool
        assert isinstance(pool, QueuePool)  # noqa: S101  # we made it; narrows the type
        return pool

    def close(self) -> None:
        """Close the idle connections, and the others when they are given back."""
        self._closed.set()
        self._reaper.join()
        self.engine.dispose()

    @contextmanager
    def _checkout(self) -> Iterator[Connection]:
        started = time.perf_counter()
        with self._waiting_lock:
            self._waiting += 1
        try:
            connection = self.engine.connect()
        except PoolTimeoutError:
            instrumentation.POOL_TIMEOUTS.inc()
            raise
        finally:
            instrumentation.POOL_WAIT.observe(time.perf_counter() - started)
            with self._waiting_lock:
                self._waiting -= 1
        with connection:
            yield connection

    def _reap(self) -> None:
        idle_seconds = self._settings.db_pool_idle_seconds
        while not self._closed.wait(idle_seconds / 6):
            with suppress(SQLAlchemyError, psycopg2.Error):
                close_idle(self.pool, minimum=self._settings.db_pool_min, idle_seconds=idle_seconds)


def close_idle(pool: QueuePool, *, minimum: int, idle_seconds: float) -> int:
    """Close connections that nobody used for `idle_seconds`, keep `minimum`; returns how many."""
    closed = 0
    held: list[tuple[PoolProxiedConnection, Any]] = []
    try:
        # the one used last comes first: keep those, look at the ones behind them
        for _ in range(pool.checkedin()):
            if pool.checkedin() == 0:
                break  # somebody else took it: never open one, never wait
            connection = pool.connect()
            held.append((connection, connection.info.get(_IDLE_SINCE)))
        now = time.monotonic()
        for connection, idle_since in held[minimum:]:
            if idle_since is not None and now - idle_since >= idle_seconds:
                connection.invalidate()
                closed += 1
    finally:
        for connection, idle_since in reversed(held):
            was_open = connection.is_valid
            info = connection.info if was_open else None
            connection.close()
            if info is not None and idle_since is not None:
                info[_IDLE_SINCE] = idle_since  # looking is not using
    return closed


def is_transient(error: BaseException) -> bool:
    """Say whether the same work may succeed later: it failed because of the database's state."""
    if isinstance(error, PoolTimeoutError):
        return True
    if isinstance(error, DBAPIError):
        if error.connection_invalidated:
            return True
        error = error.orig if error.orig is not None else error
    if not isinstance(error, psycopg2.Error):
        return False
    code = error.pgcode
    if code is None:
        # no answer from the server: the connection was lost or never made
        return isinstance(error, (psycopg2.OperationalError, psycopg2.InterfaceError))
    return code[:2] in _TRANSIENT_CLASSES or code in _TRANSIENT_CODES


def array(values: Iterable[str]) -> str:
    """Return an array literal of ids, numbers, days or names: one parameter, however many they are.

    They are written as they are: texts that may hold commas, quotes or braces do not belong here.
    """
    return "{" + ",".join(values) + "}"


def allow_long_statements(connection: Connection) -> None:
    """Let the statements of this transaction read whole days."""
    connection.exec_driver_sql(f"SET LOCAL statement_timeout = '{LONG_STATEMENT_SECONDS}s'")


def _limit(connection: Connection, timeout_seconds: float) -> str:
    driver: Any = connection.connection.driver_connection
    knows_transactions = driver.server_version >= _FIRST_WITH_TRANSACTION_TIMEOUT
    name = "transaction_timeout" if knows_transactions else "statement_timeout"
    return f"SET LOCAL {name} = {int(timeout_seconds * 1000)}"


def _engine(settings: ServiceSettings) -> Engine:
    timeouts_ms = {
        "statement_timeout": settings.db_statement_timeout_seconds,
        "lock_timeout": settings.db_lock_timeout_seconds,
        "idle_in_transaction_session_timeout": settings.db_idle_transaction_timeout_seconds,
    }
    arguments: dict[str, Any] = {
        "application_name": settings.kafka_client_id,
        "connect_timeout": settings.db_connect_timeout_seconds,
        # a peer that vanished without a word is noticed within 15 s, not after hours
        "keepalives_idle": 5,
        "keepalives_interval": 5,
        "keepalives_count": 2,
        "sslmode": settings.db_sslmode,
    }
    files = {
        "sslrootcert": settings.db_sslrootcert,
        "sslcert": settings.db_sslcert,
        "sslkey": settings.db_sslkey,
    }
    arguments |= {name: str(path) for name, path in files.items() if path is not None}
    if not settings.db_via_pgbouncer:
        arguments["options"] = " ".join(
            f"-c {name}={int(seconds * 1000)}" for name, seconds in timeouts_ms.items()
        )
    engine = create_engine(
        settings.database_url,
        poolclass=QueuePool,
        pool_size=settings.db_pool_max,
        max_overflow=0,
        pool_timeout=settings.db_pool_timeout_seconds,
        pool_use_lifo=True,
        connect_args=arguments,
        hide_parameters=True,
    )
    if settings.db_via_pgbouncer:
        statement = "; ".join(
            f"SET LOCAL {name} = {int(seconds * 1000)}" for name, seconds in timeouts_ms.items()
        )

        @event.listens_for(engine, "begin")
        def limit(connection: Connection) -> None:
            connection.exec_driver_sql(statement)

    @event.listens_for(engine, "checkout")
    def test(connection: Any, record: Any, _proxy: Any) -> None:
        idle_since = record.info.get(_IDLE_SINCE)
        is_new = idle_since is None
        if is_new or (not connection.closed and time.monotonic() - idle_since < _TEST_IDLE_SECONDS):
            return
        try:
            engine.dialect.do_ping(connection)
        except psycopg2.Error as error:
            # the pool closes all its connections and opens this one anew
            raise InvalidatePoolError from error

    @event.listens_for(engine, "checkin")
    def idle(_connection: Any, record: Any) -> None:
        record.info[_IDLE_SINCE] = time.monotonic()

    return engine


def _export(database: Database) -> None:
    pool = database.pool
    instrumentation.POOL_MAX.set(pool.size())
    instrumentation.POOL_MIN.set(database._settings.db_pool_min)  # noqa: SLF001  # same module
    instrumentation.POOL_IN_USE.set_function(pool.checkedout)
    instrumentation.POOL_IDLE.set_function(pool.checkedin)
    instrumentation.POOL_WAITING.set_function(lambda: database.waiting)
