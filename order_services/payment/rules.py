"""Which orders are charged: pure functions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

REASON_REFUSED: Final = "card_refused"
REASON_LIMIT: Final = "amount_over_limit"

# A refusal depends on the order alone, so that it is the same whoever decides, however often.
_BUCKETS: Final = 10_000


@dataclass(frozen=True, slots=True)
class Rules:
    """`refusal_rate` of all orders are refused, and those above `limit_cents`."""

    refusal_rate: float = 0.0
    limit_cents: int = 5_000_000

    def refusal(self, order_id: str, amount_cents: int) -> str | None:
        """Return why this charge is refused, or None."""
        if amount_cents > self.limit_cents:
            return REASON_LIMIT
        # the end of the id is noise; its beginning is the time
        if self.refusal_rate and int(order_id[-8:], 16) % _BUCKETS < self.refusal_rate * _BUCKETS:
            return REASON_REFUSED
        return None
