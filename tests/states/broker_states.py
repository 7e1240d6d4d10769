"""States that a real broker can be brought to: how each is set up, and what is right to say of it.

All are on one broker at once, and one monitor watches them for two hours of its time.
"""

from __future__ import annotations

from typing import Any, Final

from tests.states.model import ABSENT, AbsentOr, Between, Right, State
from tests.states.stage import COURSE_MINUTES, POLL_INTERVAL_S, Scene, committed_by

_END_S: Final = COURSE_MINUTES * 60
# what a group that only time happens to is behind at the end: set-up takes some seconds of real time
_WHOLE_COURSE: Final = Between(_END_S - 60, _END_S + 300)
DAY_S: Final = 86_400

# -- how they are set up --------------------------------------------------------------------------


def emptied(s: Scene, commit: int = 0, *, member: bool = False) -> None:
    """Retention has deleted the whole log, and the commit lies before it."""
    s.topic(s.name)
    s.produce(s.name, 20)
    s.commit(s.name, s.name, commit)
    s.delete_records(s.name, 20)
    if member:
        s.member(s.name, s.name)


def emptied_while_watched(s: Scene) -> None:
    s.topic(s.name)
    s.produce(s.name, 20)
    s.commit(s.name, s.name, 5)
    s.at(20, lambda: s.delete_records(s.name, 20))


def recreated(s: Scene, *, partitions: int = 1) -> None:
    """A log of 5000 to 6000 becomes one of 0 to 10, and its group begins anew."""
    s.topic(s.name, partitions)
    s.produce(s.name, 6000)
    s.delete_records(s.name, 5000)
    s.commit(s.name, s.name, 5500)

    def anew() -> None:
        s.recreate(s.name)
        s.produce(s.name, 10)
        s.commit(s.name, s.name, 0)

    s.at(10, anew)
    s.at(15, lambda: s.commit(s.name, s.name, 10))


def recreated_smaller(s: Scene) -> None:
    """Three partitions become one, and the consumer goes on committing where it was."""
    s.topic(s.name, 3)
    s.produce(s.name, 500)
    s.commit(s.name, s.name, 500, 0, 0)

    def anew() -> None:
        s.recreate(s.name)
        s.produce(s.name, 3)
        s.commit(s.name, s.name, 500)

    s.at(10, anew)
    s.at(20, lambda: s.produce(s.name, 597))
    s.at(40, lambda: s.commit(s.name, s.name, 600))


def marker(s: Scene, aborted: int = 0, *, member: bool = True) -> None:
    """All is read, and what is left are markers and aborted records."""
    s.topic(s.name)
    producer = s.transactional(s.name)
    s.transaction(producer, s.name, 3)
    for _ in range(aborted):
        s.transaction(producer, s.name, 5, "abort")
    s.commit(s.name, s.name, 3)
    if member:
        s.member(s.name, s.name)


def marker_committed(s: Scene) -> None:
    """A consumer that commits its position is past the marker."""
    marker(s)
    s.commit(s.name, s.name, 4)


def record_before_a_marker(s: Scene) -> None:
    """One record is unread, and a marker after it."""
    s.topic(s.name)
    s.transaction(s.transactional(s.name), s.name, 3)
    s.commit(s.name, s.name, 2)
    s.member(s.name, s.name)


def open_transaction(s: Scene) -> None:
    """A transaction stays open at the commit, and others go on appending behind it."""
    s.topic(s.name)
    s.produce(s.name, 200)
    s.commit(s.name, s.name, 200)
    s.transaction(s.transactional(s.name), s.name, 5, "open")
    s.member(s.name, s.name)
    s.each_poll(lambda _: s.produce(s.name, 10))


def assigned(s: Scene, backlog: int = 10) -> None:
    """A consumer by assign(): no member, and its commits move."""
    s.topic(s.name)
    s.produce(s.name, 100)
    s.commit(s.name, s.name, 100 - backlog)
    at = [100]

    def go_on(minute: float) -> None:
        s.produce(s.name, 15)
        at[0] += 15
        # a poll finds it with ten, five or none to go
        s.commit(s.name, s.name, at[0] - backlog + 5 * (int(minute) % 3))

    s.each_poll(go_on)


def assigned_until(s: Scene, *, produced: bool) -> None:
    """A consumer by assign() that ends after twenty minutes."""
    s.topic(s.name)
    s.produce(s.name, 100)
    s.commit(s.name, s.name, 90)
    at = [100]

    def go_on(minute: float) -> None:
        if minute < 20:
            s.commit(s.name, s.name, at[0])
        if minute < 20 or produced:
            s.produce(s.name, 15)
            at[0] += 15

    s.each_poll(go_on)


def standing_loss(s: Scene) -> None:
    """A monitor is started while a group stands before the log start."""
    s.topic(s.name)
    s.produce(s.name, 1100)
    s.commit(s.name, s.name, 900)
    s.delete_records(s.name, 1000)


def loss_between_polls(s: Scene) -> None:
    """A group that had read everything loses 5,010 of 10,000 records between two polls."""
    s.topic(s.name)
    s.produce(s.name, 10)
    s.commit(s.name, s.name, 10)
    member = s.member(s.name, s.name)

    def lose() -> None:
        s.produce(s.name, 10_000)
        s.delete_records(s.name, 5_020)

    s.at(20, lose)
    # it reads on once the log starts were asked for again
    s.at(28, lambda: committed_by(member, s.name, 10_010))


def second_loss(s: Scene) -> None:
    """Two losses, the second smaller than the first: a counter counts both."""
    s.topic(s.name)
    s.produce(s.name, 1100)
    s.commit(s.name, s.name, 400)
    s.at(10, lambda: s.delete_records(s.name, 600))
    s.at(18, lambda: s.commit(s.name, s.name, 900))
    s.at(26, lambda: s.delete_records(s.name, 1000))
    s.at(34, lambda: s.commit(s.name, s.name, 1100))


def mirrored_data(s: Scene) -> None:
    """Records that a mirror stamped with their own time, ten days less five hours ago."""
    s.topic(s.name, retention_ms=str(10 * DAY_S * 1000))
    s.produce(s.name, 50, age=10 * DAY_S - 5 * 3600)
    s.commit(s.name, s.name, 0)


def seldom(s: Scene) -> None:
    """A sink connector that commits once an hour."""
    s.topic(s.name)
    s.produce(s.name, 10)
    s.commit(s.name, s.name, 10)
    member = s.member(s.name, s.name)
    at = [10]

    def go_on(minute: float) -> None:
        s.produce(s.name, 50)
        at[0] += 50
        if minute and minute % 60 == 0:
            committed_by(member, s.name, at[0])

    s.each_poll(go_on)


def moved_off(s: Scene) -> None:
    """A healthy group has moved to another topic, and its old commits stay."""
    old, new = s.name, f"{s.name}-new"
    s.topic(old)
    s.topic(new)
    s.produce(old, 5000)
    s.produce(new, 10)
    s.commit(s.name, old, 100)
    s.commit(s.name, new, 10)
    member = s.member(s.name, new)
    at = [10]

    def go_on(_: float) -> None:
        s.produce(old, 10)
        s.produce(new, 1)
        at[0] += 1
        committed_by(member, new, at[0])

    s.each_poll(go_on)


def mirrored_group(s: Scene) -> None:
    s.topic(s.name)
    s.produce(s.name, 1000)
    s.commit(s.name, s.name, 990)


def past_the_end(s: Scene, *, member: bool = False) -> None:
    """A mirror's commit of the source's offset on an empty log."""
    s.topic(s.name)
    s.commit(s.name, s.name, 5_000_000)
    if member:
        s.member(s.name, s.name)
    s.at(10, lambda: s.produce(s.name, 10))


def stepped_back(s: Scene) -> None:
    """A synchronisation of group offsets goes back by 100."""
    s.topic(s.name)
    s.produce(s.name, 500)
    s.commit(s.name, s.name, 500)
    s.at(20, lambda: s.commit(s.name, s.name, 400))


def rewound(s: Scene) -> None:
    """A live group is put back, and reads on."""
    s.topic(s.name)
    s.produce(s.name, 500)
    s.commit(s.name, s.name, 400)
    member = s.member(s.name, s.name)
    at = [400]

    def go_on(minute: float) -> None:
        s.produce(s.name, 5)
        at[0] = 300 if minute == 30 else min(at[0] + (6 if minute < 30 else 60), 500)
        committed_by(member, s.name, at[0])

    s.each_poll(go_on)


def never_committed(s: Scene) -> None:
    """A member that is wedged on its first record: it holds three partitions and commits nothing."""
    s.topic(s.name, 3)
    s.produce(s.name, 3083)
    s.produce(s.name, 10, 2)
    s.commit(s.name, s.name, None, None, 10)
    s.member(s.name, s.name, partitions=3)


def abandoned(s: Scene) -> None:
    """A console consumer's group that nobody will ever use again."""
    s.topic(s.name)
    s.produce(s.name, 100)
    s.commit(s.name, s.name, 40)
    s.each_poll(lambda _: s.produce(s.name, 3))


def special_id(s: Scene) -> None:
    topic = s.topic(f"special-{abs(hash(s.name))}")
    s.produce(topic, 3)
    s.commit(s.name, topic, 1)


def healthy(s: Scene, **options: Any) -> None:
    """A live group that keeps up."""
    partitions = 4
    s.topic(s.name, partitions)
    for index in range(partitions):
        s.produce(s.name, 10, index)
    s.commit(s.name, s.name, *[8] * partitions)
    member = s.member(s.name, s.name, partitions=partitions, **options)
    at = [10]

    def go_on(minute: float) -> None:
        for index in range(partitions):
            s.produce(s.name, 2, index)
        at[0] += 2
        # a poll finds it with two, one or none to go
        committed_by(member, s.name, *[at[0] - 2 + int(minute) % 3] * partitions)

    s.each_poll(go_on)


def at_rest(s: Scene) -> None:
    s.topic(s.name)
    s.produce(s.name, 10)
    s.commit(s.name, s.name, 10)


def compacted(s: Scene) -> None:
    """Keys are overwritten: offsets of unread records have holes."""
    s.topic(s.name, cleanup_policy="compact", segment_ms="100", min_cleanable_dirty_ratio="0.001")
    for index in range(50):
        s.produce(s.name, 1, key=f"k{index % 5}")
    s.commit(s.name, s.name, 10)


def deleted_topic(s: Scene) -> None:
    """Commits outlive their topic."""
    gone = s.topic(f"{s.name}-gone")
    s.topic(s.name)
    s.produce(gone, 10)
    s.produce(s.name, 10)
    s.commit(s.name, gone, 4)
    s.commit(s.name, s.name, 10)
    s.at(2, lambda: s.delete_topic(gone))


def long_metadata(s: Scene) -> None:
    """Only the last partition's commit carries a text, of 4 kB."""
    s.topic(s.name, 3)
    for index in range(3):
        s.produce(s.name, 10, index)
    s.commit(s.name, s.name, 10, 10, None)
    s.commit(s.name, s.name, None, None, 7, metadata="m" * 4000)


def many_partitions(s: Scene) -> None:
    s.topic(s.name, 1000)
    s.commit(s.name, s.name, *[0] * 1000)


def stuck_partition(s: Scene) -> None:
    """One of two partitions stands still while the other moves."""
    s.topic(s.name, 2)
    s.produce(s.name, 100, 0)
    s.produce(s.name, 100, 1)
    s.commit(s.name, s.name, 10, 100)
    member = s.member(s.name, s.name, partitions=2)
    at = [100]

    def go_on(minute: float) -> None:
        s.produce(s.name, 2, 0)
        s.produce(s.name, 2, 1)
        at[0] += 2
        committed_by(member, s.name, 20 if minute >= 5 else 10, at[0])

    s.each_poll(go_on)


def stopped(s: Scene) -> None:
    """A live group whose only member leaves while others go on writing."""
    s.topic(s.name)
    s.produce(s.name, 10)
    s.commit(s.name, s.name, 10)
    member = s.member(s.name, s.name)
    at = [10]

    def go_on(minute: float) -> None:
        if minute < 20:
            committed_by(member, s.name, at[0])
        elif minute == 20:
            s.leave(member)
        s.produce(s.name, 5)
        at[0] += 5

    s.each_poll(go_on)


def last_record_again(s: Scene) -> None:
    """A consumer commits the last record's offset instead of the next: one record stays unread."""
    s.topic(s.name)
    s.produce(s.name, 100)
    s.commit(s.name, s.name, 90)
    member = s.member(s.name, s.name)
    s.at(2, lambda: committed_by(member, s.name, 95))
    s.at(3, lambda: committed_by(member, s.name, 99))


def stamped(s: Scene, age: float) -> None:
    """Records that were there before the first look carry a time that is not theirs."""
    s.topic(s.name, retention_ms="-1")
    s.produce(s.name, 10, age=age)
    s.commit(s.name, s.name, 0)


def stamped_while_watched(s: Scene, age: float) -> None:
    s.topic(s.name, retention_ms="-1")
    s.produce(s.name, 10)
    s.commit(s.name, s.name, 10)
    s.at(60, lambda: s.produce(s.name, 10, age=age))


# -- what is right --------------------------------------------------------------------------------

READ_COMMITTED: Final = {"read_committed": True}
ALL_READ: Final = {"readable_lag": 0, "lag_seconds": 0, "lag_seconds_max": 0}
NEVER_ACTIVE: Final = {"active{by=members}": ABSENT, "active{by=commits}": ABSENT}
# a single look after a commit that moved cannot tell that the next one will not come
_ONE_STANDS: Final = ("catching_up", "message_stands", "fewer_members_than_needed")
_STOPS_IN_THE_MIDDLE: Final = (
    "catching_up", "rewound", "slow_processing", "member_wedged", "fewer_members_than_needed",
)  # fmt: skip
# of what is left behind for good: told, and nobody is called
LEFT: Final[tuple[str, ...]] = ("OK", "STOP", "ERR")

STATES: Final = (
    State(
        "w1-emptied", "W1, W15", "Retention emptied the log past the commit; nobody is a member",
        emptied,
        Right(20, series={**ALL_READ, **NEVER_ACTIVE, "lag_sum": 20, "messages_lost_total": 0,
                   "unread_deleted_messages": 20, "log_unread_ratio": AbsentOr(0)}, always={"lag_seconds": 0}, over=("messages_lost",)),
    ),
    State(
        "w1-emptied-part", "W1", "Retention emptied the log past a commit within it",
        lambda s: emptied(s, 10),
        Right(10, series={**ALL_READ, "lag_sum": 10, "unread_deleted_messages": 10}, always={"lag_seconds": 0}, over=("messages_lost",)),
    ),
    State(
        "w1-emptied-member", "W1, W15", "Retention emptied the log, and a member waits for more",
        lambda s: emptied(s, member=True),
        Right(20, series={**ALL_READ, "active{by=members}": 1, "messages_lost_total": 0, "catching_up": 1,
                   "unread_deleted_messages": 20, "stuck_partitions": 0}, always={"lag_seconds": 0}, over=("messages_lost",), causes=("messages_lost",)),
    ),
    State(
        "w15-loss-ends", "W15", "Retention empties a log while it is watched: told, and told no more an hour after",
        emptied_while_watched,
        Right(15, series={**ALL_READ, "messages_lost_total": 15, "unread_deleted_messages": 15},
              status=LEFT, over=("messages_lost",), alerts=("KafkaConsumerMessagesLost",)),
    ),
    State(
        "w2-recreated", "W2, 18", "A topic is created anew with a shorter log: nothing was lost, and nobody rewound",
        recreated,
        Right(500, series={"lag_sum": 0, "messages_lost_total": 0, "unread_deleted_messages": 0},
              always={"messages_lost_total": AbsentOr(0), "rewinds_total": AbsentOr(0), "unread_deleted_messages": AbsentOr(0),
                      "log_unread_ratio": AbsentOr(Between(0, 1))},
              status=LEFT),
    ),
    State(
        "18-fewer-partitions", "18, W2", "A topic of three partitions is created anew with one; the commit is past its end",
        recreated_smaller,
        Right(0, series={"lag_sum": 0, "messages_lost_total": 0, "commit_past_end_messages": AbsentOr(0)},
              always={"messages_lost_total": AbsentOr(0), "rewinds_total": AbsentOr(0)},
              status=LEFT, may_advise=("commit_past_end",)),
    ),
    State(
        "w4-marker", "W4, 2", "Only a transaction's marker is left to read; a member waits",
        marker,
        Right(1, series={**ALL_READ, "stuck_partitions": 0, "catching_up": 1}, always={"lag_seconds": 0, "readable_lag": 0, "lag_sum": 1},
              lag_never=("min behind", "h behind", "status ERR", "status STOP")),
    ),
    State(
        "w4-aborted", "W4", "Only aborted transactions are left to read",
        lambda s: marker(s, 3),
        Right(19, series={**ALL_READ, "stuck_partitions": 0}, always={"lag_seconds": 0, "readable_lag": 0}),
    ),
    State(
        "w4-nobody", "W4", "Only a marker is left to read, and the group has no member",
        lambda s: marker(s, member=False),
        Right(1, series={**ALL_READ}, always={"lag_seconds": 0}),
    ),
    State(
        "w4-position", "W4", "A consumer that commits its position is past the marker",
        marker_committed,
        Right(0, series={**ALL_READ, "lag_sum": 0}),
    ),
    State(
        "w4-record-left", "W4", "One record is left before the marker: somebody has to read it",
        record_before_a_marker,
        Right(2, series={"readable_lag": 2, "lag_seconds_max": _WHOLE_COURSE, "stuck_partitions": 1},
              status=LEFT, may_advise=("consumer_stuck", "partition_in_error"),
              alerts=("KafkaConsumerStuck",), may_fire=("KafkaConsumerLagTimeHigh", "KafkaConsumerLagTimeCritical"), causes=("member_wedged",)),
    ),
    State(
        "w4-read-committed", "W4", "Only a marker is left to read, and the monitor is told that all read committed",
        marker, Right(1, series={**ALL_READ}, always={"lag_seconds": 0}), settings=READ_COMMITTED,
    ),
    State(
        "w5-open", "W5, 7", "An open transaction holds back all that comes: it is to blame, not the consumer",
        open_transaction,
        Right(Between(5, 15), series={"readable_lag": 0, "lag_seconds_max": 0, "lag_sum": Between(1200, 1230), "stuck_partitions": 0},
              always={"readable_lag": 0},
              cluster={"kafka_topic_partition_open_transaction_records{topic=w5-open}": Between(1200, 1230),
                       "kafka_topic_partition_open_transaction_seconds{topic=w5-open}": _WHOLE_COURSE},
              advice=("open_transaction",), alerts=("KafkaOpenTransaction",), causes=("open_transaction",)),
    ),
    State(
        "w5-open-read-committed", "W5, 7", "The same, and the monitor is told that all read committed",
        open_transaction,
        Right(0, commands_lag=Between(5, 15), series={"readable_lag": 0, "lag_seconds_max": 0, "catching_up": 1},
              always={"lag_velocity_messages_per_second": AbsentOr(0)},
              cluster={"kafka_topic_partition_open_transaction_records{topic=w5-open-read-committed}": Between(1200, 1230)},
              advice=("open_transaction",), alerts=("KafkaOpenTransaction",)),
        settings=READ_COMMITTED,
    ),
    State(
        "w6-assign", "W6, a", "A live consumer by assign(): no member, and commits that move",
        assigned,
        Right(10, series={"active{by=commits}": 1, "active{by=members}": ABSENT, "lag_sum": Between(0, 10), "lag_seconds_max": Between(0, 60)}),
    ),
    State(
        "w6-assign-hidden", "W6, C11", "The same with MONITOR_HIDE_EMPTY_GROUPS: it is not empty",
        assigned,
        # before a commit has moved nobody can know
        Right(AbsentOr(10), commands_lag=10, series={"active{by=commits}": 1, "lag_sum": Between(0, 10), "status_complete_ratio": 1}),
        settings={"hide_empty_groups": True},
    ),
    State(
        "w6-assign-stops", "W6", "A consumer by assign() ends, and others go on writing",
        lambda s: assigned_until(s, produced=True),
        Right(10, series={"active{by=commits}": 0, "readable_lag": Between(1450, 1600)},
              status=(*LEFT, "WARN"), may_advise=("commits_stopped",),
              alerts=("KafkaConsumerCommitsStopped",),
              may_fire=("KafkaConsumerLagTimeHigh", "KafkaConsumerLagTimeCritical", "KafkaConsumerNotCatchingUp",
                        "KafkaConsumerLagHigh"), causes=("commits_stopped",)),
    ),
    State(
        "w6-assign-done", "W6, 13", "A consumer by assign() ends, and nothing more is written: a job that is done",
        lambda s: assigned_until(s, produced=False),
        Right(10, series={"active{by=commits}": 0, "readable_lag": Between(0, 30)}, status=(*LEFT, "WARN"),
              may_fire=("KafkaConsumerLagTimeHigh", "KafkaConsumerLagTimeCritical"), causes=("commits_stopped",)),
    ),
    State(
        "w7-old-loss", "W7, C10, 9", "The monitor starts while a group stands before the log start: an old loss is no news",
        standing_loss,
        Right(200, series={"messages_lost_total": 0, "unread_deleted_messages": 100, "readable_lag": 100},
              always={"messages_lost_total": 0}, status=LEFT, over=("messages_lost",)),
    ),
    State(
        "w7-loss-between-polls", "W7, 9", "A group that had read everything loses records between two polls",
        loss_between_polls,
        Right(0, series={"messages_lost_total": 5010, "lag_sum": 0, "unread_deleted_messages": 0},
              over=("messages_lost",), alerts=("KafkaConsumerMessagesLost",), causes=("messages_lost",)),
    ),
    State(
        "w7-two-losses", "W7, 9", "Two losses, the second smaller than the first",
        second_loss,
        Right(700, series={"messages_lost_total": 300, "lag_sum": 0}, status=LEFT,
              over=("messages_lost",), alerts=("KafkaConsumerMessagesLost",)),
    ),
    State(
        "w12-mirrored-data", "W12, C7", "Records carry their own, older time: Kafka deletes by that",
        mirrored_data,
        Right(50, series={"retention_remaining_seconds": AbsentOr(Between(10_000, 11_000))},
              always={"retention_remaining_seconds": AbsentOr(Between(0, 18_000))}, status=LEFT, may_advise=("retention_risk",)),
    ),
    State(
        "w13-seldom", "W13, 10", "A connector commits once an hour, by design",
        seldom,
        Right(0, series={"active{by=members}": 1}, always={"stuck_partitions": AbsentOr(0)}),
    ),
    State(
        "w14-moved-off", "W14, 3", "A healthy group has moved to another topic; commits on the old one stay",
        moved_off,
        Right(4900, series={"not_consumed{topic=w14-moved-off}": 1, "not_consumed{topic=w14-moved-off-new}": ABSENT,
                     "lag{topic=w14-moved-off}": Between(6000, 6200), "unassigned_partitions": 0,
                     "lag_seconds_max": 0, "stuck_partitions{topic=w14-moved-off}": AbsentOr(0)},
              advice=("not_consumed",)),
    ),
    State(
        "w16-mirrored-group", "W16, 5", "A mirrored group trails the end of a standby cluster's log",
        mirrored_group,
        Right(10, series={"lag_sum": 10, **NEVER_ACTIVE, "messages_lost_total": 0}, status=LEFT, advice=("never_active",)),
    ),
    State(
        "w16-past-end", "W16, 5", "A mirrored commit is five million past the end",
        past_the_end,
        Right(AbsentOr(0), series={"commit_past_end_messages": 4_999_990, "commit_past_end": ABSENT},
              may_advise=("commit_past_end",), lag_says=("past the log end",)),
    ),
    State(
        "w16-past-end-member", "W16", "The same with a member, which will skip what comes",
        lambda s: past_the_end(s, member=True),
        Right(AbsentOr(0), series={"commit_past_end_messages": 4_999_990}, advice=("commit_past_end",),
              alerts=("KafkaConsumerCommitPastEnd",)),
    ),
    State(
        "w16-stepped-back", "W16, 5", "A synchronisation of a group without members goes back by 100",
        stepped_back,
        Right(0, series={"rewinds_total": 1, "lag_sum": 100}, status=(*LEFT, "REWIND", "WARN")),
    ),
    State(
        "rewound", "right", "A live group is put back by 200 and reads on",
        rewound,
        Right(100, series={"rewinds_total": 1, "active{by=members}": 1}, status=("OK", "REWIND", "ERR", "WARN", "STOP"),
              may_advise=("partition_in_error", "never_catches_up", "partition_falls_behind", "consumer_stuck"), alerts=("KafkaConsumerGroupRewound",),
              may_fire=("KafkaConsumerLagTimeHigh", "KafkaConsumerLagTimeCritical", "KafkaConsumerStuck", "KafkaConsumerNotCatchingUp"), causes=_STOPS_IN_THE_MIDDLE),
    ),
    State(
        "w17-never-committed", "W17, 11", "A member holds three partitions and commits nothing on two of them",
        never_committed,
        Right(0, series={"uncommitted_partitions": 1, "lag_sum": 0, "lag{partition=0}": ABSENT}, advice=("held_without_commit",),
              lag_says=("2 without a commit",)),
    ),
    *(
        State(f"console-consumer-{n}", "W20, 13", "A console consumer's group that nobody uses again",
              abandoned, Right(60, series={**NEVER_ACTIVE}, status=LEFT, advice=("never_active",)))
        for n in range(10_001, 10_004)
    ),
    *(
        State(f"w18-{word}", "W18, 12", f"A group's id has {title}", special_id,
              Right(2, series={"lag_sum": 2}, status=LEFT), group=group)
        for word, title, group in (
            ("hash", "#", "w18#b"), ("ampersand", "& and =", "w18&b=c"), ("percent", "%", "w18%b"),
            ("plus", "+", "w18+b"), ("space", "a space", "w18 b"), ("umlaut", "an umlaut", "w18ä"),
            ("colon", "a colon", "w18:svc"), ("newline", "a line's end", "w18\nb"),
            ("escape", "what clears a terminal", "w18\x1b[2Jb"), ("tab", "a tab", "w18\tb"),
            ("quote", "quotes and a backslash", 'w18"\\b'), ("markup", "markup", "w18<script>b"),
        )
    ),
    State("healthy-classic", "right", "A live group that keeps up", healthy,
          Right(8, series={"lag_sum": Between(0, 8), "active{by=members}": 1, "unassigned_partitions": 0, "stuck_partitions": AbsentOr(0),
                    "messages_lost_total": 0, "rewinds_total": 0})),
    State("healthy-kip848", "right (e)", "The same with the consumer protocol",
          lambda s: healthy(s, **{"group.protocol": "consumer"}),
          Right(8, series={"lag_sum": Between(0, 8), "active{by=members}": 1, "unassigned_partitions": 0})),
    State("at-rest", "right (a)", "A group without members that has read everything", at_rest,
          Right(0, series={**ALL_READ, "lag_sum": 0})),
    State("compacted", "right (f)", "Keys are overwritten: some offsets have no record any more", compacted,
          Right(40, series={"lag_sum": 40, "lag_seconds_max": _WHOLE_COURSE}, status=LEFT)),
    State("23-deleted-topic", "23", "Commits outlive their topic", deleted_topic,
          Right(6, series={"lag_sum": 0, "lag{topic=23-deleted-topic-gone}": ABSENT}, status=LEFT)),
    State("25-metadata", "25", "A commit carries a text of 4 kB", long_metadata,
          Right(3, series={"lag{partition=2}": 3, "lag_sum": 3}, status=LEFT)),
    State("1000-partitions", "right (b)", "A topic of a thousand partitions", many_partitions,
          Right(0, series={"lag_sum": 0, "lag_seconds_max": 0})),
    State("26-one-partition", "26", "One of two partitions stands still while totals move", stuck_partition,
          Right(90, series={"stuck_partitions": 1, "lag{partition=0}": 320, "lag{partition=1}": 0},
                status_at_end="STOP", status=(*LEFT, "WARN"), advice=("consumer_stuck",), may_advise=("partition_in_error", "never_catches_up", "partition_falls_behind"),
                alerts=("KafkaConsumerStuck",), may_fire=("KafkaConsumerLagTimeHigh", "KafkaConsumerLagTimeCritical", "KafkaConsumerNotCatchingUp"), causes=_ONE_STANDS)),
    *(
        State(f"w11-stuck-{level}", "W11, 8", f"The same, with MONITOR_LEVEL={level}", stuck_partition,
              Right(90, series={"stuck_partitions": 1}, status_at_end="STOP", status=(*LEFT, "WARN"), advice=("consumer_stuck",), may_advise=("partition_in_error", "never_catches_up", "partition_falls_behind"),
                    alerts=("KafkaConsumerStuck",), may_fire=("KafkaConsumerLagTimeHigh", "KafkaConsumerLagTimeCritical", "KafkaConsumerNotCatchingUp"), causes=_ONE_STANDS),
              settings={"level": level})
        for level in ("topic", "group")
    ),
    *(
        State(f"w11-rewound-{level}", "W11, 8", f"A live group is put back, with MONITOR_LEVEL={level}", rewound,
              Right(100, series={"rewinds_total": 1}, status=("OK", "REWIND", "ERR", "WARN", "STOP"),
                    may_advise=("partition_in_error", "never_catches_up", "partition_falls_behind", "consumer_stuck"),
                    alerts=("KafkaConsumerGroupRewound",),
                    may_fire=("KafkaConsumerLagTimeHigh", "KafkaConsumerLagTimeCritical", "KafkaConsumerStuck", "KafkaConsumerNotCatchingUp"), causes=_STOPS_IN_THE_MIDDLE),
              settings={"level": level})
        for level in ("topic", "group")
    ),
    State("stopped", "right", "A live group loses its only member while others go on writing", stopped,
          Right(0, series={"active{by=members}": 0, "readable_lag": Between(450, 600)}, status=(*LEFT, "WARN"),
                advice=("no_members",), may_advise=("consumer_stuck", "partition_in_error", "never_catches_up"),
                alerts=("KafkaConsumerGroupWithoutMembers",),
                may_fire=("KafkaConsumerLagTimeHigh", "KafkaConsumerLagTimeCritical", "KafkaConsumerLagHigh", "KafkaConsumerNotCatchingUp"), causes=("no_members",))),
    State("30-last-record", "30", "A consumer commits the last record's offset instead of the next one", last_record_again,
          Right(10, series={"lag_sum": 1, "readable_lag": 1, "stuck_partitions": 1}, status=LEFT, may_advise=("partition_in_error", "consumer_stuck"),
                alerts=("KafkaConsumerStuck",), may_fire=("KafkaConsumerLagTimeHigh", "KafkaConsumerLagTimeCritical"), causes=("catching_up", "member_wedged"))),
    State("debatable-future", "debatable (c)", "Records from before the first look are stamped a day ahead: their age is not known",
          lambda s: stamped(s, -DAY_S),
          Right(10, series={"lag_seconds": AbsentOr(Between(0, _END_S + 300))}, status=LEFT)),
    State("debatable-1970", "debatable (c)", "Records from before the first look are stamped 1970",
          lambda s: stamped(s, 1.79e9),
          Right(10, series={"lag_sum": 10}, status=LEFT)),
    State("right-1970-watched", "right (c)", "Records stamped 1970 come while watched: the time of their coming counts",
          lambda s: stamped_while_watched(s, 1.79e9),
          Right(0, series={"lag_seconds_max": Between(0, 3800)}, status=LEFT)),
    State("right-future-watched", "right (c)", "Records stamped a day ahead come while watched",
          lambda s: stamped_while_watched(s, -DAY_S),
          Right(0, series={"lag_seconds_max": Between(3500, 3800)}, status=LEFT)),
)  # fmt: skip

assert POLL_INTERVAL_S == 60, "rates and backlogs above are for this interval"
