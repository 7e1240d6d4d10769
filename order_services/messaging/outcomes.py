"""Tells what became of a batch, in metrics and in the log."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence

import structlog

from order_services.domain.events import Event
from order_services.messaging.batch import Outcome
from order_services.messaging.dead_letters import describe
from order_services.messaging.messages import ReceivedMessage, correlation_id
from order_services.process import instrumentation

_log = structlog.get_logger(__name__)


def tell(messages: Sequence[ReceivedMessage], outcome: Outcome, seconds: float) -> None:
    """Count and log a batch that was committed `seconds` after it was taken."""
    instrumentation.BATCH_MESSAGES.observe(len(messages))
    topics = [message.topic for message in messages]
    last = {message.topic: message for message in messages}
    of_status = [
        Counter([topics[index] for index in indexes])
        for indexes in (outcome.handled, outcome.duplicates, outcome.ignored, outcome.dead)
    ]
    for topic, count in Counter(topics).items():
        child = instrumentation.children(topic)
        child.seconds.observe_all([seconds] * (count - 1))
        # one exemplar tells of the batch: the next would only replace it
        child.seconds.observe(seconds, instrumentation.exemplar(correlation_id(last[topic])))
        counters = (child.processed, child.duplicate, child.ignored, child.dead_letter)
        for counter, counted in zip(counters, of_status, strict=True):
            if counted[topic]:
                counter.inc(counted[topic])
    instrumentation.EVENTS_OF_CLOSED_DAYS.inc(outcome.too_late)
    for index, error in outcome.dead.items():
        instrumentation.DEAD_LETTERS.labels(topics[index], type(error).__name__).inc()
        _log.error(
            "message sent to the dead letters",
            topic=topics[index],
            partition=messages[index].partition,
            offset=messages[index].offset,
            correlation_id=correlation_id(messages[index]),
            error=describe(error),
        )
    if _log.is_enabled_for(logging.DEBUG):
        _log_events(outcome.events)


def _log_events(events: Sequence[Event]) -> None:
    for event in events:
        _log.debug(
            "event handled",
            event_type=event.event_type.value,
            event_id=event.event_id,
            order_id=event.order_id,
            correlation_id=event.correlation_id,
            traceparent=event.traceparent,
        )
