"""What makes a service."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from sqlalchemy import Connection

from order_services.domain.events import Event, EventType
from order_services.domain.topics import ConsumerGroup
from order_services.messaging.batch import Effects
from order_services.messaging.relay import Relay
from order_services.process.faults import injector
from order_services.process.settings import ServiceSettings
from order_services.service.health import Health
from order_services.service.worker import Worker
from order_services.storage.database import Database
from order_services.web.app import ServiceApp


class Handler(Protocol):
    """A service's rules: changes the database and returns what this causes."""

    def __call__(self, events: Sequence[Event], connection: Connection) -> Effects:
        """Handle events, each once in a batch, in one transaction that is not theirs to end.

        Any of them may have been handled before, however long ago: every effect has a key by which it
        is found.
        Raises when an event cannot be processed: the batch is rolled back, the event found and
        sent to the dead-letter topic, and the others are given again. So nothing but `connection`
        may be changed here: what moved is counted after the commit, from what is returned.
        """


class Runtime:
    """What a service's parts share: made first, and given to those that need it.

    `source` names the service in its events, and is its slice of the outbox.
    """

    def __init__(self, source: str, settings: ServiceSettings) -> None:
        self.source = source
        self.settings = settings
        self.health = Health()
        self.faults = injector(source, settings)
        self.database = Database(settings, self.faults)
        self.relay = Relay(source, settings, self.database)

    def wake_relay(self) -> None:
        """Have the outbox published at once: call it after committing rows to it."""
        self.relay.wake()


@dataclass(frozen=True, slots=True)
class Service:
    """A service, ready to be run: `build(settings)` of each returns one.

    `handles` are the types that `handler` gets; others are passed over, and so are replays unless
    `takes_replays`. `on_committed` is told of the new events of each batch after its commit, on the
    consumer's thread; it must not block.
    `api` adds routes to the app that has the probes, and starts what answers them; `close` ends that,
    within so many seconds, once the web server takes no more requests. `workers` is background work.
    A service whose `requests_need_consumer` is false stays ready while its consumer or a worker has
    stopped, and says so: what it answers does not hang on them.
    """

    runtime: Runtime
    group: ConsumerGroup
    handles: frozenset[EventType]
    handler: Handler
    takes_replays: bool = False
    on_committed: Callable[[Sequence[Event]], None] | None = None
    api: Callable[[ServiceApp], None] = lambda _app: None
    close: Callable[[float], None] = lambda _seconds: None
    workers: Sequence[Worker] = ()
    requests_need_consumer: bool = True
