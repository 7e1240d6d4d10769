"""A model cluster and the monitor's pages over it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from monitor.kafka.collector import Collector, Intervals
from monitor.poller import Poller
from monitor.pools.report import PoolReport
from monitor.web.app import App, create_app
from tests.support.asgi import Client
from tests.unit.monitor.model_cluster import Clock, ModelCluster


class WatchedCluster:
    """Polls a cluster every 15 s of its clock, and is asked as by a browser."""

    def __init__(
        self, pools: Callable[[], PoolReport | None] = lambda: None, **poller: Any
    ) -> None:
        self.clock = Clock()
        self.cluster = ModelCluster(self.clock)
        clocks: dict[str, Any] = {"clock": self.clock.wall, "monotonic": self.clock.monotonic}
        self.poller = Poller(
            Collector(self.cluster, Intervals(), **clocks), stale_after_s=45, **clocks, **poller
        )
        self.app: App = create_app(self.poller, pools=pools)
        self.client = Client(self.app)

    def poll(self, times: int = 1) -> None:
        """Poll, a while after the time before."""
        for _ in range(times):
            self.clock.go_on(15)
            self.poller.poll()

    def get(self, path: str, status: int = 200) -> Any:
        """Return the JSON that the API answers to a GET; the status must be this one."""
        answer = self.client.get(f"/api/v1{path}")
        assert answer.status_code == status, answer.text
        assert answer.headers["content-type"] == "application/json"
        return answer.json()
