from __future__ import annotations

import random
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from order_services.domain.events import EventType
from order_services.domain.facts import FACT_OF, InventoryFact, PaymentFact, ShipmentFact
from order_services.gateway.status import OrderStatus, facts_of, order_status

P, I, S = PaymentFact, InventoryFact, ShipmentFact  # noqa: E741  # a table is read in columns
RANK = {status: rank for rank, status in enumerate(OrderStatus)}
FACTS = list(product(P, I, S))


@pytest.mark.parametrize(
    ("payment", "inventory", "shipment", "status"),
    [
        (P.PENDING, I.PENDING, S.PENDING, "accepted"),
        (P.PROCESSING, I.PENDING, S.PENDING, "processing"),
        (P.PROCESSED, I.PENDING, S.PENDING, "processing"),
        (P.PENDING, I.RESERVED, S.PENDING, "processing"),
        (P.PROCESSED, I.RESERVED, S.PENDING, "confirmed"),
        (P.PROCESSED, I.RESERVED, S.CREATED, "confirmed"),
        (P.PENDING, I.PENDING, S.CREATED, "confirmed"),  # the shipment's event was faster
        (P.PROCESSED, I.RESERVED, S.DISPATCHED, "shipped"),
        (P.PENDING, I.PENDING, S.DISPATCHED, "shipped"),
        (P.PROCESSED, I.RESERVED, S.DELIVERED, "delivered"),
        (P.FAILED, I.PENDING, S.PENDING, "cancelling"),
        (P.FAILED, I.RESERVED, S.PENDING, "cancelling"),
        (P.FAILED, I.RELEASED, S.PENDING, "cancelled"),
        (P.PROCESSED, I.FAILED, S.PENDING, "cancelling"),
        (P.REFUNDED, I.FAILED, S.PENDING, "cancelled"),
        (P.FAILED, I.FAILED, S.PENDING, "cancelled"),
        (P.PROCESSED, I.RESERVED, S.CANCELLED, "cancelling"),  # a customer's cancel
        (P.REFUNDED, I.RESERVED, S.CANCELLED, "cancelling"),
        (P.REFUNDED, I.RELEASED, S.CANCELLED, "cancelled"),
        (P.REFUNDED, I.RELEASED, S.CREATED, "cancelled"),
    ],
)
def test_status_of_facts(
    payment: PaymentFact, inventory: InventoryFact, shipment: ShipmentFact, status: str
) -> None:
    assert order_status(payment, inventory, shipment) == status


@pytest.mark.parametrize(("payment", "inventory", "shipment"), FACTS)
def test_every_combination_has_a_status_that_says_what_the_facts_do(
    payment: PaymentFact, inventory: InventoryFact, shipment: ShipmentFact
) -> None:
    status = order_status(payment, inventory, shipment)
    gone = {S.DISPATCHED, S.DELIVERED}
    assert (status in {"shipped", "delivered"}) == (shipment in gone)
    if status == "cancelled":
        assert payment in {P.FAILED, P.REFUNDED}
        assert inventory in {I.FAILED, I.RELEASED}
    if status == "accepted":
        assert (payment, inventory, shipment) == (P.PENDING, I.PENDING, S.PENDING)


@given(
    steps=st.lists(
        st.one_of(
            st.tuples(st.just(0), st.sampled_from(list(P))),
            st.tuples(st.just(1), st.sampled_from(list(I))),
            st.tuples(st.just(2), st.sampled_from(list(S))),
        )
    )
)
def test_status_moves_forward_only_and_ends_the_same_in_any_order(
    steps: list[tuple[int, PaymentFact | InventoryFact | ShipmentFact]],
) -> None:
    # as the database does it: each fact becomes the later of what it is and what is reported
    orders: tuple[list[PaymentFact], list[InventoryFact], list[ShipmentFact]] = (
        list(P),
        list(I),
        list(S),
    )

    def end(
        reports: list[tuple[int, PaymentFact | InventoryFact | ShipmentFact]],
    ) -> list[OrderStatus]:
        at = [0, 0, 0]
        seen = [order_status(orders[0][0], orders[1][0], orders[2][0])]
        for which, fact in reports:
            at[which] = max(at[which], list(type(fact)).index(fact))
            seen.append(order_status(orders[0][at[0]], orders[1][at[1]], orders[2][at[2]]))
        return seen

    forward = end(steps)
    ranks = [RANK[status] for status in forward]
    assert ranks == sorted(ranks)
    assert end(steps[::-1])[-1] == end(steps + steps)[-1] == forward[-1]


@given(history=st.lists(st.sampled_from(list(EventType))), order=st.randoms())
def test_facts_are_the_furthest_that_a_history_says_in_any_order(
    history: list[EventType], order: random.Random
) -> None:
    payment, inventory, shipment = facts_of(history)
    assert facts_of(order.sample(history, len(history))) == (payment, inventory, shipment)
    said = [FACT_OF[each] for each in history if each in FACT_OF]
    said += [S.CANCELLED for each in history if each is EventType.ORDER_CANCELLED]
    for fact in (payment, inventory, shipment):
        ranks = [list(type(fact)).index(each) for each in said if type(each) is type(fact)]
        assert list(type(fact)).index(fact) == max(ranks, default=0)
