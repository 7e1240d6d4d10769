"""What one poll publishes: the snapshot and all that analysis made of it, immutable."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from monitor.analysis.findings import Findings
from monitor.analysis.measures import GroupMeasures
from monitor.analysis.withdrawn import withdraw
from monitor.model import Offsets, Snapshot


@dataclass(frozen=True, slots=True)
class State:
    """The monitor's state after a poll.

    `snapshot` is None until the cluster was reached once; `groups` has the measures of its groups,
    `findings` what analysis found beside them. `error` is why the last poll saw nothing, `up` whether
    any broker answered it: what is told then is the last poll's that did, and ages. `succeeded_at` is
    the Unix time of that one; `monotonic_at` is when this state was made, on the monotonic clock, for
    ages; `duration_seconds` what the poll took with its analysis. `is_too_old` says that what was seen
    is left out for its age, and that nothing follows from its absence.
    """

    cluster: str
    polled_at: float
    snapshot: Snapshot | None = None
    groups: Mapping[str, GroupMeasures] = field(default_factory=dict)
    error: str | None = None
    succeeded_at: float | None = None
    duration_seconds: float = 0.0
    monotonic_at: float = 0.0
    findings: Findings = field(default_factory=Findings)
    is_too_old: bool = False

    @property
    def up(self) -> bool:
        """Say whether at least one broker answered the last poll."""
        return self.error is None and self.snapshot is not None

    def without_older_than(self, seconds: float) -> State:
        """Return what may pass for today's: nothing that was seen longer ago than this.

        Lag that was made of a log end goes with it. Returns itself where nothing is so old.
        """
        if self.snapshot is None:
            return self
        moment = self.monotonic_at - seconds
        shown = self.snapshot.without_older_than(moment)
        if shown is self.snapshot:
            return self
        gone = self.snapshot.end_offsets.silent_before(moment)
        return replace(
            self,
            snapshot=shown,
            groups={group_id: withdraw(self.groups[group_id], gone) for group_id in shown.groups},
            findings=self.findings.within(shown.end_offsets.values),
            is_too_old=self.snapshot.monotonic_at < moment,
        )

    def without_empty_groups(self) -> State:
        """Return what is left without groups that nobody consumes with; their history is kept.

        A group of which that is not known is shown.
        """
        if self.snapshot is None:
            return self
        groups = {name: found for name, found in self.groups.items() if is_used(found)}
        shown = {name: self.snapshot.groups[name] for name in groups}
        return replace(self, snapshot=replace(self.snapshot, groups=shown), groups=groups)

    @property
    def oldest_at(self) -> float | None:
        """Return when the oldest offset or commit in it was seen, None where there is none."""
        if self.snapshot is None:
            return None
        ends, groups = self.snapshot.end_offsets, self.snapshot.groups
        times = [group.silent_since for group in groups.values() if group.silent_since is not None]
        times += [seen_at for partitions in ends.silent.values() for seen_at in partitions.values()]
        if any(not group.is_silent for group in groups.values()):
            times.append(self.snapshot.monotonic_at)
        if _has_answered(ends):
            times.append(ends.seen_at)
        return min(times, default=None)


def is_used(measures: GroupMeasures) -> bool:
    """Say whether a group has members or consumes without any; true where that is not known."""
    return bool(
        measures.facts.members != 0 or measures.activity is None or measures.activity.by_commits
    )


def _has_answered(offsets: Offsets) -> bool:
    """Say whether an offset was seen in this poll."""
    return any(
        len(offsets.silent.get(topic, ())) < len(partitions)
        for topic, partitions in offsets.values.items()
    )
