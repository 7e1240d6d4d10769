"""What a client may ask for: turns a request's body into an order, or says what is wrong with it."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final

import orjson

from order_services.catalogue import CURRENCY, PRODUCT_OF, Product
from order_services.runtime.http import ApiError

if TYPE_CHECKING:
    from collections.abc import Mapping

MAX_ITEMS: Final = 50
MAX_QUANTITY: Final = 100

_CUSTOMER_ID: Final = re.compile(r"[A-Za-z0-9._@:+\-]{1,64}")
_IDEMPOTENCY_KEY: Final = re.compile(r"[\x21-\x7e]{1,128}")
_ORDER_FIELDS: Final = frozenset({"customerId", "items"})
_ITEM_FIELDS: Final = frozenset({"productId", "quantity"})


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
    if not isinstance(body, dict):
        raise _refusal("body", f"the body must be an object, not {_kind(body)}")
    _refuse_unknown(body, _ORDER_FIELDS, "")
    customer_id = body.get("customerId")
    if not isinstance(customer_id, str) or not _CUSTOMER_ID.fullmatch(customer_id):
        raise _refusal(
            "customerId", "customerId must be 1 to 64 letters, digits or any of . _ @ : + -"
        )
    items = body.get("items")
    if not isinstance(items, list) or not 1 <= len(items) <= MAX_ITEMS:
        raise _refusal("items", f"items must be a list of 1 to {MAX_ITEMS}")
    parsed = tuple(_item(f"items[{n}]", item, catalogue) for n, item in enumerate(items))
    seen: set[str] = set()
    for n, item in enumerate(parsed):
        if item.product_id in seen:
            raise _refusal(
                f"items[{n}].productId",
                f"items[{n}].productId repeats {item.product_id}: add its quantities up",
            )
        seen.add(item.product_id)
    return OrderRequest(customer_id, parsed)


def parse_idempotency_key(text: str | None) -> str | None:
    """Check the header Idempotency-Key; raises `ApiError` 400 that names it."""
    if text is None:
        return None
    if not _IDEMPOTENCY_KEY.fullmatch(text):
        raise _refusal(
            "Idempotency-Key", "Idempotency-Key must be 1 to 128 visible ASCII characters"
        )
    return text


def _item(path: str, item: Any, catalogue: Mapping[str, Product]) -> OrderItem:
    if not isinstance(item, dict):
        raise _refusal(path, f"{path} must be an object, not {_kind(item)}")
    _refuse_unknown(item, _ITEM_FIELDS, f"{path}.")
    product_id = item.get("productId")
    if not isinstance(product_id, str):
        raise _refusal(f"{path}.productId", f"{path}.productId must be a text")
    product = catalogue.get(product_id)
    if product is None:
        raise _refusal(
            f"{path}.productId", f"{path}.productId is not in the catalogue (GET /api/inventory)"
        )
    quantity = item.get("quantity")
    # true is an int in Python
    if type(quantity) is not int or not 1 <= quantity <= MAX_QUANTITY:
        raise _refusal(
            f"{path}.quantity", f"{path}.quantity must be an integer from 1 to {MAX_QUANTITY}"
        )
    return OrderItem(product_id, quantity, product.price_cents)


def _refuse_unknown(given: Mapping[str, Any], known: frozenset[str], prefix: str) -> None:
    unknown = given.keys() - known
    if not unknown:
        return
    name = min(unknown)[:64]
    hint = ""
    if any(word in name.lower() for word in ("price", "total", "amount", "currency")):
        hint = ": prices come from the catalogue"
    allowed = ", ".join(sorted(known))
    raise _refusal(prefix + name, f"{prefix}{name} is not accepted{hint}; the fields are {allowed}")


def _kind(value: Any) -> str:
    names = {dict: "an object", list: "a list", str: "a text", bool: "true or false"}
    return "null" if value is None else names.get(type(value), "a number")


def _refusal(field: str, message: str) -> ApiError:
    return ApiError(HTTPStatus.BAD_REQUEST, message, field=field)
