"""Customers who order and sometimes cancel, and a ledger of every answer 2xx that they got."""

from __future__ import annotations

import http.client
import json
import random
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field

from order_services.domain.catalogue import PRODUCTS
from order_services.local.plan import ServiceReplica

REQUEST_TIMEOUT_S = 8.0
RETRY_PAUSE_S = 0.2
CANCEL_SHARE = 0.15


@dataclass
class Ledger:
    """What the gateway has promised: order ids by idempotency key, and the cancels it granted."""

    accepted: dict[str, str] = field(default_factory=dict)
    totals: dict[str, int] = field(default_factory=dict)
    cancelled: set[str] = field(default_factory=set)
    refused_cancels: set[str] = field(default_factory=set)
    broken_promises: list[str] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)


@dataclass
class Customers:
    """Order at about `rate` a second until stopped; every request is repeated until answered."""

    gateways: Callable[[], list[ServiceReplica]]
    rate: float
    seed: int
    threads: int = 4
    ledger: Ledger = field(default_factory=Ledger)
    _stop: threading.Event = field(default_factory=threading.Event)
    _running: list[threading.Thread] = field(default_factory=list)

    def start(self) -> None:
        """Open the shop's door."""
        for number in range(self.threads):
            thread = threading.Thread(target=self._shop, args=(number,), daemon=True)
            thread.start()
            self._running.append(thread)

    def stop(self) -> None:
        """Let everybody finish the request that they are in."""
        self._stop.set()
        for thread in self._running:
            thread.join(timeout=60)

    def _shop(self, number: int) -> None:
        choice = random.Random(self.seed * 1000 + number)
        pause = self.threads / self.rate
        recent: list[str] = []
        while not self._stop.is_set():
            order_id = self._order(choice)
            if order_id is not None and choice.random() < CANCEL_SHARE:
                recent.append(order_id)
            if recent and choice.random() < 0.5:
                # some at once, some after a moment: before, during and after shipping
                self._cancel(choice, recent.pop(choice.randrange(len(recent))))
            self._stop.wait(choice.expovariate(1 / pause))

    def _order(self, choice: random.Random) -> str | None:
        products = choice.sample(PRODUCTS, k=choice.randint(1, 4))
        lines = [(product, choice.randint(1, 3)) for product in products]
        body = {
            "customerId": f"customer-{choice.randint(1, 99)}",
            "items": [{"productId": p.product_id, "quantity": q} for p, q in lines],
        }
        key = str(uuid.UUID(int=choice.getrandbits(128)))
        answer = self._insist(choice, "POST", "/api/orders", body, {"Idempotency-Key": key})
        if answer is None:
            return None
        status, content = answer
        if not 200 <= status < 300:
            self._broken(f"an order was answered {status}: {content}")
            return None
        order_id = str(content["orderId"])
        with self.ledger.lock:
            self.ledger.accepted[key] = order_id
            self.ledger.totals[order_id] = sum(p.price_cents * q for p, q in lines)
        if choice.random() < 0.1:  # an impatient customer sends the same order again
            again = self._insist(choice, "POST", "/api/orders", body, {"Idempotency-Key": key})
            if again is not None and again[1].get("orderId") != order_id:
                self._broken(f"key {key} gave {order_id} and then {again}")
        return order_id

    def _cancel(self, choice: random.Random, order_id: str) -> None:
        answer = self._insist(choice, "POST", f"/api/orders/{order_id}/cancel", {}, {})
        if answer is None:
            return
        status, content = answer
        with self.ledger.lock:
            if 200 <= status < 300:
                self.ledger.cancelled.add(order_id)
            elif status == 409:
                self.ledger.refused_cancels.add(order_id)
        if status not in (200, 202, 409):
            self._broken(
                f"the cancel of accepted order {order_id} was answered {status}: {content}"
            )

    def _insist(
        self, choice: random.Random, method: str, path: str, body: object, headers: dict[str, str]
    ) -> tuple[int, dict[str, object]] | None:
        """Repeat the request until somebody answers it for good; None when told to stop before."""
        give_up = None
        while give_up is None or time.monotonic() < give_up:
            if self._stop.is_set() and give_up is None:
                give_up = time.monotonic() + 20
            gateway = choice.choice(self.gateways())
            connection = http.client.HTTPConnection(
                "127.0.0.1", gateway.port, timeout=REQUEST_TIMEOUT_S
            )
            try:
                connection.request(
                    method, path, json.dumps(body), {"Content-Type": "application/json", **headers}
                )
                response = connection.getresponse()
                content = response.read()
                if response.status < 500:
                    return response.status, json.loads(content)
            except (OSError, http.client.HTTPException, ValueError):
                pass  # killed in the middle: nobody knows whether it was done, so ask again
            finally:
                connection.close()
            time.sleep(RETRY_PAUSE_S)
        return None

    def _broken(self, what: str) -> None:
        with self.ledger.lock:
            self.ledger.broken_promises.append(what)
