"""Looks at PostgreSQL, PgBouncer and the services' pools side by side, in bounded time."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Final, Generic, TypeVar

import structlog

from monitor.pools.address import Address
from monitor.pools.failures import NO_ANSWER, AskError
from monitor.pools.model import DatabaseSnapshot, Postgres, Reading, ServicePool
from monitor.pools.model import PgBouncer as PgBouncerFigures
from monitor.pools.pgbouncer import read_pgbouncer
from monitor.pools.postgres import read_postgres
from monitor.pools.services import ServiceTarget, read_service
from monitor.pools.session import Session
from monitor.pools.settings import DatabaseSettings

MAX_THREADS: Final = 32
GRACE_SECONDS: Final = 0.5
"""What a source gets beyond its own time limit to say which part did not answer."""

T = TypeVar("T")
_log = structlog.get_logger(__name__)


class DatabaseCollector:
    """Keeps its connections between looks and opens them again when they broke.

    `collect` and `close` belong to one thread.
    """

    def __init__(self, settings: DatabaseSettings) -> None:
        timeout = settings.database_timeout
        self._wait_seconds = timeout + GRACE_SECONDS
        self._sessions: list[Session] = []
        self._postgres: _Source[Postgres] | None = None
        self._pgbouncer: _Source[PgBouncerFigures] | None = None
        if (address := settings.postgres_address) is not None:
            read = self._reader(address, read_postgres)
            self._postgres = _Source(address.shown, read, timeout)
        if (address := settings.pgbouncer_address) is not None:
            read_console = self._reader(address, read_pgbouncer)
            self._pgbouncer = _Source(address.shown, read_console, timeout)
        targets = map(ServiceTarget.parse, settings.service_urls)
        self._services: list[_Source[ServicePool]] = [
            _Source(target.shown, partial(read_service, target), timeout) for target in targets
        ]
        count = len(self._sessions) + len(self._services)
        self._threads = ThreadPoolExecutor(
            max_workers=max(1, min(count, MAX_THREADS)), thread_name_prefix="database"
        )

    def collect(self) -> DatabaseSnapshot:
        """Ask all sources at once; never raises: what failed is an error in its own reading."""
        postgres, pgbouncer = self._postgres, self._pgbouncer
        for source in (postgres, pgbouncer, *self._services):
            if source is not None:
                source.start(self._threads)
        deadline = time.monotonic() + self._wait_seconds
        return DatabaseSnapshot(
            postgres=None if postgres is None else postgres.reading(deadline),
            pgbouncer=None if pgbouncer is None else pgbouncer.reading(deadline),
            services=tuple(source.reading(deadline) for source in self._services),
            taken_at=time.time(),
        )

    def close(self) -> None:
        """Close the connections; waits for a source whose answer is overdue."""
        self._threads.shutdown(cancel_futures=True)
        for session in self._sessions:
            session.close()

    def _reader(
        self, address: Address, read: Callable[[Session, float], T]
    ) -> Callable[[float], T]:
        session = Session(address)
        self._sessions.append(session)

        def again_if_lost(deadline: float) -> T:
            was_kept = session.is_open
            try:
                return read(session, deadline)
            except AskError:
                # a server that was restarted since the last look has closed the connection
                if not was_kept or time.monotonic() >= deadline:
                    raise
                return read(session, deadline)

        return again_if_lost


class _Source(Generic[T]):
    """One thing that is asked; while an answer is overdue it is not asked again."""

    def __init__(self, name: str, read: Callable[[float], T], timeout_seconds: float) -> None:
        self._name = name
        self._read = read
        self._timeout_seconds = timeout_seconds
        self._pending: Future[Reading[T]] | None = None

    def start(self, threads: ThreadPoolExecutor) -> None:
        # an answer that came after its look is too old for this one
        if self._pending is None or self._pending.done():
            self._pending = threads.submit(self._ask)

    def reading(self, deadline: float) -> Reading[T]:
        """Return the answer; the name of a host, for one, may take longer than its time limit."""
        assert self._pending is not None  # noqa: S101  # `start` came first; narrows the type
        try:
            answer = self._pending.result(max(0.0, deadline - time.monotonic()))
        except TimeoutError:
            return self._failed(self._timeout_seconds, NO_ANSWER)
        self._pending = None
        return answer

    def _ask(self) -> Reading[T]:
        started = time.monotonic()
        try:
            value = self._read(started + self._timeout_seconds)
        except AskError as error:
            return self._failed(time.monotonic() - started, str(error))
        except Exception as error:  # noqa: BLE001  # a fault here must not cost the Kafka figures
            # only its kind: its text may hold what the source said
            _log.warning("database figures failed", source=self._name, error=type(error).__name__)
            return self._failed(time.monotonic() - started, f"unexpected {type(error).__name__}")
        return Reading(self._name, value=value, seconds=time.monotonic() - started)

    def _failed(self, seconds: float, error: str) -> Reading[T]:
        if error == NO_ANSWER:
            error = f"no answer within {self._timeout_seconds:g} s"
        return Reading(self._name, error=error, seconds=seconds)
