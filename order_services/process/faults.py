"""Injects faults on purpose: to see alerts fire, dashboards draw and guarantees hold.

All are off unless set: by FAULT_* variables at the start, by /admin/faults at run time. Whatever is on
shows as `faults_active`, whatever was done as `faults_injected_total`.

Which order is refused and which message is poison depends on ids alone: a retry, another replica or a
restart decides the same.
"""

from __future__ import annotations

import threading
import time
import zlib
from collections.abc import Callable, Iterable
from typing import Final, Self

import psycopg2
import structlog
from pydantic import BaseModel, ConfigDict, model_validator
from pydantic.alias_generators import to_camel
from sqlalchemy.exc import OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from order_services.domain.events import Event
from order_services.process import instrumentation
from order_services.process.settings import (
    DatabasePauseMode,
    FaultDelay,
    FaultPause,
    ServiceSettings,
    Share,
)

PAYMENT_REFUSAL: Final = "payment_refusal"
SLOW: Final = "slow_processing"
POISON: Final = "poison"
DATABASE_PAUSE: Final = "database_pause"
KINDS: Final = (PAYMENT_REFUSAL, SLOW, POISON, DATABASE_PAUSE)

_RANGE: Final = 2**32

_log = structlog.get_logger(__name__)


class InjectedPoisonError(Exception):
    """A message that fails because it was told to."""


class Faults(BaseModel):
    """Which faults are on; shares are 0 to 1.

    A database pause happens at once, or every `database_pause_every_seconds` when that is not 0.
    """

    model_config = ConfigDict(
        frozen=True, extra="forbid", alias_generator=to_camel, validate_by_name=True
    )

    payment_refusal_rate: Share = 0.0
    batch_delay_seconds: FaultDelay = 0.0
    message_delay_seconds: FaultDelay = 0.0
    poison_rate: Share = 0.0
    database_pause_seconds: FaultPause = 0.0
    database_pause_every_seconds: FaultPause = 0.0
    database_pause_mode: DatabasePauseMode = DatabasePauseMode.HOLD

    @model_validator(mode="after")
    def _refuse_endless_pause(self) -> Self:
        if 0 < self.database_pause_every_seconds <= self.database_pause_seconds:
            raise ValueError("databasePauseEverySeconds must be more than databasePauseSeconds")
        return self

    def active(self) -> dict[str, bool]:
        """Say of each of `KINDS` whether it is on."""
        return {
            PAYMENT_REFUSAL: self.payment_refusal_rate > 0,
            SLOW: self.batch_delay_seconds > 0 or self.message_delay_seconds > 0,
            POISON: self.poison_rate > 0,
            DATABASE_PAUSE: self.database_pause_seconds > 0,
        }


def from_settings(settings: ServiceSettings) -> Faults:
    """Return the faults that the environment asks for."""
    return Faults.model_validate(
        {field: getattr(settings, f"fault_{field}") for field in Faults.model_fields}
    )


class FaultInjector:
    """Does what the current `Faults` say; thread-safe, and changed at any time.

    `max_delay_seconds` bounds the delay of one batch, `max_hold_seconds` the wait of one transaction.
    """

    def __init__(
        self,
        source: str,
        faults: Faults,
        *,
        max_delay_seconds: float,
        max_hold_seconds: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._salt = source.encode()
        self._max_delay_seconds = max_delay_seconds
        self._max_hold_seconds = max_hold_seconds
        self._clock = clock
        self._changed = threading.Condition()
        self._closed = False
        self._counters = {kind: instrumentation.FAULTS_INJECTED.labels(kind) for kind in KINDS}
        self.set(faults)

    @property
    def faults(self) -> Faults:
        """What is on."""
        return self._faults

    def set(self, faults: Faults) -> None:
        """Switch to these faults at once, also for those who are held up by the former ones."""
        with self._changed:
            self._faults = faults
            self._since = self._clock()
            self._changed.notify_all()
        for kind, active in faults.active().items():
            instrumentation.FAULTS_ACTIVE.labels(kind).set(active)
        if any(faults.active().values()):
            _log.warning("faults are injected", **faults.model_dump(mode="json"))

    def clear(self) -> None:
        """Switch all faults off."""
        self.set(Faults())

    def close(self) -> None:
        """Hold nobody up any more: the process is ending."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def refuses_payment(self, order_id: str) -> bool:
        """Say whether this order's payment is to be refused."""
        refused = self._hits(order_id, self._faults.payment_refusal_rate)
        if refused:
            self._counters[PAYMENT_REFUSAL].inc()
        return refused

    def delay_batch(self, messages: int) -> None:
        """Hold up a batch of so many messages."""
        faults = self._faults
        seconds = faults.batch_delay_seconds + messages * faults.message_delay_seconds
        if seconds > 0:
            self._counters[SLOW].inc()
            self._wait(min(seconds, self._max_delay_seconds), faults)

    def raise_if_poison(self, events: Iterable[Event]) -> None:
        """Raise `InjectedPoisonError` when one of the events is to fail."""
        rate = self._faults.poison_rate
        if rate <= 0:
            return
        for event in events:
            if self._hits(event.event_id, rate):
                self._counters[POISON].inc()
                raise InjectedPoisonError("this message fails on purpose (poison fault)")

    def before_transaction(self) -> None:
        """Hold up or deny a transaction while the database is paused.

        Raises what SQLAlchemy does when the pool is exhausted or the database is away.
        """
        if self._faults.database_pause_seconds <= 0:
            return
        faults, left = self._pause_left()
        if left <= 0:
            return
        self._counters[DATABASE_PAUSE].inc()
        if faults.database_pause_mode is DatabasePauseMode.DENY:
            cause = psycopg2.OperationalError("the database is away on purpose (pause fault)")
            raise OperationalError("BEGIN", None, cause)
        self._wait(min(left, self._max_hold_seconds), faults)
        if left > self._max_hold_seconds and self._pause_left()[1] > 0:
            raise PoolTimeoutError("held up on purpose (database pause fault)")

    def _pause_left(self) -> tuple[Faults, float]:
        with self._changed:
            faults, elapsed = self._faults, self._clock() - self._since
            if self._closed:
                return faults, 0.0
        every, pause = faults.database_pause_every_seconds, faults.database_pause_seconds
        if every > 0:
            # at the end of each period: a service that has just started gets on its feet first
            left = every - elapsed % every
            return faults, left if left <= pause else 0.0
        return faults, pause - elapsed

    def _wait(self, seconds: float, faults: Faults) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._closed or self._faults is not faults, seconds)

    def _hits(self, identifier: str, rate: float) -> bool:
        # salted: two services would otherwise stumble over the same messages
        return rate > 0 and zlib.crc32(identifier.encode(), zlib.crc32(self._salt)) < rate * _RANGE


def injector(source: str, settings: ServiceSettings) -> FaultInjector:
    """Return a process's injector, with the faults that the environment asks for."""
    return FaultInjector(
        source,
        from_settings(settings),
        # within the time that a batch may take at all
        max_delay_seconds=settings.revoke_budget_seconds / 2,
        max_hold_seconds=settings.db_pool_timeout_seconds,
    )
