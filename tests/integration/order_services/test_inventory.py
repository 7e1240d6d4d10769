from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import text

from order_services.domain.events import Event, new_id
from order_services.inventory.handler import InventoryHandler
from tests.integration.order_services.conftest import Lab, order_cancelled, order_created


def handle(lab: Lab, events: Sequence[Event]) -> list[Event]:
    with lab.database.begin() as connection:
        return list(InventoryHandler()(events, connection).events)


def types(events: Sequence[Event]) -> list[str]:
    return [event.event_type.value for event in events]


def order(order_id: str | None = None, **quantities: int) -> Event:
    items = [
        {"productId": name.replace("_", "-"), "quantity": quantity}
        for name, quantity in quantities.items()
    ]
    return order_created(order_id, items=items)


def stock(lab: Lab, product_id: str, pieces: int) -> None:
    with lab.database.begin() as connection:
        connection.execute(
            text("UPDATE inventory SET stocked = :pieces WHERE product_id = :id"),
            {"pieces": pieces, "id": product_id},
        )


def taken(lab: Lab, product_id: str) -> int:
    return lab.number("SELECT taken FROM inventory WHERE product_id = :id", id=product_id)


def test_an_order_that_comes_again_is_told_to_be_repeated(lab: Lab) -> None:
    first, second = order(PROD_001=1), order(PROD_001=1)
    handle(lab, [first])
    with lab.database.begin() as connection:
        effects = InventoryHandler()([first, second], connection)
    assert [each.order_id for each in effects.events] == [second.order_id]
    assert effects.repeated == [first.event_id]


def test_an_order_takes_its_stock_once(lab: Lab) -> None:
    first = order(PROD_001=2, PROD_002=1)
    assert types(handle(lab, [first])) == ["INVENTORY_RESERVED"]
    assert handle(lab, [order(first.order_id, PROD_001=2, PROD_002=1)]) == []
    assert (taken(lab, "PROD-001"), taken(lab, "PROD-002")) == (2, 1)


def test_an_order_takes_all_or_nothing(lab: Lab) -> None:
    stock(lab, "PROD-002", 0)
    caused = handle(lab, [order(PROD_001=2, PROD_002=1), order(PROD_001=1)])
    assert types(caused) == ["INVENTORY_FAILED", "INVENTORY_RESERVED"]
    assert caused[0].payload["missing"] == ["PROD-002"]
    assert taken(lab, "PROD-001") == 1


def test_a_product_that_we_do_not_have_is_missing(lab: Lab) -> None:
    caused = handle(lab, [order(PROD_999=1)])
    assert caused[0].payload["missing"] == ["PROD-999"]


def test_those_who_come_first_get_the_last_pieces(lab: Lab) -> None:
    stock(lab, "PROD-001", 3)
    caused = handle(lab, [order(PROD_001=2), order(PROD_001=2), order(PROD_001=1)])
    assert types(caused) == ["INVENTORY_RESERVED", "INVENTORY_FAILED", "INVENTORY_RESERVED"]


def test_a_cancelled_order_gives_its_stock_back_once(lab: Lab) -> None:
    first = order(PROD_001=2)
    handle(lab, [first])
    caused = handle(lab, [order_cancelled(first.order_id)])
    assert types(caused) == ["INVENTORY_RELEASED"]
    assert caused[0].payload["items"] == [{"productId": "PROD-001", "quantity": 2}]
    assert handle(lab, [order_cancelled(first.order_id)]) == []
    assert taken(lab, "PROD-001") == 0


def test_stock_that_is_given_back_in_a_batch_can_be_taken_in_it(lab: Lab) -> None:
    stock(lab, "PROD-001", 2)
    first = order(PROD_001=2)
    handle(lab, [first])
    caused = handle(lab, [order_cancelled(first.order_id), order(PROD_001=2)])
    assert sorted(types(caused)) == ["INVENTORY_RELEASED", "INVENTORY_RESERVED"]
    assert taken(lab, "PROD-001") == 2


@pytest.mark.parametrize("in_one_batch", [True, False])
def test_an_order_whose_cancellation_came_first_takes_nothing(
    lab: Lab, *, in_one_batch: bool
) -> None:
    late = order(PROD_001=2)
    events = [order_cancelled(late.order_id), late]
    caused = (
        handle(lab, events)
        if in_one_batch
        else [each for event in events for each in handle(lab, [event])]
    )
    assert types(caused) == ["INVENTORY_RELEASED"]
    assert taken(lab, "PROD-001") == 0


def test_an_order_that_failed_has_nothing_to_give_back(lab: Lab) -> None:
    stock(lab, "PROD-001", 0)
    failed = order(PROD_001=1)
    handle(lab, [failed])
    assert handle(lab, [order_cancelled(failed.order_id)]) == []
    assert taken(lab, "PROD-001") == 0


def test_batches_that_compete_never_oversell_nor_deadlock(lab: Lab) -> None:
    stock(lab, "PROD-001", 60)
    stock(lab, "PROD-002", 60)
    batches = [
        [
            order(PROD_001=1, PROD_002=1) if number % 2 else order(PROD_002=1, PROD_001=1)
            for number in range(20)
        ]
        for _ in range(8)
    ]
    cancelled = [[order_cancelled(event.order_id) for event in batch[:5]] for batch in batches[:4]]
    work = [*batches, *cancelled]
    with ThreadPoolExecutor(4) as threads:
        caused = [
            event for events in threads.map(lambda b: handle(lab, b), work) for event in events
        ]
    held = lab.number("SELECT count(*) FROM reservations WHERE fact = 'reserved'")
    assert taken(lab, "PROD-001") == taken(lab, "PROD-002") == held <= 60
    assert len({(event.order_id, event.event_type) for event in caused}) == len(caused)


@pytest.mark.parametrize(
    "items",
    [
        None,
        [],
        ["PROD-001"],
        [{"productId": 1, "quantity": 1}],
        [{"productId": "PROD-001", "quantity": 0}],
        [{"productId": "PROD-001", "quantity": 1.5}],
    ],
)
def test_an_order_without_proper_items_is_poison(lab: Lab, items: object) -> None:
    with pytest.raises(ValueError, match=r"items|item|productId|quantity"):
        handle(lab, [order_created(new_id(), items=items)])
