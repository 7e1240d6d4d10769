"""Causes of commits that do not move: nobody there, between two assignments, or somebody hangs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from monitor.analysis.activity import UNKNOWN_RHYTHM_SECONDS
from monitor.analysis.causes import commands
from monitor.analysis.causes.finding import Alternative, Cause, Checked, Figure, Finding, Step
from monitor.analysis.causes.symptoms import IN_FLIGHT_SECONDS
from monitor.words import duration, plural, safe

if TYPE_CHECKING:
    from monitor.analysis.causes.log import Verdict
    from monitor.analysis.causes.symptoms import PartitionSymptoms, Symptoms

# Within the last marks: one is a deploy, or a member that joined.
REBALANCES: Final = 2
_DUMP: Final = Step("Take a thread dump of that member, and read its log.")
_RESTART: Final = Step(
    "Restart it: its partitions move to others. If the same partition stands there too, it is the "
    "message."
)


def no_members(s: Symptoms) -> Verdict:
    """Ask whether the group has no members, and whether it had some."""
    if s.members != 0:
        return Checked("members", "not known" if s.members is None else plural(s.members, "member"))
    if s.activity.by_commits is True:
        return Checked("members", "none, but its commits move: it consumes without (assign())")
    figures = (
        Figure("members", 0, "members"),
        Figure("unread", s.lag, "messages"),
        Figure("produced", s.produced, "messages/s"),
    )
    if s.activity.by_commits is False:
        return Finding(
            Cause.COMMITS_STOPPED,
            "The group commits without members, and its commits have stopped.",
            s.topic,
            since=s.activity.moved_at,
            figures=figures,
            steps=(Step("See whether the job that commits still runs (Flink, Spark, assign())."),),
        )
    left = [change for change in s.course.members_changes if change.after == 0]
    if s.activity.by_members is None:
        return Finding(
            Cause.NEVER_ACTIVE,
            f"Nobody was seen to read {safe(s.topic)} in {duration(s.now - s.course.began)}: the group "
            "is retired, mirrored from another cluster, or a throw-away reader's.",
            s.topic,
            figures=figures,
            alternatives=(
                Alternative(
                    Cause.NO_MEMBERS,
                    "its consumers stopped before the monitor looked",
                    "whether its consumers are meant to run now",
                ),
            ),
            steps=(
                Step("See whether its consumers are meant to run; then start them."),
                Step("If nobody needs its offsets, delete the group: that cannot be undone."),
            ),
        )
    return Finding(
        Cause.NO_MEMBERS,
        f"Nobody consumes: the group has no members, and {plural(s.lag, 'message')} of "
        f"{safe(s.topic)} wait.",
        s.topic,
        since=left[-1].at if left else None,
        figures=figures,
        steps=(
            Step("Start the consumers.", commands.describe(s, "--state")),
            Step("If they do not stay, read their logs: they fail at start, or may not join."),
        ),
    )


def rebalancing(s: Symptoms) -> Verdict:
    """Ask whether the group goes from one assignment to the next, and reads little in between."""
    came_back = any(change.after > change.before for change in s.course.members_changes)
    if s.members == 0 and not (s.rebalances >= REBALANCES and came_back):
        return Checked("rebalances", f"{s.rebalances} lately")
    is_stuck = s.is_rebalancing and _nothing_moves(s)
    if s.rebalances < REBALANCES and not is_stuck:
        return Checked("rebalances", f"{s.rebalances} lately")
    if any(p.consumed and not p.is_behind for p in s.partitions) and not _nothing_moves(s):
        # whoever waits for an assignment reads nothing: some partitions are read in time
        return Checked("rebalances", f"{s.rebalances} lately, yet some partitions are read in time")
    since = s.course.counts[0].at
    joined = sum(c.after > c.before for c in s.course.members_changes if c.at >= since)
    return Finding(
        Cause.REBALANCING,
        f"The group rebalances again and again: {s.rebalances} times in "
        f"{duration(s.now - since)}; at each, nobody reads."
        if s.rebalances >= REBALANCES
        else f"The group has been rebalancing, and reads nothing: state {s.measures.facts.state}.",
        s.topic,
        since=s.since,
        figures=(
            Figure("rebalances", s.rebalances, f"in {duration(s.now - since)}"),
            Figure("times that members joined", joined, "times"),
            Figure("consumed", s.consumed, "messages/s"),
        ),
        steps=(
            Step("See who joins and leaves.", commands.describe(s, "--members", "--verbose")),
            Step(
                "Members that restart: read their logs. Members that stay: the handler takes longer "
                "than max.poll.interval.ms; lower max.poll.records."
            ),
            Step("Use static membership (group.instance.id) and the cooperative-sticky assignor."),
        ),
    )


def _nothing_moves(s: Symptoms) -> bool:
    return s.knows_rates and not s.consumed


def message_stands(s: Symptoms) -> Verdict:
    """Ask whether one partition stands although its owner has time for it: then it is the message."""
    found = [p for p in s.standing if _owner_has_time(s, p)]
    if not found or len(found) > len(s.partitions) / 2:
        return Checked("single messages", "no partition stands while its owner reads others")
    p = max(found, key=lambda each: each.stands_for)
    offset = s.measures.group.commits[s.topic][p.partition]
    moving = sum(other.consumed or 0.0 for other in s.of_owner(p.owner))
    return Finding(
        Cause.MESSAGE_STANDS,
        f"Partition {p.partition} of {safe(s.topic)} stands at offset {offset} for "
        f"{duration(p.stands_for)} while its owner reads others: the message there fails again and "
        "again, or is never finished.",
        s.topic,
        tuple(each.partition for each in found),
        since=s.now - p.stands_for,
        figures=(
            Figure("offset that stands", offset, "offset"),
            Figure("no commit for", p.stands_for, "s"),
            Figure("unread on it", p.lag, "messages"),
            Figure("its owner reads elsewhere", moving, "messages/s"),
        ),
        steps=(
            Step("Look at the message.", commands.show_message(s, p.partition)),
            Step(
                "Read the log of its owner for that offset; mend the handler, or park the message."
            ),
            commands.pass_over(s, p.partition),
        ),
    )


def maybe_a_message(s: Symptoms) -> tuple[Alternative, ...]:
    """Return that a message may stand, where a partition does whose owner was not seen to have time for it."""
    stand = [p for p in s.partitions if (p.stands or p.awaits_turn) and not p.consumed]
    of_owners = [
        p
        for p in stand
        if any(other.consumed for other in s.of_owner(p.owner)) or s.reads_other_topics(p.owner)
    ]
    if not of_owners:
        return ()
    longest = max(of_owners, key=lambda each: each.stands_for)
    return (
        Alternative(
            Cause.MESSAGE_STANDS,
            f"a message fails again and again on partition {longest.partition}, where nothing was "
            f"committed for {duration(longest.stands_for)}",
            "its owner's log; and whether the partition goes on once its owner has done with those that "
            "it reads now",
        ),
    )


def _owner_has_time(s: Symptoms, p: PartitionSymptoms) -> bool:
    """Say whether the owner reads others, all of them in time, and did for as long as is remembered.

    One that is behind there, or was until a moment ago, has not come to this partition yet.
    """
    if p.owner is None:
        return False
    others = [other for other in s.of_owner(p.owner) if other is not p and not other.stands]
    moving = [other for other in others if other.consumed]
    return (
        (bool(moving) or s.reads_other_topics(p.owner))
        and not any(other.is_behind for other in others)
        and all(s.is_read_in_time(s.topic, other.partition) for other in moving)
        and all(s.is_read_in_time(*other) for other in s.of_owner_elsewhere(p.owner))
    )


def member_wedged(s: Symptoms) -> Verdict:
    """Ask whether all that a member has to read stands, and others move."""
    wedged = sorted(s.wedged)
    holders = {p.owner for p in s.partitions if p.owner is not None}
    if not wedged or (len(wedged) == len(holders) and len(holders) > 1):
        return Checked("members' commits", "no single member stands")
    held = [p for owner in wedged for p in s.of_owner(owner) if p.stands]
    longest = max(p.stands_for for p in held)
    one_partition = all(sum(p.stands for p in s.of_owner(owner)) == 1 for owner in wedged)
    client = next((m for m in s.measures.group.members or () if m.id == wedged[0]), None)
    told = f"{safe(client.client_id)} at {safe(client.host)}" if client else safe(wedged[0])
    others = len(holders) - len(wedged)
    return Finding(
        Cause.MEMBER_WEDGED,
        f"{plural(len(wedged), 'member')} hold{'s' if len(wedged) == 1 else ''} partitions and commit"
        f"{'s' if len(wedged) == 1 else ''} nothing for {duration(longest)}: {told}"
        + (f"; the other {others} go on." if others else "; there is no other."),
        s.topic,
        tuple(p.partition for p in held),
        since=s.now - longest,
        figures=(
            Figure("partitions that stand", len(held), "partitions"),
            Figure("no commit for", longest, "s"),
            Figure("members that go on", others, "members"),
        ),
        alternatives=(
            Alternative(
                Cause.MESSAGE_STANDS,
                "a message that fails again and again",
                "a restart of the member: if the partition stands with its next owner too, it is the "
                "message",
            ),
        )
        if one_partition
        else (),
        steps=(
            _DUMP,
            _RESTART,
            *((commands.pass_over(s, held[0].partition),) if one_partition else ()),
        ),
    )


def all_stand(s: Symptoms) -> Verdict:
    """Ask whether no member commits anything: then what all of them need is away."""
    lagging = [p for p in s.partitions if p.lag]
    holders = {p.owner for p in lagging if p.owner is not None}
    if (
        len(holders) < 2
        or s.consumed
        or not all(p.stands for p in lagging)
        or any(s.reads_other_topics(owner) for owner in holders)
    ):  # all of one is a member
        return Checked("all members at once", "some of them commit")
    longest = max(p.stands_for for p in lagging)
    return Finding(
        Cause.ALL_STAND,
        f"None of {len(holders)} members commits anything, for {duration(longest)}: something that all "
        "of them need does not answer.",
        s.topic,
        tuple(p.partition for p in lagging),
        since=s.now - longest,
        figures=(
            Figure("members that stand", len(holders), "members"),
            Figure("no commit for", longest, "s"),
            Figure("unread", s.lag, "messages"),
        ),
        alternatives=(
            ()
            if s.around.pools
            else (
                Alternative(
                    Cause.DATABASE_EXHAUSTED,
                    "their database, or its pool, is exhausted",
                    "MONITOR_DATABASE_URL and MONITOR_SERVICE_URLS: the monitor then watches them",
                ),
            )
        ),
        steps=(
            Step(
                "Look at what they share: database, an HTTP service, credentials; and at their logs."
            ),
            Step("Take a thread dump of one: where it waits is what it waits for."),
            Step("Restart one, and see whether it commits, before the others."),
        ),
    )


def seldom_commits(s: Symptoms) -> Verdict:
    """Ask whether the silence is usual: it commits when a file or a checkpoint is done."""
    patience = s.activity.patience
    longest = max((p.stands_for for p in s.partitions if p.lag), default=0.0)
    if not s.lag or not s.members or not IN_FLIGHT_SECONDS < patience < UNKNOWN_RHYTHM_SECONDS:
        return Checked("rhythm", f"it commits at least every {duration(patience / 2)}")
    if longest > patience or (s.consumed and longest <= IN_FLIGHT_SECONDS):
        return Checked("rhythm", f"it was silent for up to {duration(patience / 2)}, not longer")
    return Finding(
        Cause.SELDOM_COMMITS,
        f"The group commits seldom, up to {duration(patience / 2)} apart, and did so "
        f"{duration(longest)} ago: what it has read since is not committed yet.",
        s.topic,
        figures=(
            Figure("usual time between commits", patience / 2, "s"),
            Figure("since the last commit", longest, "s"),
        ),
        steps=(Step("Nothing, unless its data is needed sooner: then have it commit more often."),),
    )
