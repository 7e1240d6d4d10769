"""What one poll publishes: the snapshot and all that analysis made of it, immutable."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from monitor.analysis.lag import GroupLag
from monitor.model import Snapshot


@dataclass(frozen=True, slots=True)
class State:
    """The monitor's state after a poll; analysis results are further fields.

    `snapshot` is None until the cluster was reached once. `error` is why the last poll saw nothing,
    `up` whether any broker answered it. `succeeded_at` is the Unix time of the last poll that did.
    """

    cluster: str
    polled_at: float
    snapshot: Snapshot | None = None
    lag: Mapping[str, GroupLag] = field(default_factory=dict)
    error: str | None = None
    succeeded_at: float | None = None

    @property
    def up(self) -> bool:
        """Say whether at least one broker answered the last poll."""
        return self.error is None and self.snapshot is not None
