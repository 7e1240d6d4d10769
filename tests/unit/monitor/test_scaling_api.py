"""The scaling answer: the number that an autoscaler follows, and when there is none."""

from __future__ import annotations

import pytest

from monitor.analysis.measures import GroupMeasures
from monitor.analysis.scaling import advisor
from monitor.analysis.scaling.measuring import Sight
from monitor.model import Group, Snapshot
from monitor.pools.analysis import replicas_within
from monitor.pools.report import OneMore, Outcome, ServiceUse
from tests.unit.monitor.watched_cluster import WatchedCluster


@pytest.fixture
def watched() -> WatchedCluster:
    """A group of one member that is asked for 300 messages in 15 s, and manages 150."""
    watched = WatchedCluster()
    cluster = watched.cluster
    cluster.create("orders", 3)
    cluster.commit("behind", "orders", 0, 0, 0)
    cluster.join("behind", "orders")
    work(watched, 1)
    return watched


def work(watched: WatchedCluster, polls: int) -> None:
    for _ in range(polls):
        watched.cluster.append_to_all("orders", 100)
        committed = watched.cluster.groups["behind"].commits["orders"]
        watched.cluster.commit("behind", "orders", *(offset + 50 for offset in committed.values()))
        watched.poll()


def test_the_number_is_at_a_path_that_autoscalers_read(watched: WatchedCluster) -> None:
    first = watched.get("/scaling/behind")
    # of one poll nothing is known, and so nothing is changed
    assert (first["replicas"], first["verdict"]) == (1, "unknown")
    work(watched, 8)
    found = watched.get("/scaling/behind")
    assert found["verdict"] == "up"
    assert found["replicas"] == 3
    assert found["per_consumer_per_second"] == pytest.approx(10, rel=0.1)
    assert found["produced_per_second"] == pytest.approx(20, rel=0.1)
    assert (found["limit"], found["members"], found["unread"]) == (3, 1, 3 * 450)
    assert found["max_lag_seconds"] > 45
    assert "one consumer manages 10.0" in found["reason"]
    assert found["seen_at"] == pytest.approx(watched.clock.wall(), abs=1)


def test_a_group_that_is_not_there_has_no_number(watched: WatchedCluster) -> None:
    assert "no group 'gone'" in watched.get("/scaling/gone", 404)["error"]["message"]
    assert watched.get("/scaling/behind?x=1", 400)["error"]["field"] == "x"


def test_what_is_not_known_is_no_number(watched: WatchedCluster) -> None:
    watched.get("/scaling/behind")
    watched.cluster.silent = {1, 2}
    watched.poll()
    assert "not known how many replicas" in watched.get("/scaling/behind", 503)["error"]["message"]
    watched.cluster.silent = set()
    work(watched, 8)
    assert watched.get("/scaling/behind")["replicas"] == 3


def test_a_budget_of_connections_is_a_limit() -> None:
    watched = WatchedCluster(scaling=advisor.Advisor(None, lambda _: (2, "PostgreSQL has no more")))
    watched.cluster.create("orders", 3)
    watched.cluster.commit("behind", "orders", 0, 0, 0)
    watched.cluster.join("behind", "orders")
    work(watched, 1)
    watched.get("/scaling/behind")
    work(watched, 8)
    found = watched.get("/scaling/behind")
    assert (found["replicas"], found["limited_by"]) == (2, "PostgreSQL has no more")


def test_only_groups_that_are_asked_for_cost_a_poll(
    watched: WatchedCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked_at: list[str] = []
    sight_of = advisor.sight_of

    def looking(snapshot: Snapshot, group: Group, measures: GroupMeasures) -> Sight | None:
        looked_at.append(group.id)
        return sight_of(snapshot, group, measures)

    monkeypatch.setattr(advisor, "sight_of", looking)
    work(watched, 2)
    assert not looked_at
    watched.get("/scaling/behind")
    work(watched, 2)
    assert looked_at == ["behind"] * 3
    # nobody has asked for an hour
    watched.clock.go_on(advisor.FORGET_SECONDS)
    work(watched, 2)
    assert looked_at == ["behind"] * 3


def service(left: int | None, outcome: Outcome, replicas: int = 3) -> ServiceUse:
    return ServiceUse(
        "payment-service", replicas, 5, 15, 9, None, None, None, None,
        OneMore(outcome, "PostgreSQL", left=left),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("left", "outcome", "replicas"),
    [
        (12, Outcome.FITS, 6),  # one more leaves 12: that and two others
        (0, Outcome.FITS, 4),
        (-1, Outcome.EXCEEDS, 3),
        (-5, Outcome.EXCEEDS, 3),
        (-6, Outcome.EXCEEDS, 2),  # there are too many already
        (None, Outcome.UNKNOWN, None),
        (12, Outcome.UNKNOWN, None),
    ],
)
def test_connections_that_are_left_are_replicas(
    left: int | None, outcome: Outcome, replicas: int | None
) -> None:
    found = replicas_within([service(left, outcome)], "payment-service-group")
    assert (found and found[0]) == replicas
    assert replicas_within([service(left, outcome)], "payment") == found
    assert replicas_within([service(left, outcome)], "shipping-service-group") is None
