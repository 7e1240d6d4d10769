"""FindCoordinator: which broker coordinates a group."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from kafka.protocol.metadata import FindCoordinatorRequest

from monitor.kafka.questions import Question, VersionOf

# The first version that takes many groups in one request (KIP-699, brokers from 3.0 on).
MANY_KEYS: Final = 4
GROUP: Final = 0


@dataclass(frozen=True, slots=True)
class FindCoordinators(Question[dict[str, int]]):
    """The coordinating broker of each group; groups without one are absent."""

    groups: Sequence[str]

    def requests(self, version_of: VersionOf) -> list[Any]:
        """Ask for all groups at once, or for each where the broker is too old."""
        if version_of(FindCoordinatorRequest) >= MANY_KEYS:
            return [FindCoordinatorRequest(key_type=GROUP, coordinator_keys=list(self.groups))]
        return [
            FindCoordinatorRequest(key=group, key_type=GROUP, max_version=MANY_KEYS - 1)
            for group in self.groups
        ]

    def read(self, replies: Sequence[Any]) -> dict[str, int]:
        """Read who coordinates each group."""
        if replies and replies[0].API_VERSION >= MANY_KEYS:
            told = [(of.key, of) for of in replies[0].coordinators]
        else:
            told = list(zip(self.groups, replies, strict=True))
        return {group: of.node_id for group, of in told if not of.error_code and of.node_id >= 0}
