"""Causes of a group that reads, and not fast enough: what it waits for, how it is spread, how many it is."""

from __future__ import annotations

from math import ceil
from statistics import median
from typing import TYPE_CHECKING, Final

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
from monitor.words import duration, plural, rate, safe

if TYPE_CHECKING:
    from monitor.analysis.causes.log import Verdict
    from monitor.analysis.causes.symptoms import Symptoms

# A hot partition, and a spike: arrivals against the median (Huawei's and AWS' rule of thumb is twice).
TIMES_THE_MEDIAN: Final = 2.0
# Below this share of what one consumer managed before, it is slow; above, it is as fast as ever.
SLOWED_SHARE: Final = 0.7
# A spike that lasts longer is the new load.
SPIKE_SECONDS: Final = 600.0
# Below so many messages in the span, rates are chance.
LEAST_MESSAGES: Final = 20
_NO_RATES: Final = Unchecked("rates", "a few polls more")
_OWN_RATE: Final = "what one consumer managed earlier: the monitor has not seen it under load"


def database_exhausted(s: Symptoms) -> Verdict:
    """Ask whether the group's service waits for connections, or its database takes no more."""
    pools = s.around.pools
    if pools is None:
        return Unchecked(
            "databases and pools",
            "MONITOR_DATABASE_URL, MONITOR_PGBOUNCER_URL, MONITOR_SERVICE_URLS",
        )
    if not pools.exhausted:
        return Checked("databases and pools", f"{pools.looked_at} looked at, none is exhausted")
    pool = max(pools.exhausted, key=lambda each: (each.is_own, each.waiting))
    figures = [Figure(f"waiting for {pool.name}", pool.waiting, "clients")]
    if pool.longest_seconds:
        figures.append(Figure("the first of them has waited", pool.longest_seconds, "s"))
    if pool.in_use is not None:
        figures.append(Figure("in use", pool.in_use, "connections"))
    if pool.most is not None:
        figures.append(Figure("at most", pool.most, "connections"))
    figures.append(Figure("consumed", s.consumed, "messages/s"))
    return Finding(
        Cause.DATABASE_EXHAUSTED,
        f"Connections of {safe(pool.name)} are exhausted, and {pool.waiting or 'others'} wait for one: "
        "consumers wait for the database, not for Kafka.",
        s.topic,
        since=s.since,
        figures=tuple(figures),
        alternatives=()
        if pool.is_own
        else (
            Alternative(
                Cause.SLOW_PROCESSING,
                "the group is slow for a reason of its own: the pool is not known to be its",
                "whether its consumers use that database",
            ),
        ),
        steps=(
            Step("See who holds the connections, and who is blocked.", "monitor pools"),
            Step("End what sits idle in a transaction, or holds the lock that others wait for."),
            Step(
                "Run no more replicas: each takes connections. Put PgBouncer in front, or enlarge it."
            ),
        ),
    )


def hot_partition(s: Symptoms) -> Verdict:
    """Ask whether one partition gets far more than the others, and has most of the lag."""
    if not s.knows_rates:
        return _NO_RATES
    known = [p for p in s.partitions if p.produced is not None]
    if len(known) < 2:  # a single one has nothing to be hotter than
        return Checked("keys", "the topic has a single partition")
    usual = median(p.produced or 0.0 for p in known)
    hot = [
        p
        for p in s.behind
        if (p.produced or 0.0) > TIMES_THE_MEDIAN * usual
        and (p.produced or 0.0) * s.span >= LEAST_MESSAGES
        and not p.stands
    ]
    share = sum(p.lag for p in hot) / s.lag if s.lag else 0.0
    if not hot or len(hot) > len(known) / 2 or share < 0.5:  # most of the lag
        hottest = max(p.produced or 0.0 for p in known)
        return Checked(
            "keys", f"partitions get {rate(usual)} messages/s, the fullest {rate(hottest)}"
        )
    p = max(hot, key=lambda each: each.lag)
    return Finding(
        Cause.HOT_PARTITION,
        f"Partition {p.partition} of {safe(s.topic)} gets {rate(p.produced or 0.0)} messages/s, the others about "
        f"{rate(usual)}: a hot key, which one member has to read alone.",
        s.topic,
        tuple(each.partition for each in hot),
        since=s.since,
        over_at=s.over_at,
        figures=(
            Figure("it gets", p.produced or 0.0, "messages/s"),
            Figure("the median of all", usual, "messages/s"),
            Figure("consumed of it", p.consumed or 0.0, "messages/s"),
            Figure("share of the lag", share, "of 1"),
        ),
        steps=(
            Step("Find the key.", commands.show_message(s, p.partition)),
            Step("Give its owner less of the rest: see who holds what.", commands.describe(s)),
            Step(
                "Spread the key over several, or give it a topic of its own. More replicas do not help."
            ),
        ),
    )


def slow_member(s: Symptoms) -> Verdict:
    """Ask whether all that is behind is held by one member, which reads on."""
    owners = {p.owner for p in s.behind}
    others = [p for p in s.partitions if p.owner not in owners]
    if not s.knows_rates:
        return _NO_RATES
    if len(owners) != 1 or not others or None in owners:
        return Checked("members' pace", "no single member holds all that is behind")
    (owner,) = owners
    held = s.of_owner(owner)
    consumed = sum(p.consumed or 0.0 for p in held)
    produced = sum(p.produced or 0.0 for p in held)
    if not consumed or any(p.stands or p in s.left_alone for p in held):
        return Checked("members' pace", "the member that is behind reads nothing")
    mean = sum(p.produced or 0.0 for p in others) / len({p.owner for p in others})
    member = next((m for m in s.measures.group.members or () if m.id == owner), None)
    told = f"{safe(member.client_id)} at {safe(member.host)}" if member else safe(str(owner))
    is_uneven = len(held) > 1 and produced > TIMES_THE_MEDIAN * mean
    return Finding(
        Cause.SLOW_MEMBER,
        f"All that is behind is held by one member, {told}: "
        + (
            f"it holds {len(held)} partitions, more than its share."
            if is_uneven
            else "it gets no more than the others, and reads less."
        ),
        s.topic,
        tuple(p.partition for p in s.behind),
        since=s.since,
        over_at=s.over_at,
        figures=(
            Figure("it reads", consumed, "messages/s"),
            Figure("it gets", produced, "messages/s"),
            Figure("each of the others gets", mean, "messages/s"),
        ),
        steps=(
            Step("Look at its machine: CPU, memory, neighbours; and at its log."),
            Step("Restart it elsewhere.", commands.describe(s, "--members", "--verbose")),
        ),
    )


def spike(s: Symptoms) -> Verdict:
    """Ask whether far more came than is usual, while consumers are as fast as ever."""
    if not s.knows_rates:
        return _NO_RATES
    usual = s.usual_produced
    if usual is None:
        return Unchecked(
            "arrivals", "what usually comes: the monitor has not watched for long enough"
        )
    peak = max(s.peak_produced, s.produced)
    is_over = s.produced <= TIMES_THE_MEDIAN * usual
    if peak <= TIMES_THE_MEDIAN * usual or peak * s.span < LEAST_MESSAGES:
        return Checked("arrivals", f"{rate(s.produced)} messages/s come, as usual ({rate(usual)})")
    lasts = not is_over and not s.shrinks and (s.age or 0.0) > SPIKE_SECONDS
    if s.standing or _has_slowed(s) or (is_over and not s.shrinks) or lasts:
        return Checked(
            "arrivals",
            f"up to {rate(peak)} messages/s came: that is the load now, or not what keeps the lag",
        )
    over = s.over_at
    return Finding(
        Cause.SPIKE,
        f"Producers wrote up to {rate(peak)} messages/s to {safe(s.topic)}, {rate(usual)} are usual; "
        + (
            f"it passes in {duration(over - s.now)} at the rates of now."
            if over is not None
            else "the lag passes when they stop."
        ),
        s.topic,
        since=s.since,
        over_at=over,
        figures=(
            Figure("came at most", peak, "messages/s"),
            Figure("usual", usual, "messages/s"),
            Figure("come now", s.produced, "messages/s"),
            Figure("consumed", s.consumed, "messages/s"),
        ),
        alternatives=()
        if is_over or s.shrinks
        else (
            Alternative(
                Cause.FEWER_MEMBERS_THAN_NEEDED,
                "that is the load from now on",
                "whether it lasts for more than ten minutes",
            ),
        ),
        steps=(
            Step(
                "Wait." if over is not None else "Ask what the producers do: a batch, or a retry?"
            ),
            Step("If it must pass sooner, run more consumers, up to the number of partitions."),
        ),
    )


def _has_slowed(s: Symptoms) -> bool:
    """Say whether one consumer takes less than it was seen to manage, of what waits where it goes on."""
    return (
        s.managed is not None
        and s.per_consumer < SLOWED_SHARE * s.managed
        # where all but what stands is read in time, consumers take less because less is left to take
        and any(not p.stands and p not in s.left_alone for p in s.behind)
    )


def _has_no_time_to_spare(s: Symptoms) -> bool:
    """Say whether what comes is more than is read, or as much with a lag that stays."""
    return s.knows_rates and s.consumed > 0 and not s.shrinks


def slow_processing(s: Symptoms) -> Verdict:
    """Ask whether each consumer takes less than it managed before, although messages wait."""
    if not s.knows_rates:
        return _NO_RATES
    if s.managed is None or s.managed * s.span < LEAST_MESSAGES:
        return Unchecked("processing speed", _OWN_RATE)
    told = f"{rate(s.per_consumer)} messages/s a consumer, {rate(s.managed)} at its best"
    if not _has_slowed(s) or not s.consumed:
        return Checked("processing speed", told)
    return Finding(
        Cause.SLOW_PROCESSING,
        f"Each consumer of {safe(s.topic)} takes {rate(s.per_consumer)} messages/s with messages waiting; "
        f"it managed {rate(s.managed)} before: the handler has become slower.",
        s.topic,
        since=s.since,
        over_at=s.over_at,
        figures=(
            Figure("a consumer takes now", s.per_consumer, "messages/s"),
            Figure(
                "it managed, with messages waiting" if s.had_to_hurry else "it took, and kept up",
                s.managed, "messages/s",
            ),
            Figure("come", s.produced, "messages/s"),
            Figure("consumers", s.consumers, "members"),
        ),
        alternatives=()
        if s.around.pools is not None
        else (
            Alternative(
                Cause.DATABASE_EXHAUSTED,
                "it waits for its database",
                "MONITOR_DATABASE_URL and MONITOR_SERVICE_URLS: the monitor then watches them",
            ),
        ),
        steps=(
            Step("See what changed when it began: a deploy, a dependency, larger messages."),
            Step("Undo the deploy, or profile one consumer: CPU, database, remote calls."),
            Step("More consumers help only if what they wait for has room for them."),
        ),
    )  # fmt: skip


def more_members_than_partitions(s: Symptoms) -> Verdict:
    """Ask whether members have nothing to do while the others can do no more: too few partitions."""
    idle = s.measures.facts.idle
    if idle is None:
        return Unchecked("idle members", "a stable assignment")
    partitions = len(s.partitions)
    if not idle or (s.members or 0) <= partitions:
        return Checked("idle members", f"{len(idle)} of {s.members or 0}")
    if not _has_no_time_to_spare(s):
        return Checked("idle members", f"{len(idle)}, but the lag gets less")
    needed = max(partitions + 1, ceil(s.produced / s.per_consumer) if s.per_consumer else 0)
    return Finding(
        Cause.MORE_MEMBERS_THAN_PARTITIONS,
        f"{plural(len(idle), 'member')} of {s.members} have nothing to read: {safe(s.topic)} has only "
        f"{plural(partitions, 'partition')}, and their owners can do no more.",
        s.topic,
        since=s.since,
        figures=(
            Figure("members", s.members or 0, "members"),
            Figure("idle", len(idle), "members"),
            Figure("partitions", partitions, "partitions"),
            Figure("come", s.produced, "messages/s"),
            Figure("consumed", s.consumed, "messages/s"),
        ),
        steps=(
            Step("Run no more members: it would not help."),
            Step("Make the handler faster: batches, parallel calls."),
            Step(
                "Add partitions: keys then go to other ones, and they can never be taken away.",
                commands.add_partitions(s, needed),
            ),
        ),
    )


def fewer_members_than_needed(s: Symptoms) -> Verdict:
    """Ask whether all members are at what they manage, and more comes than that."""
    if not s.knows_rates:
        return _NO_RATES
    if not _has_no_time_to_spare(s) or _has_slowed(s) or not s.consumers:
        return Checked(
            "members", f"{s.consumers} read, {rate(s.consumed)} of {rate(s.produced)} messages/s"
        )
    behind_owners = {p.owner for p in s.behind}
    owners = {p.owner for p in s.partitions}
    if len(behind_owners) < len(owners):
        return Checked("members", f"{len(owners) - len(behind_owners)} of {len(owners)} keep up")
    if s.left_alone:
        # more members are of no use to what is not read at all
        return Checked(
            "members", f"{plural(len(s.left_alone), 'partition')} behind are not read now"
        )
    needed = ceil(s.produced / s.per_consumer * 1.0001)
    fewer = [c for c in s.course.members_changes if c.after < c.before and c.after]
    partitions = len(s.partitions)
    figures = [
        Figure("come", s.produced, "messages/s"),
        Figure("consumed", s.consumed, "messages/s"),
        Figure("consumers", s.consumers, "members"),
        Figure("a consumer takes", s.per_consumer, "messages/s"),
        Figure("needed", max(needed, s.consumers + 1), "members"),
    ]
    if fewer:
        figures.append(Figure("members before", fewer[-1].before, "members"))
    needed = max(needed, s.consumers + 1)
    readers = "members that read this topic" if _others_do_not_read_it(s) else "members"
    enough = (
        Step(f"Run {min(needed, partitions)} {readers}.")
        if partitions >= needed
        else Step(
            f"Run {partitions} {readers}; for {needed}, add partitions first: keys then go to other "
            "ones.",
            commands.add_partitions(s, needed),
        )
    )
    return Finding(
        Cause.FEWER_MEMBERS_THAN_NEEDED,
        f"{rate(s.produced)} messages/s come to {safe(s.topic)}, and "
        + (
            f"{s.consumers} of the group's {s.members} members"
            if _others_do_not_read_it(s)
            else plural(s.consumers, "member")
        )
        + f" read {rate(s.consumed)}: each does what it can"
        + (f", and there were {fewer[-1].before} of them." if fewer else "."),
        s.topic,
        since=s.since,
        figures=tuple(figures),
        alternatives=()
        if s.managed is not None or fewer
        else (Alternative(Cause.SLOW_PROCESSING, "each consumer has become slower", _OWN_RATE),),
        steps=(
            Step("See that the database has room for their connections.", "monitor pools"),
            enough,
            Step("Or make the handler faster."),
        ),
    )


def _others_do_not_read_it(s: Symptoms) -> bool:
    """Say whether members of the group read other topics only: they are of no help to this one."""
    return (s.members or 0) - len(s.measures.facts.idle or ()) > s.consumers


def catching_up(s: Symptoms) -> Verdict:
    """Ask whether nothing is wrong any more, and an old backlog is worked off."""
    if not s.shrinks:
        return Checked("backlog", "the lag does not get less")
    over = s.over_at
    return Finding(
        Cause.CATCHING_UP,
        f"An old backlog of {safe(s.topic)} is worked off"
        + (f": over in {duration(over - s.now)} at the rates of now." if over else "."),
        s.topic,
        since=s.since,
        over_at=over,
        figures=(
            Figure("unread", s.lag, "messages"),
            Figure("consumed", s.consumed, "messages/s"),
            Figure("come", s.produced, "messages/s"),
        ),
        steps=(
            Step("Wait."),
            Step("If it must be sooner, run more consumers, up to the partitions."),
        ),
    )
