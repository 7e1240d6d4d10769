from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from order_services.domain.catalogue import PRODUCT_OF
from order_services.gateway.validation import (
    MAX_ITEMS,
    MAX_QUANTITY,
    OrderItem,
    OrderRequest,
    parse_idempotency_key,
    parse_order,
)
from order_services.web.answers import ApiError


def body(**changes: Any) -> dict[str, Any]:
    return {
        "customerId": "c-1",
        "items": [
            {"productId": "PROD-001", "quantity": 2},
            {"productId": "PROD-008", "quantity": 3},
        ],
        **changes,
    }


def item(**changes: Any) -> dict[str, Any]:
    return body(items=[{"productId": "PROD-001", "quantity": 1, **changes}])


def test_a_valid_order_has_the_prices_of_the_catalogue() -> None:
    laptop, cable = PRODUCT_OF["PROD-001"].price_cents, PRODUCT_OF["PROD-008"].price_cents
    order = parse_order(body())
    assert order.items == (OrderItem("PROD-001", 2, laptop), OrderItem("PROD-008", 3, cable))
    assert order.total_cents == 2 * laptop + 3 * cable
    assert order.payload()["totalCents"] == order.total_cents


@pytest.mark.parametrize(
    ("bad", "field"),
    [
        ([], "body"),
        (None, "body"),
        ("text", "body"),
        ({}, "customerId"),
        (body(customerId=None), "customerId"),
        (body(customerId=7), "customerId"),
        (body(customerId=""), "customerId"),
        (body(customerId="x" * 65), "customerId"),
        (body(customerId="a\nb"), "customerId"),
        (body(customerId="c-1\n"), "customerId"),
        (body(items=None), "items"),
        (body(items=[]), "items"),
        (body(items={"productId": "PROD-001"}), "items"),
        (body(items=[{"productId": "PROD-001", "quantity": 1}] * (MAX_ITEMS + 1)), "items"),
        (body(items=["PROD-001"]), "items[0]"),
        (body(items=[{"productId": "PROD-001", "quantity": 1}, None]), "items[1]"),
        (item(productId=1), "items[0].productId"),
        (item(productId="PROD-999"), "items[0].productId"),
        (body(items=[{"quantity": 1}]), "items[0].productId"),
        (body(items=[{"productId": "PROD-001"}]), "items[0].quantity"),
        (item(quantity=0), "items[0].quantity"),
        (item(quantity=-1), "items[0].quantity"),
        (item(quantity=MAX_QUANTITY + 1), "items[0].quantity"),
        (item(quantity=1.0), "items[0].quantity"),
        (item(quantity="1"), "items[0].quantity"),
        (item(quantity=True), "items[0].quantity"),
        (body(items=[{"productId": "PROD-001", "quantity": 1}] * 2), "items[1].productId"),
        (body(note="hello"), "note"),
        (item(colour="red"), "items[0].colour"),
    ],
)
def test_a_bad_order_is_refused_by_the_name_of_its_field(bad: Any, field: str) -> None:
    with pytest.raises(ApiError) as refused:
        parse_order(bad)
    assert refused.value.status == 400
    assert refused.value.field == field
    assert field in refused.value.message or field == "body"


@pytest.mark.parametrize(
    ("bad", "field"),
    [
        (item(unitPriceCents=1), "items[0].unitPriceCents"),
        (item(price=1), "items[0].price"),
        (body(totalCents=1), "totalCents"),
    ],
)
def test_a_clients_price_is_refused_with_the_reason(bad: Any, field: str) -> None:
    with pytest.raises(ApiError, match="prices come from the catalogue") as refused:
        parse_order(bad)
    assert refused.value.field == field


def test_the_most_that_is_allowed_is_accepted() -> None:
    order = parse_order(
        body(
            customerId="a" * 64,
            items=[{"productId": name, "quantity": MAX_QUANTITY} for name in PRODUCT_OF],
        )
    )
    assert len(order.items) == len(PRODUCT_OF)


def test_the_digest_is_of_what_was_asked_for() -> None:
    order = parse_order(body())
    reordered = parse_order(body(items=body()["items"][::-1]))
    dearer = OrderRequest(
        order.customer_id,
        tuple(OrderItem(i.product_id, i.quantity, i.unit_price_cents + 1) for i in order.items),
    )
    assert order.digest == reordered.digest == dearer.digest
    assert order.digest != parse_order(body(customerId="c-2")).digest
    assert order.digest != parse_order(item()).digest


@pytest.mark.parametrize("key", ["a", "x" * 128, "6f9619ff-8b86-d011-b42d-00cf4fc964ff", "~!"])
def test_an_idempotency_key_is_taken_as_it_is(key: str) -> None:
    assert parse_idempotency_key(key) == key


def test_an_idempotency_key_is_optional() -> None:
    assert parse_idempotency_key(None) is None


@pytest.mark.parametrize("key", ["", "x" * 129, "a b", "ä", "a\n"])
def test_a_bad_idempotency_key_is_refused_by_name(key: str) -> None:
    with pytest.raises(ApiError) as refused:
        parse_idempotency_key(key)
    assert refused.value.status == 400
    assert refused.value.field == "Idempotency-Key"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["customerId", "items", "productId", "quantity", "x"]), inner
        )
    ),
)


@given(anything=JSON)
def test_whatever_json_comes_is_accepted_or_refused_with_a_field(anything: Any) -> None:
    try:
        parse_order(anything)
    except ApiError as refused:
        assert refused.status == 400  # noqa: PT017  # both ends are right
        assert refused.field  # noqa: PT017
