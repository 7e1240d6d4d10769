"""The objects of the JSON API, as pydantic models: their docstrings are its documentation.

Null is what is not known, and never 0. Moments are Unix seconds.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from monitor.analysis.causes.finding import Cause
from monitor.analysis.scaling.rules import Verdict

Lag = Annotated[int, Field(ge=0)]
Offset = Annotated[int, Field(ge=0)]
Count = Annotated[int, Field(ge=0)]
Seconds = Annotated[float, Field(ge=0)]


class Model(BaseModel):
    """An object of the API; unchangeable."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class Heard(StrEnum):
    """How the brokers answered: all was told, a part was refused, or nobody answered."""

    ANSWERED = "answered"
    REFUSED = "refused"
    SILENT = "silent"


class Fault(Model):
    """What is wrong with a request, or why it can't be answered."""

    message: str
    field: str | None
    """The parameter that is wrong, null where it is none."""


class ErrorAnswer(Model):
    """An answer that is none."""

    error: Fault


class AdviceAnswer(Model):
    """A finding and what to do about it."""

    severity: str
    """`info`, `warning` or `critical`."""
    cause: str
    """A word for programs, which stays the same."""
    topic: str | None
    """The topic that it is about, null where it is about the whole group."""
    finding: str
    action: str


class GroupSummary(Model):
    """A consumer group without its partitions."""

    cluster: str
    group: str
    type: str
    """`classic`, `consumer`, `share` or `streams`."""
    state: str | None
    """As its coordinator has it: `Stable`, `Empty` and so on."""
    status: str | None
    """By Burrow's rules: `OK`, `WARN`, `ERR`, or `new` before enough polls were made."""
    members: Count | None
    total_lag: Lag | None
    """Log end minus committed offset, over all partitions of which that is known."""
    unread: Lag | None
    """What of it a consumer can read: without transaction markers and aborted records."""
    lag_complete: bool
    """Whether the lag of every committed partition is known; if not, the sums are lower bounds."""
    max_lag_seconds: Seconds | None
    """How long the oldest unread message of a consumed topic has waited."""
    heard: Heard
    """Whether its coordinator answered the last poll."""
    stale: bool
    """Whether all of this is from an earlier poll."""
    seen_at: float | None
    """When it was seen; null where its coordinator never answered."""
    error: str | None
    """What was refused, or why nobody answered."""
    advice: list[AdviceAnswer]
    """Worst first."""
    cause: Cause | None
    """Why it is behind: `healthy` where it is not, `cannot_tell` where no cause is proven; null after a
    single look, as the commands have it. `/explain/{group}` has the figures."""
    cause_word: str | None
    """The same in a word or two, for a row of a table."""


class PartitionOfGroup(Model):
    """A partition that a group committed, or that a member holds."""

    topic: str
    partition: int
    current_offset: Offset | None
    """Committed offset, null where none is."""
    log_end_offset: Offset | None
    lag: Lag | None
    lag_seconds: Seconds | None
    """How long the oldest unread message has waited; 0 where nothing is unread."""
    status: str | None
    """By Burrow's rules: `OK`, `WARN`, `STOP`, `STALL` or `REWIND`; null where it isn't judged."""
    past_end: bool
    """Whether the commit is past the log end: the topic was created anew, or truncated."""
    heard: Heard
    """Whether its leader told the log end in the last poll."""
    error: str | None
    """Why it is not known."""
    topic_is_gone: bool
    """Whether the topic is deleted, or may not be described: brokers don't tell these apart."""
    unread_share: float | None
    """How much of the retained log is unread, 0 to 1."""
    retention_remaining_seconds: Seconds | None
    """How long the oldest unread message is surely kept."""
    consumer_id: str | None
    """Id of the member that holds it."""
    host: str | None
    client_id: str | None


class TopicOfGroup(Model):
    """What a group does on a topic; rates are messages or commits a second over the last polls."""

    topic: str
    lag: Lag | None
    unread: Lag | None
    max_lag_seconds: Seconds | None
    """The largest that is known."""
    committed_at: float | None
    """When a commit was last seen to change; the first sight counts as one."""
    produced_per_second: float | None
    consumed_per_second: float | None
    lag_growth_per_second: float | None
    commits_per_second: float | None
    catching_up: bool | None
    """Whether the lag ends at these rates."""
    catch_up_seconds: Seconds | None
    """When; null where it never does, or nobody knows."""
    imbalance: dict[str, float]
    """By kind: the largest over the best possible, minus 1. `lag` and `production` compare the topic's partitions, `assignment` all that its busiest member holds with what those that could take from it hold."""
    is_consumed: bool
    """Whether its members read it still: commits remain of topics that were left."""
    stuck_partitions: Count | None
    """Partitions that have waited for a commit for longer than is usual for the group."""
    uncommitted_partitions: Count | None
    """Partitions with records that a member holds and never committed."""
    lost: Count | None
    """Messages that were deleted unread since the monitor's start."""
    unread_deleted: Count | None
    """Messages between the commit and the log start."""
    rewinds: Count | None


class MemberOfGroup(Model):
    """A member of a group."""

    consumer_id: str
    client_id: str
    host: str
    instance_id: str | None
    """Of a static member."""
    assignment: dict[str, list[int]]
    """Topic -> partitions."""


class GroupDetail(GroupSummary):
    """A consumer group with all that is known of it."""

    assignor: str | None
    coordinator: int | None
    """Id of the broker that coordinates it."""
    rebalances: Count | None
    """That were seen since the monitor's start: a lower bound."""
    idle_members: Count | None
    """Members that hold nothing, and are to get nothing."""
    unassigned_partitions: Count | None
    """Partitions of consumed topics that no member holds."""
    active_by_members: bool | None
    active_by_commits: bool | None
    """Whether its commits move without any member."""
    patience_seconds: Seconds | None
    """How long without a commit is usual for it."""
    member_list: list[MemberOfGroup]
    """Empty where `members` is null, too: then nobody knows them."""
    topics: list[TopicOfGroup]
    partitions: list[PartitionOfGroup]


class TopicSummary(Model):
    """A topic."""

    cluster: str
    topic: str
    internal: bool
    partitions: Count
    groups: Count
    """Groups that committed it or hold partitions of it."""
    max_lag: Lag | None
    """Of the group that is furthest behind on it, in messages."""
    max_lag_seconds: Seconds | None
    error: str | None


class PartitionOfTopic(Model):
    """A partition of a topic."""

    partition: int
    leader: int | None
    replicas: list[int]
    in_sync: list[int]
    offline: list[int]
    log_start_offset: Offset | None
    log_end_offset: Offset | None
    heard: Heard
    seen_at: float | None
    """When its leader last told the log end."""
    error: str | None
    held_records: Count | None
    """Records that an open transaction keeps from readers."""
    held_since: float | None


class GroupOfTopic(TopicOfGroup):
    """How far a group is on a topic."""

    group: str
    state: str | None
    status: str | None
    members: Count | None


class TopicDetail(TopicSummary):
    """A topic with its partitions and the groups that read it, furthest behind first."""

    id: str | None
    retention_ms: int | None
    """-1 where it sets no limit."""
    retention_bytes: int | None
    cleanup_policies: list[str] | None
    partition_list: list[PartitionOfTopic]
    group_list: list[GroupOfTopic]


class BrokerAnswer(Model):
    """A broker."""

    id: int
    address: str | None
    """As the cluster advertises it; null where only a partition's replica names the broker."""
    rack: str | None
    up: bool
    """Whether it answered the last poll."""
    error: str | None


class ClusterAnswer(Model):
    """A cluster, and whether what is told of it can be relied on."""

    cluster: str
    cluster_id: str | None
    up: bool
    """Whether a broker answered the last poll."""
    ready: bool
    """Whether its figures can be relied on now."""
    reason: str | None
    """Why not."""
    error: str | None
    """Why the last poll saw nothing."""
    seen_at: float | None
    """When its figures were seen."""
    controller: int | None
    brokers: list[BrokerAnswer]
    topics: Count | None
    partitions: Count | None
    groups: Count | None
    groups_complete: bool
    """Whether a group that is not listed does not exist."""
    groups_by_status: dict[str, int]


class Seen(Model):
    """What a list is made of: one entry a cluster."""

    cluster: str
    up: bool
    seen_at: float | None
    complete: bool
    """Whether what is not listed does not exist."""
    error: str | None
    """Why it is not complete."""
    hidden: Count
    """Groups that the settings hide (`MONITOR_HIDE_EMPTY_GROUPS`)."""


class Page(Model):
    """Part of a list."""

    total: Count
    """How many there are with these filters, on all pages."""
    limit: Count
    offset: Count
    clusters: list[Seen]


class GroupPage(Page):
    """Consumer groups, worst first."""

    groups: list[GroupSummary]


class TopicPage(Page):
    """Topics, by name."""

    topics: list[TopicSummary]


class AdviceOfGroup(AdviceAnswer):
    """Advice and the group that it is about."""

    cluster: str
    group: str


class AdvicePage(Page):
    """What should be done, worst first."""

    advice: list[AdviceOfGroup]


class ScalingAnswer(Model):
    """How many replicas a group should have now, and why."""

    cluster: str
    group: str
    replicas: Count
    """Members of the group that should be; an autoscaler follows this number."""
    verdict: Verdict
    """`up`, `down` or `keep`; `unknown` while it can't be told, with the replicas that there are."""
    reason: str
    members: Count
    """That there are."""
    limit: Count
    """More are of no use, or not allowed."""
    limited_by: str
    produced_per_second: float | None
    consumed_per_second: float | None
    per_consumer_per_second: float | None
    """What one consumer manages: seen while messages waited, null before that."""
    unread: Lag
    max_lag_seconds: Seconds | None
    seen_at: float


class ClusterList(Model):
    """The clusters that are watched."""

    clusters: list[ClusterAnswer]


class TargetGroup(Model):
    """Targets of Prometheus' HTTP service discovery."""

    targets: list[str]
    labels: dict[str, str]


class PastPoint(Model):
    """What was found of a group; it holds until the next point.

    One of which all is null is where that is not known: the group was gone or its coordinator did not
    answer, the monitor was not there, or reached no broker.
    """

    at: float
    seconds: Count
    """How many seconds from `at` on it stands for; 0 for a single poll. Of many polls the worst counts."""
    lag: Lag | None
    lag_seconds: Seconds | None
    behind_since: float | None
    """When its oldest unread record was appended: while it stays unread, the lag in seconds grows.
    Of many polls only where it was the same in all."""
    members: Count | None
    status: str | None
    produced_per_second: Seconds | None
    consumed_per_second: Seconds | None
    rebalances: Count | None
    """How many were seen since the monitor's start."""


class HistoryOfGroup(Model):
    """Past polls of a group, oldest first; the first may be from before `since`: it held then."""

    cluster: str
    group: str
    since: float
    until: float
    points: list[PastPoint]
