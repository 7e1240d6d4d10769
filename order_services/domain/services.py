"""The five services, in the order in which they are started, and where the first replica of each listens."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

PORTS: Final[Mapping[str, int]] = {
    "gateway": 4000,
    "payment": 4001,
    "inventory": 4002,
    "shipping": 4003,
    "analytics": 4004,
}
SERVICES: Final = tuple(PORTS)
