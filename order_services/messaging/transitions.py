"""Counts the facts about orders that moved forward, from what was committed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from enum import StrEnum
from typing import Final

from order_services.domain.events import Event
from order_services.domain.facts import FACT_OF, Fact, InventoryFact, PaymentFact, ShipmentFact
from order_services.process import instrumentation

_NAME_OF: Final[Mapping[type[StrEnum], str]] = {
    PaymentFact: "payment",
    InventoryFact: "inventory",
    ShipmentFact: "shipment",
}


def _labels(fact: Fact) -> tuple[str, str]:
    return _NAME_OF[type(fact)], fact.value


_LABELS_OF: Final = {
    event_type: _labels(fact)
    for event_type, fact in FACT_OF.items()
    # nothing is noted when a charge begins: it is told together with its end
    if fact is not PaymentFact.PROCESSING
}


def show(*facts: Fact) -> None:
    """Show these as 0 from the start: a rate needs the value before the first one."""
    for fact in facts:
        instrumentation.TRANSITIONS.labels(*_labels(fact))


def count(events: Iterable[Event], unannounced: Mapping[Fact, int] | None = None) -> None:
    """Count what the events announce, and what moved without one; call it after the commit."""
    # by labels: a payment's "failed" and a reservation's are equal, as all texts are
    moved = Counter({_labels(fact): times for fact, times in (unannounced or {}).items()})
    moved.update(_LABELS_OF[each.event_type] for each in events if each.event_type in _LABELS_OF)
    for labels, times in moved.items():
        instrumentation.TRANSITIONS.labels(*labels).inc(times)
