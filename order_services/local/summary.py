"""The live summary that `order-services up` prints: orders, rates, and each group's lag."""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.request
from collections import defaultdict
from dataclasses import dataclass, field

import psycopg2
from prometheus_client.parser import text_string_to_metric_families

from order_services.local.plan import DatabaseAddress

TIMEOUT_S = 2.0


@dataclass(frozen=True)
class Orders:
    """How many orders there are, by what became of them."""

    accepted: int
    fulfilled: int
    cancelled: int


@dataclass
class Summary:
    """Ask the database for the orders and the monitor for the lag."""

    database: DatabaseAddress
    monitor_url: str
    _last: tuple[float, int] | None = field(default=None, init=False)

    def line(self) -> str:
        """Return one line of figures; what can't be read is shown as `?`, never as a number."""
        return f"{self._orders_text()} | lag {self._lag_text()}"

    def orders(self) -> Orders | None:
        """Count the orders; None when the database does not answer."""
        try:
            connection = psycopg2.connect(
                host=self.database.host,
                port=self.database.port,
                dbname=self.database.name,
                user=self.database.user,
                password=self.database.password,
                connect_timeout=2,
                application_name="order-services-up",
            )
        except psycopg2.Error:
            return None
        try:
            with connection.cursor() as cursor:
                cursor.execute(
                    "SELECT (SELECT count(*) FROM orders),"
                    " count(*) FILTER (WHERE decision = 'dispatched'),"
                    " count(*) FILTER (WHERE decision = 'cancelled') FROM order_decisions"
                )
                row = cursor.fetchone()
                return Orders(*row) if row else None
        except psycopg2.Error:
            return None
        finally:
            connection.close()

    def lag(self) -> dict[str, int] | None:
        """Return the unread messages of each consumer group; None when the monitor doesn't answer."""
        try:
            with urllib.request.urlopen(f"{self.monitor_url}/metrics", timeout=TIMEOUT_S) as answer:  # noqa: S310  # our own loopback address
                text = answer.read().decode()
        except (OSError, urllib.error.URLError):
            return None
        groups: dict[str, int] = defaultdict(int)
        for metric in text_string_to_metric_families(text):
            if metric.name == "kafka_consumergroup_lag_sum":
                for sample in metric.samples:
                    groups[sample.labels["consumergroup"]] += int(sample.value)
        return dict(groups)

    def _orders_text(self) -> str:
        orders = self.orders()
        if orders is None:
            return "orders ? (the database does not answer)"
        now = time.monotonic()
        rate = ""
        if self._last is not None and now > self._last[0]:
            rate = f" {(orders.fulfilled - self._last[1]) / (now - self._last[0]):.1f}/s"
        self._last = (now, orders.fulfilled)
        return (
            f"orders: accepted {orders.accepted}, fulfilled {orders.fulfilled}{rate}, "
            f"cancelled {orders.cancelled}"
        )

    def _lag_text(self) -> str:
        lag = self.lag()
        if lag is None:
            return "? (the monitor does not answer)"
        if not lag:
            return "(no group has committed yet)"
        return " ".join(
            f"{group.removesuffix('-group').removesuffix('-service')}={messages}"
            for group, messages in sorted(lag.items())
        )


def is_ready(url: str) -> tuple[bool, str]:
    """Ask `/ready`; return whether it is, and the reason when it isn't."""
    try:
        with urllib.request.urlopen(f"{url}/ready", timeout=TIMEOUT_S):  # noqa: S310  # our own loopback address
            return True, ""
    except urllib.error.HTTPError as error:
        return False, _reason(error.read())
    except OSError as error:
        return False, str(getattr(error, "reason", error))


def _reason(body: bytes) -> str:
    try:
        return json.dumps(json.loads(body))[:300]
    except ValueError:
        return body[:300].decode(errors="replace")
