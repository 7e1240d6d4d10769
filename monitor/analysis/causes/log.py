"""Causes in the log, its brokers, or where the group was put: what no consumer is to blame for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, TypeAlias

from monitor.analysis.causes import commands
from monitor.analysis.causes.finding import (
    Alternative,
    Cause,
    Checked,
    Figure,
    Finding,
    Step,
    Unchecked,
)
from monitor.model import nothing
from monitor.words import duration, plural, safe

if TYPE_CHECKING:
    from collections.abc import Mapping

    from monitor.analysis.causes.symptoms import Symptoms
    from monitor.model import Partition

Verdict: TypeAlias = Finding | Checked | Unchecked
"""The cause, or that it is not there, or that nobody can say."""

# A transaction may be open for as long as the producer's default transaction.timeout.ms.
OPEN_SECONDS: Final = 60.0
# Of the lag: a rewind explains it if it makes up so much of it (production goes on meanwhile).
REWIND_SHARE: Final = 0.5


def messages_lost(s: Symptoms) -> Verdict:
    """Ask whether messages were deleted unread: then the commit is before the log start."""
    lost = s.measures.unread_deleted.get(s.topic)
    if lost is None:
        return Unchecked("messages lost", "the log starts, which the brokers did not tell")
    told = next(
        (a for a in s.measures.advice if a.cause == "messages_lost" and a.topic == s.topic), None
    )
    if not lost or told is None:
        return Checked("messages lost", "no commit is before the log start")
    return Finding(
        Cause.MESSAGES_LOST,
        f"{plural(lost, 'message')} of {safe(s.topic)} were deleted before the group read them: "
        "retention is shorter than its lag.",
        s.topic,
        figures=(Figure("deleted unread", lost, "messages"),),
        steps=(
            Step("Raise retention.ms before anything else, so that no more are lost."),
            Step("Restore what is lost from its source: it is gone from Kafka."),
            commands.to_earliest(s),
        ),
    )


def broker_trouble(s: Symptoms) -> Verdict:
    """Ask whether a leader is silent or missing, or all that one broker leads is behind."""
    ends = s.snapshot.end_offsets
    away = _away(s)
    if away:
        partitions = tuple(sorted(away))
        since = [ends.time_of(s.topic, p) for p in partitions if ends.is_silent(s.topic, p)]
        return Finding(
            Cause.BROKER_TROUBLE,
            f"{plural(len(away), 'partition')} of {safe(s.topic)} cannot be read: "
            f"{next(iter(away.values()))}.",
            s.topic,
            partitions,
            since=min(since, default=None),
            figures=(Figure("partitions without an answering leader", len(away), "partitions"),),
            steps=_broker_steps(s),
        )
    leaders = {p.leader for p in s.behind}
    others_led = [p for p in s.partitions if p.leader not in leaders and not p.is_behind]
    if len(leaders) == 1 and others_led:
        (leader,) = leaders
        witnesses = [
            group
            for group, topics in s.around.behind().items()
            if group != s.group
            and all(found == {leader} for found in topics.values())
            # a witness of a topic that all its leaders serve is one that could be behind elsewhere
            and any(_has_other_leaders(s, topic, leader) for topic in topics)
        ]
        if (
            leader is not None
            and witnesses
            and all(p.is_behind for p in s.partitions if p.leader == leader)
            # a broker in trouble is one for most: a few groups may each stand for a reason of their own
            and s.around.in_time(leader) <= len(witnesses)
        ):
            return Finding(
                Cause.BROKER_TROUBLE,
                f"All that is behind is led by broker {leader}, for "
                f"{plural(len(witnesses), 'other group')} as well; what others lead is read in time.",
                s.topic,
                tuple(p.partition for p in s.behind),
                since=s.since,
                figures=(
                    Figure(f"groups behind on broker {leader} only", len(witnesses) + 1, "groups"),
                    Figure("partitions behind", len(s.behind), "partitions"),
                ),
                steps=_broker_steps(s),
            )
    return Checked("brokers", "all leaders answer, and no single one leads all that is behind")


def _has_other_leaders(s: Symptoms, topic: str, leader: int | None) -> bool:
    known = s.snapshot.topics.get(topic)
    return known is not None and any(p.leader != leader for p in known.partitions.values())


def _away(s: Symptoms) -> dict[int, str]:
    """Return partition -> why its log end can't be read now."""
    ends = s.snapshot.end_offsets
    refused, silent = ends.refused.get(s.topic, nothing()), ends.silent.get(s.topic, nothing())
    known = ends.values.get(s.topic, nothing())
    topic = s.snapshot.topics.get(s.topic)
    partitions: Mapping[int, Partition] = topic.partitions if topic else nothing()
    found = {}
    for partition in s.measures.group.commits.get(s.topic, nothing()):
        told = partitions.get(partition)
        if (error := refused.get(partition)) is not None:
            # what the monitor may not ask, consumers may
            if "AUTHORIZATION" not in error:
                found[partition] = f"its leader refuses ({error})"
        elif told is not None and told.leader is None:
            found[partition] = "it has no leader"
        elif partition in silent or (
            partition not in known and told is not None and told.leader in s.snapshot.broker_errors
        ):
            found[partition] = f"broker {told.leader if told else '?'}, its leader, does not answer"
    return found


def _broker_steps(s: Symptoms) -> tuple[Step, ...]:
    return (
        Step("See which replicas are in sync.", commands.describe_topic(s)),
        Step("Look at that broker: its log, disk, CPU and request queue."),
        Step("Move leadership away from it, or restart it, once it is known why."),
    )


def open_transaction(s: Symptoms) -> Verdict:
    """Ask whether an open transaction holds readers of committed records back."""
    told = next(
        (a for a in s.measures.advice if a.cause == "open_transaction" and a.topic == s.topic), None
    )
    if told is None or told.moment is None:
        return Checked("transactions", "none is open where the group stands")
    seconds = s.now - told.moment
    if seconds <= OPEN_SECONDS:
        return Checked("transactions", f"one is open for {duration(seconds)}: that is usual")
    held = s.measures.lag.topics.get(s.topic, 0)
    return Finding(
        Cause.OPEN_TRANSACTION,
        f"An open transaction holds back what follows on {safe(s.topic)}, for {duration(seconds)} "
        "now: the group has read all that is committed before it.",
        s.topic,
        since=told.moment,
        figures=(
            Figure("held back, or unread", held, "messages"),
            Figure("open for", seconds, "s"),
        ),
        steps=(
            Step("Find the producer that left it open.", commands.find_transactions(s)),
            Step("Restart that producer: one with the same transactional.id ends the old one."),
            Step("If it is gone for good, abort it: kafka-transactions.sh abort."),
        ),
    )


def rewound(s: Symptoms) -> Verdict:
    """Ask whether commits were moved back (a replay, a reset) by as much as is unread."""
    recent = [r for r in s.rewinds if s.now - r.at <= 3600.0]
    if not recent:
        return Checked("offsets", f"no commit moved back in {duration(s.now - s.course.began)}")
    back, partitions = sum(r.messages for r in recent), {r.partition for r in recent}
    if back < REWIND_SHARE * s.lag:
        return Checked(
            "offsets", f"commits moved back by {back} messages: that does not explain {s.lag}"
        )
    return Finding(
        Cause.REWOUND,
        f"Commits on {safe(s.topic)} were moved back by {plural(back, 'message')}: a replay or a "
        "reset, which is being read again.",
        s.topic,
        tuple(sorted(partitions)),
        since=min(r.at for r in recent),
        over_at=s.over_at,
        figures=(
            Figure("moved back", back, "messages"),
            Figure("unread now", s.lag, "messages"),
            Figure("consumed", s.consumed, "messages/s"),
        ),
        steps=(
            Step(
                "If somebody meant it, let it run: consumers must take messages that come again."
                if s.over_at
                else "If somebody meant it, see that the group reads on."
            ),
            Step("Else find who did: offset tools, or a consumer with auto.offset.reset=earliest."),
            Step(
                "To go back to where it was, stop the group and reset it; see first what it would do.",
                commands.describe(s, "--offsets"),
            ),
        ),
    )


def not_consumed(s: Symptoms) -> Verdict:
    """Ask whether the group has left the topic, and only its commits remain."""
    if s.topic not in s.measures.not_consumed:
        return Checked("subscription", "its members read the topic")
    return Finding(
        Cause.NOT_CONSUMED,
        f"The group reads {safe(s.topic)} no more: its members hold nothing of it, only old commits "
        "are left.",
        s.topic,
        figures=(Figure("left behind", s.lag, "messages"),),
        alternatives=(
            Alternative(
                Cause.CANNOT_TELL,
                "the topic was dropped from the subscription by mistake",
                "the consumer's configuration",
            ),
        ),
        steps=(
            Step("See that its consumers are not meant to read it.", commands.describe(s)),
            commands.delete_offsets(s),
        ),
    )
