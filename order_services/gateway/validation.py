"""What a client may ask for: turns a request's body into an order, or says what is wrong with it."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING, Annotated, Any, Final

import orjson
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from order_services.domain.catalogue import CURRENCY, PRODUCT_OF, Product
from order_services.web.answers import ApiError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pydantic_core import ErrorDetails

MAX_ITEMS: Final = 50
MAX_QUANTITY: Final = 100

_IDEMPOTENCY_KEY: Final = re.compile(r"[\x21-\x7e]{1,128}")


class _Body(BaseModel):
    # strict: "1", 1.0 and true are no quantities
    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)


class _Item(_Body):
    productId: str  # noqa: N815  # the fields' names are the API's
    quantity: Annotated[int, Field(ge=1, le=MAX_QUANTITY)]


class _Order(_Body):
    customerId: Annotated[str, Field(pattern=r"^[A-Za-z0-9._@:+\-]{1,64}$")]  # noqa: N815
    items: Annotated[list[_Item], Field(min_length=1, max_length=MAX_ITEMS)]


_EXPECTED: Final = {
    "customerId": "must be 1 to 64 letters, digits or any of . _ @ : + -",
    "items": f"must be a list of 1 to {MAX_ITEMS}",
    "productId": "must be a text",
    "quantity": f"must be an integer from 1 to {MAX_QUANTITY}",
}


@dataclass(frozen=True, slots=True)
class OrderItem:
    """One line of an order at the catalogue's price."""

    product_id: str
    quantity: int
    unit_price_cents: int

    def as_json(self) -> dict[str, Any]:
        """Return the line as events, the database and the API have it."""
        return {
            "productId": self.product_id,
            "quantity": self.quantity,
            "unitPriceCents": self.unit_price_cents,
        }


@dataclass(frozen=True, slots=True)
class OrderRequest:
    """A valid order that nobody has accepted yet."""

    customer_id: str
    items: tuple[OrderItem, ...]

    @property
    def total_cents(self) -> int:
        """What the customer pays."""
        return sum(item.quantity * item.unit_price_cents for item in self.items)

    @property
    def digest(self) -> bytes:
        """SHA-256 of what was asked for: the same for the same order in another notation.

        Prices are left out: a repeated request is the same request after a price has changed.
        """
        asked = [self.customer_id, sorted((item.product_id, item.quantity) for item in self.items)]
        return hashlib.sha256(orjson.dumps(asked)).digest()

    def payload(self) -> dict[str, Any]:
        """Return the payload of ORDER_CREATED."""
        return {
            "customerId": self.customer_id,
            "items": [item.as_json() for item in self.items],
            "totalCents": self.total_cents,
            "currency": CURRENCY,
        }


def parse_order(body: Any, catalogue: Mapping[str, Product] = PRODUCT_OF) -> OrderRequest:
    """Check `{"customerId": text, "items": [{"productId": text, "quantity": integer}, ...]}`.

    Raises `ApiError` 400 that names the field.
    """
    try:
        order = _Order.model_validate(body)
    except ValidationError as error:
        raise _refusal_of(error.errors(include_url=False, include_context=False)[0]) from None
    items: dict[str, OrderItem] = {}
    for n, item in enumerate(order.items):
        field, product = f"items[{n}].productId", catalogue.get(item.productId)
        if product is None:
            raise _refusal(field, f"{field} is not in the catalogue (GET /api/inventory)")
        if item.productId in items:
            raise _refusal(field, f"{field} repeats {item.productId}: add its quantities up")
        items[item.productId] = OrderItem(item.productId, item.quantity, product.price_cents)
    return OrderRequest(order.customerId, tuple(items.values()))


def parse_idempotency_key(text: str | None) -> str | None:
    """Check the header Idempotency-Key; raises `ApiError` 400 that names it."""
    if text is None:
        return None
    if not _IDEMPOTENCY_KEY.fullmatch(text):
        raise _refusal(
            "Idempotency-Key", "Idempotency-Key must be 1 to 128 visible ASCII characters"
        )
    return text


def _refusal_of(problem: ErrorDetails) -> ApiError:
    """Say what pydantic found: which field, and what it takes."""
    place, kind = problem["loc"], problem["type"]
    field = "".join(f"[{n}]" if isinstance(n, int) else f".{n[:64]}" for n in place)[1:]
    if kind == "extra_forbidden":
        known = _Order if len(place) == 1 else _Item
        allowed = ", ".join(sorted(known.model_fields))
        is_price = any(word in field.lower() for word in ("price", "total", "amount", "currency"))
        hint = ": prices come from the catalogue" if is_price else ""
        return _refusal(field, f"{field} is not accepted{hint}; the fields are {allowed}")
    if not place or isinstance(place[-1], int):
        name = field or "body"
        subject = field or "the body"
        return _refusal(name, f"{subject} must be an object, not {_kind(problem['input'])}")
    return _refusal(field, f"{field} {_EXPECTED[str(place[-1])]}")


def _kind(value: Any) -> str:
    names = {dict: "an object", list: "a list", str: "a text", bool: "true or false"}
    return "null" if value is None else names.get(type(value), "a number")


def _refusal(field: str, message: str) -> ApiError:
    return ApiError(HTTPStatus.BAD_REQUEST, message, field=field)
