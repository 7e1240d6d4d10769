"""What we sell: the only source of prices."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

CURRENCY: Final = "EUR"


@dataclass(frozen=True, slots=True)
class Product:
    """One product; `stock` is what a new database starts with."""

    product_id: str
    name: str
    price_cents: int
    stock: int = 1_000_000


PRODUCTS: Final = (
    Product("PROD-001", "Laptop", 1_299_00),
    Product("PROD-002", "Smartphone", 799_00),
    Product("PROD-003", "Headphones", 199_00),
    Product("PROD-004", "Keyboard", 89_00),
    Product("PROD-005", "Mouse", 39_00),
    Product("PROD-006", "Monitor", 349_00),
    Product("PROD-007", "Webcam", 69_00),
    Product("PROD-008", "USB cable", 9_00),
)

PRODUCT_OF: Final = {product.product_id: product for product in PRODUCTS}
