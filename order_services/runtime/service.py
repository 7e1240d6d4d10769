"""Runs one service: its consumer, its relay, its web server, and their orderly end."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from flask import Flask
from sqlalchemy import Connection

from order_services.events import Event, EventType
from order_services.runtime.database import Database
from order_services.runtime.health import Health
from order_services.runtime.settings import ServiceSettings
from order_services.topics import ConsumerGroup


class Handler(Protocol):
    """A service's rules: changes the database and returns the events that this causes."""

    def __call__(self, events: Sequence[Event], connection: Connection) -> Sequence[Event]:
        """Handle events, each given once, in one transaction that is not theirs to end.

        Raises when an event cannot be processed: the batch is rolled back, the event found and
        sent to the dead-letter topic, and the others are given again. So nothing but `connection`
        may be changed here.
        """


@dataclass(frozen=True, slots=True)
class Worker:
    """Work that is due every `interval_seconds`, on a thread of its own.

    `work` returns whether there may be more to do at once.
    """

    name: str
    interval_seconds: float
    work: Callable[[], bool]


class Runtime:
    """What a service's parts share while it runs."""

    settings: ServiceSettings
    database: Database
    health: Health

    def wake_relay(self) -> None:
        """Have the outbox published at once: call it after committing rows to it."""


@dataclass(frozen=True, slots=True)
class Service:
    """What makes a service: its name, what it reads and what it does.

    `name` is the source of its events and its outbox slice. `handles` are the types that `handler`
    gets; others are passed over, and so are replays unless `takes_replays`. `on_committed` is told
    of the events of each batch after its commit, on the consumer's thread; it must not block.
    `configure` adds routes to the app that has the probes; `workers` makes background work.
    """

    name: str
    group: ConsumerGroup
    handles: frozenset[EventType]
    handler: Handler
    takes_replays: bool = False
    on_committed: Callable[[Sequence[Event]], None] | None = None
    configure: Callable[[Flask, Runtime], None] | None = None
    workers: Callable[[Runtime], Sequence[Worker]] = field(default=lambda _runtime: ())


def run_service(service: Service, settings: ServiceSettings) -> int:
    """Run until SIGTERM or SIGINT and return the exit code.

    Order at the end: the web server stops accepting, the consumer finishes its batch, the relay
    publishes what is left, the pool is closed.
    """
    raise NotImplementedError
