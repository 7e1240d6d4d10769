"""Send demo orders to the gateway at a steady rate, as a shop's customers would."""

from __future__ import annotations

import http.client
import json
import random
import threading
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from http import HTTPStatus

from order_services.domain.catalogue import PRODUCTS

# One connection carries about a hundred orders a second here: faster rates share the work.
ORDERS_PER_THREAD = 100
REQUEST_TIMEOUT_S = 10.0
RETRY_PAUSE_S = 0.5


@dataclass
class Traffic:
    """Send `rate` orders a second to HOST:PORT until stopped; the rate may be changed meanwhile.

    An order that gets no answer is sent again with the same Idempotency-Key, so a restart of the
    gateway neither loses nor doubles it.
    """

    host: str
    port: int
    rate: float
    cancel_share: float = 0.0  # of the orders, cancelled right after they were accepted
    accepted: int = field(default=0, init=False)
    refused: int = field(default=0, init=False)
    _stop: threading.Event = field(default_factory=threading.Event, init=False)
    _threads: list[threading.Thread] = field(default_factory=list, init=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, init=False)

    def start(self) -> None:
        """Begin to send."""
        count = max(1, round(self.rate / ORDERS_PER_THREAD))
        for number in range(count):
            thread = threading.Thread(
                target=self._run, args=(1 / count,), name=f"traffic-{number}", daemon=True
            )
            thread.start()
            self._threads.append(thread)

    def stop(self) -> None:
        """Send no more; an order on its way is given up after a moment."""
        self._stop.set()
        for thread in self._threads:
            thread.join(timeout=2)

    def _run(self, share: float) -> None:
        connection = http.client.HTTPConnection(self.host, self.port, timeout=REQUEST_TIMEOUT_S)
        choice = random.Random()  # noqa: S311  # what customers buy is no secret
        due = time.monotonic()
        while not self._stop.is_set():
            order_id = self._send(connection, _demo_order(choice))
            if order_id is not None and choice.random() < self.cancel_share:
                self._ask(connection, f"/api/orders/{order_id}/cancel", {}, {})
            # a fixed schedule, not a pause after each: a slow gateway must not lower the rate
            due = max(due + 1 / (self.rate * share), time.monotonic() - 1.0)
            self._stop.wait(max(0.0, due - time.monotonic()))
        connection.close()

    def _send(self, connection: http.client.HTTPConnection, order: object) -> str | None:
        answer = self._ask(connection, "/api/orders", order, {"Idempotency-Key": str(uuid.uuid4())})
        if answer is None:
            return None
        status, content = answer
        is_accepted = status < HTTPStatus.BAD_REQUEST
        with self._lock:
            self.accepted += is_accepted
            self.refused += not is_accepted
        order_id = content.get("orderId") if is_accepted else None
        return str(order_id) if order_id is not None else None

    def _ask(
        self,
        connection: http.client.HTTPConnection,
        path: str,
        body: object,
        headers: Mapping[str, str],
    ) -> tuple[int, dict[str, object]] | None:
        """Post until somebody answers for good; None when told to stop before."""
        while not self._stop.is_set():
            try:
                connection.request(
                    "POST", path, json.dumps(body), {"Content-Type": "application/json", **headers}
                )
                response = connection.getresponse()
                content = response.read()
                if response.status < HTTPStatus.INTERNAL_SERVER_ERROR:
                    return response.status, json.loads(content)
            except (OSError, http.client.HTTPException):
                connection.close()
            self._stop.wait(RETRY_PAUSE_S)
        return None


def _demo_order(choice: random.Random) -> dict[str, object]:
    products = choice.sample([product.product_id for product in PRODUCTS], k=choice.randint(1, 3))
    return {
        "customerId": f"customer-{choice.randint(1, 500)}",
        "items": [{"productId": product, "quantity": choice.randint(1, 3)} for product in products],
    }
