"""States that groups are in on real clusters, through the whole analysis, poll by poll."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import pytest

from monitor.analysis.analyst import Analyst
from monitor.analysis.measures import GroupMeasures
from monitor.analysis.rates import NEVER
from monitor.analysis.status import Status
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

WALL = 1_800_000_000.0
POLL_S = 15.0
DAY_S = 86_400.0


@dataclass
class Log:
    """A partition: when each offset was appended, and what of it can't be read."""

    times: list[float] = field(default_factory=list)
    unreadable: set[int] = field(default_factory=set)
    open_from: int | None = None
    start: int = 0
    stamps: list[float] | None = None

    @property
    def end(self) -> int:
        return len(self.times)

    @property
    def stable_end(self) -> int:
        return self.end if self.open_from is None else self.open_from


@dataclass
class Cluster:
    """One group "g" and its topics, each of one partition, and the brokers' answers."""

    logs: dict[str, Log] = field(default_factory=lambda: {"t": Log()})
    commits: dict[str, int] = field(default_factory=dict)
    held: tuple[str, ...] | None = None  # topics that the one member holds; None: no members
    state: str | None = None
    ids: dict[str, str] = field(default_factory=dict)
    read_committed: bool = False
    is_silent: bool = False
    may_look: bool = True
    retention_s: float | None = None
    now: float = 1_000.0
    clock_set_by: float = 0.0
    stale_starts: dict[str, int] = field(default_factory=dict)
    looked: int = 0

    def __post_init__(self) -> None:
        self.analyst = Analyst(self.times_of, self.look)

    @property
    def wall(self) -> float:
        return WALL + self.now

    def append(self, count: int, *, topic: str = "t", ago: float = 0.0) -> None:
        self.logs[topic].times += [self.wall - ago] * count

    def times_of(
        self, wanted: Mapping[str, Mapping[int, int]]
    ) -> dict[str, dict[int, tuple[int, int]]]:
        return {t: {0: self._first(self.logs[t], of[0])} for t, of in wanted.items()}

    @staticmethod
    def _first(log: Log, milliseconds: int) -> tuple[int, int]:
        stamps = log.stamps or log.times
        for offset in range(log.start, log.end):
            if stamps[offset] * 1000 >= milliseconds:
                return offset, int(stamps[offset] * 1000)
        return -1, -1

    def look(self, wanted: PartitionOffsets) -> dict[str, dict[int, LogLook]]:
        self.looked += sum(map(len, wanted.values()))
        found = {}
        for topic, of in wanted.items():
            if not self.may_look:
                continue
            log, offset = self.logs[topic], of[0]
            readable = next(
                (o for o in range(offset, log.stable_end) if o not in log.unreadable), None
            )
            to = max(offset, log.stable_end) if readable is None else readable
            found[topic] = {0: LogLook(readable, to, log.stable_end)}
        return found

    def snapshot(self) -> Snapshot:
        ends = {topic: {0: log.end} for topic, log in self.logs.items()}
        starts = {t: {0: self.stale_starts.get(t, log.start)} for t, log in self.logs.items()}
        stable = {t: {0: log.stable_end} for t, log in self.logs.items()}
        members: tuple[Member, ...] = ()
        if self.held is not None:
            members = (Member("m", "client", "/host", dict.fromkeys(self.held, (0,))),)
        group = Group(
            "g",
            state=self.state or ("Stable" if members else "Empty"),
            members=members,
            commits={topic: {0: offset} for topic, offset in self.commits.items()},
        )
        if self.is_silent:
            group = Group("g", commits=group.commits, answer=Silent(self.now - POLL_S))
        config = TopicConfig(
            -1 if self.retention_s is None else int(self.retention_s * 1000), -1,
            frozenset({"delete"}),
        )  # fmt: skip
        return Snapshot(
            "c",
            taken_at=self.wall + self.clock_set_by,
            monotonic_at=self.now,
            topics={
                t: Topic(t, {0: Partition(1, (1,), (1,))}, id=self.ids.get(t)) for t in self.logs
            },
            start_offsets=Offsets(starts, self.now),
            end_offsets=Offsets(ends, self.now),
            stable_offsets=Offsets(stable if self.read_committed else {}, self.now),
            groups={"g": group},
            topic_configs=dict.fromkeys(self.logs, config),
        )

    def poll(self, polls: int = 1, *, after: float = POLL_S) -> GroupMeasures:
        for _ in range(polls):
            self.now += after
            found = self.analyst.measure(self.snapshot())["g"]
            assert self.analyst.findings.failures == {}
        return found


def causes(found: GroupMeasures) -> list[str]:
    return [advice.cause for advice in found.advice]


def a_cluster(
    records: int, *, ago: float = 600.0, commit: int | None = None, held: tuple[str, ...] = ("t",)
) -> Cluster:
    cluster = Cluster(held=held)
    cluster.append(records, ago=ago)
    if commit is not None:
        cluster.commits["t"] = commit
    return cluster


def commits_steadily(cluster: Cluster, commits: int = 3) -> None:
    """Have the group's rhythm known: it reads what comes at once."""
    for _ in range(commits):
        cluster.append(1)
        cluster.commits["t"] = cluster.logs["t"].end
        cluster.poll()


# --- an emptied log


@pytest.mark.parametrize("held", [("t",), None], ids=["members", "none"])
def test_an_emptied_log_before_which_a_group_stands_is_zero_seconds_and_no_lag_to_read(
    held: tuple[str, ...] | None,
) -> None:
    cluster = a_cluster(20, commit=0)
    cluster.held = held
    cluster.poll(3)
    cluster.logs["t"].start = 20
    found = cluster.poll(20)
    assert found.lag.total == 20  # Apache's number
    assert found.lag.readable_sum("t") == 0
    assert found.behind_by_partition("t", cluster.now) == {0: 0}
    assert found.behind(cluster.now) == 0  # known, not absent
    assert found.status.status is Status.OK
    assert (found.lost, found.unread_deleted) == ({"t": 20}, {"t": 20})
    assert causes(found) == ["messages_lost"]
    assert causes(cluster.poll(240)) == []  # nobody can do anything about it any more
    assert cluster.poll().lost == {"t": 20}


def test_an_advice_about_a_loss_ends_when_the_group_has_read_on() -> None:
    cluster = a_cluster(20, commit=0)
    cluster.poll(2)
    cluster.logs["t"].start = 10
    assert "messages_lost" in causes(cluster.poll())
    cluster.commits["t"] = 12
    assert "messages_lost" not in causes(cluster.poll())


# --- topics created anew


@pytest.mark.parametrize("ids", [True, False])
@pytest.mark.parametrize("length", [10, 700])
def test_a_topic_created_anew_loses_nothing_and_rewinds_nobody(length: int, *, ids: bool) -> None:
    cluster = a_cluster(600, commit=550)
    cluster.logs["t"].start = 500
    cluster.ids = {"t": "one"} if ids else {}
    cluster.poll(12)
    cluster.logs["t"] = Log()
    cluster.append(length)
    if ids:
        cluster.ids = {"t": "two"}
    # as the brokers told it before: nobody has read the starts anew yet
    cluster.stale_starts = {"t": 500} if length < 500 else {}
    found = cluster.poll(2)
    assert (found.lost, found.activity and found.activity.rewinds) == ({"t": 0}, {})
    assert found.lag.past_end.get("t", {}) == ({0: 540} if length == 10 else {})
    assert ("commit_past_end" in causes(found)) == (length == 10)
    assert "messages_lost" not in causes(found)
    cluster.stale_starts = {}
    cluster.commits["t"] = 3
    found = cluster.poll(2)
    assert found.lag.total == length - 3
    if ids or length < 600:
        assert found.activity is not None
        assert found.activity.rewinds == {}
        assert found.status.status is not Status.ERR
    cluster.logs["t"].start = 5
    assert cluster.poll().lost == {"t": 2}  # of this topic


# --- transactions


def test_markers_and_aborted_records_after_the_commit_are_no_lag_to_read() -> None:
    cluster = a_cluster(22, commit=3)
    cluster.logs["t"].unreadable = set(range(3, 22))
    commits = cluster.commits
    found = cluster.poll(40)
    assert found.lag.total == 19
    assert found.lag.readable_sum("t") == 0
    assert (found.behind(cluster.now), found.status.status) == (0, Status.OK)
    assert found.rates["t"].catch_up == 0
    assert found.stuck == {"t": 0}
    assert causes(found) == []
    assert cluster.looked == 1  # it is asked about once, and not at each poll
    cluster.append(1)
    found = cluster.poll()
    assert found.behind(cluster.now) == pytest.approx(POLL_S, abs=1)
    assert found.lag.readable_sum("t") == 20
    assert commits == {"t": 3}


def test_a_consumer_that_goes_on_over_markers_is_not_warned_of() -> None:
    cluster = a_cluster(2, commit=1)
    cluster.logs["t"].unreadable = {1}
    for _ in range(30):
        cluster.append(2)  # a record, and the marker of its transaction
        end = cluster.logs["t"].end
        cluster.logs["t"].unreadable.add(end - 1)
        cluster.commits["t"] = end - 1
        found = cluster.poll()
    assert found.lag.total == 1
    assert (found.status.status, found.behind(cluster.now)) == (Status.OK, 0)


@pytest.mark.parametrize("read_committed", [True, False])
def test_an_open_transaction_is_told_with_since_when_and_the_consumer_is_not_blamed(
    *, read_committed: bool
) -> None:
    cluster = a_cluster(200, commit=200)
    cluster.read_committed = read_committed
    cluster.poll(2)
    cluster.logs["t"].open_from = 200
    for _ in range(60):
        cluster.append(75)
        found = cluster.poll()
    assert found.lag.total == (0 if read_committed else 60 * 75)
    assert found.lag.readable_sum("t") == 0
    assert (found.behind(cluster.now), found.status.status) == (0, Status.OK)
    assert found.rates["t"].catch_up == 0
    assert found.rates["t"].lag_velocity == 0
    assert found.stuck.get("t", 0) == 0
    assert causes(found) == ["open_transaction"]
    held = cluster.analyst.findings.open_transactions["t"][0]
    assert held.records == 60 * 75
    assert cluster.now - held.since == pytest.approx(60 * POLL_S, abs=2)
    cluster.logs["t"].open_from = None  # committed at last
    found = cluster.poll()
    assert found.lag.readable_sum("t") == 60 * 75
    assert found.behind(cluster.now) == pytest.approx(61 * POLL_S, abs=2)
    assert cluster.analyst.findings.open_transactions == {}


def test_where_the_log_may_not_be_looked_at_the_seconds_are_as_of_all_records() -> None:
    cluster = a_cluster(4, commit=3)
    cluster.logs["t"].unreadable = {3}
    cluster.may_look = False
    found = cluster.poll()
    assert found.lag.readable_sum("t") == 1
    assert found.behind(cluster.now) == pytest.approx(600 + POLL_S, abs=1)


# --- who consumes


def test_a_consumer_without_members_is_no_dead_one() -> None:
    cluster = a_cluster(5_000, commit=0)
    cluster.held = None
    for committed in range(0, 600, 15):
        cluster.commits["t"] = committed
        cluster.append(15)
        found = cluster.poll()
    assert found.activity is not None
    assert (found.activity.by_members, found.activity.by_commits) == (None, True)
    assert causes(found) == []
    for _ in range(40):
        cluster.append(15)
        found = cluster.poll()
    assert found.activity is not None
    assert found.activity.by_commits is False
    assert causes(found) == ["commits_stopped"]


def test_time_alone_ends_the_activity_of_a_group_that_has_nothing_to_read() -> None:
    cluster = a_cluster(10, commit=10)
    cluster.held = None
    for _ in range(3):
        cluster.append(10)
        cluster.poll(30)  # it commits seldom
        cluster.commits["t"] = cluster.logs["t"].end
        cluster.poll()
    found = cluster.poll(50)
    assert found.activity is not None
    assert found.activity.by_commits is True
    found = cluster.poll(20)
    assert found.activity is not None
    assert found.activity.by_commits is False


def test_a_group_of_which_nobody_was_seen_to_consume_is_not_told_to_be_dead() -> None:
    cluster = a_cluster(1_000, commit=990)
    cluster.held = None
    found = cluster.poll(100)
    assert found.activity is not None
    assert found.activity.was_never_active
    assert causes(found) == ["never_active"]


def test_a_service_that_has_died_is_told_of() -> None:
    cluster = a_cluster(1_000, commit=990)
    cluster.poll(3)
    cluster.held = None
    found = cluster.poll()
    assert found.activity is not None
    assert found.activity.by_members is False
    assert causes(found) == ["no_members"]


def test_a_topic_that_the_group_has_moved_off_is_not_consumed_and_nobody_is_stuck_on_it() -> None:
    cluster = a_cluster(5_000, commit=100, held=("b",))
    cluster.logs["b"] = Log()
    cluster.append(10, topic="b")
    cluster.commits["b"] = 10
    found = cluster.poll(100)
    assert found.not_consumed == {"t"}
    assert found.lag.readable_sum("t") == 4_900
    assert found.behind_by_partition("t", cluster.now)[0] > 600
    assert (found.behind(cluster.now), found.status.status) == (0, Status.OK)
    assert found.stuck == {}
    assert causes(found) == ["not_consumed"]
    cluster.state = "PreparingRebalance"
    assert cluster.poll().not_consumed == {"t"}  # while it rebalances, what was known holds
    cluster.state, cluster.held = None, None
    assert cluster.poll().not_consumed == frozenset()  # it may be an outage


def test_members_that_hold_partitions_with_records_and_never_committed_are_told() -> None:
    cluster = a_cluster(3_083)
    cluster.logs["empty"] = Log()
    cluster.held = ("t", "empty")
    found = cluster.poll()
    assert found.uncommitted == {"t": 1, "empty": 0}
    assert causes(found) == ["held_without_commit"]
    cluster.commits["t"] = 0
    assert cluster.poll().uncommitted == {"t": 0, "empty": 0}


# --- seldom commits


def test_one_who_commits_once_an_hour_is_not_stopped_nor_stuck() -> None:
    cluster = a_cluster(10, ago=10.0, commit=0)
    for minute in range(5 * 60):
        cluster.append(300)
        if minute and minute % 60 == 0:
            cluster.commits["t"] = cluster.logs["t"].end - 100
        found = cluster.poll(after=60.0)
        assert found.status.status is not Status.ERR
        assert found.stuck == {"t": 0}
        assert "consumer_stuck" not in causes(found)
        assert "partition_in_error" not in causes(found)
    assert found.activity is not None
    assert found.activity.patience == 2 * 3_600
    found = cluster.poll(200, after=60.0)
    assert found.stuck == {"t": 1}
    assert found.status.status is Status.ERR
    assert "consumer_stuck" in causes(found)


def test_one_who_commits_at_once_is_stuck_after_ten_minutes() -> None:
    cluster = a_cluster(10, commit=10)
    cluster.poll()
    commits_steadily(cluster)
    cluster.append(5)
    assert cluster.poll(40).stuck == {"t": 0}
    found = cluster.poll(3)
    assert found.stuck == {"t": 1}
    assert "consumer_stuck" in causes(found)


# --- clocks, retention, silence


def remaining(found: GroupMeasures, cluster: Cluster) -> float | None:
    deleted_at = found.retention["t"][0].deleted_at
    return None if deleted_at is None else deleted_at - cluster.now


@pytest.mark.parametrize("clock_set_by", [-3_600.0, 3_600.0])
def test_a_wall_clock_that_is_set_changes_no_age_no_rate_and_no_status(
    clock_set_by: float,
) -> None:
    right, wrong = a_cluster(500, commit=20), a_cluster(500, commit=20)
    for number in range(30):
        for cluster in (right, wrong):
            cluster.append(30)
            cluster.commits["t"] += 10
        if number == 15:
            wrong.clock_set_by = clock_set_by
        expected, found = right.poll(), wrong.poll()
        assert found.rates == expected.rates
        assert found.status == expected.status
        assert found.activity == expected.activity
        assert found.changed_at == expected.changed_at


def test_retention_goes_by_the_records_own_time() -> None:
    cluster = Cluster(held=("t",), retention_s=10 * DAY_S)
    cluster.commits["t"] = 0
    cluster.poll(2)
    cluster.append(50)
    cluster.logs["t"].stamps = [cluster.wall - 10 * DAY_S + 60] * 50  # mirrored
    found = cluster.poll()
    assert remaining(found, cluster) == pytest.approx(60 - POLL_S, abs=1)
    assert "retention_risk" in causes(found)
    assert remaining(cluster.poll(2), cluster) == pytest.approx(15, abs=1)


def test_where_the_records_own_time_is_not_known_nothing_is_said_to_be_kept() -> None:
    cluster = Cluster(held=("t",), retention_s=10 * DAY_S)
    cluster.commits["t"] = 20
    cluster.poll(2)
    cluster.append(50)
    cluster.logs["t"].stamps = [cluster.wall - 10 * DAY_S + 60] * 50
    assert remaining(cluster.poll(2), cluster) is None


def test_what_was_never_seen_for_a_silent_coordinator_is_no_wait_and_no_rewind() -> None:
    cluster = a_cluster(10, commit=10)
    cluster.poll()
    commits_steadily(cluster)
    cluster.append(5)
    cluster.is_silent = True
    cluster.poll(200)
    cluster.is_silent = False
    found = cluster.poll()
    assert found.stuck == {"t": 0}
    cluster.commits["t"] += 1
    found = cluster.poll()
    assert found.activity is not None
    assert found.activity.patience == 60


def test_an_end_at_rest_is_never_taken_for_never_caught_up() -> None:
    cluster = a_cluster(10, commit=10)
    assert cluster.poll(12).rates["t"].catch_up != NEVER
