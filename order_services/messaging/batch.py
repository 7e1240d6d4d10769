"""Handles a batch of messages in one PostgreSQL transaction.

The handler's changes, the outbox and the dead letters are committed together or not at all, whatever
happens to the process. There is no inbox: each effect has a key of its own, so that a message that
comes again, however late, finds its effect there.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field

import structlog
from sqlalchemy import Connection

from order_services.domain.events import Event, EventType, MalformedEventError, decode
from order_services.domain.facts import Fact
from order_services.domain.topics import ConsumerGroup
from order_services.messaging import transitions
from order_services.messaging.dead_letters import (
    DeadLetterLimit,
    DeadLetterLimitError,
    dead_letter,
    describe,
)
from order_services.messaging.messages import DEAD_LETTER_FOR, ReceivedMessage, header
from order_services.process.faults import FaultInjector
from order_services.storage import outbox
from order_services.storage.database import Database, is_transient

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Effects:
    """What a handler has done.

    `events` are those that it caused, `repeated` the ids of those whose effect it found there already,
    `unannounced` counts facts that moved without an event, `too_late` events whose effect is not wanted
    any more.
    """

    events: Sequence[Event] = ()
    repeated: Collection[str] = ()
    unannounced: Mapping[Fact, int] = field(default_factory=dict)
    too_late: int = 0


Handle = Callable[[Sequence[Event], Connection], Effects]


@dataclass(slots=True)
class Outcome:
    """What became of a batch: indexes into its messages where not said otherwise."""

    ignored: list[int] = field(default_factory=list)
    handled: list[int] = field(default_factory=list)
    duplicates: list[int] = field(default_factory=list)
    dead: dict[int, Exception] = field(default_factory=dict)
    events: list[Event] = field(default_factory=list)  # those handled
    caused: list[Event] = field(default_factory=list)
    unannounced: Counter[Fact] = field(default_factory=Counter)
    too_late: int = 0  # events
    written: int = 0  # messages written to the outbox


@dataclass(slots=True)
class _Item:
    index: int
    event: Event
    attempts: int = 0


class BatchProcessor:
    """Runs a service's handler; knows the database and nothing of Kafka's client.

    A transaction that takes longer than `timeout_seconds` is undone.
    """

    def __init__(
        self,
        *,
        source: str,
        group: ConsumerGroup,
        handles: frozenset[EventType],
        handle: Handle,
        takes_replays: bool,
        database: Database,
        limit: DeadLetterLimit,
        faults: FaultInjector | None = None,
        timeout_seconds: float | None = None,
    ) -> None:
        self._source = source
        self._group = group
        self._group_name = group.group_id.encode()
        self._handles = handles
        self._handle = handle
        self._takes_replays = takes_replays
        self._database = database
        self._limit = limit
        self._faults = faults
        self._timeout_seconds = timeout_seconds

    def database_away(self) -> bool:
        """Say whether nothing can be processed at the moment, whatever it is."""
        return self._database.unreachable() is not None

    def process(self, messages: Sequence[ReceivedMessage]) -> Outcome:
        """Process all messages and commit.

        Raises transient database errors, after which nothing has changed and the same messages may
        be given again, and `DeadLetterLimitError`, after which nothing has changed either.
        """
        ignored, items, malformed = self._decode(messages)
        # whatever else is in the batch: nothing of it gets in when these are too many
        self._limit.check(len(malformed))
        if self._faults is not None:
            # before the transaction: slow work must not hold locks
            self._faults.delay_batch(len(items))
        try:
            outcome = self._together(messages, items, malformed)
        except Exception as error:
            if is_transient(error) or isinstance(error, DeadLetterLimitError) or not items:
                raise
            _log.warning("batch failed, looking for the cause", error=describe(error))
            outcome = self._one_by_one(messages, items, malformed)
        self._limit.record(len(outcome.dead))
        transitions.count(outcome.caused, outcome.unannounced)
        outcome.ignored = ignored
        return outcome

    def _decode(
        self, messages: Sequence[ReceivedMessage]
    ) -> tuple[list[int], list[_Item], dict[int, Exception]]:
        ignored, items = [], []
        malformed: dict[int, Exception] = {}
        for index, message in enumerate(messages):
            meant_for = header(message.headers, DEAD_LETTER_FOR)
            if meant_for is not None and meant_for != self._group_name:
                # malformed for its group, it would be so for all who read the topic
                ignored.append(index)
                continue
            try:
                event = decode(message.value, message.headers)
            except MalformedEventError as error:
                malformed[index] = error
                continue
            if event.event_type in self._handles and (self._takes_replays or not event.is_replay):
                items.append(_Item(index, event, attempts=1))
            else:
                ignored.append(index)
        return ignored, items, malformed

    def _together(
        self,
        messages: Sequence[ReceivedMessage],
        items: list[_Item],
        malformed: dict[int, Exception],
    ) -> Outcome:
        if not items and not malformed:
            return Outcome()
        outcome = Outcome(dead=dict(malformed))
        with self._database.begin(self._timeout_seconds) as connection:
            self._apply(connection, items, outcome)
            self._write_dead_letters(connection, messages, items, outcome)
        return outcome

    def _one_by_one(
        self,
        messages: Sequence[ReceivedMessage],
        items: list[_Item],
        malformed: dict[int, Exception],
    ) -> Outcome:
        outcome = Outcome(dead=dict(malformed))
        with self._database.begin(self._timeout_seconds) as connection:
            self._bisect(connection, items, outcome)
            self._write_dead_letters(connection, messages, items, outcome)
        return outcome

    def _bisect(self, connection: Connection, items: list[_Item], outcome: Outcome) -> None:
        """Halve until each message that fails stands alone: k of n cost k log n attempts."""
        for item in items:
            item.attempts += 1
        try:
            with connection.begin_nested():
                self._apply(connection, items, outcome)
        except Exception as error:
            if is_transient(error):
                raise
            if len(items) == 1:
                outcome.dead[items[0].index] = error
                self._limit.check(len(outcome.dead))
                return
        else:
            return
        middle = len(items) // 2
        self._bisect(connection, items[:middle], outcome)
        self._bisect(connection, items[middle:], outcome)

    def _apply(self, connection: Connection, items: list[_Item], outcome: Outcome) -> None:
        if not items:
            return
        # the same event may be in the batch twice
        left = {item.event.event_id: item.event for item in items}
        events = list(left.values())
        if self._faults is not None:
            self._faults.raise_if_poison(events)
        effects = self._handle(events, connection)
        written = outbox.write(connection, self._source, effects.events)
        # only now: what is undone must not be counted
        outcome.written += written
        outcome.caused += effects.events
        outcome.unannounced.update(effects.unannounced)
        outcome.too_late += effects.too_late
        for event_id in effects.repeated:
            del left[event_id]
        outcome.events += left.values()
        if len(left) == len(items):
            outcome.handled += [item.index for item in items]
            return
        for item in items:
            is_new = left.pop(item.event.event_id, None) is not None
            (outcome.handled if is_new else outcome.duplicates).append(item.index)

    def _write_dead_letters(
        self,
        connection: Connection,
        messages: Sequence[ReceivedMessage],
        items: list[_Item],
        outcome: Outcome,
    ) -> None:
        if not outcome.dead:
            return
        attempts = {item.index: item.attempts for item in items}
        outcome.written += outbox.write_messages(
            connection,
            self._source,
            [
                dead_letter(messages[index], self._group, error, attempts.get(index, 1))
                for index, error in sorted(outcome.dead.items())
            ],
        )
