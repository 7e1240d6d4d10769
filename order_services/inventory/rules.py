"""Which orders get their stock: pure functions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, MutableMapping
from typing import Any

Quantities = dict[str, int]  # product id -> pieces


def quantities(payload: Mapping[str, Any]) -> Quantities:
    """Return what an order wants; raises `ValueError` naming what is wrong with its items."""
    items = payload.get("items")
    if not isinstance(items, list) or not items:
        raise ValueError("items must be a list that is not empty")
    wanted: Counter[str] = Counter()
    for item in items:
        if not isinstance(item, dict):
            raise ValueError(f"an item must be an object, not {item!r}")  # noqa: TRY004  # the sender's data
        product_id, quantity = item.get("productId"), item.get("quantity")
        if not isinstance(product_id, str):
            raise ValueError(f"productId must be a text, not {product_id!r}")  # noqa: TRY004
        if type(quantity) is not int or quantity < 1:
            raise ValueError(f"quantity must be an integer of at least 1, not {quantity!r}")
        wanted[product_id] += quantity
    return dict(wanted)


def take(available: MutableMapping[str, int], wanted: Quantities) -> list[str]:
    """Take all that is wanted out of `available`, or nothing; return the products that lack."""
    missing = [
        product_id
        for product_id, quantity in wanted.items()
        if available.get(product_id, 0) < quantity
    ]
    if not missing:
        for product_id, quantity in wanted.items():
            available[product_id] -= quantity
    return missing


def items(held: Quantities) -> list[dict[str, str | int]]:
    """Return quantities in the form that events carry."""
    return [
        {"productId": product_id, "quantity": quantity} for product_id, quantity in held.items()
    ]
