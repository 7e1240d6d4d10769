"""What the person on call should know and do, in plain sentences, from the facts of one group.

Deterministic: the same facts give the same advice, worst first. The numbers behind "how many
partitions" are the scaling guide's.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum
from math import ceil, inf
from typing import TYPE_CHECKING

from monitor.analysis.rates import NEVER
from monitor.words import duration, plural, rate

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from monitor.analysis.rates import CatchUp

IMBALANCE_EXCESS = 0.2  # the scaling guide's limit of "Partition Balance"
LOSS_TOLD_SECONDS = 3600.0  # a loss that nobody can undo need not be told for ever
RETENTION_WARNING_SECONDS = 6 * 3600.0
REBALANCES_PER_HOUR = 6  # more is a storm
# in a finding, in place of a duration; no topic can have braces in its name
SINCE = "{since}"
UNTIL = "{until}"


class Severity(IntEnum):
    """How soon somebody should look."""

    INFO = 1
    WARNING = 2
    CRITICAL = 3


@dataclass(frozen=True, slots=True)
class Advice:
    """One finding: a stable cause for programs, what is so, and what to do about it.

    `template` is what is so, with `SINCE` and `UNTIL` in place of the time since, or until, `moment`.
    """

    severity: Severity
    cause: str
    template: str
    action: str
    topic: str | None = None
    moment: float | None = None

    def finding(self, now: float) -> str:
        """Say what is so, in words."""
        if self.moment is None:
            return self.template
        passed = now - self.moment
        return self.template.replace(SINCE, duration(max(0.0, passed))).replace(
            UNTIL, duration(max(0.0, -passed))
        )


@dataclass(frozen=True, slots=True)
class TopicPicture:
    """What is known of a group on one topic; None for what is not known.

    `consumers` are the members that hold partitions of it. `lag` is what can be read. `in_error`
    partitions stand still or were rewound; `stuck` ones have waited for a commit since `stuck_since`,
    longer than is usual for the group; an open transaction holds back `held` records, since `held_since`;
    commits are `past_end` messages past the log end in all; a loss was last seen at `lost_at`;
    `retention_seconds` is the topic's, the first unread message is deleted at `deleted_at` or later.
    The oldest unread message is from `behind_since`, None unless all are known; `patience_seconds` is
    how old a lag is usual for the group, between two of its commits. `hottest` is (partition, share of
    the produced messages), `excess` values are those of `balance`, rates are messages per second,
    moments seconds of the monotonic clock.
    """

    topic: str
    partitions: int
    consumers: int = 0
    lag: int = 0
    consumed_topic: bool = True
    produced: float | None = None
    consumed: float | None = None
    catch_up: CatchUp = None
    behind_since: float | None = None
    patience_seconds: float = 0.0
    in_error: int = 0
    stuck: int = 0
    stuck_since: float = 0.0
    held: int = 0
    held_since: float = 0.0
    uncommitted: int = 0
    hottest: tuple[int, float] | None = None
    production_excess: float | None = None
    assignment_excess: float | None = None
    unread_deleted: int = 0
    lost_at: float | None = None
    deleted_at: float | None = None
    retention_seconds: float | None = None
    past_end: int = 0


@dataclass(frozen=True, slots=True)
class GroupPicture:
    """What is known of one group; None for what is not known. `idle` and `members` are counts.

    `had_members` and `had_commits` (of a group without members) say what was seen since the
    monitor's start, `commits_move` whether such commits still come.
    """

    group: str
    members: int | None = None
    had_members: bool = True
    had_commits: bool = False
    commits_move: bool = False
    idle: int | None = None
    unassigned: int | None = None
    rebalances_last_hour: int | None = None
    topics: Sequence[TopicPicture] = field(default_factory=tuple)


def advise(group: GroupPicture, now: float) -> list[Advice]:
    """Return what there is to say about a group, worst first; empty when all is well."""
    advice = [
        *_about_group(group),
        *(a for topic in group.topics for a in _about_topic(group, topic, now)),
    ]
    return sorted(advice, key=lambda a: (-a.severity, a.cause, a.topic or ""))


def turns_at(topic: TopicPicture) -> Iterator[float]:
    """Yield when time alone changes what there is to say about a topic, in monotonic seconds."""
    if topic.lost_at is not None:
        yield topic.lost_at + LOSS_TOLD_SECONDS
    if topic.deleted_at is not None:
        yield topic.deleted_at - _warned_before(topic)


def _warned_before(topic: TopicPicture) -> float:
    """Return how long before a deletion somebody is to know of it, in seconds."""
    # on a topic that is kept for an hour nothing is ever safe for six: half of the time must be gone
    kept = inf if topic.retention_seconds is None else topic.retention_seconds
    return min(RETENTION_WARNING_SECONDS, kept / 2)


def _about_group(group: GroupPicture) -> Iterator[Advice]:
    lag = sum(topic.lag for topic in group.topics)
    if group.members == 0 and lag:
        yield from _about_absence(group, lag)
    uneven = max((topic.assignment_excess or 0.0 for topic in group.topics), default=0.0)
    if uneven > IMBALANCE_EXCESS:
        yield Advice(
            Severity.WARNING,
            "uneven_assignment",
            f"The busiest member holds {uneven:.0%} more partitions than it would, were they spread "
            "evenly over those that subscribe to them.",
            "Use the cooperative-sticky assignor, or KIP-848's uniform one: they even out all that a "
            "member holds; range spreads each topic by itself.",
        )
    if group.idle and group.members:
        partitions = max((topic.partitions for topic in group.topics), default=0)
        # range leaves members idle whom another assignor would give partitions of other topics
        beyond = partitions < group.members and uneven <= IMBALANCE_EXCESS
        yield Advice(
            Severity.INFO if not lag else Severity.WARNING,
            "idle_members",
            f"{group.idle} of {group.members} members are idle: "
            + (
                f"the largest topic has only {partitions} partitions."
                if beyond
                else "they were assigned nothing."
            ),
            "More replicas will not help: add partitions, or run fewer replicas."
            if beyond
            else "Look at the assignor and at the members' subscriptions.",
        )
    if group.unassigned:
        yield Advice(
            Severity.CRITICAL,
            "unassigned_partitions",
            f"{group.unassigned} partitions of consumed topics are assigned to nobody: their "
            "messages are not read.",
            "Look at the members' logs for failed assignments, and restart those that hold on to old "
            "ones.",
        )
    if (group.rebalances_last_hour or 0) > REBALANCES_PER_HOUR:
        yield Advice(
            Severity.WARNING,
            "rebalance_storm",
            f"{group.rebalances_last_hour} rebalances in the last hour: consumption pauses at each.",
            "Look for restarts, for handlers slower than max.poll.interval.ms, and for deploys; use "
            "static membership or cooperative rebalancing.",
        )


def _about_absence(group: GroupPicture, lag: int) -> Iterator[Advice]:
    """Lag while the group has no members: whether that is a fault is seen by what was before."""
    if group.commits_move:
        return
    if group.had_commits:
        if any(topic.lag and topic.produced for topic in group.topics):
            yield Advice(
                Severity.WARNING,
                "commits_stopped",
                f"The group commits without members, and has stopped to: {lag} unread messages.",
                "See whether the job that commits (Flink, Spark, assign()) still runs.",
            )
    elif group.had_members:
        yield Advice(
            Severity.CRITICAL,
            "no_members",
            f"Nobody consumes: the group has no members and {lag} unread messages.",
            "Start the consumer. If the group is retired, delete it.",
        )
    else:
        yield Advice(
            Severity.INFO,
            "never_active",
            f"Nobody was seen to consume since the monitor started, {lag} messages are unread: the "
            "group is retired, mirrored from another cluster, or a throw-away reader's.",
            "If nobody needs its offsets, delete it.",
        )


def _about_topic(group: GroupPicture, topic: TopicPicture, now: float) -> Iterator[Advice]:
    yield from _about_log(topic, now)
    yield from _about_commits(topic)
    yield from _about_consumption(group, topic, now)
    yield from _about_balance(topic)


def _about_log(topic: TopicPicture, now: float) -> Iterator[Advice]:
    """Tell what is deleted, and what will be."""
    name = topic.topic
    lost_at = topic.lost_at
    if topic.unread_deleted and lost_at is not None and now <= lost_at + LOSS_TOLD_SECONDS:
        yield Advice(
            Severity.CRITICAL,
            "messages_lost",
            f"{topic.unread_deleted} messages of {name} were deleted before they were read.",
            "Raise retention.ms before anything else; the messages are gone from Kafka, restore "
            "them from their source.",
            name,
        )
    deleted_at = topic.deleted_at
    if topic.lag and deleted_at is not None and now > deleted_at - _warned_before(topic):
        yield Advice(
            Severity.CRITICAL,
            "retention_risk",
            f"The oldest unread message of {name} may be deleted in {UNTIL}.",
            "Raise retention.ms of the topic now, then see to the lag.",
            name,
            deleted_at,
        )


def _about_commits(topic: TopicPicture) -> Iterator[Advice]:
    """Tell of commits that are where none helps, or are missing."""
    name = topic.topic
    if topic.past_end:
        yield Advice(
            Severity.WARNING,
            "commit_past_end",
            f"Commits on {name} are {topic.past_end} messages past the log end: the topic was "
            "truncated or re-created, or the offsets are another cluster's.",
            "Reset the group's offsets on it, or it will skip what is produced until then.",
            name,
        )
    if topic.held:
        yield Advice(
            Severity.WARNING,
            "open_transaction",
            f"An open transaction holds back {topic.held} records of {name}, for "
            f"{SINCE} now: who reads committed records only waits for it.",
            "Find its producer (kafka-transactions.sh find-hanging); if that is gone, abort the "
            "transaction.",
            name,
            topic.held_since,
        )
    if not topic.consumed_topic:
        yield Advice(
            Severity.INFO,
            "not_consumed",
            f"The group has commits on {name}, but its members hold nothing of it.",
            "If it is not to read the topic any more, delete its offsets there.",
            name,
        )
    if topic.uncommitted:
        yield Advice(
            Severity.INFO,
            "held_without_commit",
            f"{topic.uncommitted} partitions of {name} are held by members that have not committed "
            "there, and have records.",
            "If that lasts, see whether the consumer is stuck on its first message.",
            name,
        )


def _about_balance(topic: TopicPicture) -> Iterator[Advice]:
    name = topic.topic
    if (
        topic.production_excess is not None
        and topic.production_excess > IMBALANCE_EXCESS
        and topic.hottest
    ):
        partition, share = topic.hottest
        yield Advice(
            Severity.WARNING,
            "hot_partition",
            f"Partition {partition} of {name} gets {share:.0%} of the messages, "
            f"{1 / topic.partitions:.0%} would be even: a hot key.",
            "Find the key; spread it over several, or give it a topic of its own. More replicas or "
            "partitions will not split one key.",
            name,
        )


def _about_consumption(group: GroupPicture, topic: TopicPicture, now: float) -> Iterator[Advice]:
    """Lag while somebody is there to consume."""
    if not (topic.lag and group.members and topic.consumed_topic):
        return
    if topic.stuck:
        yield Advice(
            Severity.CRITICAL,
            "consumer_stuck",
            f"The consumer of {topic.topic} is alive but has committed nothing for "
            f"{SINCE} on {topic.stuck} of {topic.partitions} partitions, "
            f"with {topic.lag} unread messages on the topic.",
            "Look for a wedged handler or a message that fails again and again; take a thread dump, "
            "then restart it.",
            topic.topic,
            topic.stuck_since,
        )
        return
    if topic.in_error:
        yield Advice(
            Severity.CRITICAL,
            "partition_in_error",
            f"{topic.in_error} of {topic.partitions} partitions of {topic.topic} stand still or were "
            f"rewound, with {topic.lag} unread messages on the topic.",
            "See the group's partitions and who holds them; other partitions may be fine.",
            topic.topic,
        )
    if topic.catch_up != NEVER or not topic.produced or not topic.consumed:
        return
    since = topic.behind_since
    behind = topic.lag / topic.consumed if since is None else now - since
    if behind <= topic.patience_seconds:
        return  # what is in flight, or comes between two commits, falls behind nobody
    if topic.consumed >= topic.produced:
        yield Advice(
            Severity.WARNING,
            "partition_falls_behind",
            f"{topic.topic} as a whole keeps up, but at least one partition never catches up.",
            "See which partition lags and who holds it: a slow member, or a hot key.",
            topic.topic,
        )
        return
    come = (
        f"At this rate the lag on {topic.topic} never ends: {rate(topic.produced)} messages/s come"
    )
    if not topic.consumers:
        who, action = "", "Ask why (monitor explain)."
    else:
        others = group.members - (group.idle or 0) > topic.consumers
        who = f" by {plural(topic.consumers, 'member')}" + others * f" of {group.members}"
        action = _how_many(topic, topic.consumers)
    yield Advice(
        Severity.CRITICAL,
        "never_catches_up",
        f"{come}, {rate(topic.consumed)} are consumed{who}.",
        action,
        topic.topic,
    )


def _how_many(topic: TopicPicture, consumers: int) -> str:
    """Say how many consumers and partitions a topic would need."""
    each = (topic.consumed or 0.0) / consumers
    needed = replicas_needed(topic.produced or 0.0, each)
    wanted = recommended_partitions(topic.produced or 0.0, each, needed)
    more = (
        f"and at least {wanted} partitions: it has {topic.partitions}, so add partitions first."
        if wanted > topic.partitions
        else f"the {topic.partitions} partitions are enough for that."
    )
    # a full database or a slow partner is made worse by each replica, and is not seen from here
    return (
        f"Ask why (monitor explain); if nothing but their number holds them up, run at least {needed} "
        f"replicas that read it; {more}"
    )


def replicas_needed(throughput: float, throughput_per_consumer: float) -> int:
    """Return the fewest consumers that consume more than is produced (messages per second)."""
    return int(throughput // throughput_per_consumer) + 1


def recommended_partitions(throughput: float, throughput_per_consumer: float, replicas: int) -> int:
    """Return the scaling guide's count: max(throughput / throughput per consumer, replicas).

    Raises ValueError unless the throughput per consumer is positive.
    """
    if throughput_per_consumer <= 0:
        raise ValueError(f"throughput per consumer is {throughput_per_consumer}: must be positive")
    return max(ceil(throughput / throughput_per_consumer), replicas, 1)


@dataclass(frozen=True, slots=True)
class Sizing:
    """A row of the scaling guide's table; None for "or more"."""

    partitions: int
    more_partitions: bool
    least_replicas: int
    most_replicas: int | None


_SIZING_BY_ORDERS_PER_DAY = (
    (9_999, Sizing(3, more_partitions=False, least_replicas=1, most_replicas=2)),
    (100_000, Sizing(6, more_partitions=False, least_replicas=2, most_replicas=4)),
    (1_000_000, Sizing(12, more_partitions=False, least_replicas=4, most_replicas=8)),
)
_LARGEST_SIZING = Sizing(24, more_partitions=True, least_replicas=8, most_replicas=None)


def sizing(orders_per_day: int) -> Sizing:
    """Return the scaling guide's partitions and replicas for a number of orders per day."""
    if orders_per_day < 0:
        raise ValueError(f"orders per day is {orders_per_day}: must not be negative")
    return next(
        (row for most, row in _SIZING_BY_ORDERS_PER_DAY if orders_per_day <= most), _LARGEST_SIZING
    )
