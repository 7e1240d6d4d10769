"""A cluster in memory that is watched and served, for what people see of it in a browser."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from monitor.configuration import Watched
from monitor.exposition.render import Page
from monitor.kafka.brokers import UnreachableError
from monitor.model import (
    Broker,
    Group,
    Member,
    Offsets,
    Partition,
    Refused,
    Snapshot,
    Topic,
    TopicConfig,
)
from monitor.poller import Poller
from monitor.pools.report import Budget, OneMore, Outcome, PoolReport, ServiceUse, Via
from monitor.web.app import create_app
from monitor.web.server import WebServer
from monitor.web.trends import Trends

INTERVAL_S: Final = 15.0
STALE_AFTER_S: Final = 3_600.0
WARM_UP: Final = 12  # polls: a status needs ten

HOSTILE: Final = (
    "<img src=x onerror=document.title='pwned'>",
    "..",
    "a/b?c=d&e#f",
    "=cmd()|' /C calc'!A0",
    "evil\u202egnp\nline",
    "",
)


@dataclass
class ShownCluster:
    """What a poll finds: topics of so many partitions, and groups that lag by so much.

    `lags` has group -> messages unread on each of its partitions; `growth` what is added at each
    poll.
    """

    name: str = "production"
    topics: dict[str, int] = field(default_factory=dict)
    reads: dict[str, str] = field(default_factory=dict)
    lags: dict[str, int] = field(default_factory=dict)
    growth: dict[str, int] = field(default_factory=dict)
    members: dict[str, int] = field(default_factory=dict)
    refused: set[str] = field(default_factory=set)
    uncommitted: set[str] = field(default_factory=set)
    is_away: bool = False
    end: int = 10_000
    back_s: float = WARM_UP * INTERVAL_S

    def __post_init__(self) -> None:
        """Watch it."""
        self.trends = Trends(STALE_AFTER_S)
        self.poller = Poller(
            self,
            stale_after_s=STALE_AFTER_S,
            cluster=self.name,
            published=lambda: self.trends.record(self.poller.latest.state),
            clock=lambda: time.time() - self.back_s,
            monotonic=lambda: time.monotonic() - self.back_s,
        )

    def warm_up(self, polls: int = WARM_UP) -> None:
        """Poll as often as a status needs, up to now."""
        for left in reversed(range(polls)):
            self.back_s = left * INTERVAL_S
            self.go_on()

    def go_on(self) -> None:
        """Let records come, and poll."""
        self.end += 150
        for group, more in self.growth.items():
            self.lags[group] = max(0, self.lags[group] + more)
        self.poller.poll()

    def poll(self) -> Snapshot:
        """Return what is to be seen."""
        if self.is_away:
            raise UnreachableError({"kafka-1:9092": "connection refused"})
        now = time.monotonic() - self.back_s
        return Snapshot(
            "cluster-id",
            time.time() - self.back_s,
            now,
            controller=1,
            brokers={1: Broker(1, "kafka-1", 9092)},
            topics={
                topic: Topic(topic, dict.fromkeys(range(count), Partition(1, (1,), (1,))))
                for topic, count in self.topics.items()
            },
            start_offsets=Offsets(
                {topic: dict.fromkeys(range(count), 0) for topic, count in self.topics.items()}, now
            ),
            end_offsets=Offsets(
                {
                    topic: dict.fromkeys(range(count), self.end)
                    for topic, count in self.topics.items()
                },
                now,
            ),
            topic_configs=dict.fromkeys(
                self.topics, TopicConfig(604_800_000, -1, frozenset({"delete"}))
            ),
            groups={group: self._group(group) for group in self.reads},
        )

    def _group(self, group: str) -> Group:
        topic = self.reads[group]
        partitions = range(self.topics[topic])
        if group in self.refused:
            return Group(group, state="Stable", answer=Refused("GROUP_AUTHORIZATION_FAILED"))
        count = self.members.get(group, 1)
        members = tuple(
            Member(
                f"{group}-{number}-id", f"{group}-{number}", f"/10.0.0.{number + 1}",
                {topic: tuple(p for p in partitions if p % count == number)},
            )
            for number in range(count)
        )  # fmt: skip
        committed = self.end - self.lags.get(group, 0)
        return Group(
            group,
            state="Stable" if count else "Empty",
            protocol_type="consumer",
            assignor="cooperative-sticky",
            coordinator=1,
            members=members,
            commits={}
            if group in self.uncommitted
            else {topic: dict.fromkeys(partitions, committed)},
        )

    def offsets_for_times(self, wanted: Any) -> Mapping[str, Any]:  # noqa: ARG002
        """Answer nothing."""
        return {}

    def look_at_logs(self, wanted: Any) -> Mapping[str, Any]:  # noqa: ARG002
        """Answer nothing."""
        return {}

    def take_request_counts(self) -> Mapping[str, int]:
        """Return that no request was sent."""
        return {}


def shop() -> ShownCluster:
    """Return a cluster with a bad day: a group for each thing that a row may have to say."""
    return ShownCluster(
        topics={"orders": 6, "payments": 3, "audit": 3},
        reads={
            "payment-service-group": "orders",
            "inventory-service-group": "orders",
            "shipping-service-group": "payments",
            "order-status-group": "payments",
            "audit-exporter": "audit",
            "secret-group": "audit",
            "newcomer": "audit",
            **dict.fromkeys(HOSTILE, "audit"),
        },
        lags={
            "payment-service-group": 400,
            "shipping-service-group": 900,
            "audit-exporter": 200,  # more than comes between two polls
            "order-status-group": 0,
        },
        growth={"payment-service-group": 120, "shipping-service-group": -70},
        members={
            "payment-service-group": 2,
            "inventory-service-group": 3,
            "audit-exporter": 0,
        },
        refused={"secret-group"},
        uncommitted={"newcomer"},
    )


def large(groups: int, partitions: int) -> ShownCluster:
    """Return a cluster with so many groups and partitions; `large-0` reads a topic of all of them."""
    names = [f"group-{number:04}" for number in range(groups - 1)]
    topics = {f"topic-{number:03}": 10 for number in range(100)}
    return ShownCluster(
        name="large",
        topics={**topics, "wide": partitions},
        reads={
            **{name: f"topic-{i % 100:03}" for i, name in enumerate(names)},
            "large-0": "wide",
        },
        lags={**{name: i for i, name in enumerate(names)}, "large-0": 7},
        growth=dict.fromkeys(names[::10], 3),
        members={"large-0": 20},
    )


class Watching:
    """Several clusters, as a fleet has them."""

    def __init__(self, *clusters: ShownCluster) -> None:
        self._pollers = {cluster.name: cluster.poller for cluster in clusters}

    @property
    def pollers(self) -> Mapping[str, Poller]:
        """Return the poller of each cluster by its name."""
        return self._pollers

    @property
    def watched(self) -> Sequence[Watched]:
        """Return that their settings are not known."""
        return []

    def page(self) -> Page:
        """Return a page of one."""
        return next(iter(self._pollers.values())).page()

    def page_of(self, cluster: str) -> Page | None:
        """Return the page of one."""
        poller = self._pollers.get(cluster)
        return None if poller is None else poller.page()

    def unready_reason(self) -> str | None:
        """Return that all can be relied on."""
        return None


def pools() -> PoolReport:
    """Return what a look at databases found of which one service takes too much."""
    return PoolReport(
        services=(
            ServiceUse(
                "payment", 3, 10, 30, 30, 30, 4, 2, Via.POSTGRES,
                OneMore(Outcome.EXCEEDS, "max_connections", 3),
            ),
        ),
        budgets=(Budget("max_connections", 97, 60, 100),),
        advice=("payment waits for connections: 30 of 30 are in use",),
    )  # fmt: skip


def serve(port: int, *clusters: ShownCluster, **options: Any) -> tuple[WebServer, int]:
    """Serve the pages of clusters on a port, 0 for a free one; returns it."""
    trends = Trends(STALE_AFTER_S)
    for cluster in clusters:
        trends._clusters.update(cluster.trends._clusters)  # as `serve` has one of all
    app = create_app(
        Watching(*clusters) if len(clusters) > 1 else clusters[0].poller,
        trends=clusters[0].trends if len(clusters) == 1 else trends,
        **{"pools": pools, **options},
    )
    server = WebServer(app, "127.0.0.1", port)
    found = server.bind()
    server.start()
    return server, found
