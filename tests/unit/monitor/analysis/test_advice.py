from __future__ import annotations

from dataclasses import replace

import pytest

from monitor.analysis.advice import (
    Advice,
    GroupPicture,
    Severity,
    TopicPicture,
    advise,
    recommended_partitions,
    replicas_needed,
    sizing,
)
from monitor.analysis.rates import NEVER
from monitor.model import Member
from tests.support.lagging import CALM, GROUP, TOPIC, ModelShop

NOW = 50_000.0
ORDERS = TopicPicture("orders", 6, consumers=3)
HEALTHY = GroupPicture("g", members=3, idle=0, unassigned=0, topics=(ORDERS,))


def advised(group: GroupPicture) -> list[Advice]:
    return advise(group, NOW)


def with_topic(**known: object) -> GroupPicture:
    return replace(HEALTHY, topics=(replace(ORDERS, **known),))  # type: ignore[arg-type]  # a test names fields freely


def test_a_healthy_group_needs_no_advice() -> None:
    assert advised(HEALTHY) == []
    assert advised(GroupPicture("nothing is known")) == []


CASES = [
    (
        "no_members",
        Severity.CRITICAL,
        replace(with_topic(lag=90), members=0),
        "no members and 90 unread",
    ),
    (
        "idle_members",
        Severity.INFO,
        replace(HEALTHY, members=8, idle=2),
        "2 of 8 members are idle: the largest topic has only 6 partitions.",
    ),
    (
        "idle_members",
        Severity.WARNING,
        replace(with_topic(lag=90), idle=1),
        "1 of 3 members are idle: they were assigned nothing.",
    ),
    ("unassigned_partitions", Severity.CRITICAL, replace(HEALTHY, unassigned=2), "2 partitions"),
    (
        "rebalance_storm",
        Severity.WARNING,
        replace(HEALTHY, rebalances_last_hour=7),
        "7 rebalances in the last hour",
    ),
    (
        "commits_stopped",
        Severity.WARNING,
        replace(with_topic(lag=90, produced=1.0), members=0, had_commits=True, had_members=False),
        "commits without members, and has stopped to: 90 unread",
    ),
    (
        "never_active",
        Severity.INFO,
        replace(with_topic(lag=90), members=0, had_members=False),
        "Nobody was seen to consume since the monitor started, 90 messages are unread",
    ),
    (
        "messages_lost",
        Severity.CRITICAL,
        with_topic(unread_deleted=40, lost_at=NOW - 3_600.0),
        "40 messages of orders",
    ),
    (
        "retention_risk",
        Severity.CRITICAL,
        with_topic(lag=5, deleted_at=NOW + 5400.0),
        "may be deleted in 90 min",
    ),
    (
        "commit_past_end",
        Severity.WARNING,
        with_topic(past_end=5_000_000),
        "Commits on orders are 5000000 messages past the log end",
    ),
    (
        "open_transaction",
        Severity.WARNING,
        with_topic(held=1_463, held_since=NOW - 1_800.0),
        "holds back 1463 records of orders, for 30 min now",
    ),
    (
        "not_consumed",
        Severity.INFO,
        with_topic(lag=90, consumed_topic=False, stuck=3),
        "has commits on orders, but its members hold nothing of it",
    ),
    (
        "held_without_commit",
        Severity.INFO,
        with_topic(uncommitted=2),
        "2 partitions of orders are held by members that have not committed",
    ),
    (
        "consumer_stuck",
        Severity.CRITICAL,
        with_topic(lag=90, stuck=1, stuck_since=NOW - 720.0),
        "committed nothing for 12 min on 1 of 6 partitions, with 90 unread messages",
    ),
    (
        "partition_in_error",
        Severity.CRITICAL,
        with_topic(lag=90, in_error=1),
        "1 of 6 partitions of orders stand still or were rewound, with 90 unread",
    ),
    (
        "never_catches_up",
        Severity.CRITICAL,
        with_topic(lag=9000, catch_up=NEVER, produced=100.0, consumed=60.0),
        "100 messages/s come, 60 are consumed by 3 members.",
    ),
    (
        "partition_falls_behind",
        Severity.WARNING,
        with_topic(lag=9000, catch_up=NEVER, produced=100.0, consumed=110.0),
        "at least one partition never catches up",
    ),
    (
        "hot_partition",
        Severity.WARNING,
        with_topic(production_excess=2.6, hottest=(3, 0.6)),
        "Partition 3 of orders gets 60% of the messages, 17% would be even",
    ),
    (
        "uneven_assignment",
        Severity.WARNING,
        with_topic(assignment_excess=0.5),
        "holds 50% more partitions than it would",
    ),
]


@pytest.mark.parametrize(("cause", "severity", "group", "says"), CASES)
def test_advice(cause: str, severity: Severity, group: GroupPicture, says: str) -> None:
    (found,) = advised(group)
    assert (found.cause, found.severity) == (cause, severity)
    assert says in found.finding(NOW)
    assert found.action


def test_idle_members_beyond_the_partitions_are_told_that_replicas_do_not_help() -> None:
    (found,) = advised(replace(HEALTHY, members=8, idle=2))
    assert "More replicas will not help" in found.action


def test_members_that_another_assignor_would_give_partitions_are_not_too_many() -> None:
    uneven = with_topic(assignment_excess=1.0)
    for found in advised(replace(uneven, members=8, idle=2)):
        assert "More replicas will not help" not in found.action


def test_an_uneven_assignment_is_told_once_for_all_topics() -> None:
    (topic,) = with_topic(assignment_excess=0.5).topics
    group = replace(HEALTHY, topics=(topic, replace(topic, topic="payments")))
    (found,) = advised(group)
    assert (found.cause, found.topic) == ("uneven_assignment", None)


def test_too_slow_a_group_is_told_how_many_replicas_and_partitions_it_needs() -> None:
    slow = with_topic(lag=9000, catch_up=NEVER, produced=100.0, consumed=60.0)
    (found,) = advised(slow)
    assert "at least 6 replicas that read it; the 6 partitions are enough" in found.action
    (found,) = advised(
        with_topic(lag=9000, catch_up=NEVER, produced=100.0, consumed=30.0),
    )
    assert "at least 11 replicas that read it; and at least 11 partitions: it has 6" in found.action


def test_only_who_reads_a_topic_counts_as_its_consumer() -> None:
    (found,) = advised(with_topic(consumers=1, lag=9, catch_up=NEVER, produced=1.0, consumed=0.5))
    assert "1 messages/s come, 0.5 are consumed by 1 member of 3." in found.finding(NOW)
    assert "at least 3 replicas that read it; the 6 partitions are enough" in found.action
    (found,) = advised(with_topic(consumers=0, lag=9, catch_up=NEVER, produced=1.0, consumed=0.5))
    assert "replicas" not in found.action  # nobody knows what one of them takes


def test_advice_and_explanation_count_the_same_members() -> None:
    shop = ModelShop(partitions=4, members=1, pace=2.0, rate=1.2)
    for _ in range(3 * CALM):
        reader = shop.cluster.groups[GROUP].members[0]
        others = (Member(f"of-{topic}", "", "", {topic: (0, 1)}) for topic in ("u", "v"))
        shop.cluster.groups[GROUP].members = (reader, *others)
        told = shop.run(1).explain()
    (advice,) = (a for a in shop.latest().groups[GROUP].advice if a.cause == "never_catches_up")
    assert "are consumed by 1 member of 3." in advice.template
    assert "at least 3 replicas that read it; the 4 partitions are enough" in advice.action
    assert "and 1 of the group's 3 members read 2" in told["sentence"]
    assert "Run 3 members that read this topic." in [step["action"] for step in told["next_steps"]]


@pytest.mark.parametrize(
    "quiet",
    [
        with_topic(lag=90),
        with_topic(unread_deleted=40, lost_at=NOW - 3_601.0),
        with_topic(unread_deleted=40),
        with_topic(unread_deleted=0, lost_at=NOW - 1.0),
        replace(with_topic(lag=90, produced=1.0), members=0, had_commits=True, commits_move=True),
        replace(with_topic(lag=90, produced=0.0), members=0, had_commits=True),
        with_topic(production_excess=0.2, hottest=(0, 0.2)),
        with_topic(assignment_excess=0.2),
        with_topic(lag=5, deleted_at=NOW + 86_400.0),
        with_topic(lag=0, deleted_at=NOW + 60.0),
        with_topic(lag=90, catch_up=120.0, produced=1.0, consumed=2.0),
        replace(HEALTHY, members=0),
        replace(HEALTHY, rebalances_last_hour=6),
    ],
)
def test_what_is_within_limits_is_not_mentioned(quiet: GroupPicture) -> None:
    assert advised(quiet) == []


def test_a_topic_is_not_in_error_for_what_stands_on_another() -> None:
    shop = ModelShop()
    shop.add_topic("u", 2, 1.0)
    found = set()
    for poll in range(2 * CALM):
        if poll == CALM:
            shop.stand(2)
        first, *others = shop.cluster.groups[GROUP].members
        held = replace(first, assignment={**first.assignment, "u": (0, 1)})
        shop.cluster.groups[GROUP].members = (held, *others)
        read_but_one = shop.log("u", 0).end + 14
        shop.cluster.commit(GROUP, "u", read_but_one, read_but_one)
        measures = shop.run(1).latest().groups[GROUP]
        found |= {a.topic for a in measures.advice if a.cause == "partition_in_error"}
    assert measures.lag.topics["u"] == 2
    assert found == {TOPIC}


def test_the_worst_comes_first_and_the_order_is_stable() -> None:
    group = replace(
        with_topic(
            lag=90, production_excess=2.0, hottest=(3, 0.6), unread_deleted=1, lost_at=NOW - 9.0
        ),
        members=8,
        idle=2,
    )
    found = advised(group)
    assert [a.cause for a in found] == ["messages_lost", "hot_partition", "idle_members"]
    assert advised(group) == found


@pytest.mark.parametrize(
    ("throughput", "per_consumer", "replicas", "expected"),
    [(1000, 100, 4, 10), (1000, 300, 2, 4), (10, 100, 6, 6), (0, 1, 0, 1)],
)
def test_the_guides_formula(
    throughput: float, per_consumer: float, replicas: int, expected: int
) -> None:
    assert recommended_partitions(throughput, per_consumer, replicas) == expected


def test_a_consumer_without_throughput_is_refused() -> None:
    with pytest.raises(ValueError, match="must be positive"):
        recommended_partitions(10, 0, 1)
    with pytest.raises(ValueError, match="must not be negative"):
        sizing(-1)


def test_enough_replicas_consume_more_than_is_produced() -> None:
    assert replicas_needed(100, 20) == 6
    assert replicas_needed(99, 20) == 5


@pytest.mark.parametrize(
    ("orders", "partitions", "replicas"),
    [
        (0, 3, (1, 2)),
        (9_999, 3, (1, 2)),
        (10_000, 6, (2, 4)),
        (100_000, 6, (2, 4)),
        (100_001, 12, (4, 8)),
        (1_000_000, 12, (4, 8)),
        (1_000_001, 24, (8, None)),
    ],
)
def test_the_guides_table(orders: int, partitions: int, replicas: tuple[int, int | None]) -> None:
    row = sizing(orders)
    assert row.partitions == partitions
    assert (row.least_replicas, row.most_replicas) == replicas
    assert row.more_partitions == (orders > 1_000_000)
