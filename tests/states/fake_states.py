"""States that a broker of a test cannot be brought to: each on a model of a cluster of two brokers.

What the model stands for is behind the seam of the wire; collector, analysis, pages and commands are
the real ones. Each state has a cluster of its own and lasts for half an hour, polled each minute.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from monitor.kafka.apis.offset_fetch import GroupCommits
from tests.states.model import ABSENT, AbsentOr, Between, Number, Right, State
from tests.states.services import EVENT_HUBS, EVENT_HUBS_2019, REDPANDA, ServedBy, Service
from tests.unit.monitor.model_cluster import ABORTED, Clock, ModelCluster

MINUTES: Final = 30
ALL_FAMILIES: Final = ("kafka_exporter", "measures", "kminion", "kafka-lag-exporter", "burrow")


@dataclass
class FakeScene:
    """A model of a cluster for one state, with the name of its group and topic."""

    name: str
    # so that its course ends now, when the commands look
    clock: Clock = field(default_factory=lambda: Clock(time.time() - 60 * MINUTES))
    steps: list[Callable[[int], None]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.cluster: ModelCluster = ModelCluster(self.clock)

    @property
    def coordinator(self) -> int:
        """Return the broker that coordinates the group."""
        found = self.cluster.coordinator(self.name)
        assert found is not None
        return found

    @property
    def other(self) -> int:
        """Return the other broker."""
        return 3 - self.coordinator

    def at(self, minute: int, do: Callable[[], Any]) -> None:
        """Have something done before the poll of this minute."""
        self.steps.append(lambda poll: do() if poll == minute else None)

    def each_poll(self, do: Callable[[int], Any]) -> None:
        """Have something done before each poll; it is told the minute."""
        self.steps.append(do)

    def live(self, partitions: int = 2, *, lag: int = 0) -> None:
        """A topic and a group with a member that keeps up, but for a standing lag."""
        self.cluster.create(self.name, partitions)
        for index in range(partitions):
            self.cluster.append(self.name, 100, index)
        self.cluster.commit(self.name, self.name, *[100 - lag] * partitions)
        self.cluster.join(self.name, self.name)

        def go_on(_: int) -> None:
            if self.name in self.cluster.groups and self.name in self.cluster.topics:
                for index in range(partitions):
                    self.cluster.append(self.name, 5, index)
                log = self.cluster.topics[self.name].logs
                self.cluster.commit(self.name, self.name, *[each.end - lag for each in log])

        self.each_poll(go_on)

    def left(self, lag: int = 10) -> None:
        """A topic, and a group without members that is behind."""
        self.cluster.create(self.name, 1)
        self.cluster.append(self.name, 100)
        self.cluster.commit(self.name, self.name, 100 - lag)


# -- how they are set up --------------------------------------------------------------------------


def ghost(s: FakeScene, *, first: bool, commits: bool = False) -> None:
    """A former coordinator goes on listing the group, as Empty."""
    s.live()
    s.cluster.order = (s.other, s.coordinator) if first else (s.coordinator, s.other)
    s.cluster.groups[s.name].ghost = (
        GroupCommits({s.name: {0: 4, 1: 4}}) if commits
        else GroupCommits(error="NOT_COORDINATOR", moved=True)
    )  # fmt: skip


def starting(s: FakeScene) -> None:
    """The group's coordinator is down, then lists no group while it starts."""
    s.live()

    def lose() -> None:
        for index, log in enumerate(s.cluster.topics[s.name].logs):
            s.cluster.append(s.name, 30, index)
            log.delete_to(log.end - 10)

    s.at(4, lose)
    s.at(10, lambda: s.cluster.silent.add(s.coordinator))
    s.at(12, s.cluster.silent.clear)
    s.at(12, lambda: s.cluster.starting.add(s.coordinator))
    s.at(15, s.cluster.starting.clear)


def running_groups_only(s: FakeScene) -> None:
    """A service that lists running groups only: a stopped one is asked for by its name."""
    s.live()
    s.cluster.hides_coordinators = True

    def stop() -> None:
        s.steps.clear()
        s.cluster.groups[s.name].members = ()
        s.cluster.groups[s.name].unlisted = True
        s.steps.append(lambda _: s.cluster.append_to_all(s.name, 3))

    s.at(5, stop)


def deleted_while_away(s: FakeScene) -> None:
    """A group is deleted while the broker that last listed it is down for good."""
    s.live()
    s.at(5, lambda: s.cluster.fenced.add(s.coordinator))
    s.at(6, s.cluster.groups.clear)
    s.at(10, s.cluster.fenced.clear)


def leader_silent(s: FakeScene) -> None:
    """The leader of partition 0 is silent for good; nothing else happens."""
    s.left(15)
    s.cluster.create(s.name, 2)
    for index in (0, 1):
        s.cluster.append(s.name, 20, index)
    s.cluster.commit(s.name, s.name, 5, 15)
    assert s.coordinator == 2
    s.at(5, lambda: s.cluster.silent.add(1))


def refused(s: FakeScene, at: int) -> None:
    """The group may not be read (any more)."""
    s.live()
    s.at(at, lambda: setattr(s.cluster.groups[s.name], "refused", "GROUP_AUTHORIZATION_FAILED"))
    if not at:
        s.cluster.groups[s.name].refused = "GROUP_AUTHORIZATION_FAILED"


def leaderless(s: FakeScene) -> None:
    """A broker is gone for good, and with it the only replica of partition 0."""
    s.live(lag=3)
    assert s.coordinator == 2
    s.at(5, lambda: s.cluster.fenced.add(1))


def partition_refused(s: FakeScene, error: str) -> None:
    s.live(lag=3)
    s.cluster.errors[s.name, 0] = error


def late_by_time(s: FakeScene) -> None:
    """Tiered storage: questions by time are answered after 8 s."""
    s.left()
    s.cluster.slow_by_time = {1: 8.0, 2: 8.0}


def loading(s: FakeScene) -> None:
    """A coordinator loads its groups for three minutes."""
    s.live()
    s.at(5, lambda: setattr(s.cluster.groups[s.name], "loading", True))
    s.at(8, lambda: setattr(s.cluster.groups[s.name], "loading", False))


def topic_hidden(s: FakeScene) -> None:
    """The right to describe the topic is withdrawn: the broker leaves it out without a word."""
    s.live()
    s.at(5, s.cluster.topics.clear)


def outage(s: FakeScene) -> None:
    """All brokers are silent for five minutes."""
    s.live()
    s.at(10, lambda: s.cluster.silent.update({1, 2}))
    s.at(15, s.cluster.silent.clear)


def outage_at_end(s: FakeScene) -> None:
    s.live()
    s.at(10, lambda: s.cluster.silent.update({1, 2}))


def clock_set(s: FakeScene, by: float) -> None:
    s.left()
    s.at(15, lambda: s.clock.set_wall(by))


def connect_only(s: FakeScene) -> None:
    """A cluster whose only groups are Connect workers: members, and never a commit."""
    s.cluster.create(s.name, 1)
    s.cluster.join(s.name)


def poll_fails(s: FakeScene) -> None:
    """Something in the monitor's reading raises at each poll."""
    s.live()

    def fail(_: Any) -> None:
        raise RuntimeError("no such reply")

    s.at(10, lambda: setattr(s.cluster, "raises", fail))


def restarts(s: FakeScene) -> None:
    """A single member restarts every three minutes."""
    s.live()
    member = s.cluster.groups[s.name].members

    def go_on(minute: int) -> None:
        s.cluster.groups[s.name].members = () if minute % 3 == 1 else member

    s.each_poll(go_on)


def held_and_aborted(s: FakeScene) -> None:
    """An open transaction is aborted: what it held back is not to be read."""
    s.live()
    s.steps.clear()
    log = s.cluster.topics[s.name].logs[0]
    s.at(5, lambda: s.cluster.append(s.name, 4, kind="open"))
    s.at(20, lambda: log.end_open(ABORTED, s.clock.passed))


def slow(s: FakeScene) -> None:
    """One broker is always slower than the other, and was silent once."""
    s.live()
    s.cluster.slow[1] = 0.3
    s.at(5, lambda: s.cluster.silent.add(1))
    s.at(6, s.cluster.silent.clear)


def empty_id(s: FakeScene) -> None:
    s.cluster.create("of-the-empty-id", 1)
    s.cluster.append("of-the-empty-id", 10)
    s.cluster.commit("", "of-the-empty-id", 4)


def served_by(s: FakeScene, service: Service, *, lag: int = 3) -> ServedBy:
    """Another service than Kafka: a live group with a standing lag."""
    s.cluster = cluster = ServedBy(s.clock, service)
    s.live(lag=lag)
    return cluster


def another_service(s: FakeScene, service: Service) -> None:
    """All is well, as far as it can be asked."""
    served_by(s, service)


def redpanda_loading(s: FakeScene) -> None:
    """A broker loads a partition of groups for three minutes, and says so of all that it lists."""
    cluster = served_by(s, REDPANDA)
    s.at(5, lambda: cluster.loading.add(s.coordinator))
    s.at(8, cluster.loading.clear)


def stopped(s: FakeScene, service: Service) -> None:
    """The service's group loses its member: it is listed no more, and described as Dead."""
    served_by(s, service)

    def stop() -> None:
        s.steps.clear()
        s.cluster.groups[s.name].members = ()
        s.steps.append(lambda _: s.cluster.append_to_all(s.name, 3))

    s.at(5, stop)


# -- what is right --------------------------------------------------------------------------------

_Row = tuple[str, str, str, Callable[[FakeScene], None], Right, Mapping[str, Any], str | None]
WELL: Final[Mapping[str, Number]] = {"lag_sum": 0, "active{by=members}": 1, "rewinds_total": 0}
LEFT: Final = ("OK", "STOP", "ERR")
AWAY: Final = ("KafkaBrokerDown",)
# a leader or a coordinator that does not answer is what keeps a group from being read
BROKER: Final = ("broker_trouble",)

_ROWS: Final[tuple[_Row, ...]] = (
        *(
            (f"w8-ghost-{'first' if first else 'last'}{'-commits' if commits else ''}", "W8, 1",
             f"A former coordinator lists the group too, {'before' if first else 'after'} the right one"
             + (" and with old commits" if commits else ""),
             lambda s, first=first, commits=commits: ghost(s, first=first, commits=commits),
             Right(0, series=WELL, always={"members": 1, "lag_sum": 0}), {}, None)
            for first in (True, False) for commits in (True, False)
        ),
        ("w9-starting", "W9", "A broker that starts lists no group: that proves nothing", starting,
         Right(0, series={**WELL, "messages_lost_total": 40, "status_complete_ratio": 1},
               always={"members": AbsentOr(1)}, may_advise=("never_catches_up", "messages_lost"),
               alerts=("KafkaConsumerMessagesLost",), may_fire=(*AWAY, "KafkaMonitorDataStale"), causes=(*BROKER, "messages_lost")), {}, None),
        ("w19-running-only", "W19, 16", "A service lists running groups only: a stopped one is asked for by name", running_groups_only,
         Right(0, commands_lag=AbsentOr(Between(100, 160)), series={"lag_sum": Between(100, 160), "active{by=members}": 0}, status=LEFT, advice=("no_members",),
               may_advise=("partition_in_error",),
               causes=("no_members",), alerts=("KafkaConsumerGroupWithoutMembers",), may_fire=("KafkaConsumerLagTimeHigh", "KafkaConsumerLagTimeCritical", "KafkaConsumerNotCatchingUp")),
         {}, None),
        ("w19-deleted-while-away", "W19, 17", "A group is deleted while its broker is down", deleted_while_away,
         Right(0, commands_lag=ABSENT, series={"members": ABSENT, "lag_sum": ABSENT}, cluster={"kafka_monitor_stale_groups": 0}, causes=BROKER, may_fire=(*AWAY, "KafkaMonitorDataStale")), {}, None),
        ("c3-leader-silent-b", "C3", "A leader is silent for 25 minutes: a lag against its old end is withdrawn, in every family", leader_silent,
         Right(20, status=LEFT, series={"lag{partition=0}": ABSENT, "lag{partition=1}": 5, "lag_sum": AbsentOr(5)},
               cluster={"kafka_topic_partition_current_offset{partition=0}": ABSENT,
                        "kafka_partition_latest_offset{partition=0}": ABSENT,
                        "burrow_kafka_topic_partition_offset{partition=0}": ABSENT,
                        "kminion_kafka_topic_partition_high_water_mark{partition_id=0}": ABSENT},
               exit_code=1, lag_says=("one:9092",), alerts=AWAY, may_fire=("KafkaMonitorDataStale",)),
         {"families": ALL_FAMILIES}, None),
        ("c4-refused-later", "C4, 20", "The right to read a group is withdrawn", lambda s: refused(s, 5),
         Right(0, series={"lag_sum": ABSENT, "state{state=Stable}": 1, "error{error=GROUP_AUTHORIZATION_FAILED}": 1},
               cluster={"kafka_monitor_data_age_seconds": Between(0, 5), "kafka_monitor_stale_groups": 0, "kafka_monitor_group_errors": 1},
               exit_code=1, lag_says=("GROUP_AUTHORIZATION_FAILED",), page_says=("GROUP_AUTHORIZATION_FAILED",)), {}, None),
        ("c4-refused", "C4, 20", "A group may not be read from the start", lambda s: refused(s, 0),
         Right(ABSENT, series={"state{state=Stable}": 1, "error{error=GROUP_AUTHORIZATION_FAILED}": 1},
               cluster={"kafka_monitor_data_age_seconds": Between(0, 5), "kafka_monitor_stale_groups": 0},
               status=(), exit_code=1, lag_says=("GROUP_AUTHORIZATION_FAILED",)), {}, None),
        ("c4-leaderless-b", "C4", "A partition is without a leader for good: that is told as such, not as age", leaderless,
         Right(6, status=("OK", "WARN"), series={"lag{partition=0}": ABSENT, "lag{partition=1}": 3},
               cluster={"kafka_monitor_data_age_seconds": Between(0, 5), "kafka_topic_partition_error{partition=0,topic=c4-leaderless-b}": 1}, causes=BROKER,
               exit_code=1, alerts=AWAY, may_fire=("KafkaPartitionsUnderReplicated",)), {}, None),
        *(
            (f"c9-{error.split('_')[0].lower()}", "C9", f"A broker refuses a partition's offsets: {error}",
             lambda s, error=error: partition_refused(s, error),
             Right(3, status=("OK", "WARN"), series={"lag{partition=0}": ABSENT, "lag{partition=1}": 3},
                   cluster={f"kafka_topic_partition_error{{error={error},partition=0}}": 1},
                   causes=BROKER if error == "KAFKA_STORAGE_ERROR" else (),
                   exit_code=1, lag_says=(error,), lag_never=("total lag 3,",)), {}, None)
            for error in ("KAFKA_STORAGE_ERROR", "TOPIC_AUTHORIZATION_FAILED")
        ),
        ("14-late-by-time", "14, C8", "Tiered storage answers questions by time after 8 s: seconds are absent, all else is there", late_by_time,
         Right(10, series={"lag_sum": 10, "lag_seconds": ABSENT}, cluster={"kafka_monitor_broker_up{broker=1}": 1, "kafka_monitor_broker_up{broker=2}": 1},
               status=LEFT), {}, None),
        ("22-loading", "22", "A coordinator loads its groups: what it said before is kept", loading,
         Right(0, series=WELL, always={"lag_sum": Between(0, 40)}, causes=BROKER), {}, None),
        ("20-topic-hidden", "20, debatable", "The right to describe a topic is withdrawn: the broker is silent about it", topic_hidden,
         Right(0, series={"lag_sum": ABSENT, "members": 1}, may_fire=("KafkaLagSeriesAbsent",)), {}, None),
        ("d-outage", "right (d)", "All brokers are away for five minutes", outage,
         Right(0, series={**WELL, "status_complete_ratio": 1, "messages_lost_total": 0}, causes=BROKER, may_fire=("KafkaBrokerDown", "KafkaClusterUnreachable", "KafkaMonitorDataStale")),
         {}, None),
        ("d-outage-now", "right (d), W3", "All brokers are away: nothing old is told as new", outage_at_end,
         Right(0, series={"lag_sum": ABSENT, "members": ABSENT}, cluster={"kafka_monitor_up": 0, "kafka_monitor_poll_failed": AbsentOr(1)},
               causes=BROKER, exit_code=2, ready=False, ready_says="connection refused", alerts=("KafkaClusterUnreachable", "KafkaMonitorDataStale"),
               may_fire=("KafkaBrokerDown",)), {}, None),
        ("c2-clock-back", "C2", "The wall clock is set back by ten minutes: no age changes", lambda s: clock_set(s, -600),
         Right(10, series={"lag_seconds_max": Between(1770, 1860)}, cluster={"kafka_monitor_data_age_seconds": Between(0, 5)}, status=LEFT), {}, None),
        ("c2-clock-forth", "C2", "The wall clock is set forth by a day: no age changes", lambda s: clock_set(s, 86_400),
         Right(10, series={"lag_seconds_max": Between(1770, 1860)}, cluster={"kafka_monitor_data_age_seconds": Between(0, 5)}, status=LEFT), {}, None),
        ("w17-connect-only", "W17, 11", "The only groups are Connect workers: there is no lag to measure, and nothing is wrong", connect_only,
         Right(ABSENT, series={"members": 1}, status=()), {}, None),
        ("w1-poll-fails", "W1", "Each poll raises: that is told, values age and drop out", poll_fails,
         Right(0, series={"lag_sum": ABSENT}, cluster={"kafka_monitor_up": 0, "kafka_monitor_poll_failed": 1, "kafka_monitor_data_age_seconds": AbsentOr(Between(60, 1300))},
               ready=False, ready_says="RuntimeError", page_says=("RuntimeError",), exit_code=2,
               alerts=("KafkaMonitorDataStale",), may_fire=("KafkaClusterUnreachable",)), {}, None),
        ("c11-restarts", "C11", "A single member restarts again and again, with MONITOR_HIDE_EMPTY_GROUPS", restarts,
         Right(0, series={"rebalances_total": Between(8, 25), "status_complete_ratio": 1}, may_advise=("rebalance_storm",),
               may_fire=("KafkaConsumerGroupRebalanceStorm",)), {"hide_empty_groups": True}, None),
        ("w4-held-then-aborted", "W4, W5", "An open transaction is aborted: what it held back is not to be read", held_and_aborted,
         Right(0, series={"lag_sum": 5, "readable_lag": 0, "lag_seconds_max": 0}, may_advise=("open_transaction",), causes=("open_transaction",)), {}, None),
        ("c1-slow", "C1", "A broker that is always slower, and was silent once, is up", slow,
         Right(0, series=WELL, cluster={"kafka_monitor_broker_up{broker=1}": 1}, causes=BROKER), {}, None),
        ("w18-empty-id", "W18, 12", "A group's id is empty", empty_id,
         Right(6, series={"lag_sum": 6}, status=LEFT, page_says=("(empty id)",), lag_says=("(empty id)",)), {}, ""),
        ("redpanda", "16", "Redpanda: older versions, no topic ids, groups placed by another hash", lambda s: another_service(s, REDPANDA),
         Right(6, status=("OK", "WARN"), series={"lag_sum": 6, "members": 1, "state{state=Stable}": 1, "rewinds_total": 0}, always={"lag_sum": 6, "members": 1},
               cluster={"kafka_monitor_stale_groups": 0}), {"log_sizes": True}, None),
        ("redpanda-loading", "16, 22", "Redpanda loads groups: its list counts for nothing, who is known is asked for by name", redpanda_loading,
         Right(6, status=("OK", "WARN"), series={"lag_sum": 6, "members": 1}, always={"lag_sum": 6, "members": 1}), {}, None),
        *(
            (name, "16", f"{title}: no topic ids, no coordinators in the metadata, sizes of logs unknown" + more,
             lambda s, service=service: another_service(s, service),
             Right(6, status=("OK", "WARN"), series={"lag_sum": 6, "members": 1, "state{state=Stable}": 1, "retention_remaining_seconds": retention}, always={"lag_sum": 6, "members": 1},
                   cluster={"kafka_monitor_stale_groups": 0, "kafka_monitor_broker_up{broker=1}": 1, "kafka_monitor_internal_errors": ABSENT},
                   exit_code=len(lag_says), lag_says=lag_says, page_says=("it does not know DescribeLogDirs", *lag_says)), {"log_sizes": True}, None)
            for name, title, more, service, retention, lag_says in (
                ("event-hubs", "Azure Event Hubs", "", EVENT_HUBS, Between(0, 14 * 86_400), ()),
                ("event-hubs-2019", "Azure Event Hubs of 2019", ", and so is retention", EVENT_HUBS_2019, ABSENT, ("it does not know DescribeConfigs",)),
            )
        ),
        ("event-hubs-stopped", "16", "Azure Event Hubs: a stopped group is listed no more, and described as Dead", lambda s: stopped(s, EVENT_HUBS),
         Right(6, commands_lag=AbsentOr(Between(100, 170)), series={"lag_sum": Between(100, 170), "active{by=members}": 0, "members": 0}, status=("WARN", *LEFT), advice=("no_members",),
               may_advise=("partition_in_error",), causes=("no_members",), alerts=("KafkaConsumerGroupWithoutMembers",),
               may_fire=("KafkaConsumerLagTimeHigh", "KafkaConsumerLagTimeCritical", "KafkaConsumerNotCatchingUp")), {}, None),
)  # fmt: skip

STATES: Final = tuple(
    State(name, entry, title, setup, right, where="fake", settings=settings, group=group)
    for name, entry, title, setup, right, settings, group in _ROWS
)
