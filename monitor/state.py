"""What one poll publishes: the snapshot and all that analysis made of it, immutable."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from monitor.analysis.measures import Findings, GroupMeasures
from monitor.model import Group, Snapshot


@dataclass(frozen=True, slots=True)
class State:
    """The monitor's state after a poll.

    `snapshot` is None until the cluster was reached once; `groups` has the measures of its groups,
    `findings` what analysis found beside them.
    `error` is why the last poll saw nothing, `up` whether any broker answered it. `succeeded_at` is
    the Unix time of the last poll that did; `monotonic_at` is when this state was made, on the
    monotonic clock, for ages; `duration_seconds` what the poll took with its analysis.
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

    @property
    def up(self) -> bool:
        """Say whether at least one broker answered the last poll."""
        return self.error is None and self.snapshot is not None

    def is_too_old(self, group: Group, stale_after_s: float) -> bool:
        """Say whether a group is stale for so long that its figures must not pass for today's."""
        since = group.silent_since
        return group.is_silent and (since is None or self.monotonic_at - since > stale_after_s)
