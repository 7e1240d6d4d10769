from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from monitor.analysis.analyst import Analyst
from monitor.analysis.measures import NOTHING_UNREAD, GroupMeasures
from monitor.analysis.rates import NEVER
from monitor.analysis.status import Status
from monitor.analysis.time_questions import AskTimes
from monitor.analysis.withdrawn import withdraw
from monitor.model import (
    Group,
    LogLook,
    Member,
    Offsets,
    Partition,
    PartitionOffsets,
    Silent,
    Snapshot,
    Topic,
    TopicConfig,
)

POLL_S = 15.0
DELETED = TopicConfig(864_000_000, -1, frozenset({"delete"}))


@dataclass
class Cluster:
    """Topic "t" of two partitions; `polls` snapshots were made of it."""

    ends: dict[int, int] = field(default_factory=lambda: {0: 100, 1: 100})
    starts: dict[int, int] = field(default_factory=lambda: {0: 0, 1: 0})
    commits: dict[int, int] = field(default_factory=lambda: {0: 100, 1: 100})
    stale: dict[str, dict[int, float]] = field(default_factory=dict)
    members: tuple[Member, ...] = ()
    topic_id: str = "one"
    config: TopicConfig | None = None
    group_changes: dict[str, Any] = field(default_factory=dict)
    appended_at: float = 0.0
    asked: int = 0
    polls: int = 0

    @property
    def now(self) -> float:
        return 10_000.0 + POLL_S * self.polls

    @property
    def seen_at(self) -> float:
        """When the last poll was, by the monotonic clock."""
        return self.now - 9_000

    def snapshot(self) -> Snapshot:
        self.polls += 1
        partition = Partition(1, (1,), (1,))
        group = {
            "state": "Stable" if self.members else "Empty",
            "members": self.members,
            "commits": {"t": dict(self.commits)},
            **self.group_changes,
        }
        return Snapshot(
            "c",
            taken_at=self.now,
            monotonic_at=self.now - 9_000,
            topics={"t": Topic("t", {0: partition, 1: partition}, id=self.topic_id)},
            start_offsets=Offsets({"t": dict(self.starts)}, self.now - 9_000),
            end_offsets=Offsets({"t": dict(self.ends)}, self.now - 9_000, self.stale),
            groups={"g": Group("g", **group)},
            topic_configs={} if self.config is None else {"t": self.config},
        )

    def looks(self, wanted: PartitionOffsets) -> Mapping[str, Mapping[int, LogLook]]:
        """Every record can be read."""
        return {
            topic: {p: LogLook(at, at, self.ends[p]) for p, at in of.items()}
            for topic, of in wanted.items()
        }

    def times(
        self, wanted: Mapping[str, Mapping[int, int]]
    ) -> Mapping[str, Mapping[int, tuple[int, int]]]:
        """All records were appended at one time."""
        self.asked += 1
        at = int(self.appended_at * 1000)
        return {
            topic: {
                partition: (self.starts[partition], at) if asked <= at else (-1, -1)
                for partition, asked in partitions.items()
            }
            for topic, partitions in wanted.items()
        }


def measure(analyst: Analyst, cluster: Cluster, polls: int = 1) -> GroupMeasures:
    for _ in range(polls):
        found = analyst.measure(cluster.snapshot())["g"]
    return found


def one_member(*partitions: int) -> tuple[Member, ...]:
    return (Member("m", "client", "/host", {"t": partitions} if partitions else {}),)


def test_the_lag_in_seconds_is_right_from_the_first_poll() -> None:
    cluster = Cluster(commits={0: 40, 1: 100})
    cluster.appended_at = cluster.now + POLL_S - 500
    found = measure(Analyst(cluster.times), cluster)
    assert found.behind_by_partition("t", cluster.seen_at)[0] == pytest.approx(500, abs=0.5)
    assert found.behind_by_partition("t", cluster.seen_at)[1] == 0
    assert found.behind(cluster.seen_at) == pytest.approx(500, abs=0.5)


def test_without_answers_the_lag_in_seconds_is_absent_and_never_zero() -> None:
    cluster = Cluster(commits={0: 40, 1: 100})
    silent: AskTimes = lambda _: {}  # noqa: E731  # a function could not be listed with None
    for ask in (None, silent):
        found = measure(Analyst(ask), cluster)
        assert found.oldest_unread_at == {"t": {1: NOTHING_UNREAD}}
        assert found.behind(cluster.seen_at) is None


def test_a_group_that_has_read_all_is_zero_seconds_behind_and_asks_nothing() -> None:
    cluster = Cluster()
    found = measure(Analyst(cluster.times), cluster)
    assert found.behind(cluster.seen_at) == 0
    assert found.behind_by_partition("t", cluster.seen_at) == {0: 0, 1: 0}
    assert cluster.asked == 0


def test_standing_still_grows_by_a_second_per_second() -> None:
    cluster = Cluster(commits={0: 40, 1: 100})
    cluster.appended_at = cluster.now + POLL_S - 500
    analyst = Analyst(cluster.times)
    first = measure(analyst, cluster).behind(cluster.seen_at)
    later = measure(analyst, cluster, polls=4).behind(cluster.seen_at)
    assert first is not None
    assert later == pytest.approx(first + 4 * POLL_S, abs=0.1)


def test_a_group_that_lags_and_stands_has_the_same_measures_at_each_poll() -> None:
    cluster = Cluster(commits={0: 40, 1: 100}, config=DELETED)
    cluster.appended_at = cluster.now + POLL_S - 500
    analyst = Analyst(cluster.times, cluster.looks)
    before = measure(analyst, cluster, polls=12)
    asked = cluster.asked
    assert all(measure(analyst, cluster) is before for _ in range(100))
    assert cluster.asked == asked
    assert [advice.cause for advice in before.advice] == ["never_active"]


def test_what_time_alone_changes_is_told_when_it_is_time() -> None:
    cluster = Cluster(
        commits={0: 40, 1: 100}, members=one_member(0, 1),
        config=TopicConfig(36_000_000, -1, frozenset({"delete"})),
    )  # fmt: skip
    cluster.appended_at = cluster.now + POLL_S
    analyst = Analyst(cluster.times, cluster.looks)
    told: dict[str, int] = {}
    for poll in range(2_400):
        for cause in (advice.cause for advice in measure(analyst, cluster).advice):
            told.setdefault(cause, poll)
    # nobody knows its rhythm: one and a half hours; half of ten hours
    assert told["consumer_stuck"] == pytest.approx(361, abs=2)
    assert told["retention_risk"] == pytest.approx(1_200, abs=2)


def test_a_group_at_rest_has_the_same_measures_as_one_looked_at_anew() -> None:
    cluster = Cluster()
    analyst = Analyst(cluster.times)
    before = measure(analyst, cluster, polls=12)
    assert before.status.complete == 1
    assert measure(analyst, cluster) is before
    cluster.ends[0] = 130  # something came: it is looked at again
    moved = measure(analyst, cluster)
    assert moved.lag.total == 30
    assert moved.rates["t"].produced
    cluster.commits[0] = 130
    assert measure(analyst, cluster).lag.total == 0
    cluster.members = one_member(0, 1)
    assert measure(analyst, cluster).facts.members == 1


def test_a_group_at_rest_that_gets_new_members_is_looked_at() -> None:
    cluster = Cluster()
    analyst = Analyst(cluster.times)
    measure(analyst, cluster, polls=12)
    cluster.members = (*one_member(0, 1), Member("idle", "client", "/host"))
    found = measure(analyst, cluster)
    assert found.facts.idle == ("idle",)


def test_the_balance_of_a_topic_that_is_left_out_is_not_told_and_counts() -> None:
    cluster = Cluster()
    cluster.members = (
        Member("1", "c", "/h", {"t": (0,), "shared": (0, 1)}),
        Member("2", "c", "/h", {"t": (1,)}),
    )
    found = measure(Analyst(cluster.times), cluster)
    assert found.imbalance.keys() == {"t"}
    # three and one, and the first alone holds two
    assert found.imbalance["t"]["assignment"] == 0.5


def test_status_is_ok_until_ten_polls_were_seen_and_then_burrows() -> None:
    cluster = Cluster(commits={0: 40, 1: 100})
    analyst = Analyst(cluster.times)
    assert measure(analyst, cluster, polls=9).status.status is Status.OK
    found = measure(analyst, cluster).status
    assert (found.complete, found.status) == (1, Status.OK)  # nobody knows the group's rhythm yet
    for _ in range(3):
        cluster.commits[0] += 1
        measure(analyst, cluster)
    assert measure(analyst, cluster, polls=14).status.status is Status.ERR
    found = measure(analyst, cluster).status
    assert [(p.partition, p.status) for p in found.partitions] == [(0, Status.STOP)]


def test_a_stale_group_keeps_the_measures_of_when_it_was_seen() -> None:
    cluster = Cluster(commits={0: 40, 1: 100})
    analyst = Analyst(cluster.times)
    before = measure(analyst, cluster)
    cluster.group_changes = {"answer": Silent(0.0)}
    cluster.ends[0] = 5_000
    kept = measure(analyst, cluster)
    assert replace(kept, group=before.group) == before
    assert kept.group.is_silent
    assert measure(analyst, cluster, polls=20) is kept
    cluster.group_changes = {}
    assert measure(analyst, cluster).lag.total == 4_960


def test_the_seconds_of_a_partition_whose_broker_is_silent_are_absent() -> None:
    cluster = Cluster(stale={"t": {1: 900.0}})
    found = measure(Analyst(cluster.times), cluster)
    assert found.behind_by_partition("t", cluster.seen_at) == {0: 0}


def test_when_each_partition_was_committed_is_known() -> None:
    cluster = Cluster(commits={0: 40, 1: 50})
    analyst = Analyst(cluster.times)
    first = measure(analyst, cluster)
    began = cluster.seen_at
    assert first.commits_at("t") == {0: began, 1: began}
    cluster.commits[1] = 60
    measure(analyst, cluster)
    moved = cluster.seen_at
    found = measure(analyst, cluster, polls=30)
    assert found.commits_at("t") == {0: began, 1: moved}
    assert found.changed_at == {"t": moved}
    for known in (first, found):  # of a partition whose leader is silent they are known as well
        assert withdraw(known, {"t": frozenset({1})}).commits_at("t") == known.commits_at("t")


def test_losses_outlive_the_sight_of_them() -> None:
    cluster = Cluster(commits={0: 40, 1: 100})
    analyst = Analyst(cluster.times)
    assert measure(analyst, cluster).lost == {"t": 0}
    cluster.starts[0] = 60
    assert measure(analyst, cluster).lost == {"t": 20}
    cluster.commits[0] = 100
    assert measure(analyst, cluster, polls=20).lost == {"t": 20}


def test_a_topic_created_anew_starts_anew() -> None:
    cluster = Cluster(commits={0: 40, 1: 100}, starts={0: 60, 1: 0})
    analyst = Analyst(cluster.times)
    found = measure(analyst, cluster)
    assert (found.lost, found.unread_deleted) == ({"t": 0}, {"t": 20})
    cluster.topic_id, cluster.starts = "two", {0: 0, 1: 0}
    cluster.ends = {0: 10, 1: 10}
    found = measure(analyst, cluster)
    assert (found.lost, found.unread_deleted) == ({"t": 0}, {"t": 0})
    assert found.lag.past_end == {"t": {0: 30, 1: 90}}
    assert [advice.cause for advice in found.advice] == ["commit_past_end"]


def test_retention_says_how_long_the_oldest_unread_message_is_kept() -> None:
    cluster = Cluster(
        commits={0: 40, 1: 100}, config=TopicConfig(3_600_000, -1, frozenset({"delete"}))
    )
    cluster.appended_at = cluster.now + POLL_S - 600
    risk = measure(Analyst(cluster.times), cluster).retention["t"][0]
    assert risk.deleted_at == pytest.approx(cluster.seen_at + 3_000, abs=1)
    assert risk.unread_share == pytest.approx(0.6)


def test_rates_tell_who_never_catches_up_as_a_word_and_not_as_a_number() -> None:
    cluster = Cluster(members=one_member(0, 1))
    analyst = Analyst(cluster.times)
    for _ in range(16):
        cluster.ends[0] += 150
        cluster.commits[0] += 75
        found = measure(analyst, cluster)
    assert found.rates["t"].produced == pytest.approx(10)
    assert found.rates["t"].consumed == pytest.approx(5)
    assert found.rates["t"].catch_up == NEVER
    assert "never_catches_up" in [advice.cause for advice in found.advice]


def test_rebalances_are_counted_and_forgotten_with_their_group() -> None:
    cluster = Cluster(members=one_member(0, 1))
    analyst = Analyst(cluster.times)
    assert measure(analyst, cluster).rebalances == 0
    cluster.members = one_member(0)
    assert measure(analyst, cluster).rebalances == 1
    snapshot = cluster.snapshot()
    assert analyst.measure(Snapshot("c", snapshot.taken_at, snapshot.monotonic_at)) == {}
    assert measure(analyst, cluster).rebalances == 0


def test_a_message_that_has_just_come_makes_no_quiet_consumer_suspect() -> None:
    cluster = Cluster(members=one_member(0, 1))
    analyst = Analyst(cluster.times)
    measure(analyst, cluster, polls=40)
    cluster.ends[0] += 1
    cluster.appended_at = cluster.now + POLL_S - 1
    found = measure(analyst, cluster)
    assert found.lag.total == 1
    assert "consumer_stuck" not in [advice.cause for advice in found.advice]


@pytest.mark.parametrize(("behind", "told"), [(10, False), (1_700, False), (1_900, True)])
def test_retention_is_a_risk_once_more_than_half_of_it_is_gone(behind: int, *, told: bool) -> None:
    config = TopicConfig(3_600_000, -1, frozenset({"delete"}))
    cluster = Cluster(commits={0: 40, 1: 100}, config=config, members=one_member(0, 1))
    cluster.appended_at = cluster.now + POLL_S - behind
    found = measure(Analyst(cluster.times), cluster)
    assert ("retention_risk" in [advice.cause for advice in found.advice]) == told


@pytest.mark.parametrize(
    ("config", "known"),
    [
        (TopicConfig(cleanup_policies=frozenset({"delete"})), True),
        (TopicConfig(cleanup_policies=frozenset({"delete", "compact"})), False),
        (TopicConfig(), False),
        (None, False),
    ],
    ids=["not compacted", "compacted", "policy not told", "not readable"],
)
def test_polls_alone_tell_no_lag_in_seconds_where_compaction_may_have_removed_the_record(
    config: TopicConfig | None, *, known: bool
) -> None:
    cluster = Cluster(commits={0: 100, 1: 100}, config=config)
    analyst = Analyst(lambda _: {})  # no broker answers
    measure(analyst, cluster)
    cluster.ends = {0: 120, 1: 100}
    assert (0 in measure(analyst, cluster).oldest_unread_at["t"]) == known
