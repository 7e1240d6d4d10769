from __future__ import annotations

from collections.abc import Sequence

import pytest

from order_services.domain.events import Event, new_id
from order_services.payment.handler import PaymentHandler
from order_services.payment.rules import REASON_LIMIT, REASON_REFUSED, Rules
from tests.integration.order_services.conftest import Lab, order_cancelled, order_created


def handle(lab: Lab, events: Sequence[Event], rules: Rules | None = None) -> list[Event]:
    handler = PaymentHandler(rules or Rules(), announces_processing=False)
    with lab.database.begin() as connection:
        return list(handler(events, connection).events)


def types(events: Sequence[Event]) -> list[str]:
    return [event.event_type.value for event in events]


def payment(lab: Lab, order_id: str) -> tuple[str, int, int]:
    rows = lab.query(
        "SELECT fact::text, charged_cents, refunded_cents FROM payments WHERE order_id = :id",
        id=order_id,
    )
    assert len(rows) == 1
    return tuple(rows[0])


def test_an_order_is_charged_its_total(lab: Lab) -> None:
    order = order_created(totalCents=1234)
    caused = handle(lab, [order])
    assert types(caused) == ["PAYMENT_PROCESSED"]
    assert caused[0].payload["amountCents"] == 1234
    assert caused[0].correlation_id == order.correlation_id
    assert payment(lab, order.order_id) == ("processed", 1234, 0)


def test_processing_is_announced_first(lab: Lab) -> None:
    with lab.database.begin() as connection:
        caused = PaymentHandler(Rules())([order_created()], connection)
    assert types(caused.events) == ["PAYMENT_PROCESSING", "PAYMENT_PROCESSED"]


def test_an_order_that_comes_again_is_told_to_be_repeated(lab: Lab) -> None:
    first, second = order_created(), order_created()
    handle(lab, [first])
    with lab.database.begin() as connection:
        effects = PaymentHandler(Rules())([first, second], connection)
    assert {each.order_id for each in effects.events} == {second.order_id}
    assert effects.repeated == [first.event_id]


def test_an_order_that_comes_again_under_another_event_id_is_not_charged_again(lab: Lab) -> None:
    order_id = new_id()
    handle(lab, [order_created(order_id)])
    assert handle(lab, [order_created(order_id), order_created(order_id)]) == []
    assert payment(lab, order_id) == ("processed", 1000, 0)


def test_a_cancelled_order_gets_all_of_its_money_back_once(lab: Lab) -> None:
    order_id = new_id()
    handle(lab, [order_created(order_id)])
    caused = handle(lab, [order_cancelled(order_id)])
    assert types(caused) == ["PAYMENT_REFUNDED"]
    assert caused[0].payload["amountCents"] == 1000
    assert handle(lab, [order_cancelled(order_id)]) == []
    assert payment(lab, order_id) == ("refunded", 1000, 1000)


@pytest.mark.parametrize("in_one_batch", [True, False])
def test_an_order_whose_cancellation_came_first_is_never_charged(
    lab: Lab, *, in_one_batch: bool
) -> None:
    order_id = new_id()
    events = [order_cancelled(order_id), order_created(order_id)]
    caused = (
        handle(lab, events)
        if in_one_batch
        else [each for event in events for each in handle(lab, [event])]
    )
    assert types(caused) == ["PAYMENT_REFUNDED"]
    assert caused[0].payload["amountCents"] == 0
    assert payment(lab, order_id) == ("refunded", 0, 0)


def test_a_refused_payment_charges_nothing_and_needs_no_refund(lab: Lab) -> None:
    order_id = new_id()
    caused = handle(lab, [order_created(order_id)], Rules(refusal_rate=1))
    assert types(caused) == ["PAYMENT_FAILED"]
    assert caused[0].payload["reason"] == REASON_REFUSED
    assert handle(lab, [order_cancelled(order_id)]) == []
    assert payment(lab, order_id) == ("failed", 0, 0)


def test_an_amount_above_the_limit_is_refused(lab: Lab) -> None:
    caused = handle(lab, [order_created(totalCents=101)], Rules(limit_cents=100))
    assert caused[0].payload["reason"] == REASON_LIMIT


@pytest.mark.parametrize("total", [None, -1, "12", 1.5, True])
def test_an_order_without_a_proper_total_is_poison(lab: Lab, total: object) -> None:
    with pytest.raises(ValueError, match="totalCents"):
        handle(lab, [order_created(totalCents=total)])
