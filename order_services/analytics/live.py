"""Shows clients what happens: frames CONNECTED, EVENT and STATS_UPDATE as JSON texts.

{"type": "CONNECTED", "timestamp": ..., "stats": {...}}
{"type": "EVENT", "event": {"eventId", "eventType", "orderId", "timestamp", "source", "payload"}}
{"type": "STATS_UPDATE", "timestamp": ..., "stats": {...}}
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import orjson
from sqlalchemy.exc import SQLAlchemyError

from order_services.analytics.counting import stats

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from order_services.domain.events import Event
    from order_services.storage.database import Database
    from order_services.web.bus import EventBus
    from order_services.web.websocket import Hub


class Live:
    """Tells this replica's clients what any replica has committed."""

    def __init__(self, hub: Hub, bus: EventBus, database: Database) -> None:
        self._hub = hub
        self._bus = bus
        self._database = database
        self._told: Mapping[str, Any] | None = None
        bus.subscribe(hub.broadcast)

    def announce(self, events: Sequence[Event]) -> None:
        """Publish events whose counts are committed."""
        # to write frames that nobody gets would cost as much as to count
        if self._hub.connected or self._bus.reaches_others:
            self._bus.publish([event_frame(event) for event in events])

    def greeting(self) -> str:
        """Return the frame for a new client."""
        with self._database.begin() as connection:
            return stats_frame("CONNECTED", stats(connection))

    def tell_stats(self) -> bool:
        """Tell the totals when they have changed; never has more to do at once.

        They are read from the database and not counted here: other replicas count too.
        """
        if not self._hub.connected:
            return False
        try:
            with self._database.begin() as connection:
                current = stats(connection)
        except SQLAlchemyError:
            return False  # the next turn tells; readiness reports that the database is away
        if current != self._told:
            self._hub.broadcast([stats_frame("STATS_UPDATE", current)])
            self._told = current
        return False


def event_frame(event: Event) -> str:
    """Return the frame of one event."""
    return orjson.dumps(
        {
            "type": "EVENT",
            "event": {
                "eventId": event.event_id,
                "eventType": event.event_type,
                "orderId": event.order_id,
                "timestamp": event.timestamp,
                "source": event.source,
                "payload": event.payload,
            },
        }
    ).decode()


def stats_frame(frame_type: str, current: Mapping[str, Any]) -> str:
    """Return a frame with the totals."""
    frame = {"type": frame_type, "timestamp": datetime.now(UTC), "stats": current}
    return orjson.dumps(frame).decode()
