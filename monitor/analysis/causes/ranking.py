"""One cause out of all that were asked about: the first in this order that holds.

What explains the others goes before them: a group without members is not slow, and one that waits
for its database has members enough. Where none is proven, that is said.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from monitor.analysis.causes import commands, log, pace, standing
from monitor.analysis.causes.finding import Alternative, Cause, Checked, Finding, Step, Unchecked
from monitor.analysis.causes.log import Verdict
from monitor.analysis.causes.symptoms import (
    Around,
    Symptoms,
    leaders_behind,
    leaders_read,
    symptoms_of,
    topics_of,
    with_turns,
)
from monitor.model import Silent
from monitor.words import duration, plural, safe

if TYPE_CHECKING:
    from collections.abc import Sequence

    from monitor.analysis.causes.symptoms import Pools
    from monitor.analysis.findings import Findings
    from monitor.analysis.measures import GroupMeasures
    from monitor.model import Snapshot

# While a coordinator is silent for less, another may be about to take over.
SILENT_SECONDS: Final = 60.0

FAULTS: Final[tuple[Callable[[Symptoms], Verdict], ...]] = (
    standing.rebalancing,
    standing.no_members,
    log.broker_trouble,
    log.open_transaction,
    log.messages_lost,
    log.rewound,
    standing.message_stands,
    pace.database_exhausted,
    standing.all_stand,
    standing.member_wedged,
    pace.hot_partition,
    pace.spike,
    pace.slow_member,
    pace.slow_processing,
    pace.more_members_than_partitions,
    pace.fewer_members_than_needed,
    pace.catching_up,
)
"""The order in which causes are asked: each explains away those after it."""

# Whatever holds at the same time is another cause only if the first does not bring it about.
INDEPENDENT: Final[Mapping[Cause, frozenset[Cause]]] = {
    Cause.MESSAGES_LOST: frozenset(Cause),
    Cause.BROKER_TROUBLE: frozenset({Cause.MESSAGE_STANDS, Cause.MESSAGES_LOST}),
    Cause.MESSAGE_STANDS: frozenset(
        {Cause.HOT_PARTITION, Cause.MEMBER_WEDGED, Cause.SLOW_PROCESSING}
    ),
    Cause.HOT_PARTITION: frozenset(),
    Cause.NO_MEMBERS: frozenset({Cause.MESSAGES_LOST, Cause.BROKER_TROUBLE, Cause.REWOUND}),
    Cause.MEMBER_WEDGED: frozenset({Cause.HOT_PARTITION, Cause.SLOW_PROCESSING}),
    Cause.REBALANCING: frozenset({Cause.MESSAGES_LOST, Cause.DATABASE_EXHAUSTED}),
    Cause.OPEN_TRANSACTION: frozenset({Cause.MESSAGE_STANDS, Cause.MESSAGES_LOST}),
    Cause.REWOUND: frozenset({Cause.SLOW_PROCESSING, Cause.DATABASE_EXHAUSTED}),
}


# While these hold, a partition that stands may only wait for its turn: which of both, nobody can see.
_OF_PACE: Final = frozenset(
    {
        Cause.HOT_PARTITION,
        Cause.SPIKE,
        Cause.SLOW_MEMBER,
        Cause.SLOW_PROCESSING,
        Cause.MORE_MEMBERS_THAN_PARTITIONS,
        Cause.FEWER_MEMBERS_THAN_NEEDED,
        Cause.CATCHING_UP,
    }
)


class Explainer:
    """Explains groups of one poll; what all of them share is made when first asked for."""

    def __init__(
        self,
        snapshot: Snapshot,
        groups: Mapping[str, GroupMeasures],
        findings: Findings,
        pools: Callable[[str], Pools | None] = lambda _: None,
    ) -> None:
        self._snapshot = snapshot
        self._groups = groups
        self._findings = findings
        self._pools = pools
        self._behind: Mapping[str, Mapping[str, frozenset[int]]] | None = None

    def explain(self, group: str) -> Finding:
        """Return why a group is behind; raises KeyError for one that is not there."""
        measures, snapshot = self._groups[group], self._snapshot
        if isinstance(measures.group.answer, Silent):
            return self._silent(measures)
        topics = topics_of(measures, snapshot)
        if not topics:
            return self._without_lag(measures)
        around = Around(self._all_behind, self._in_time, self._pools(group))
        found = with_turns(
            [
                s
                for topic in topics
                if (s := symptoms_of(topic, snapshot, measures, self._findings, around))
            ]
        )
        troubled = [s for s in found if self._needs_a_cause(s)]
        if not troubled:
            return self._innocent(measures, found)
        return one_of(troubled)

    def _needs_a_cause(self, s: Symptoms) -> bool:
        """Say whether more is unread than is in flight, or a loss or a transaction is to be told of."""
        if s.topic in s.measures.not_consumed:
            return False
        if s.behind or s.standing:
            return True
        if s.members == 0 and s.lag and s.activity.by_commits is not True:
            return True
        return any(isinstance(check(s), Finding) for check in _WITHOUT_LAG) or (
            # of what nobody answers for, nobody knows whether it is behind
            isinstance(found := log.broker_trouble(s), Finding)
            and (found.since is None or s.now - found.since > SILENT_SECONDS)
        )

    def _innocent(self, measures: GroupMeasures, found: Sequence[Symptoms]) -> Finding:
        for check in (standing.seldom_commits, log.not_consumed):
            for s in found:
                if s.topic in measures.not_consumed and check is standing.seldom_commits:
                    continue
                verdict = check(s)
                if isinstance(verdict, Finding):
                    return verdict
        return self._without_lag(measures)

    def _without_lag(self, measures: GroupMeasures) -> Finding:
        """Return that a group is well, unless nobody knows how far it is."""
        name, lag = safe(measures.group.id), measures.lag
        held = {topic: count for topic, count in measures.uncommitted.items() if count}
        if held and not lag.partitions:
            return Finding(
                Cause.CANNOT_TELL,
                f"{name} holds {plural(sum(held.values()), 'partition')} with records and never "
                "committed there: how far it is, nobody knows.",
                next(iter(held)),
                alternatives=(
                    Alternative(
                        Cause.MESSAGE_STANDS, "it is stuck on its first message",
                        "whether it ever commits, and its log",
                    ),
                    Alternative(
                        Cause.HEALTHY, "it commits elsewhere, or not at all, by design",
                        "how it is made",
                    ),
                ),
                steps=(Step("Read the log of its members."),),
            )  # fmt: skip
        if not lag.partitions:
            return Finding(
                Cause.CANNOT_TELL,
                f"How far {name} is, is not known: "
                + (
                    f"{measures.group.error}."
                    if measures.group.error
                    else "it has no commit that counts."
                ),
            )
        known = measures.behind(self._snapshot.monotonic_at)
        return Finding(
            Cause.HEALTHY,
            f"{name} is not behind: "
            + (
                f"{plural(lag.readable_total, 'message')} in flight"
                + (f", the oldest for {duration(known)}." if known is not None else ".")
                if lag.readable_total
                else "nothing is unread."
            ),
        )

    def _silent(self, measures: GroupMeasures) -> Finding:
        since, name = measures.group.silent_since, safe(measures.group.id)
        for_seconds = None if since is None else self._snapshot.monotonic_at - since
        if for_seconds is None or for_seconds <= SILENT_SECONDS:
            return Finding(
                Cause.CANNOT_TELL,
                f"The coordinator of {name} did not answer: how far it is, is not known.",
                since=since,
                steps=(Step("Wait for the next poll."),),
            )
        return Finding(
            Cause.BROKER_TROUBLE,
            f"The coordinator of {name} has not answered for {duration(for_seconds)}: the group "
            "can neither commit nor rebalance.",
            since=since,
            steps=(Step("Look at that broker: its log, disk, CPU and network."),),
        )

    def _all_behind(self) -> Mapping[str, Mapping[str, frozenset[int]]]:
        if self._behind is None:
            self._behind = {
                group: found
                for group, measures in self._groups.items()
                if measures.lag.total and (found := leaders_behind(measures, self._snapshot))
            }
        return self._behind

    def _in_time(self, leader: int) -> int:
        behind = self._all_behind()
        return sum(
            leader in leaders_read(measures, self._snapshot)
            and all(leader not in each for each in behind.get(group, {}).values())
            for group, measures in self._groups.items()
        )


_WITHOUT_LAG: Final = (log.messages_lost, log.open_transaction)


def one_of(topics: Sequence[Symptoms]) -> Finding:
    """Return the one cause, with what was found of the others, of a group that is behind on these."""
    holds: list[tuple[int, float, Finding]] = []
    checked: dict[str, Checked] = {}
    unchecked: dict[str, Unchecked] = {}
    for s in topics:
        for rank, check in enumerate(FAULTS):
            match check(s):
                case Finding() as found:
                    holds.append((rank, -(s.age or 0.0), found))
                case Checked() as normal:
                    checked.setdefault(normal.what, normal)
                case Unchecked() as unknown:
                    unchecked.setdefault(unknown.what, unknown)
    if not holds:
        worst = max(topics, key=lambda s: s.age or 0.0)
        return _cannot_tell(worst, tuple(checked.values()), tuple(unchecked.values()))
    holds.sort(key=lambda each: each[:2])
    first = _with_doubts(holds[0][2], topics)
    also: list[Finding] = []
    for _, _, found in holds[1:]:
        if found.cause in {first.cause, *(other.cause for other in also)}:
            continue
        if found.topic != first.topic or (
            found.cause in INDEPENDENT.get(first.cause, ()) and not _is_within(found, first)
        ):
            also.append(found)
    return replace(
        first,
        checked=tuple(checked.values()),
        unchecked=tuple(unchecked.values()),
        also=tuple(also),
    )


def _with_doubts(first: Finding, topics: Sequence[Symptoms]) -> Finding:
    """Return a cause of pace with the message that may stand where a partition waits for its turn."""
    if first.cause not in _OF_PACE:
        return first
    here = [s for s in topics if s.topic == first.topic]
    maybe = (each for s in here for each in standing.maybe_a_message(s))
    return replace(first, alternatives=(*first.alternatives, *maybe))


def _is_within(found: Finding, first: Finding) -> bool:
    """Say whether a finding is about nothing but partitions that another explains."""
    return bool(found.partitions) and set(found.partitions) <= set(first.partitions)


def _cannot_tell(
    s: Symptoms, checked: tuple[Checked, ...], unchecked: tuple[Unchecked, ...]
) -> Finding:
    longest = max((p.stands_for for p in s.partitions if p.lag), default=0.0)
    nothing_moves = not s.consumed
    maybe = standing.maybe_a_message(s)
    return Finding(
        Cause.CANNOT_TELL,
        f"{plural(s.lag, 'message')} of {safe(s.topic)} are unread"
        + (
            f", and no commit was seen for {duration(longest)}: whether that is usual is not known."
            if nothing_moves
            else ", and no cause is proven by what was seen."
        ),
        s.topic,
        tuple(p.partition for p in s.behind),
        since=s.since,
        checked=checked,
        unchecked=unchecked,
        alternatives=(
            Alternative(
                Cause.SELDOM_COMMITS,
                "it commits seldom, by design",
                "how far apart its commits usually are: a longer look",
            ),
            Alternative(
                Cause.MEMBER_WEDGED if s.consumers < 2 else Cause.ALL_STAND,
                "it hangs",
                "a thread dump of a member",
            ),
        )
        if nothing_moves and not maybe
        else maybe,
        steps=(Step("Look again in some minutes.", commands.describe(s)),),
    )
