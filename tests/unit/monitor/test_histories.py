"""Whole histories of a cluster, at random: whatever happens to it, what the monitor tells holds.

The monitor is the real one behind the seam of the wire; the cluster is a model that knows what is
true. After each poll what is told is compared with that. HISTORIES=2000 runs that many; the profile
of every day is bounded and the same each time.
"""

from __future__ import annotations

import os
from collections import defaultdict
from math import inf
from typing import Any, Final

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from monitor.exposition.render import Renderer
from monitor.exposition.series import Level
from monitor.kafka.apis.offset_fetch import GroupCommits
from monitor.kafka.collector import Collector, Intervals
from monitor.poller import Poller
from tests.states.model import Samples, parse
from tests.unit.monitor.model_cluster import (
    ABORTED,
    DATA,
    OPEN,
    Clock,
    Log,
    ModelCluster,
    ModelGroup,
)

HISTORIES: Final = int(os.environ.get("HISTORIES", "0"))
INTERVAL_S: Final = 15.0
METADATA_S: Final = 90.0  # read once a minute, by the poll after that
GROUPS: Final = ("a", "b", "c")
TOPICS: Final = ("s", "t")
BROKERS: Final = st.sampled_from((1, 2))
GROUP: Final = st.sampled_from(("a", "a", "b", "c"))
# most of it happens in one place, so that things meet
TOPIC: Final = st.sampled_from(("t", "t", "t", "s"))
PARTITION: Final = st.sampled_from((0, 0, 1))
COUNTERS: Final = ("messages_lost_total", "rewinds_total", "rebalances_total")
PREFIX: Final = "kafka_consumergroup_"
# a poll interval, and what a slow or silent broker adds to a poll
START_OFFSETS_S: Final = 60 + 2 * INTERVAL_S
TOLERANCE_S: Final = 2 * INTERVAL_S + 12


class History(RuleBasedStateMachine):
    """Anything that can happen to two topics and three groups on two brokers."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = Clock()
        self.counters: dict[tuple[str, Any], float] = {}
        self.shown: set[tuple[str, Any]] = set()
        self.deleted_unread: defaultdict[tuple[str, str], int] = defaultdict(int)
        self.went_back: defaultdict[tuple[str, str], int] = defaultdict(int)
        self.last_commit: dict[tuple[str, str, int], int] = {}
        self.had_members: dict[str, int] = {}
        self.deleted_at: dict[tuple[str, int], float] = {}
        # created anew with no log seen to be shorter: offsets don't tell it, and ids with the next metadata only
        self.replaced_until: dict[str, float] = {}
        self.is_foreign = False  # whether a record ever carried a time that is not its own
        self.unpolled = 0
        self.is_started = False

    @initialize(
        tells_ids=st.booleans(), hides_coordinators=st.booleans(), read_committed=st.booleans()
    )
    def start(self, tells_ids: bool, hides_coordinators: bool, read_committed: bool) -> None:  # noqa: FBT001
        self.cluster = ModelCluster(
            self.clock, tells_ids=tells_ids, hides_coordinators=hides_coordinators
        )
        self.collector = Collector(
            self.cluster,
            Intervals(topic_configs=300.0),
            read_committed=read_committed,
            clock=self.clock.wall,
            monotonic=self.clock.monotonic,
        )
        self.poller = Poller(
            self.collector,
            stale_after_s=3 * INTERVAL_S,
            measures_level=Level.PARTITION,
            clock=self.clock.wall,
            monotonic=self.clock.monotonic,
        )
        self.read_committed = read_committed
        for name in TOPICS:
            self.cluster.create(name, 2)
            for partition in (0, 1):
                self.cluster.append(name, 20, partition)
        self.cluster.commit("a", "t", 5, 20)
        self.cluster.commit("b", "t", 20, 0)
        self.last_commit = {("a", "t", 0): 5, ("a", "t", 1): 20, ("b", "t", 0): 20}
        self.is_started = True

    # -- logs -------------------------------------------------------------------------------------

    def log(self, topic: str, partition: int) -> Log | None:
        found = self.cluster.topics.get(topic)
        return None if found is None or partition >= len(found.logs) else found.logs[partition]

    @rule(topic=TOPIC, partition=PARTITION, count=st.sampled_from((1, 3, 100)))
    def append(self, topic: str, partition: int, count: int) -> None:
        if log := self.log(topic, partition):
            log.append(count, self.clock.passed)

    @rule(
        topic=TOPIC, partition=PARTITION, age=st.sampled_from((-86_400.0, 600.0, 864_000.0, 1.7e9))
    )
    def append_foreign(self, topic: str, partition: int, age: float) -> None:
        if log := self.log(topic, partition):
            self.is_foreign = True
            log.append(3, self.clock.passed, stamp=self.clock.wall() - self.clock.set_by - age)

    @rule(topic=TOPIC, partition=PARTITION, end=st.sampled_from((DATA, ABORTED, OPEN)))
    def transact(self, topic: str, partition: int, end: str) -> None:
        if log := self.log(topic, partition):
            log.append(3, self.clock.passed, OPEN)
            if end != OPEN:
                log.end_open(end, self.clock.passed)

    @rule(topic=TOPIC, partition=PARTITION, end=st.sampled_from((DATA, ABORTED)))
    def end_transactions(self, topic: str, partition: int, end: str) -> None:
        if log := self.log(topic, partition):
            log.end_open(end, self.clock.passed)

    @rule(topic=TOPIC, partition=PARTITION, share=st.sampled_from((0.3, 1.0, 1.0)))
    def delete(self, topic: str, partition: int, share: float) -> None:
        if log := self.log(topic, partition):
            to = min(log.start + int((log.end - log.start) * share), log.stable_end)
            for name, group in self.cluster.groups.items():
                commit = group.commits.get(topic, {}).get(partition, -1)
                if 0 <= commit < to:
                    self.deleted_unread[name, topic] += to - max(commit, log.start)
            log.delete_to(to)
            self.deleted_at[topic, partition] = self.clock.passed

    @rule(topic=TOPIC, partition=PARTITION)
    def compact(self, topic: str, partition: int) -> None:
        if log := self.log(topic, partition):
            log.compact()

    @rule(topic=TOPIC)
    def delete_topic(self, topic: str) -> None:
        self.cluster.topics.pop(topic, None)

    @rule(
        topic=TOPIC,
        partitions=st.integers(1, 2),
        count=st.sampled_from((0, 5, 5_000)),
        keeps=st.booleans(),
    )
    def recreate(self, topic: str, partitions: int, count: int, keeps: bool) -> None:  # noqa: FBT001
        old = self.cluster.topics.get(topic)
        before = [] if old is None else [log.end for log in old.logs]
        self.cluster.create(topic, partitions)
        self.cluster.append(topic, count)
        now = [log.end for log in self.cluster.topics[topic].logs]
        is_told = any(
            end < last and self.ends_are_told(topic, partition)
            for partition, (end, last) in enumerate(zip(now, before, strict=False))
        )
        if before and not is_told:
            seen_after = METADATA_S if self.cluster.tells_ids else inf
            self.replaced_until[topic] = self.clock.passed + seen_after
        for group in self.cluster.groups.values():
            if not keeps:
                group.commits.pop(topic, None)

    # -- groups -----------------------------------------------------------------------------------

    @rule(
        group=GROUP,
        topic=TOPIC,
        partition=PARTITION,
        where=st.sampled_from(("start", "end", "last", "back", "past", "negative", "0")),
    )
    def commit(self, group: str, topic: str, partition: int, where: str) -> None:
        log = self.log(topic, partition)
        if log is None:
            return
        commits = self.cluster.groups.setdefault(group, ModelGroup()).commits.setdefault(topic, {})
        before = commits.get(partition, -1)
        commits[partition] = {
            "start": log.start,
            "end": log.end,
            "last": max(log.start, log.end - 2),
            "back": max(0, before - 3),
            "past": log.end + 7,
            "negative": -2,
            "0": 0,
        }[where]
        if commits[partition] >= 0:
            # whatever was between them, deleted groups and topics too: it may be taken for that
            if commits[partition] < self.last_commit.get((group, topic, partition), 0):
                self.went_back[group, topic] += 1
            self.last_commit[group, topic, partition] = commits[partition]

    @rule(group=GROUP, topic=TOPIC)
    def join(self, group: str, topic: str) -> None:
        if topic in self.cluster.topics:
            self.had_members[group] = 1
            self.cluster.join(group, topic)

    @rule(group=GROUP)
    def leave(self, group: str) -> None:
        if group in self.cluster.groups:
            self.cluster.groups[group].members = ()

    @rule(group=GROUP)
    def delete_group(self, group: str) -> None:
        self.cluster.groups.pop(group, None)

    @rule(
        group=GROUP,
        how=st.sampled_from(("refused", "loading", "unlisted", "ghost", "ghost with commits")),
    )
    def trouble(self, group: str, how: str) -> None:
        known = self.cluster.groups.get(group)
        if known is None:
            return
        known.refused = "GROUP_AUTHORIZATION_FAILED" if how == "refused" else None
        known.loading = how == "loading"
        known.unlisted = how == "unlisted"
        if how == "ghost":
            known.ghost = GroupCommits(error="NOT_COORDINATOR", moved=True)
        elif how == "ghost with commits" and not self.cluster.hides_coordinators:
            known.ghost = GroupCommits({"t": {0: 1}})
        else:
            known.ghost = None

    @rule(group=GROUP)
    def trouble_ends(self, group: str) -> None:
        if known := self.cluster.groups.get(group):
            known.refused, known.loading, known.unlisted, known.ghost = None, False, False, None

    # -- brokers and clocks -----------------------------------------------------------------------

    @rule(broker=BROKERS, how=st.sampled_from(("silent", "starting", "slow", "fenced")))
    def broker_trouble(self, broker: int, how: str) -> None:
        self.broker_back(broker)
        if how == "slow":
            self.cluster.slow[broker] = 0.3
        else:
            getattr(self.cluster, how).add(broker)

    @rule(broker=BROKERS)
    def broker_back(self, broker: int) -> None:
        for troubled in (self.cluster.silent, self.cluster.starting, self.cluster.fenced):
            troubled.discard(broker)
        self.cluster.slow.pop(broker, None)
        self.answered_again()

    @rule(
        topic=TOPIC,
        partition=PARTITION,
        error=st.sampled_from((None, "KAFKA_STORAGE_ERROR", "TOPIC_AUTHORIZATION_FAILED")),
    )
    def partition_trouble(self, topic: str, partition: int, error: str | None) -> None:
        self.cluster.errors.pop((topic, partition), None)
        if error:
            self.cluster.errors[topic, partition] = error
        self.answered_again()

    def answered_again(self) -> None:
        """Where logs start is asked once a minute, and so told a minute after the trouble at the latest."""
        self.deleted_at = dict.fromkeys(self.deleted_at, self.clock.passed)

    @rule(by=st.sampled_from((-600.0, 600.0, -86_400.0)))
    def set_clock(self, by: float) -> None:
        self.clock.set_wall(by)

    # -- polls ------------------------------------------------------------------------------------

    @invariant()
    def poll(self) -> None:
        """Each step is followed by a poll, unless several happen between two."""
        if self.unpolled:
            self.unpolled -= 1
        elif self.is_started:
            self.look(INTERVAL_S)

    @rule(steps=st.integers(1, 3))
    def at_once(self, steps: int) -> None:
        self.unpolled = steps

    @rule()
    def long_quiet(self) -> None:
        for _ in range(12):
            self.look(INTERVAL_S)

    @rule(seconds=st.sampled_from((1.0, 90.0, 900.0)))
    def another_pace(self, seconds: float) -> None:
        self.look(seconds)

    def look(self, seconds: float) -> None:
        """Let time pass, poll, and hold what is told against what is true."""
        self.clock.go_on(seconds)
        state = self.poller.poll()
        published = self.poller.latest.page
        page = parse(published.plain)
        self.nothing_failed(page)
        self.nothing_negative(page)
        self.counters_only_grow(page)
        self.no_more_than_was(page)
        if state.snapshot is not None and state.error is None:
            self.lags_are_true(page)
            self.seconds_are_possible(page)
        self.nothing_unseen(page)
        self.rendered_anew_it_is_the_same(published.plain)

    def nothing_failed(self, page: Samples) -> None:
        told = [
            key
            for key in page
            if key[0] in ("kafka_monitor_internal_errors", "kafka_monitor_poll_failed")
        ]
        if (
            self.cluster.silent < {1, 2}
            and self.cluster.fenced < {1, 2}
            and self.cluster.silent | self.cluster.fenced < {1, 2}
        ):
            assert not told, told
        else:
            assert not [key for key in told if "internal" in key[0]], told

    @staticmethod
    def nothing_negative(page: Samples) -> None:
        for (name, labels), value in page.items():
            if "velocity" not in name:
                assert value >= 0, (name, dict(labels), value)
            assert value == value, (name, dict(labels))  # noqa: PLR0124  # not NaN
            if name.endswith("_ratio") and "imbalance" not in name:
                assert value <= 1, (name, dict(labels), value)

    def counters_only_grow(self, page: Samples) -> None:
        shown = set()
        for (name, labels), value in page.items():
            if name.startswith(PREFIX) and name.removeprefix(PREFIX) in COUNTERS:
                key = name, labels
                before = self.counters.get(key, 0.0)
                # one that was off the page may have begun anew, with its group or topic
                is_new = key not in self.counters or (key not in self.shown and value == 0)
                assert value == 0 if is_new else value >= before, (
                    f"{name}{dict(labels)}: {self.counters.get(key)} -> {value}"
                )
                self.counters[key] = value
                shown.add(key)
        self.shown = shown

    def no_more_than_was(self, page: Samples) -> None:
        for name, true in (
            ("messages_lost_total", self.deleted_unread),
            ("rewinds_total", self.went_back),
        ):
            told: defaultdict[tuple[str, str], float] = defaultdict(float)
            for labels, value in (one for g in GROUPS for one in page.of(g, PREFIX + name)):
                told[labels["consumergroup"], labels.get("topic", "")] += value
            for key, value in told.items():
                assert value <= true[key], f"{name} of {key}: {value} are told, {true[key]} were"

    def answers(self, group: str, topic: str, partition: int) -> bool:
        """Say whether all that a lag is made of was told just now."""
        known = self.cluster.groups.get(group)
        return (
            known is not None
            and self.cluster.coordinator(group) in self.up()
            and not (known.refused or known.loading or known.unlisted or known.ghost)
            and self.ends_are_told(topic, partition)
        )

    def ends_are_told(self, topic: str, partition: int) -> bool:
        """Say whether a partition's leader answers for it."""
        return partition % 2 + 1 in self.up() and (topic, partition) not in self.cluster.errors

    def up(self) -> set[int]:
        return {1, 2} - self.cluster.silent - self.cluster.fenced - self.cluster.starting

    def lags_are_true(self, page: Samples) -> None:
        for group in GROUPS:
            for labels, told in page.of(group, f"{PREFIX}lag"):
                topic, partition = labels["topic"], int(labels["partition"])
                log = self.log(topic, partition)
                if log is None or not self.answers(group, topic, partition):
                    continue
                commit = self.cluster.groups[group].commits.get(topic, {}).get(partition, -1)
                end = log.stable_end if self.read_committed else log.end
                assert commit >= 0, f"lag {told} of {group} {labels}, which committed nothing"
                assert told == max(0, end - commit), (
                    f"{group} {labels}: {told}, is {end} - {commit}"
                )

    def seconds_are_possible(self, page: Samples) -> None:
        now = self.clock.passed
        for group in GROUPS:
            for labels, told in page.of(group, f"{PREFIX}lag_seconds"):
                topic, partition = labels["topic"], int(labels["partition"])
                log = self.log(topic, partition)
                if log is None or self.is_foreign or not self.answers(group, topic, partition):
                    continue
                commit = self.cluster.groups[group].commits[topic][partition]
                if log.stable_end <= commit < log.end:
                    continue  # who has passed an open transaction reads what is not committed
                unread = log.readable(commit)
                slack = TOLERANCE_S + self.clock.moved
                since_deletion = now - self.deleted_at.get((topic, partition), -1e9)
                if since_deletion < START_OFFSETS_S:
                    continue  # where the log starts is asked once a minute
                if not unread:
                    assert told == 0, (
                        f"{group} {labels}: {told} s behind, and nothing is to be read"
                    )
                else:
                    # compaction may have taken the records next to it away
                    oldest = now - min(r.at for r in log.records) if log.records else 0
                    assert told <= oldest + slack or now <= self.replaced_until.get(topic, 0), (
                        f"{group} {labels}: {told} s, the log is {oldest} s old"
                    )
                    assert told >= now - unread[0].at - slack - 900 or told == 0, (
                        f"{group} {labels}: {told} s, the oldest unread record is {now - unread[0].at} s old"
                    )

    def nothing_unseen(self, page: Samples) -> None:
        for (name, pairs), value in page.items():
            labels = dict(pairs)
            group, topic = labels.get("consumergroup"), labels.get("topic")
            assert group is None or group in GROUPS, (name, labels)
            assert not topic or topic in (*TOPICS, "__consumer_offsets"), (name, labels)
            members = self.had_members.get(group or "", 0)
            assert name != f"{PREFIX}members" or value <= members, (name, labels, value)
            if name == f"{PREFIX}active" and labels["by"] == "members":
                assert members, f"{labels} is told of a group that never had a member"

    def rendered_anew_it_is_the_same(self, plain: bytes) -> None:
        latest, kept = self.poller.latest, self.poller._renderer
        self.poller._renderer = Renderer()
        try:
            anew = self.poller._published(latest.state, latest.succeeded_at)
        finally:
            self.poller._renderer = kept
        assert anew.page.plain == plain


# its base is made by the library at run time
class TestHistories(History.TestCase):  # type: ignore[misc, valid-type]
    settings = settings(
        max_examples=HISTORIES or 25,
        stateful_step_count=30,
        derandomize=not HISTORIES,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        print_blob=False,
    )
