from __future__ import annotations

import json
import re
from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta, timezone
from importlib.resources import files
from typing import Any, cast

import pytest

from order_services.analytics.counting import _amount_cents, _day
from order_services.analytics.live import Live, event_frame, stats_frame
from order_services.domain.events import Event, EventType
from order_services.web.bus import LocalBus

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


def event(kind: EventType, at: datetime = NOON, **payload: object) -> Event:
    return Event(kind, "0192f0c1-2345-7000-8000-000000000000", payload, "test", "c", timestamp=at)


def test_an_event_is_of_the_utc_day_on_which_it_happened() -> None:
    east = timezone(timedelta(hours=9))
    early = datetime(2026, 3, 2, 8, tzinfo=east)  # still the first of March in UTC
    latest = NOON + timedelta(days=30)
    assert _day(event(EventType.ORDER_CREATED, early), latest) == date(2026, 3, 1)
    assert _day(event(EventType.ORDER_CREATED), latest) == date(2026, 3, 1)


def test_the_money_of_an_event_is_the_amount_that_its_type_names() -> None:
    assert _amount_cents(event(EventType.ORDER_CREATED, totalCents=500, amountCents=1)) == 500
    assert _amount_cents(event(EventType.PAYMENT_REFUNDED, totalCents=500, amountCents=1)) == 1
    assert _amount_cents(event(EventType.SHIPMENT_CREATED, amountCents=1)) == 0


@pytest.mark.parametrize("amount", [None, "5", 1.5, True])
def test_an_amount_that_is_no_integer_is_an_error_and_not_a_guess(amount: object) -> None:
    with pytest.raises(ValueError, match="amountCents of PAYMENT_PROCESSED must be an integer"):
        _amount_cents(event(EventType.PAYMENT_PROCESSED, amountCents=amount))


def test_frames_are_json_with_a_type() -> None:
    happened = event(EventType.PAYMENT_FAILED, reason="</script>")
    frame = json.loads(event_frame(happened))
    assert frame["type"] == "EVENT"
    assert frame["event"]["eventId"] == happened.event_id
    assert frame["event"]["payload"] == {"reason": "</script>"}
    assert json.loads(stats_frame("CONNECTED", {"orders": 3}))["stats"] == {"orders": 3}


def test_the_local_bus_delivers_to_all_in_order_until_it_is_closed() -> None:
    bus = LocalBus()
    first: list[str] = []
    second: list[str] = []
    bus.subscribe(first.extend)
    bus.subscribe(second.extend)
    bus.publish(["a", "b"])
    bus.publish(["c"])
    bus.close()
    bus.publish(["d"])
    assert first == second == ["a", "b", "c"]


class Listeners:
    """A hub and a bus that only note what they are given."""

    def __init__(self, *, connected: int, reaches_others: bool) -> None:
        self.connected = connected
        self.reaches_others = reaches_others
        self.told: list[str] = []

    def broadcast(self, messages: Sequence[str]) -> None:
        self.told += messages

    publish = broadcast

    def subscribe(self, _receive: object) -> None:
        pass


@pytest.mark.parametrize(
    ("connected", "reaches_others", "frames"), [(0, False, 0), (1, False, 1), (0, True, 1)]
)
def test_frames_are_written_only_where_somebody_may_see_them(
    *, connected: int, reaches_others: bool, frames: int
) -> None:
    listeners: Any = Listeners(connected=connected, reaches_others=reaches_others)
    Live(listeners, listeners, database=cast(Any, None)).announce([event(EventType.ORDER_CREATED)])
    assert len(listeners.told) == frames


def test_the_page_loads_nothing_from_elsewhere_and_writes_no_markup() -> None:
    page = files("order_services.analytics").joinpath("live.html").read_text()
    assert not re.search(
        r"(src|href)=|//[a-z]+\.|innerHTML|insertAdjacentHTML|document\.write|eval",
        page.replace('href="api/stats"', ""),
    )
